"""From answers to figures with intervals, to the comparison of two models, and to what stands in the reports."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chatwright.evaluation.contamination import Overlap
from chatwright.evaluation.measures import Measure, Rows, confusion, final_answer, measures, said_label
from chatwright.evaluation.proportion import Proportion
from chatwright.evaluation.recital import N_CANDIDATES
from chatwright.evaluation.run import Answered
from chatwright.evaluation.statistics import Comparison, Finish, Interval, bootstrap_figure, compare_figures, holm
from chatwright.i18n import _

Verdict = Literal["better", "worse", "cannot tell"]
# Of fewer than these the percentile interval of a cluster bootstrap is known to be too narrow (Cameron, Gelbach and Miller 2008).
FEW_GROUPS = 20
SIGNIFICANT = 0.05
# The smallest difference of interest, unless a user names another: of bits per byte as a share, of other figures as a part of their
# scale. Enough items make any difference "significant", also that of two seeds of one recipe (LOG.md): whether it is there is one
# question, whether it matters another.
SMALLEST_DIFFERENCE = 0.01
_WITHOUT_SCALE = ("bits_per_byte", "exposure")


@dataclass(frozen=True)
class TaskScores:
    """One model on one task. `figures`: the first is what the task is judged by. `clean`: without items of the training data."""

    answered: Answered
    measures: Sequence[Measure]
    figures: Mapping[str, Interval]
    clean: Mapping[str, Interval] = field(default_factory=dict)
    overlap: Overlap | None = None
    notes: Sequence[str] = ()

    @property
    def n(self) -> int:
        """Items."""
        return len(self.answered.examples)

    @property
    def groups(self) -> list[Hashable] | None:
        """What the items belong to, by which they are drawn together."""
        return self.answered.task.groups

    def n_of(self, metric: str) -> int:
        """Items that a figure is about."""
        return next(each.n for each in self.measures if each.name == metric)


@dataclass(frozen=True)
class TaskComparison:
    """The main figure of a task for two models; `difference` is first minus second. `p_value` is corrected for the number of
    tasks (Holm), and the verdict is about the first model. `margin`: the smallest difference of interest, in the figure's unit.
    """

    task: str
    metric: str
    first: float
    second: float
    comparison: Comparison
    p_value: float
    verdict: Verdict
    margin: float = 0.0

    @property
    def alike(self) -> bool:
        """Whether the whole interval is smaller than what is of interest: the two do not differ by what would matter."""
        difference = self.comparison.difference
        return -self.margin <= difference.low and difference.high <= self.margin and self.margin > 0


def score(answered: Answered, overlap: Overlap | None = None) -> TaskScores:
    """All figures of a task, with seeded bootstrap intervals over its items or the groups that they belong to."""
    found = measures(answered.task, answered.examples, answered.results)
    groups = answered.task.groups
    figures = {each.name: _interval(each, groups) for each in found}
    notes = []
    n_groups = len(answered.examples) if groups is None else len(set(groups))
    if len(answered.examples) == 1:
        notes.append(_("One item only: there is no interval, and nothing can be told from it."))
    elif n_groups == 1:
        notes.append(_("All items belong to one group: there is no interval, and nothing can be told from it."))
    elif found and _alike(found[0]) and found[0].share:
        notes.append(
            _(
                "All {n} items score alike, so that the bootstrap has nothing to draw from: the interval is Wilson's.",
                n=found[0].n,
            )
        )
    elif found and _alike(found[0]):
        notes.append(
            _("All {n} items score alike: the interval has no width, which does not make it sure.", n=found[0].n)
        )
    if groups is not None and n_groups > 1:
        notes.append(
            _("The {n} items belong to {groups} groups, which are drawn whole.", n=len(groups), groups=n_groups)
        )
        if n_groups < FEW_GROUPS:
            notes.append(_("So few groups make the interval too narrow: take it as a hint."))
    if any(result.get("after_break") for result in answered.results):
        notes.append(
            _(
                "The server was asked behind a line break, because it does not say how likely the first token of a text is: the"
                " model itself, evaluated here, gives slightly other figures."
            )
        )
    n_cut = sum(bool(result.get("n_cut")) for result in answered.results)
    if n_cut:
        notes.append(_("Prompts that were too long for the context and lost their beginning: {n}.", n=n_cut))
    clean: dict[str, Interval] = {}
    if overlap is not None:
        notes += _overlap_notes(answered, overlap)
        if overlap.items and len(overlap.items) < len(answered.examples):
            dirty = set(overlap.items)
            kept = [i for i in range(len(answered.examples)) if i not in dirty]
            clean = {each.name: _interval(each, groups, np.isin(np.arange(len(each.rows)), kept)) for each in found}
    return TaskScores(answered, found, figures, clean, overlap, notes)


def compare(
    first: Sequence[TaskScores], second: Sequence[TaskScores], smallest: float = SMALLEST_DIFFERENCE
) -> list[TaskComparison]:
    """Two models on the same tasks and items. `smallest`: the smallest difference of interest, as a share of the second model's
    bits per byte, as a part of the scale of other figures.
    """
    rows = []
    for ours, theirs in zip(first, second, strict=True):
        a, b = ours.measures[0], theirs.measures[0]
        assert a.name == b.name
        name, finish, higher_is_better = a.name, a.finish, a.higher_is_better
        if a.target is not None:
            name, finish, higher_is_better = f"{a.name}: distance", _distance(a.finish, a.target), False
        figures = [float(finish(_kept(each).sum(axis=0, keepdims=True))[0]) for each in (a, b)]
        margin = smallest * _scale(a.name, figures[1])
        groups = ours.groups
        if groups is not None and a.members is not None:
            groups = [group for group, here in zip(groups, a.members, strict=True) if here]
        comparison = compare_figures(_kept(a), _kept(b), finish, groups=groups, margin=margin)
        comparison = _widened(comparison, a.n if groups is None else len(set(groups)), a.name)
        rows.append((ours.answered.task.name, name, figures, comparison, margin, higher_is_better))
    corrected = holm([row[3].p_value for row in rows])
    return [
        TaskComparison(
            task,
            name,
            figures[0],
            figures[1],
            comparison,
            p_value,
            verdict(comparison.difference, p_value, higher_is_better, margin),
            margin,
        )
        for (task, name, figures, comparison, margin, higher_is_better), p_value in zip(rows, corrected, strict=True)
    ]


def verdict(difference: Interval, p_value: float, higher_is_better: bool, margin: float = 0.0) -> Verdict:
    """Something is claimed only where the whole interval lies beyond the smallest difference of interest, and the test agrees."""
    if math.isnan(difference.low) or p_value >= SIGNIFICANT:
        return "cannot tell"
    if difference.low > margin:
        return "better" if higher_is_better else "worse"
    if difference.high < -margin:
        return "worse" if higher_is_better else "better"
    return "cannot tell"


def _widened(found: Comparison, n: int, metric: str) -> Comparison:
    """Where two models differ alike on all items, or not at all, the bootstrap says that they always will. Of other items at most
    Wilson's share (of 0 of `n`) may be otherwise, each by the whole scale. Bits per byte have no scale, and agree to the last digit
    only where the models do.
    """
    difference = found.difference
    if n < 2 or difference.low < difference.high or metric in _WITHOUT_SCALE:
        return found
    scale = _scale(metric, 1.0)
    half = Proportion(0, n).bounds[1] * (scale + abs(difference.estimate))
    low, high = max(-scale, difference.low - half), min(scale, difference.high + half)
    return replace(found, difference=replace(difference, low=low, high=high))


def _scale(metric: str, value: float) -> float:
    """What a smallest difference is a part of: the figure itself where it has no upper end."""
    if metric in _WITHOUT_SCALE:
        return abs(value)
    return 100.0 if metric in ("bleu", "chrf") else 1.0


def _distance(finish: Finish, target: float) -> Finish:
    def distance(sums_RD: Rows) -> Rows:
        found: Rows = np.abs(finish(sums_RD) - target)
        return found

    return distance


def _kept(measure: Measure) -> Rows:
    """The rows of the items that a figure is about."""
    return measure.rows if measure.members is None else measure.rows[measure.members]


def _alike(measure: Measure) -> bool:
    rows = _kept(measure)
    return bool((rows == rows[0]).all())


def _interval(measure: Measure, groups: Sequence[Hashable] | None, kept: NDArray[np.bool_] | None = None) -> Interval:
    """A bootstrap interval, but Wilson's for a share where all items score alike: there the bootstrap would say that nothing else
    can be. `kept`: which items count.
    """
    chosen = np.ones(len(measure.rows), dtype=bool) if measure.members is None else measure.members
    if kept is not None:
        chosen = chosen & kept
    rows = measure.rows[chosen]
    if not len(rows):
        return Interval(math.nan, math.nan, math.nan, 0.95)
    own = None if groups is None else [group for group, here in zip(groups, chosen, strict=True) if here]
    found = bootstrap_figure(rows, measure.finish, groups=own)
    n_groups = len(rows) if own is None else len(set(own))
    if measure.share and n_groups > 1 and (rows == rows[0]).all():
        low, high = Proportion(found.estimate * n_groups, n_groups).bounds
        return Interval(found.estimate, low, high, found.confidence)
    return found


def verdict_name(found: Verdict) -> str:
    """In the user's language."""
    return {"better": _("better"), "worse": _("worse"), "cannot tell": _("cannot tell")}[found]


