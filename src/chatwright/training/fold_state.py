"""How a run of folds stands: which of its trainings are done, read from their folders. Without torch: `runs ls` looks at many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from chatwright.i18n import _
from chatwright.training.augmentation import AUGMENTATIONS
from chatwright.training.history import History
from chatwright.training.run import CONFIG, Run
from chatwright.training.trials import FoldPlan, Judge, parse_choose

AUGMENT, CHOOSE, FOLDS = "augment", "choose", "folds"
# Events of a run whose folds all have their figures, which are then in a file of it.
FOLDS_FINISHED, COMPARED = "folds_finished", "augmentations_compared"
# A fold that has diverged is done too: the same steps would diverge again.
FINISHED = ("finished", "stopped early", "diverged")


@dataclass(frozen=True)
class FoldState:
    """`n_done` of `n` trainings are done: folds, their seeds, and the inner folds that choose a setting."""

    status: str
    n_done: int
    n: int

    @classmethod
    def of(cls, run: Run, history: History) -> Self | None:
        """None where the run has no folds, or where they are done and the model itself, on all rows, has begun."""
        section = run.config.get("folds" if run.verb == "folds" else "tune")
        if not isinstance(section, dict) or not section.get("folds") or "fold" in section:
            return None  # a fold is a run of its own, in steps
        if history.status != "not started":
            return None
        final = run.verb == "tune" and bool(section.get("final"))
        n = _n_trainings(section, final=final or run.verb == "folds")
        found = [History.read(Run.open(path.parent)).status for path in _trainings(run)]
        n_done = sum(status in FINISHED for status in found)
        if any(entry.get("event") in (FOLDS_FINISHED, COMPARED) for entry in history.events):
            return cls("running" if final else "finished", n_done, n)
        if not found:
            return cls("not started", 0, n)
        stopped = [status for status in found if status not in (*FINISHED, "not started")]
        return cls(stopped[-1] if stopped else "running", n_done, n)

    def shown(self) -> str:
        """In the user's language."""
        return _("{done} of {n} trainings of folds", done=self.n_done, n=self.n)


def _n_trainings(section: Mapping[str, Any], *, final: bool) -> int:
    """Of all that config.toml asks for. `final`: whether a setting is chosen on all rows, too."""
    folds = int(section["folds"])
    if section.get("compare"):
        return folds * (1 + len(AUGMENTATIONS))
    choose = None
    if (text := section.get("choose")) is not None:
        choose = parse_choose(text, (text.partition("=")[0],), int(section["inner_folds"]))
    any_judge = Judge("loss", higher_is_better=False)
    return FoldPlan(folds, tuple(range(int(section.get("seeds", 1)))), any_judge, choose).count(final)


def _trainings(run: Run) -> list[Path]:
    patterns = (f"{FOLDS}/*", f"{CHOOSE}/*/*/*", f"{AUGMENT}/*/*")
    return sorted(path for pattern in patterns for path in run.path.glob(f"{pattern}/{CONFIG}"))
