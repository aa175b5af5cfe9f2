"""From a recipe to its steps: what a step costs here, and how many rows at a time are fastest."""

from __future__ import annotations

import math
from dataclasses import replace

from chatwright.errors import TrainingError
from chatwright.i18n import _
from chatwright.training.distributed import World
from chatwright.training.measure import StepCost, measure_step
from chatwright.training.recipe import Recipe, fit_minutes
from chatwright.training.speed import Machine

# Measuring other numbers of rows at a time takes some ten seconds.
LONG_MINUTES = 5.0


def measured(recipe: Recipe, machine: Machine, world: World | None = None) -> tuple[Recipe, StepCost]:
    """The recipe with its steps from what one costs on this machine, and that cost. The processes of a `world` share a step's
    rows, and on a CPU the machine's threads.

    Where the run is long enough to pay for it, a quarter and four times the rows at a time are tried too.
    """
    world = world or World()
    share = max(1, recipe.training.batch_rows // world.size)
    rows = min(recipe.training.micro_rows, share)
    tried = {rows}
    if recipe.request.micro_rows is None and (recipe.request.minutes or math.inf) >= LONG_MINUTES:
        tried |= {max(1, rows // 4), min(share, rows * 4)}
    best: tuple[float, int, StepCost] | None = None
    for micro_rows in sorted(tried):
        training = replace(recipe.training, batch_rows=share, micro_rows=micro_rows)
        try:
            cost = measure_step(
                recipe.model,
                training,
                recipe.context_length,
                device=machine.device,
                dropout=recipe.dropout,
                n_threads=world.threads(machine.n_threads, machine.device),
            )
        except TrainingError:
            if best is None:
                raise
            break  # more rows at a time need more memory than there is
        # the ranks work side by side, so that a micro-batch of the whole step takes a share of the time
        cost = replace(cost, micro_seconds=cost.micro_seconds / _side_by_side(world, machine))
        seconds = cost.step_seconds(replace(recipe.training, micro_rows=micro_rows))
        if best is None or seconds < best[0]:
            best = seconds, micro_rows, cost
    assert best is not None
    _seconds, micro_rows, cost = best
    reasons = dict(recipe.reasons)
    if len(tried) > 1:
        reasons["micro_rows"] = _("the fastest of {tried}, measured", tried=", ".join(map(str, sorted(tried))))
    recipe = replace(recipe, training=replace(recipe.training, micro_rows=micro_rows), reasons=reasons)
    return fit_minutes(recipe, cost), cost


def _side_by_side(world: World, machine: Machine) -> float:
    """How many ranks work at a time: more of them than a CPU has threads take turns."""
    on_cpu = machine.device.startswith("cpu")
    return world.size * min(1.0, machine.n_threads / world.local_size) if on_cpu else float(world.size)
