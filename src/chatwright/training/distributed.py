"""The processes of one run, as `torchrun` starts them: gradients are averaged by PyTorch's DistributedDataParallel."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from chatwright.errors import TrainingError, UsageError

# Rank 0 evaluates and writes while the others wait at the next step.
TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True)
class World:
    """Which process this is, and of how many; `local_size` of them are on this machine."""

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def threads(self, n_threads: int, device: torch.device | str) -> int:
        """Of the `n_threads` that this machine has for the run, those of each process: on a CPU they share its cores."""
        return max(1, n_threads // self.local_size) if torch.device(device).type == "cpu" else n_threads

    def check_rows(self, rows: int) -> None:
        """Raises TrainingError where a step of so many rows leaves some process without one."""
        if rows < self.size:
            raise TrainingError(
                "A step has {rows} rows, too few for {ranks} processes. Start fewer, or take larger steps (--batch-tokens).",
                rows=rows,
                ranks=self.size,
            )

    def sum(self, values: list[float]) -> list[float]:
        """The sums over all ranks, in double precision."""
        if self.size == 1:
            return values
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def from_main(self, value: Any) -> Any:
        """Rank 0's value, on every rank. Values are ours, of plain types; nothing from outside passes here."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in the order of the ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Waits for all ranks."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(environ: Mapping[str, str] = os.environ) -> Iterator[World]:
    """The world that `torchrun` describes by RANK and WORLD_SIZE; a world of one without them. Raises UsageError."""
    size, local_size = int(environ.get("WORLD_SIZE", "1")), int(environ.get("LOCAL_WORLD_SIZE", "1"))
    if size == 1 or dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size(), local_size) if dist.is_initialized() else World()
        return
    if not dist.is_available():
        raise UsageError("This PyTorch was built without torch.distributed: start one process only.")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), local_size)
    finally:
        dist.destroy_process_group()
