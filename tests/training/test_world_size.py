"""A run goes on with another number of processes: the same rows in the same order, and the losses of the undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from chatwright.training import loop
from chatwright.training.checkpoint import checkpoint_name, checkpoints
from chatwright.training.config import TrainingConfig
from chatwright.training.distributed import World
from chatwright.training.history import History
from chatwright.training.run import Run
from tests.training.toy import Toy, toy_run, weights

N_STEPS, BATCH_ROWS, N_ROWS = 40, 8, 13
# In the fourth reading of the rows, between two checkpoints.
STOPPED_AT = 17


class Recording(Toy):
    """Rows with different numbers of supervised tokens. Notes those that it trains on; sends itself a signal at its nth row."""

    def __init__(self, stop_at_row: int | None = None) -> None:
        super().__init__(n_rows=N_ROWS, masked=True)
        self.seen: list[int] = []
        self.stop_at_row = stop_at_row

    def batch(self, rows: Sequence[int], epoch: int) -> tuple[Tensor, Tensor]:
        if self.model.training:
            before, after = len(self.seen), len(self.seen) + len(rows)
            if self.stop_at_row is not None and before < self.stop_at_row <= after:
                os.kill(os.getpid(), signal.SIGTERM)
            self.seen += [epoch * N_ROWS + row for row in rows]
        return super().batch(rows, epoch)


def looks_late(run: Run) -> list[Path]:
    time.sleep(0.5)
    return checkpoints(run)


def rank_of(rank: int, size: int, path: Path, stop: bool) -> None:
    """One process of a run; leaves what it saw and where it was. Only the last rank gets the signal."""
    torch.set_num_threads(1)
    if (
        rank
    ):  # one that looked for the checkpoint of the interruption after rank 0 had written it let rank 0 wait for ever
        setattr(loop, "checkpoints", looks_late)  # noqa: B010 — not one of its own names
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{path}.meeting", rank=rank, world_size=size)
    run = Run.open(path)
    rows_a_step = BATCH_ROWS // size
    first = int(checkpoints(run)[-1].name.removeprefix("step-")) if checkpoints(run) else 0
    objective = Recording((STOPPED_AT - first) * rows_a_step if stop and rank == size - 1 else None)
    settings = TrainingConfig.from_dict(run.section("training"))
    result = loop.train(objective, settings, run, world=World(rank, size, size))
    told = {"first": first, "step": result.step, "signal": result.signal, "seen": objective.seen}
    path.with_name(f"{path.name}-{size}-{rank}.json").write_text(json.dumps(told))
    if size > 1:
        dist.destroy_process_group()


def trained(path: Path, size: int, *, stop: bool = False) -> tuple[dict[str, Any], list[list[int]]]:
    """What rank 0 told, and the rows of each step, of all ranks in their order."""
    if size == 1:
        rank_of(0, 1, path, stop)
    else:
        spawn(rank_of, (size, path, stop), nprocs=size)  # type: ignore[no-untyped-call]
        Path(f"{path}.meeting").unlink(missing_ok=True)
    told = [json.loads(path.with_name(f"{path.name}-{size}-{rank}.json").read_text()) for rank in range(size)]
    share = BATCH_ROWS // size
    steps = [
        [row for each in told for row in each["seen"][step * share : (step + 1) * share]]
        for step in range(told[0]["step"] - told[0]["first"])
    ]
    return told[0], steps


def losses(run: Run) -> list[float]:
    return [value for _step, value in History.read(run).series["loss"]]


@pytest.mark.parametrize(("before", "after", "optimizer"), [(2, 1, "adamw"), (1, 2, "muon")])
def test_a_checkpoint_is_continued_by_another_number_of_processes(
    tmp_path: Path, before: int, after: int, optimizer: Literal["adamw", "muon"]
) -> None:
    settings = TrainingConfig(
        n_steps=N_STEPS, batch_rows=BATCH_ROWS, micro_rows=2, warmup_steps=4, lr=3e-3, optimizer=optimizer,
        eval_every=8, checkpoint_every=10,
    )  # fmt: skip
    whole, run = toy_run(tmp_path / "whole", settings), toy_run(tmp_path / "run", settings)
    undisturbed, rows = trained(whole.path, 1)
    assert undisturbed["step"] == N_STEPS

    first, rows_before = trained(run.path, before, stop=True)
    assert (first["step"], first["signal"]) == (STOPPED_AT, signal.SIGTERM)
    assert checkpoints(run)[-1].name == checkpoint_name(STOPPED_AT)
    second, rows_after = trained(run.path, after)
    assert (second["first"], second["step"]) == (STOPPED_AT, N_STEPS)

    assert rows_before + rows_after == rows, "every row of every step, once, in the order of the undisturbed run"
    assert losses(run) == pytest.approx(losses(whole), rel=1e-5)
    assert losses(run)[-1] < losses(run)[0] / 2, "something was learned that a wrong optimizer state would spoil"
    resumed = [(entry["step"], entry["world_size"]) for entry in run.events.read() if entry["event"] == "resumed"]
    assert resumed == [(STOPPED_AT, after)]
    a, b = (_weights(each) for each in (run, whole))
    for name, tensor in a.items():
        torch.testing.assert_close(tensor, b[name], rtol=1e-3, atol=1e-4)


def _weights(run: Run) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    loaded = load_file(checkpoints(run)[-1] / "optimizer.safetensors")
    found = {name: t for name, t in loaded.items() if name.startswith("parameter/")}
    assert len(found) == len(weights(Toy().model))
    return found
