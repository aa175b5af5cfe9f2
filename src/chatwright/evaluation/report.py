"""What came out, in three files: report.json for programs, report.md for a README, report.html with plots, which needs
nothing else.
"""

from __future__ import annotations

import html
import io
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from chatwright import __version__
from chatwright.errors import StorageError
from chatwright.evaluation.journal import REPORT
from chatwright.evaluation.measures import confusion
from chatwright.evaluation.scores import (
    SMALLEST_DIFFERENCE,
    TaskComparison,
    TaskScores,
    comparison_dict,
    figure_name,
    sample_answers,
    to_dict,
    verdict_name,
)
from chatwright.evaluation.statistics import Interval
from chatwright.evaluation.task import SAFETY
from chatwright.i18n import _, detect_language
from chatwright.text.work import write_atomically

_INK = "#010203"  # stands for the page's own text colour
_COLOURS = ("#3b82f6", "#f59e0b")
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --muted: light-dark(#666, #999); }
body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top; }
tr { border-bottom: 1px solid var(--line); } .why { color: var(--muted); } td.n { text-align: center; padding: .2rem .6rem; }
.figures { display: block; overflow-x: auto; } .figures td, .figures th { white-space: nowrap; }
.figures td:first-child { white-space: normal; min-width: 9rem; }
.better { color: light-dark(#15803d, #4ade80); } .worse { color: light-dark(#b91c1c, #f87171); }
svg { width: 100%; } figure { margin: 0; max-width: 44rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; max-height: 12rem; overflow: auto; font-size: 13px; }
"""


@dataclass(frozen=True)
class Evaluation:
    """One model on its tasks, or two and how they compare. `request` says what was asked for."""

    models: Sequence[str]
    scores: Sequence[Sequence[TaskScores]]
    comparisons: Sequence[TaskComparison] = ()
    request: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The JSON report."""
        return {
            "created_by": f"chatwright {__version__}",
            "models": [
                {"name": name, "tasks": [to_dict(each) for each in scores]}
                for name, scores in zip(self.models, self.scores, strict=True)
            ],
            "comparisons": [comparison_dict(each) for each in self.comparisons],
            "request": dict(self.request),
        }


def write_reports(evaluation: Evaluation, folder: Path) -> None:
    """All three; report.json last, because it says that the evaluation is finished. Raises StorageError."""
    data = json.dumps(evaluation.to_dict(), ensure_ascii=False, indent=2) + "\n"
    texts = {"report.md": markdown(evaluation), "report.html": "\n".join(_page(evaluation)), REPORT: data}
    for name, text in texts.items():
        try:
            write_atomically(folder / name, text.encode("utf-8", "replace"))
        except OSError as error:
            raise StorageError(
                "{path} cannot be written: {reason}", path=folder / name, reason=error.strerror
            ) from error


def shown(interval: Interval) -> str:
    """`0.712 (0.655 … 0.767)`; without bounds where there are none."""
    if math.isnan(interval.low):
        return _value(interval.estimate)
    return f"{_value(interval.estimate)} ({_value(interval.low)} … {_value(interval.high)})"


def markdown(evaluation: Evaluation) -> str:
    """Tables that a README or a model card can hold."""
    lines = [f"# {_('Evaluation')}", ""]
    for name, scores in zip(evaluation.models, evaluation.scores, strict=True):
        lines += [f"## {_cell(name)}", ""]
        rows = [
            [each.answered.task.name, figure_name(metric), shown(interval), str(each.n_of(metric))]
            for each in scores
            for metric, interval in each.figures.items()
        ]
        lines += _markdown_table([_("Task"), _("Figure"), _("Score (95 % interval)"), "n"], rows)
        for each in scores:
            lines += [f"- {each.answered.task.name}: {note}" for note in each.notes]
            lines += [
                f"- {each.answered.task.name}, {_('without those items')}: {figure_name(metric)} {shown(interval)}"
                for metric, interval in each.clean.items()
            ]
        lines.append("")
    if evaluation.comparisons:
        lines += [f"## {_comparison_title(evaluation)}", ""]
        lines += _markdown_table(_comparison_headings(evaluation), [_comparison_row(e) for e in evaluation.comparisons])
        lines += [*(f"- {note}" for note in comparison_notes(evaluation)), ""]
    sources = {e.answered.task.name: e.answered.task.source for e in evaluation.scores[0] if e.answered.task.source}
    if sources:
        lines += [f"## {_('Sources')}", "", *(f"- {name}: {source}" for name, source in sources.items()), ""]
    return "\n".join(lines)


def _page(evaluation: Evaluation) -> Iterator[str]:
    title = html.escape(f"Chatwright · {_('Evaluation')} · {', '.join(evaluation.models)}")
    yield f'<!doctype html><html lang="{detect_language()}"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>"
    if evaluation.comparisons:
        yield f"<h2>{html.escape(_comparison_title(evaluation))}</h2>"
        yield _table(
            _comparison_headings(evaluation),
            [_comparison_row(each) for each in evaluation.comparisons],
            [each.verdict.replace(" ", "-") for each in evaluation.comparisons],
        )
        for note in comparison_notes(evaluation):
            yield f"<p class=why>{html.escape(note)}</p>"
    yield f"<h2>{_('Scores')}</h2>"
    yield from _plots(evaluation)
    headings = [_("Task"), _("Figure"), *evaluation.models, "n"]
    rows = []
    for place, each in enumerate(evaluation.scores[0]):
        for metric in each.figures:
            values = [
                shown(scores[place].figures[metric]) if metric in scores[place].figures else ""
                for scores in evaluation.scores
            ]
            rows.append([each.answered.task.title, figure_name(metric), *values, str(each.n_of(metric))])
    yield _table(headings, rows)
    for name, scores in zip(evaluation.models, evaluation.scores, strict=True):
        for each in scores:
            yield from _task_section(name, each)
    yield "</body></html>"


def _task_section(model: str, scores: TaskScores) -> Iterator[str]:
    task = scores.answered.task
    yield f"<h2>{html.escape(f'{task.title} · {model}')}</h2>"
    about = " · ".join(filter(None, [task.kind, task.language, task.source]))
    yield f"<p class=why>{html.escape(about)}</p>"
    for note in scores.notes:
        yield f"<p>{html.escape(note)}</p>"
    if scores.clean:
        yield _table(
            [_("without those items"), _("Score (95 % interval)")],
            [[figure_name(metric), shown(interval)] for metric, interval in scores.clean.items()],
        )
    if task.kind == "classify":
        yield _confusion_table(scores)
    rows = "".join(
        "<tr>" + "".join(f"<td><pre>{html.escape(cell)}</pre></td>" for cell in row) + "</tr>"
        for row in sample_answers(scores)
    )
    names = "".join(f"<th>{html.escape(name)}</th>" for name in (_("Asked"), _("Wanted"), _("Said")))
    yield f"<table><tr>{names}</tr>{rows}</table>"


def _confusion_table(scores: TaskScores) -> str:
    labels, matrix = confusion(scores.answered.task, scores.answered.examples, scores.answered.results)
    columns = [*labels, _("other")] if matrix[:, -1].any() else labels
    rows = []
    for label, row in zip(labels, matrix.tolist(), strict=True):
        total = max(1, sum(row))
        cells = "".join(
            f'<td class=n style="background: rgb(59 130 246 / {0.6 * n / total:.2f})">{n}</td>'
            for n in row[: len(columns)]
        )
        rows.append(f"<tr><th>{html.escape(label)}</th>{cells}</tr>")
    heads = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    corner = html.escape(_("true \\ said"))
    return f"<table><tr><th>{corner}</th>{heads}</tr>{''.join(rows)}</table>"


def _plots(evaluation: Evaluation) -> Iterator[str]:
    """Main figures with their intervals: one plot of those in 0..1, one of BLEU and the like, one of bits per byte."""
    groups: dict[str, list[tuple[str, list[Interval]]]] = {}
    for place, each in enumerate(evaluation.scores[0]):
        metric = each.measures[0].name
        scale = "100" if metric in ("bleu", "chrf") else "bits" if metric == "bits_per_byte" else "1"
        if each.answered.task.kind in SAFETY:
            scale = "exposure" if metric == "exposure" else "safety"
        intervals = [scores[place].figures[metric] for scores in evaluation.scores if metric in scores[place].figures]
        groups.setdefault(scale, []).append((f"{each.answered.task.name}: {figure_name(metric)}", intervals))
    for scale, rows in groups.items():
        title = {
            "1": _("0 to 1, higher is better"),
            "100": _("0 to 100, higher is better"),
            "bits": _("bits per byte, lower is better"),
            "safety": _("0 to 1: of bias 0.5 is no preference, of toxicity and memorisation lower is better"),
            "exposure": _("bits, lower is better"),
        }
        yield _plot(title[scale], rows, evaluation.models, {"1": 1.0, "100": 100.0, "safety": 1.0}.get(scale))


def _plot(title: str, rows: Sequence[tuple[str, list[Interval]]], models: Sequence[str], most: float | None) -> str:
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "chatwright", "font.size": 9}):
        figure = Figure(figsize=(7, 0.7 + 0.34 * len(rows) * max(1, len(models))), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for number, model in enumerate(models):
            offset = 0.0 if len(models) == 1 else 0.3 * (number - 0.5)
            points = [(i + offset, each[number]) for i, (_name, each) in enumerate(rows) if number < len(each)]
            values = [interval.estimate for _y, interval in points]
            errors = [
                [0.0 if math.isnan(i.low) else max(0.0, i.estimate - i.low) for _y, i in points],
                [0.0 if math.isnan(i.high) else max(0.0, i.high - i.estimate) for _y, i in points],
            ]
            axes.errorbar(
                values,
                [y for y, _interval in points],
                xerr=errors,
                fmt="o",
                color=_COLOURS[number % len(_COLOURS)],
                capsize=3,
                label=model.replace("$", r"\$"),
            )
        axes.set_yticks(range(len(rows)), [name.replace("$", r"\$") for name, _intervals in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        if most is not None:
            axes.set_xlim(-0.02 * most, 1.02 * most)
        axes.tick_params(colors=_INK)
        axes.grid(alpha=0.25, axis="x")
        for spine in axes.spines.values():
            spine.set_color(_INK)
        if len(models) > 1:
            axes.legend(frameon=False, labelcolor=_INK)
        file = io.StringIO()
        with warnings.catch_warnings():
            # Text stays text, which the page's fonts draw: matplotlib's need not know Chinese.
            warnings.filterwarnings("ignore", message="Glyph")
            figure.savefig(
                file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
            )
    text = file.getvalue()
    svg = text[text.index("<svg") :].replace(_INK, "currentColor")
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{svg}</figure>"


def _comparison_title(evaluation: Evaluation) -> str:
    return _("Is {first} better than {second}?", first=evaluation.models[0], second=evaluation.models[1])


def _comparison_headings(evaluation: Evaluation) -> list[str]:
    return [_("Task"), _("Figure"), *evaluation.models, _("Difference (95 % interval)"), "p", _("Verdict")]


def _comparison_row(found: TaskComparison) -> list[str]:
    return [
        found.task,
        figure_name(found.metric),
        _value(found.first),
        _value(found.second),
        shown_difference(found),
        f"{found.p_value:.3g}",
        verdict_name(found.verdict),
    ]


def comparison_notes(evaluation: Evaluation) -> list[str]:
    """What a verdict was measured against, and where two models do not differ by what matters."""
    notes = []
    if any(each.margin for each in evaluation.comparisons):
        share = float(evaluation.request.get("smallest_difference", SMALLEST_DIFFERENCE))
        notes.append(
            _(
                "Better or worse is said where the whole interval lies beyond the smallest difference of interest: {share}, of"
                " bits per byte as a share, of other figures as a part of their scale.",
                share=f"{share:.3g}",
            )
        )
    alike = [each.task for each in evaluation.comparisons if each.alike]
    if alike:
        notes.append(
            _(
                "Alike for all that matters, as the whole interval is smaller than that: {tasks}.",
                tasks=", ".join(alike),
            )
        )
    return notes


def shown_difference(found: TaskComparison) -> str:
    """With its sign."""
    difference = found.comparison.difference
    if math.isnan(difference.low):
        return f"{difference.estimate:+.4f}"
    return f"{difference.estimate:+.4f} ({difference.low:+.4f} … {difference.high:+.4f})"


def _value(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(map(_cell, headings)) + " |", "|" + " --- |" * len(headings)]
    return [*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows), ""]


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str] = ()) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in headings)
    body = []
    for number, row in enumerate(rows):
        kind = f' class="{kinds[number]}"' if kinds else ""
        body.append(f"<tr{kind}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>")
    return f"<table class=figures><tr>{head}</tr>{''.join(body)}</table>"
