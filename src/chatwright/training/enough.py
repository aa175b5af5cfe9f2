"""Whether the minutes are enough to learn anything; where they are not, the nearest that are.

A neighbour may have taken the processor for just the seconds in which a step was measured: nothing is refused by one measurement.
What is named in a refusal was put to the same rule: the minutes by the cost that was measured, the size by steps of its own.
"""

from __future__ import annotations

import math
from dataclasses import replace

from chatwright.errors import ChatwrightError, UsageError
from chatwright.model.presets import parse_size, shown_size
from chatwright.training.distributed import World
from chatwright.training.measure import StepCost
from chatwright.training.pacing import measured
from chatwright.training.recipe import Recipe, fit_minutes, resolve
from chatwright.training.request import Request
from chatwright.training.speed import Machine
from chatwright.training.stats import TextStats

# Fewer steps than this are no training: the warm-up is hardly over.
LEAST_STEPS = 20
# Before a refusal steps are measured so often in all.
MEASUREMENTS = 3
# What is named in a refusal has so many times the fewest steps: whoever takes it is measured anew.
MARGIN = 1.5
# So many sizes are tried, a few seconds each.
MOST_SIZES = 3
# Two months: where even that is not enough, no number of minutes is of use to anybody.
MOST_MINUTES = 1e5


def measured_enough(
    stats: TextStats, recipe: Recipe, machine: Machine, world: World | None = None
) -> tuple[Recipe, StepCost]:
    """`measured`. Raises UsageError where the fastest of several measurements leaves too few steps for the minutes."""
    found = measured(recipe, machine, world)
    for _again in range(MEASUREMENTS - 1):
        if _is_enough(found[0]):
            break
        found = max(found, measured(recipe, machine, world), key=lambda each: each[0].training.n_steps)
    if not _is_enough(found[0]):
        raise _too_few_steps(stats, *found, machine, world)
    return found


def _is_enough(recipe: Recipe, margin: float = 1.0) -> bool:
    request = recipe.request
    return request.minutes is None or request.steps is not None or recipe.training.n_steps >= margin * LEAST_STEPS


def _too_few_steps(
    stats: TextStats, recipe: Recipe, cost: StepCost, machine: Machine, world: World | None
) -> UsageError:
    said = {
        "minutes": recipe.request.minutes,
        "n_steps": recipe.training.n_steps,
        "n_parameters": f"{recipe.n_parameters:,}",
        "needed": f"{_enough_minutes(stats, recipe, cost, machine):g}",
    }
    if (smaller := _size_for_the_minutes(stats, recipe, machine, world)) is None:
        return UsageError(
            "{minutes:g} min are enough for {n_steps} steps of {n_parameters} parameters on this machine, too few to learn"
            " anything. Give --minutes {needed} or more.",
            **said,
        )
    return UsageError(
        "{minutes:g} min are enough for {n_steps} steps of {n_parameters} parameters on this machine, too few to learn anything."
        " Give --minutes {needed} or more, or take --size {smaller} or smaller.",
        **said,
        smaller=smaller,
    )


def _enough_minutes(stats: TextStats, recipe: Recipe, cost: StepCost, machine: Machine) -> float:
    """Rounded up to two digits. More minutes may mean larger steps, and without --size a larger model: the recipe is resolved
    anew for each, and costs what its parameters and tokens say."""
    minutes = recipe.request.minutes
    assert minutes is not None
    while minutes < MOST_MINUTES:
        minutes = _rounded_up(1.1 * minutes)
        longer = _resolved_anew(stats, recipe, replace(recipe.request, minutes=minutes), machine)
        if _is_enough(fit_minutes(longer, _scaled(cost, recipe, longer)), MARGIN):
            break
    return minutes


def _size_for_the_minutes(stats: TextStats, recipe: Recipe, machine: Machine, world: World | None) -> str | None:
    """A size whose measured steps are enough; None where none of some was."""
    size = float(recipe.n_parameters)
    n_steps = recipe.training.n_steps
    for _attempt in range(MOST_SIZES):
        size *= min(0.7, n_steps / (MARGIN * LEAST_STEPS))
        shown = shown_size(size)
        try:
            smaller = _resolved_anew(stats, recipe, replace(recipe.request, size=parse_size(shown)), machine)
            smaller, _cost = measured(smaller, machine, world)
        except ChatwrightError:  # the vocabulary asked for leaves no room
            return None
        if _is_enough(smaller, MARGIN):
            return shown
        n_steps = smaller.training.n_steps
    return None


def _resolved_anew(stats: TextStats, recipe: Recipe, request: Request, machine: Machine) -> Recipe:
    return resolve(stats, request, machine, vocab_size=recipe.vocab_size if request.tokenizer else None)


def _scaled(cost: StepCost, recipe: Recipe, other: Recipe) -> StepCost:
    parameters = other.n_parameters / recipe.n_parameters
    tokens = (other.training.micro_rows * other.context_length) / (recipe.training.micro_rows * recipe.context_length)
    return replace(
        cost,
        micro_seconds=cost.micro_seconds * parameters * tokens,
        update_seconds=cost.update_seconds * parameters,
        save_seconds=cost.save_seconds * parameters,
    )


def _rounded_up(minutes: float) -> float:
    """To two digits: 1.234 → 1.3."""
    unit: float = 10.0 ** (math.floor(math.log10(minutes)) - 1)
    return float(f"{math.ceil(minutes / unit - 1e-6) * unit:.2g}")
