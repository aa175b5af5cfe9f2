"""How fast this machine multiplies, in float32 and in bfloat16: what size and precision of a run follow from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from chatwright.machine import available_cores, memory_limit_bytes

_SIZE, _REPEATS = 1024, 5


@dataclass(frozen=True)
class Machine:
    """`fp32_flops`, `bf16_flops`: floating-point operations a second of a large matrix product on all threads."""

    device: str
    n_threads: int
    memory_bytes: int
    fp32_flops: float
    bf16_flops: float

    @property
    def flops(self) -> float:
        """The faster of both."""
        return max(self.fp32_flops, self.bf16_flops)


def measure_machine(device: torch.device, n_threads: int | None = None) -> Machine:
    """A few products in each precision; under a second."""
    n_threads = n_threads or available_cores()
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        fp32, bf16 = matmul_flops(device, (torch.float32, torch.bfloat16))
    finally:
        torch.set_num_threads(before)
    on_gpu = device.type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory if on_gpu else memory_limit_bytes()
    return Machine(str(device), n_threads, memory, fp32, bf16)


def matmul_flops(device: torch.device, dtypes: Sequence[torch.dtype]) -> list[float]:
    """Operations a second of a product of two square matrices in each precision, the fastest of a few.

    They take turns: what else the machine does for a moment would otherwise slow down one of them, and the same command would
    then train in another precision.
    """
    squares = [torch.randn(_SIZE, _SIZE, device=device).to(dtype) for dtype in dtypes]
    seconds: list[list[float]] = [[] for _ in dtypes]
    for _ in range(_REPEATS + 1):  # the first one pays for threads and libraries
        for a, times in zip(squares, seconds, strict=True):
            began = time.perf_counter()
            b = a @ a
            if device.type != "cpu":
                float(b[0, 0])  # waits for the device
            times.append(time.perf_counter() - began)
    return [2 * _SIZE**3 / min(times) for times in seconds]
