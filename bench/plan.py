"""`plan` against what then happened: time, peak memory, disk and bits per byte of the same run, at several sizes.

    python -m bench.plan DATASET [--sizes 1m,3m,10m] [--minutes 5] [--work FOLDER]

For each size `chatwright plan` is asked, then `chatwright train` runs with the same flags in a process of its own. Time is that of
training (from the first event of the run to its last, as `--minutes` means it), memory the peak resident size of the process, bits
per byte those of the whole held-out data. One JSON line a figure, with planned over happened as its ratio.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.figures import report


def plan(dataset: str, flags: list[str]) -> dict[str, Any]:
    """What `plan` says."""
    done = subprocess.run(
        [sys.executable, "-m", "chatwright", "plan", dataset, *flags, "--json"], check=True, stdout=subprocess.PIPE
    )
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def happened(dataset: str, flags: list[str], run: Path) -> dict[str, Any]:
    """Trains, and looks at what it took."""
    command = [sys.executable, "-m", "chatwright", "train", dataset, *flags, "--out", str(run)]
    process = subprocess.Popen(command, stdout=sys.stderr)
    peak = 0
    while (status := process.poll()) is None:
        peak = max(peak, high_water_bytes(process.pid))
        time.sleep(0.2)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}")
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    began, ended = (
        datetime.fromisoformat(next(e["time"] for e in events if e["event"] == name))
        for name in ("started", "finished")
    )
    last = next(event for event in events if event["event"] == "finished")
    return {
        "seconds": (ended - began).total_seconds(),
        "memory_bytes": peak,
        "disk_bytes": sum(file.stat().st_size for file in run.rglob("*") if file.is_file()),
        "bits_per_byte": last["metrics"]["bits_per_byte"],
        "steps": last["step"],
    }


def high_water_bytes(pid: int) -> int:
    """The most that a process had resident so far (Linux; its children, such as the one that measures steps, not counted)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def main() -> None:
    """Every size, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--sizes", default="1m,3m,10m")
    parser.add_argument("--minutes", default="5")
    parser.add_argument("--arch", default="qwen3")
    parser.add_argument("--work", type=Path, help="where runs lie; a temporary folder without")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="chatwright-plan-"))
    work.mkdir(parents=True, exist_ok=True)
    for size in arguments.sizes.split(","):
        flags = ["--size", size, "--minutes", arguments.minutes, "--arch", arguments.arch]
        planned = plan(arguments.dataset, flags)
        run = work / f"{arguments.arch}-{size}"
        shutil.rmtree(run, ignore_errors=True)
        found = happened(arguments.dataset, flags, run)
        planned["bits_per_byte"] = (planned["expected_bits_per_byte"] or {}).get("bits_per_byte")
        for name in ("seconds", "memory_bytes", "disk_bytes", "bits_per_byte"):
            report(
                f"plan against training, {name}",
                round(planned[name] / found[name], 3) if planned[name] else None,
                "planned / happened",
                size=size,
                minutes=float(arguments.minutes),
                planned=planned[name],
                happened=found[name],
                steps=[planned["steps"], found["steps"]],
                n=1,
                dataset=Path(arguments.dataset).name,
                fp32_gflops=planned["fp32_gflops"],
                bf16_gflops=planned["bf16_gflops"],
            )
        if arguments.work is None:
            shutil.rmtree(run)


if __name__ == "__main__":
    main()