def figure_name(name: str) -> str:
    """What a figure is called by people."""
    if name.startswith(("stereotyped: ", "exposure: ")) and name != "stereotyped: distance":
        kind, _colon, rest = name.partition(": ")
        return _("stereotyped, {axis}", axis=rest) if kind == "stereotyped" else f"{figure_name(kind)}, {rest}×"
    return {
        "accuracy": _("accuracy"),
        "accuracy_by_byte": _("accuracy (by byte)"),
        "macro_f1": _("macro F1"),
        "bits_per_byte": _("bits per byte"),
        "perplexity": _("perplexity of a token"),
        "exact_match": _("exact match"),
        "contains": _("contains the answer"),
        "strict_accuracy": _("all checks passed"),
        "checks_passed": _("checks passed"),
        "f1": "F1",
        "precision": _("precision of what was found"),
        "recall": _("share of what was to be found"),
        "bleu": "BLEU",
        "chrf": "chrF",
        "rouge_1": "ROUGE-1",
        "rouge_2": "ROUGE-2",
        "rouge_l": "ROUGE-L",
        "stereotyped": _("stereotyped sentence likelier (0.5: no preference)"),
        "stereotyped: distance": _("distance from no preference"),
        "toxic": _("continuations with a toxic word"),
        "toxic: group named": _("the same, where a group is named"),
        "toxic: no group named": _("the same, where none is named"),
        "recited": _("training documents said by heart"),
        "recited, part": _("how much of a training document"),
        "recited: held out": _("held-out documents said alike"),
        "recited: held out, part": _("how much of a held-out document"),
        "exposure": _("exposure of canaries, bits of {most}", most=f"{math.log2(N_CANDIDATES):.0f}"),
    }.get(name, name)


