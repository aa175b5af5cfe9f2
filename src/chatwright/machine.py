"""What this process may use of the machine: CPU cores and memory, respecting container limits (cgroup v1 and v2)."""

from __future__ import annotations

import itertools
import math
import os
import platform
from collections.abc import MutableMapping
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
# Turns of its loop in which a thread of libgomp waits awake for the others, of 300,000 by itself.
SPIN_COUNT = 10_000


def available_cores(cgroup: Path = CGROUP) -> int:
    """CPU cores that this process may keep busy: the affinity mask, cut by the cgroup's CPU quota; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(cgroup)
    return max(1, min(cores, math.ceil(quota))) if quota else max(1, cores)


def share_cores(environment: MutableMapping[str, str] = os.environ) -> None:
    """For the environment of a process that will train, before it imports torch: OpenMP's threads wait awake for a moment only.

    By itself each spins for about a millisecond after every operation, which takes the core from whatever else wants it, most of
    all from the thread that is waited for. What the user has set stays.
    """
    if int(environment.get("WORLD_SIZE", "1")) > 1:  # the other processes of this run have the cores meanwhile
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    elif "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))


def cpu_quota(cgroup: Path = CGROUP) -> float | None:
    """The cgroup's CPU quota in cores, e.g. 1.5; None without a limit."""
    match _words(cgroup / "cpu.max"):
        case [quota, period] if quota != "max":
            return int(quota) / int(period)
    quota_us, period_us = _number(cgroup / "cpu/cpu.cfs_quota_us"), _number(cgroup / "cpu/cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def memory_limit_bytes(cgroup: Path = CGROUP) -> int:
    """Bytes of memory this process may use: the machine's, or the cgroup's limit where that is lower."""
    total = psutil.virtual_memory().total
    for file in (cgroup / "memory.max", cgroup / "memory/memory.limit_in_bytes"):
        if limit := _number(file):
            total = min(total, limit)
    return total


def available_memory_bytes(cgroup: Path = CGROUP) -> int:
    """Bytes of memory that are free for this process: of the machine, or what is left below the cgroup's limit. File cache counts
    as free: the kernel gives it up."""
    free = psutil.virtual_memory().available
    for limit_file, used_file in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        limit, used = _number(cgroup / limit_file), _number(cgroup / used_file)
        if limit and used is not None:
            stat = dict(itertools.pairwise(_words((cgroup / used_file).parent / "memory.stat")))
            cache = stat.get("inactive_file", stat.get("total_inactive_file", "0"))
            free = min(free, max(0, limit - used + int(cache)))
    return free


def cpu_name() -> str:
    """What the processor calls itself, else its architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """The processor's instruction sets that matter for inference; empty where the system does not tell."""
    known = {
        "avx2",
        "avx512f",
        "avx512_vnni",
        "avx_vnni",
        "amx_int8",
        "amx_bf16",
        "fma",
        "f16c",
        "asimd",
        "asimddp",
        "i8mm",
        "sve",
    }
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return frozenset(value.split()) & known
    return frozenset()


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except OSError:
        return []


def _number(file: Path) -> int | None:
    words = _words(file)
    return int(words[0]) if words and words[0].lstrip("-").isdigit() else None
