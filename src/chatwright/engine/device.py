"""The device that PyTorch's runners compute on: which is there, what is free on it, and a sentence where that is too little."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from chatwright.errors import StorageError, UsageError
from chatwright.i18n import format_size


def find_device(wanted: str) -> torch.device:
    """The device of that name; "auto" takes a CUDA device where there is one, else the CPU. Raises UsageError."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present[device.type]:
        raise UsageError(
            "The device {device} is not there, or this build of PyTorch can not use it. Use --device cpu.",
            device=wanted,
        )
    return device


def weights_dtype(device: torch.device, quantization: str) -> torch.dtype:
    """What weights are held in where they are not packed: "bf16" or "fp32" as asked; "auto" is bfloat16 on a GPU that computes
    in it (Ampere and later), else float32."""
    if quantization == "auto" and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return torch.bfloat16 if quantization == "bf16" else torch.float32


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what PyTorch keeps for later is free for us
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


@contextmanager
def loading(path: Path, weight_bytes: int, device: torch.device) -> Iterator[None]:
    """Where a GPU runs out of memory within, its numbers are said. Raises StorageError."""
    free = free_bytes(device)
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise StorageError(
            "{path} does not fit into the memory of {device}: its weights alone take {need}, and {free} of {total} were free. Free "
            "memory there, take a smaller model, or use --device cpu.",
            path=path,
            device=str(device),
            need=format_size(weight_bytes),
            free=format_size(free),
            total=format_size(torch.cuda.mem_get_info(device)[1]),
        ) from error
