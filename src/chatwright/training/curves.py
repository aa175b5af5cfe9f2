"""Curves of a run as SVG that is readable on light and on dark pages."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Sequence

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from chatwright.i18n import _
from chatwright.training.figures import figure_name
from chatwright.training.history import History

_INK = "#010203"  # stands for the page's own text colour
_COLOURS = ("#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#a855f7")
_MOST_POINTS = 800


def curves_svg(history: History) -> Iterator[str]:
    """One `<figure>` a group of figures: losses, held-out figures, learning rate, gradient norm, tokens a second."""
    titles = {
        "loss": _("Training loss (nats a token)"),
        "bits_per_byte": _("Held-out bits per byte"),
        "lr": _("Learning rate"),
        "grad_norm": _("Gradient norm before clipping"),
        "tokens_per_s": _("Tokens a second"),
        "answer_tokens_per_s": _("Tokens of answers a second"),
        "texts_per_s": _("Texts a second"),
        "pairs_per_s": _("Pairs a second"),
    }
    shown: set[str] = set()
    for name, title in titles.items():
        group = [each for each in history.series if each == name or each.startswith(f"{name}_")]
        shown.update(group)
        if group:
            yield _svg(title, {each: history.series[each] for each in group})
    for name in history.series:
        if name not in shown:
            yield _svg(_("Held-out {figure}", figure=figure_name(name)), {name: history.series[name]})


def _svg(title: str, series: dict[str, Sequence[tuple[int, float]]]) -> str:
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "chatwright", "font.size": 9}):
        figure = Figure(figsize=(5, 2.8), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for colour, points in zip(_COLOURS * 9, series.values(), strict=False):
            steps, values = zip(*_thinned(points), strict=True)
            marker = "." if len(points) < 40 else ""
            axes.plot(steps, values, color=colour, linewidth=1.2, marker=marker)
        axes.tick_params(colors=_INK)
        axes.grid(alpha=0.25)
        for spine in axes.spines.values():
            spine.set_color(_INK)
        file = io.StringIO()
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = file.getvalue()
    svg = text[text.index("<svg") :].replace(_INK, "currentColor")
    # title and legend are the page's, whose fonts know every script
    return f"<figure><figcaption>{html.escape(title)}{_legend(list(series))}</figcaption>{svg}</figure>"


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    shown = zip(_COLOURS * 9, names, strict=False)
    return "<br>" + " ".join(
        f'<span style="color: {colour}">●</span> {html.escape(figure_name(name))}' for colour, name in shown
    )


def _thinned(points: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """Means of equal shares of the points, as many as can be told apart."""
    n = -(-len(points) // _MOST_POINTS)
    if n <= 1:
        return points
    groups = (points[start : start + n] for start in range(0, len(points), n))
    return [(group[-1][0], sum(value for _step, value in group) / len(group)) for group in groups]
