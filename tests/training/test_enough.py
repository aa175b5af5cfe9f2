"""Minutes are refused for more than one measurement, and what a refusal names is accepted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chatwright.errors import UsageError
from chatwright.model.presets import parse_size
from chatwright.training import pacing
from chatwright.training.config import TrainingConfig
from chatwright.training.enough import LEAST_STEPS, measured_enough
from chatwright.training.measure import StepCost
from chatwright.training.recipe import count_parameters, fit_minutes, resolve
from chatwright.training.request import Request
from chatwright.training.speed import Machine
from chatwright.training.stats import TextStats

STATS = TextStats(("documents",), 30_000_000, 1_000_000, {"en": 30_000_000})
MACHINE = Machine("cpu", 1, 8 << 30, 1e11, 1e11)
# Of each measurement: how many times slower the machine was than it is.
Slowness = Callable[[int], float]


@pytest.fixture
def machine_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Slowness], list[float]]:
    """A machine whose steps do not become cheaper in proportion to their parameters, as real ones do not."""

    def install(slowness: Slowness) -> list[float]:
        seen: list[float] = []

        def measure_step(model: Any, training: TrainingConfig, context: int, **_options: Any) -> StepCost:
            factor = slowness(len(seen))
            seen.append(factor)
            n_parameters = count_parameters(model)
            micro = 0.02 + 6 * n_parameters * training.micro_rows * context / 2e10
            update = 0.01 + n_parameters / 1e9
            return StepCost(
                factor * micro, factor * update, factor * 1e-5, factor * (0.1 + n_parameters / 1e8), 1, 1, 1
            )

        monkeypatch.setattr(pacing, "measure_step", measure_step)
        return seen

    return install


def asked(**request: Any) -> tuple[TextStats, Any, Machine]:
    return STATS, resolve(STATS, Request(**request), MACHINE), MACHINE


def test_one_disturbed_measurement_refuses_nothing(machine_of: Callable[[Slowness], list[float]]) -> None:
    seen = machine_of(lambda number: 50.0 if number == 0 else 1.0)
    recipe, cost = measured_enough(*asked(size=2_000_000, minutes=1))
    assert seen == [50.0, 1.0]
    assert recipe.training.n_steps >= LEAST_STEPS
    assert cost.update_seconds < 0.1, "and the plan goes by the undisturbed one"


def test_steps_that_are_enough_are_measured_once(machine_of: Callable[[Slowness], list[float]]) -> None:
    seen = machine_of(lambda number: 1.0)
    measured_enough(*asked(size=2_000_000, minutes=1))
    measured_enough(*asked(size=200_000_000, steps=3, micro_rows=1))
    assert seen == [1.0, 1.0]


@pytest.mark.parametrize(
    "request_of",
    [
        {"size": 20_000_000, "minutes": 0.5},
        {"size": 3_000_000, "minutes": 0.2},
        {"size": 100_000_000, "minutes": 2},
        {"size": 2_000_000, "minutes": 0.2, "arch": "rnn"},
    ],
)
def test_what_a_refusal_names_is_accepted(
    machine_of: Callable[[Slowness], list[float]], request_of: dict[str, Any]
) -> None:
    machine_of(lambda number: 1.0)
    with pytest.raises(UsageError) as refused:
        measured_enough(*asked(**request_of))
    [size] = re.findall(r"--size ([0-9.]+[kmb]?)", str(refused.value))
    [minutes] = re.findall(r"--minutes ([0-9.]+[0-9])", str(refused.value))
    # a little slower than when it was named
    machine_of(lambda number: 1.25)
    measured_enough(*asked(**request_of | {"size": parse_size(size)}))
    measured_enough(*asked(**request_of | {"minutes": float(minutes)}))
    assert float(minutes) < 20 * request_of["minutes"], "and near"


def test_without_a_size_that_is_enough_only_minutes_are_named(
    machine_of: Callable[[Slowness], list[float]],
) -> None:
    machine_of(lambda number: 100.0)
    with pytest.raises(UsageError, match=r"Give --minutes [0-9.]+ or more\.$"):
        measured_enough(*asked(size=300_000, vocab_size=2048, minutes=0.1))


def test_a_slow_disk_does_not_eat_the_steps_of_a_short_run() -> None:
    """A dozen checkpoints of a second each were more than the whole of a quarter of a minute."""
    recipe = resolve(STATS, Request(size=1_000_000, minutes=0.25), MACHINE)
    cost = StepCost(0.1, 0.01, 1e-5, 1.0, 1, 1, 1)
    slow, fast = fit_minutes(recipe, cost), fit_minutes(recipe, replace(cost, save_seconds=0.01))
    assert fast.training.n_steps > slow.training.n_steps >= LEAST_STEPS
    assert slow.training.eval_every > slow.training.n_steps / 4
    assert fast.training.eval_every <= -(-fast.training.n_steps // 12)