def to_dict(scores: TaskScores) -> dict[str, Any]:
    """For the JSON report; NaN becomes null."""
    task = scores.answered.task
    data: dict[str, Any] = {
        "task": task.name,
        "title": task.title,
        "language": task.language,
        "kind": task.kind,
        "source": task.source,
        "fingerprint": task.fingerprint,
        "n": scores.n,
        "metrics": {
            measure.name: interval_dict(scores.figures[measure.name])
            | {"n": measure.n}
            | ({"higher_is_better": measure.higher_is_better} if measure.target is None else {"best": measure.target})
            for measure in scores.measures
        },
        "notes": list(scores.notes),
    }
    if scores.groups is not None:
        data["n_groups"] = len(set(scores.groups))
    if task.kind == "classify":
        labels, matrix = confusion(task, scores.answered.examples, scores.answered.results)
        data["labels"], data["confusion_matrix"] = labels, matrix.tolist()
    if scores.overlap is not None:
        examples = scores.answered.examples
        data["contamination"] = {
            "n_overlapping": len(scores.overlap.items),
            "n_too_short": len(scores.overlap.too_short),
            "n_shared": len(scores.overlap.shared),
            "items": [examples[i].number for i in scores.overlap.items],
            "metrics_without": {name: interval_dict(interval) for name, interval in scores.clean.items()},
        }
    return data


