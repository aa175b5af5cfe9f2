"""What happened in a run, read back from its journals: curves, events, where it is now."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from chatwright.i18n import _
from chatwright.training.run import Run

# The event of the figures of a result on all held-out data, before it is written.
MEASURED = "measured"


@dataclass(frozen=True)
class History:
    """`series`: figure → (step, value), each step once: a run that was killed has written some steps twice, the last counts.
    `status`: the last event that says how the run ended, or "running". `final`: figures of the whole held-out data, NaN where one
    is no number."""

    events: Sequence[Mapping[str, Any]] = ()
    series: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    status: str = "running"
    step: int = 0
    final: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, run: Run) -> Self:
        """From events.jsonl and metrics.jsonl."""
        points: dict[str, dict[int, float]] = defaultdict(dict)
        recorded = 0
        for entry in run.metrics.read():
            if isinstance(entry.get("step"), int):
                recorded = step = entry["step"]
                for name, value in entry.items():
                    if name not in ("step", "time") and isinstance(value, int | float):
                        points[name][step] = float(value)
        events = list(run.events.read())
        status, step, final = "not started", recorded, {}
        for entry in events:
            match entry.get("event"):
                case "started" | "resumed":
                    status, step = "running", recorded  # where it was interrupted before is past
                case "interrupted" | "failed" | "diverged" as ending:
                    status = ending
                    step = int(entry.get("step", step))
                case "finished":
                    status = "stopped early" if entry.get("stopped_early") else "finished"
                    step = int(entry.get("step", recorded))
                    final = figures_of(entry.get("metrics"))
        series = {name: sorted(values.items()) for name, values in points.items()}
        return cls(events, series, status, step, final)


def figures_of(written: Mapping[str, float | None] | None) -> dict[str, float]:
    """Figures as they were before they went into a journal, whose null is a number that is none."""
    return {name: math.nan if value is None else float(value) for name, value in (written or {}).items()}


def newest_figures(events: Iterable[Mapping[str, Any]], kind: str) -> Mapping[str, float]:
    """What the last event of a kind has measured; empty where there is none."""
    found: Mapping[str, float] = {}
    for entry in events:
        if entry.get("event") == kind:
            found = {name: value for name, value in entry["figures"].items() if value is not None}  # null: not a number
    return found


def status_name(status: str) -> str:
    """How a run stands, in the user's language; files and JSON keep the English word."""
    known = {
        "not started": _("not started"),
        "running": _("running"),
        "killed": _("killed"),
        "interrupted": _("interrupted"),
        "failed": _("failed"),
        "diverged": _("diverged"),
        "finished": _("finished"),
        "stopped early": _("stopped early"),
        "unreadable": _("unreadable"),
    }
    return known.get(status, status)
