"""From answers to figures with intervals, to the comparison of two models, and to what stands in the reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from chatwright.evaluation.contamination import Overlap
from chatwright.evaluation.measures import Measure, confusion, final_answer, measures, said_label
from chatwright.evaluation.run import Answered
from chatwright.evaluation.statistics import Comparison, Interval, bootstrap_figure, compare_figures, holm
from chatwright.i18n import _

Verdict = Literal["better", "worse", "cannot tell"]
SIGNIFICANT = 0.05
# Bits per byte of many texts are so exact that two seeds of one recipe differ "significantly" (by 0.6 %, LOG.md): less than this
# share says nothing about what was changed.
SEED_NOISE = 0.01


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


@dataclass(frozen=True)
class TaskComparison:
    """The main figure of a task for two models; `difference` is first minus second. `p_value` is corrected for the number of
    tasks (Holm), and the verdict is about the first model.
    """

    task: str
    metric: str
    first: float
    second: float
    comparison: Comparison
    p_value: float
    verdict: Verdict


def score(answered: Answered, overlap: Overlap | None = None) -> TaskScores:
    """All figures of a task, with seeded bootstrap intervals over its items."""
    found = measures(answered.task, answered.examples, answered.results)
    figures = {each.name: bootstrap_figure(each.rows, each.finish) for each in found}
    notes = []
    if len(answered.examples) == 1:
        notes.append(_("One item only: there is no interval, and nothing can be told from it."))
    elif found and (found[0].rows == found[0].rows[0]).all():
        notes.append(
            _(
                "All {n} items score alike: the interval has no width, which does not make it sure.",
                n=len(answered.examples),
            )
        )
    n_cut = sum(bool(result.get("n_cut")) for result in answered.results)
    if n_cut:
        notes.append(_("{n} prompts were too long for the context and lost their beginning.", n=n_cut))
    clean: dict[str, Interval] = {}
    if overlap is not None:
        notes += _overlap_notes(answered, overlap)
        if overlap.items and len(overlap.items) < len(answered.examples):
            dirty = set(overlap.items)
            kept = [i for i in range(len(answered.examples)) if i not in dirty]
            clean = {each.name: bootstrap_figure(each.rows[kept], each.finish) for each in found}
    return TaskScores(answered, found, figures, clean, overlap, notes)


def compare(first: Sequence[TaskScores], second: Sequence[TaskScores]) -> list[TaskComparison]:
    """Two models on the same tasks and items."""
    rows = []
    for ours, theirs in zip(first, second, strict=True):
        a, b = ours.measures[0], theirs.measures[0]
        assert a.name == b.name
        rows.append((ours, theirs, a, compare_figures(a.rows, b.rows, a.finish)))
    corrected = holm([comparison.p_value for *_rest, comparison in rows])
    return [
        TaskComparison(
            ours.answered.task.name,
            measure.name,
            ours.figures[measure.name].estimate,
            theirs.figures[measure.name].estimate,
            comparison,
            p_value,
            verdict(
                comparison.difference,
                p_value,
                measure.higher_is_better,
                least=SEED_NOISE * theirs.figures[measure.name].estimate if measure.name == "bits_per_byte" else 0.0,
            ),
        )
        for (ours, theirs, measure, comparison), p_value in zip(rows, corrected, strict=True)
    ]


def verdict(difference: Interval, p_value: float, higher_is_better: bool, *, least: float = 0.0) -> Verdict:
    """Something is claimed only where the interval leaves out 0, the test agrees, and the difference is no smaller than `least`."""
    if abs(difference.estimate) < least:
        return "cannot tell"
    if math.isnan(difference.low) or difference.low <= 0 <= difference.high or p_value >= SIGNIFICANT:
        return "cannot tell"
    return "better" if (difference.estimate > 0) == higher_is_better else "worse"


def verdict_name(found: Verdict) -> str:
    """In the user's language."""
    return {"better": _("better"), "worse": _("worse"), "cannot tell": _("cannot tell")}[found]


def figure_name(name: str) -> str:
    """What a figure is called by people."""
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
            measure.name: interval_dict(scores.figures[measure.name]) | {"higher_is_better": measure.higher_is_better}
            for measure in scores.measures
        },
        "notes": list(scores.notes),
    }
    if task.kind == "classify":
        labels, matrix = confusion(task, scores.answered.examples, scores.answered.results)
        data["labels"], data["confusion_matrix"] = labels, matrix.tolist()
    if scores.overlap is not None:
        examples = scores.answered.examples
        data["contamination"] = {
            "n_overlapping": len(scores.overlap.items),
            "n_too_short": scores.overlap.n_too_short,
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
    else:
        notes.append(_("None of the {total} items was found in the training data.", total=len(answered.examples)))
    if len(overlap.items) == len(answered.examples):
        notes.append(_("All of them do: what this score says is how well the model remembers, not what it can."))
    if overlap.n_too_short:
        notes.append(_("{n} items are too short to be looked for.", n=overlap.n_too_short))
    return notes


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
