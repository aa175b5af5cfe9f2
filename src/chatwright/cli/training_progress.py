"""The progress of a run: a live line in a terminal, a line now and then elsewhere. Always on standard error."""

from __future__ import annotations

import time
from collections.abc import Mapping

from chatwright.cli.output import Output
from chatwright.cli.progress import ProgressBar
from chatwright.i18n import _
from chatwright.training.figures import figure_name

_LINE_EVERY_S = 15.0


class TrainingProgress(ProgressBar):
    """Draws what `chatwright.training.progress.Progress` reports."""

    def __init__(self, output: Output) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

        figures = TextColumn("{task.fields[figures]}", markup=False)
        super().__init__(
            output, BarColumn(bar_width=20), MofNCompleteColumn(), figures, TimeRemainingColumn(compact=True)
        )
        self.n_steps = 0
        self.held_out = ""
        self.last_line = 0.0
        self.tokens_per_s: float | None = None

    def stage(self, label: str, total: int | None) -> None:
        """See Progress."""
        self.bar.reset(self.task, total=total, completed=0, description=label, visible=True, figures="")
        if not self.drawn:
            self.output.say(f"{label}…")

    def advance(self, done: int) -> None:
        """See Progress."""
        self.bar.update(self.task, completed=done)

    def begin(self, step: int, n_steps: int) -> None:
        """See Progress."""
        self.n_steps, self.held_out, self.tokens_per_s = n_steps, "", None  # of folds, each is a run of its own
        self.bar.reset(self.task, total=n_steps, completed=step, description=_("step"), visible=True, figures="")

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """See Progress."""
        unit = next(name.removesuffix("_per_s") for name in figures if name.endswith("_per_s"))
        rate = figures[f"{unit}_per_s"]
        self.tokens_per_s = rate if self.tokens_per_s is None else 0.9 * self.tokens_per_s + 0.1 * rate
        shown = _("loss {loss:.3f}", loss=figures["loss"]) + "  " + _rate(unit, self.tokens_per_s)
        if self.held_out:
            shown += f"  {self.held_out}"
        self.bar.update(self.task, completed=step, figures=shown)
        now = time.monotonic()
        if not self.drawn and (now - self.last_line > _LINE_EVERY_S or step == self.n_steps):
            self.last_line = now
            self.output.say(_("step {step} of {n_steps}: {figures}", step=step, n_steps=self.n_steps, figures=shown))

    def evaluated(self, step: int, figures: Mapping[str, float]) -> None:
        """See Progress."""
        name, value = next(iter(figures.items()))
        self.held_out = f"{figure_name(name)} {value:.4f}"
        self.say(_("after step {step}, held-out: {figures}", step=step, figures=_figures(figures)))


def _rate(unit: str, rate: float) -> str:
    shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"  # a slow machine is not one that stands still
    match unit:
        case "texts":
            return _("{rate} texts/s", rate=shown)
        case "pairs":
            return _("{rate} pairs/s", rate=shown)
        case "answer_tokens":
            return _("{rate} tokens of answers/s", rate=shown)
    return _("{rate} tokens/s", rate=shown)


def _figures(figures: Mapping[str, float]) -> str:
    return "  ".join(f"{figure_name(name)} {value:.4g}" for name, value in figures.items())
