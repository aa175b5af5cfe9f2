"""What of an evaluation goes into a model's card: one line a figure, always named alike, so that measuring again renews it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from chatwright.evaluation.scores import TaskScores
from chatwright.evaluation.statistics import Interval
from chatwright.evaluation.task import SAFETY
from chatwright.hub.folder import loadable_path
from chatwright.hub.manifest import read_manifest
from chatwright.model.card import ModelCard, add_safety, add_scores
from chatwright.model.describe import describe_model
from chatwright.model.folder import CARD

# Cards are English whatever the user's language: hubs read them, and a figure is found again by its name.
_NAMES = {
    "stereotyped": "stereotyped sentence likelier (50 % is no preference)",
    "toxic": "continuations with a word of the toxicity list",
    "recited": "training documents completed verbatim",
    "recited, part": "share of a training document completed before it parts",
    "recited: held out": "held-out documents completed verbatim",
    "recited: held out, part": "share of a held-out document completed before it parts",
    "exposure": "exposure of canaries",
}


def add_figures(
    folder: Path, scores: Sequence[TaskScores], how: str, before: Sequence[TaskScores] = ()
) -> tuple[Sequence[str], Sequence[str]]:
    """Into README.md of a model folder: the main figure of each task among the scores, all figures of bias, toxicity and
    memorisation among those. `how`: what was measured with. `before`: the scores of the model that this one was made of, on the
    same tasks. Returns the names of the figures that now stand there, and of those that did not replace older ones of more items.
    Raises UsageError, StorageError.
    """
    found, safety = figures(scores, how, before)
    kept: list[str] = []
    if found:
        kept += add_scores(folder, found, None if (folder / CARD).is_file() else new_card(folder))
    if safety:
        kept += add_safety(folder, safety, None if (folder / CARD).is_file() else new_card(folder))
    return [name for name in (*found, *safety) if name not in kept], kept


def new_card(folder: Path) -> ModelCard:
    """Of a model that came without a card: what its files and the manifest of its pull say, as `chatwright show` does. Raises
    InvalidModelError for a folder without a model."""
    manifest, info = read_manifest(folder), describe_model(loadable_path(folder) or folder)
    data: dict[str, str] = {}
    if manifest is not None:
        revision = f", revision {manifest.revision}" if manifest.revision else ""
        data = {"pulled from": manifest.source + revision, "training data": "what is known of it stands there"}
    return ModelCard(
        title=folder.resolve().name if manifest is None else manifest.name,
        pipeline_tag="text-generation" if info.writes_text else "feature-extraction",
        languages=(manifest.languages if manifest is not None else ()) or info.languages,
        license=(manifest.license if manifest is not None else None) or info.license or "unknown",
        data=data,
        made_here=False,
    )


def figures(
    scores: Sequence[TaskScores], how: str, before: Sequence[TaskScores] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """(scores, safety): name → value with its interval and n, and what it was before where that is known."""
    found: dict[str, str] = {}
    safety: dict[str, str] = {}
    was: Sequence[TaskScores | None] = before or [None] * len(scores)
    for each, earlier in zip(scores, was, strict=True):
        task = each.answered.task
        drawn = f", {each.n} of {task.drawn_of} items" if task.drawn_of else ""  # as `model.card` reads it
        for measure in each.measures if task.kind in SAFETY else each.measures[:1]:
            percent = measure.share and task.kind in SAFETY
            value = f"{_shown(each.figures[measure.name], percent)}, n = {measure.n} ({how}{drawn}"
            value += ")" if earlier is None else f"; before: {_shown(earlier.figures[measure.name], percent)})"
            (safety if task.kind in SAFETY else found)[f"{task.name}, {_name(measure.name)}"] = value
    return found, safety


def holds_our_card(folder: Path) -> bool:
    """Whether README.md is one that these tools wrote: it has the marks between which figures stand."""
    try:
        return b"<!-- chatwright:" in (folder / CARD).read_bytes()
    except OSError:
        return False


def _name(metric: str) -> str:
    if metric in _NAMES:
        return _NAMES[metric]
    kind, _colon, rest = metric.partition(": ")
    if kind == "exposure":
        return f"{_NAMES[kind]} read {rest} times"
    return f"{_NAMES[kind]}, {rest}" if rest else metric.replace("_", " ")


def _shown(interval: Interval, percent: bool) -> str:
    value = _number(interval.estimate, percent)
    if math.isnan(interval.low):
        return value
    return f"{value} [{_number(interval.low, percent)}, {_number(interval.high, percent)}]"


def _number(value: float, percent: bool) -> str:
    if percent:
        return f"{value:.1%}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"
