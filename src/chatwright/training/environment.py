"""What the bits of a run depend on beside its settings: versions, processor, device. Stored, and compared before a resume."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from chatwright import __version__
from chatwright.errors import StorageError, TrainingError
from chatwright.text.work import write_atomically
from chatwright.training.run import ENVIRONMENT

# What changes the last digits of a sum, and with them, after some thousand steps, all of them.
DECISIVE = ("torch", "numpy", "processor", "instructions", "device", "threads", "world_size", "deterministic")


def describe_environment(device: torch.device, world_size: int) -> dict[str, Any]:
    """This process's environment as plain values."""
    on_gpu = device.type == "cuda"
    return {
        "chatwright": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.platform(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "threads": torch.get_num_threads(),
        "world_size": world_size,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "memory_bytes": psutil.virtual_memory().total,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "pid": os.getpid(),
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What is decisive for bits and not the same: name → (then, now)."""
    return {name: (then.get(name), now.get(name)) for name in DECISIVE if then.get(name) != now.get(name)}


def write_environment(folder: Path, environment: Mapping[str, Any]) -> None:
    """environment.json of a run: the one it began in. Raises StorageError."""
    data = json.dumps(environment, indent=2, ensure_ascii=False).encode() + b"\n"
    try:
        write_atomically(folder / ENVIRONMENT, data)
    except OSError as error:
        raise StorageError(
            "The run cannot be written to {path}: {reason}", path=folder, reason=error.strerror
        ) from error


def read_environment(folder: Path) -> dict[str, Any] | None:
    """What `write_environment` wrote; None before the first step. Raises TrainingError when it is damaged."""
    try:
        environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TrainingError("{path} cannot be read: {reason}", path=folder / ENVIRONMENT, reason=error) from error
    return dict(environment)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
