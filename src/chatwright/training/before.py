"""What a model scored on the held-out rows before the first step: without it nobody can say that it got better."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from chatwright.training.distributed import World
from chatwright.training.history import figures_of
from chatwright.training.objective import Objective
from chatwright.training.run import Run

EVENT = "before"
# A new head knows no label yet, and preferences are measured against the start itself.
METHODS = ("full", "lora")


def measure_before(objective: Objective, run: Run, world: World) -> Mapping[str, float]:
    """The figures of the base on all held-out rows; measured once, kept in the run's events.

    `objective` must be fresh from its builder: `train` puts a checkpoint's weights into it. Empty for methods where the start
    says nothing, and without held-out rows.
    """
    if run.section("tune")["method"] not in METHODS:
        return {}
    figures: Mapping[str, float] | None = None
    if world.is_main:
        figures = next((entry["figures"] for entry in run.events.read() if entry.get("event") == EVENT), None)
        if figures is None:
            objective.model.eval()
            # in float32 also where the run is bf16, as the figures that it is set beside (`loop._figures`)
            with torch.no_grad():
                figures = {name: float(value) for name, value in objective.evaluate(full=True).items()}
            if figures:
                run.event(EVENT, figures=figures)
    return figures_of(world.from_main(figures))
