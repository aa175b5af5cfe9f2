"""Minutes are minutes also when several processes share the machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chatwright.training import pacing
from chatwright.training.config import TrainingConfig
from chatwright.training.distributed import World
from chatwright.training.measure import StepCost
from chatwright.training.recipe import resolve
from chatwright.training.request import Request
from chatwright.training.speed import Machine
from chatwright.training.stats import TextStats

TEXT = TextStats(("documents",), 28_000_000, 1_000_000, {"en": 28_000_000})
MACHINE = Machine("cpu", 8, 16 << 30, 100e9, 100e9)
RECIPE = resolve(TEXT, Request(minutes=1), MACHINE)


@pytest.fixture
def measured_with(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads of each measurement; two of them are twice as fast as one."""
    seen: list[int] = []

    def measure_step(
        _model: Any, training: TrainingConfig, _context: int, *, n_threads: int, device: str, **_options: Any
    ) -> StepCost:
        seen.append(n_threads)
        seconds = 0.05 * training.micro_rows / (n_threads if device == "cpu" else 1)
        return StepCost(seconds, 0.0, 1e-5, 0.1, 1, 1, 1)

    monkeypatch.setattr(pacing, "measure_step", measure_step)
    return seen


@pytest.mark.parametrize(
    ("device", "n_threads", "world", "threads", "speedup"),
    [
        ("cpu", 8, World(), 8, 1),
        ("cpu", 8, World(0, 2, 2), 4, 1),  # processes on the same cores are no faster together than one
        ("cpu", 8, World(0, 4, 2), 4, 2),  # two machines are
        ("cpu", 1, World(0, 2, 2), 1, 1),  # they take turns
        ("cuda", 8, World(0, 2, 2), 8, 2),  # each has a GPU of its own
    ],
)
def test_processes_that_share_the_cores_are_measured_with_their_share_of_them(
    measured_with: list[int], device: str, n_threads: int, world: World, threads: int, speedup: float
) -> None:
    machine = replace(MACHINE, device=device, n_threads=n_threads)
    recipe, cost = pacing.measured(RECIPE, machine, world)
    assert set(measured_with) == {threads}
    alone, _cost = pacing.measured(RECIPE, machine)
    assert recipe.training.n_steps == pytest.approx(alone.training.n_steps * speedup, rel=0.02)
    assert cost.step_seconds(recipe.training) <= 60 / recipe.training.n_steps
