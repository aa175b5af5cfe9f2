"""What a run tells while it goes on; the command line draws it, tests and servers need not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Drawn by `cli.training_progress`; all methods are called from the training thread."""

    def say(self, text: str) -> None:
        """A sentence for the user, in the user's language."""

    def stage(self, label: str, total: int | None) -> None:
        """Preparation begins: `total` units of work, None where that is not known."""

    def advance(self, done: int) -> None:
        """So many units of the stage are done."""

    def begin(self, step: int, n_steps: int) -> None:
        """Steps begin, `step` of `n_steps` being done."""

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """A step was done: loss, lr, grad_norm, and what was learned from a second, such as tokens_per_s."""

    def evaluated(self, step: int, figures: Mapping[str, float]) -> None:
        """The held-out figures after `step`."""


class Silent:
    """Says nothing."""

    def say(self, text: str) -> None:
        """See Progress."""

    def stage(self, label: str, total: int | None) -> None:
        """See Progress."""

    def advance(self, done: int) -> None:
        """See Progress."""

    def begin(self, step: int, n_steps: int) -> None:
        """See Progress."""

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """See Progress."""

    def evaluated(self, step: int, figures: Mapping[str, float]) -> None:
        """See Progress."""