def comparison_dict(found: TaskComparison) -> dict[str, Any]:
    """For the JSON report."""
    return {
        "task": found.task,
        "metric": found.metric,
        "first": _number(found.first),
        "second": _number(found.second),
        "difference": interval_dict(found.comparison.difference),
        "p_value": found.comparison.p_value,
        "p_value_corrected": found.p_value,
        "smallest_difference": _number(found.margin),
        "alike": found.alike,
        "verdict": found.verdict,
    }


def interval_dict(interval: Interval) -> dict[str, Any]:
    """The estimate and its bounds; null where there are none."""
    return {"value": _number(interval.estimate), "low": _number(interval.low), "high": _number(interval.high)}


def sample_answers(scores: TaskScores, n: int = 5) -> list[tuple[str, str, str]]:
    """(asked, wanted, said) of a few items spread over the task, for a reader to judge by."""
    answered, task = scores.answered, scores.answered.task
    step = max(1, scores.n // n)
    rows = []
    for example, result in list(zip(answered.examples, answered.results, strict=True))[::step][:n]:
        asked = example.prompt.text or "\n".join(each["content"] for each in example.prompt.messages) or example.text
        match task.kind:
            case "choice" | "classify":
                said = said_label(example, result)
                rows.append(
                    (asked, example.options[example.gold], example.options[said] if said >= 0 else result["label"])
                )
            case "perplexity":
                rows.append((example.text, "", f"{result['nats'] / math.log(2) / max(1, result['bytes']):.3f}"))
            case "entities":
                wanted = ", ".join(example.text[start:end] for start, end, _label in example.entities)
                found = result.get("found")
                named = ", ".join(example.text[s:e] for s, e, _label in found) if found is not None else result["said"]
                rows.append((asked, wanted, named))
            case "bias":
                rows.append((example.label, "", example.options[int(np.argmax(result["logprobs"]))]))
            case "toxicity":
                rows.append((example.text, "", result["said"]))
            case "memorisation" if "rank" in result:
                rank = _("place {rank} of {n}", rank=f"{result['rank']:g}", n=result["candidates"])
                rows.append((example.choices[0], "", rank))
            case "memorisation":
                asked = asked if example.prompt.messages else example.text.removesuffix(result["wanted"])
                rows.append((asked, result["wanted"], result["said"]))
            case "instructions":
                rows.append((asked, ", ".join(str(check["kind"]) for check in example.checks), result["said"]))
            case _:
                rows.append((asked, " | ".join(example.references), final_answer(task, result["said"])))
    return rows


def _overlap_notes(answered: Answered, overlap: Overlap) -> list[str]:
    notes = []
    if overlap.items:
        listed = ", ".join(str(answered.examples[i].number) for i in overlap.items[:20])
        more = ", …" if len(overlap.items) > 20 else ""
        notes.append(
            _(
                "{n} of {total} items stand in the training data: {items}.",
                n=len(overlap.items),
                total=len(answered.examples),
                items=listed + more,
            )
        )
    elif overlap.n_judged:
        notes.append(_("None of the {total} items was found in the training data.", total=overlap.n_judged))
    if len(overlap.items) == len(answered.examples):
        notes.append(_("All of them do: what this score says is how well the model remembers, not what it can."))
    if overlap.too_short:
        notes.append(_("Items that are too short to be looked for: {n}.", n=len(overlap.too_short)))
    if overlap.shared:
        notes.append(
            _(
                "Items that could not be judged, as all their words are those of more than ten items: {n}. Questions about one text"
                " can be, if a field group says that they belong together.",
                n=len(overlap.shared),
            )
        )
    return notes


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
