"""From the journals of a run to what the API tells: events as they happen, the numbers chosen, checkpoints, a table of results.

The journals only grow; where reading stopped is kept with the events that came of it, so that each line becomes one event, also
after a kill. A run that was killed does some steps twice: the second time they are no events.
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from chatwright.errors import TrainingError
from chatwright.jobs.folder import JobFolder
from chatwright.store.jobs.events import Event
from chatwright.training.history import MEASURED, History
from chatwright.training.run import CONFIG, EVENTS, Run
from chatwright.training.tune_recipe import usual_learning_rate

METRICS = "metrics.jsonl"
# Of a long run not every step is an event.
MOST_STEP_EVENTS = 500
# A line of a journal is short; so much is read at a time.
MOST_BYTES_A_TURN = 1 << 20


@dataclass(frozen=True)
class Reading:
    """What a look at a run brought. `journal`: what to hand to the next look. `got_on`: it did a step that it had not done."""

    events: list[Event] = field(default_factory=list)
    journal: dict[str, Any] = field(default_factory=dict)
    chosen: dict[str, Any] | None = None
    got_on: bool = False
    estimated_finish: int | None = None
    more: bool = False


def read_run(folder: JobFolder, journal: Mapping[str, Any]) -> Reading:
    """What the run says since `journal`."""
    if not (folder.run / CONFIG).exists():
        return Reading(journal=dict(journal))
    try:
        run = Run.open(folder.run)
    except TrainingError:  # being written, or broken, which its worker will say
        return Reading(journal=dict(journal))
    n_steps = int(run.config.get("training", {}).get("n_steps", 0))
    events_at, event_lines, more_events = _new_lines(folder.run / EVENTS, int(journal.get("events", 0)))
    metrics_at, metric_lines, more_metrics = _new_lines(folder.run / METRICS, int(journal.get("metrics", 0)))
    last_step, started = int(journal.get("step", 0)), journal.get("started")
    found: list[tuple[float, Event]] = []
    for entry in event_lines:
        at = _time_of(entry)
        if entry.get("event") in ("started", "resumed"):
            started = [at, int(entry.get("step", 0))]
        if (event := _event_of(entry, at)) is not None:
            found.append((at, event))
    every = max(1, math.ceil(n_steps / MOST_STEP_EVENTS))
    step, last_at = last_step, 0.0
    evaluated = int(journal.get("evaluated", 0))
    for entry in metric_lines:
        number, at = int(entry.get("step", 0)), float(entry.get("time", 0.0))
        if "lr" in entry:
            if number <= step:
                continue
            step, last_at = number, at
            if number % every == 0 or number in (1, n_steps):
                found.append((at, _step_event(number, n_steps, entry, at)))
        elif number > evaluated:
            evaluated = number
            found.append((at, _evaluation_event(number, n_steps, entry, at)))
    found.sort(key=lambda pair: pair[0])
    estimate = journal.get("estimate")
    if started and step > max(last_step, started[1]) and n_steps:
        estimate = int(last_at + (n_steps - step) * (last_at - started[0]) / (step - started[1]))
    return Reading(
        events=[event for _, event in found],
        journal={
            "events": events_at,
            "metrics": metrics_at,
            "step": step,
            "evaluated": evaluated,
            "started": started,
            "estimate": estimate,
        },
        chosen=_chosen(run),
        got_on=step > last_step,
        estimated_finish=estimate,
        more=more_events or more_metrics,
    )


def chosen_of(run: Run) -> dict[str, Any]:
    """The hyperparameters that a run has, as the API names them; a multiplier is of the usual learning rate."""
    tune, training = run.section("tune"), run.section("training")
    epochs = tune["epochs"]
    chosen: dict[str, Any] = {
        "n_epochs": int(epochs) if float(epochs).is_integer() else epochs,
        "batch_size": training["batch_rows"],
        "learning_rate_multiplier": float(f"{training['lr'] / usual_learning_rate(tune['method']):.4g}"),
    }
    if "beta" in tune:
        chosen["beta"] = tune["beta"]
    return chosen


def _chosen(run: Run) -> dict[str, Any] | None:
    try:
        return chosen_of(run)
    except (TrainingError, KeyError, TypeError, ValueError):
        return None


def trained_tokens(run: Run) -> int | None:
    """Tokens of the examples, as often as they were read."""
    try:
        tune, training = run.section("tune"), run.section("training")
        step = History.read(run).step
        share = min(1.0, step / training["n_steps"])
        n_tokens: int = round(tune["n_tokens"] * tune["epochs"] * share)
        return n_tokens
    except (TrainingError, KeyError, TypeError, ZeroDivisionError):
        return None


@dataclass(frozen=True)
class Checkpoint:
    """One that is there. `metrics`: by the names that the API gives them."""

    step: int
    created_at: int
    metrics: Mapping[str, float]


def checkpoints_of(folder: JobFolder) -> list[Checkpoint]:
    """The whole checkpoints, the newest first."""
    steps = folder.checkpoint_steps()
    if not steps:
        return []
    curves = curves_of(folder.run)
    found = []
    for step in reversed(steps):
        try:
            created = int(folder.checkpoint(step).stat().st_mtime)
        except OSError:  # training has just removed it
            continue
        found.append(Checkpoint(step, created, {"step": float(step), **curves.get(step, {})}))
    return found


def curves_of(run: Path) -> dict[int, dict[str, float]]:
    """Step → figures by the names that the API gives them; a step that was done twice as it was the second time."""
    curves: dict[int, dict[str, float]] = {}
    _, lines, _ = _new_lines(run / METRICS, 0, limit=None)
    for entry in lines:
        figures = curves.setdefault(int(entry.get("step", 0)), {})
        loss = entry.get("loss")
        if isinstance(loss, int | float):
            figures["train_loss" if "lr" in entry else "valid_loss"] = float(loss)
        if "accuracy" in entry and isinstance(entry["accuracy"], int | float):
            figures["valid_accuracy"] = float(entry["accuracy"])
    return curves


def results_csv(run: Path) -> bytes:
    """The table of a finished run: a row a step."""
    curves = curves_of(run)
    names = ["train_loss", "valid_loss"]
    if any("valid_accuracy" in figures for figures in curves.values()):
        names.append("valid_accuracy")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *names])
    for step in sorted(curves):
        writer.writerow([step, *(f"{curves[step][name]:.6g}" if name in curves[step] else "" for name in names)])
    return text.getvalue().encode()


def _step_event(step: int, n_steps: int, entry: Mapping[str, Any], at: float) -> Event:
    loss = entry.get("loss")
    shown = f"{loss:.4f}" if isinstance(loss, int | float) else "not a number"
    data = {"step": step, "total_steps": n_steps, "train_loss": loss}
    return Event(f"Step {step}/{n_steps}: training loss={shown}", type="metrics", data=data, at=int(at))


def _evaluation_event(step: int, n_steps: int, entry: Mapping[str, Any], at: float) -> Event:
    figures = {
        f"valid_{name}": value
        for name, value in entry.items()
        if name not in ("step", "time") and isinstance(value, int | float)
    }
    loss = figures.get("valid_loss")
    shown = f"{loss:.4f}" if loss is not None else "not a number"
    data = {"step": step, "total_steps": n_steps, **figures}
    return Event(f"Step {step}/{n_steps}: validation loss={shown}", type="metrics", data=data, at=int(at))


def _event_of(entry: Mapping[str, Any], at: float) -> Event | None:
    when = int(at)
    match entry.get("event"):
        case "started":
            return Event("Fine-tuning job started", at=when)
        case "resumed":
            return Event(f"Fine-tuning goes on from step {entry.get('step')}", at=when)
        case "checkpoint":
            return Event(f"Checkpoint created at step {entry.get('step')}", data={"step": entry.get("step")}, at=when)
        case "stopped_early":
            message = f"Training stopped early: it was best on the validation file at step {entry.get('best_step')}"
            return Event(message, at=when)
        case "environment_changed":
            return Event(f"The machine or its software changed: {entry.get('changes')}", level="warn", at=when)
        case "data":
            where = "training file" if entry.get("split") == "train" else "validation file"
            counts = {kind: note.get("n") for kind, note in (entry.get("notes") or {}).items()}
            said = "; ".join(f"{kind} ({n})" for kind, n in counts.items())
            return Event(f"Examples of the {where} that could not be used as they are: {said}", level="warn", at=when)
        case kind if kind == MEASURED:
            figures = {f"full_valid_{name}": value for name, value in (entry.get("figures") or {}).items()}
            if not figures:
                return None
            return Event("Measured on the whole validation file", type="metrics", data=figures, at=when)
    return None


def _new_lines(path: Path, at: int, *, limit: int | None = MOST_BYTES_A_TURN) -> tuple[int, list[dict[str, Any]], bool]:
    """(where the last whole line ends, the lines from `at` on, whether there is more). A torn last line is left for later."""
    try:
        with path.open("rb") as file:
            file.seek(at)
            data = file.read() if limit is None else file.read(limit)
    except OSError:
        return at, [], False
    whole = data.rfind(b"\n") + 1
    return at + whole, list(_entries(data[:whole])), limit is not None and len(data) == limit and whole > 0


def _entries(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # torn by a full disk and continued after it
            continue
        if isinstance(entry, dict):
            yield entry


def _time_of(entry: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(entry["time"])).timestamp()
    except (KeyError, ValueError):
        return time.time()
