"""An explanation as text: tables and bars that fit a terminal of 80 columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from chatwright.cli.terminal import printable
from chatwright.i18n import _

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from chatwright.inspection.explain import Explanation
    from chatwright.inspection.tokens import Alternative

# Cells of a token in a table, of a line, of a bar, and of the map.
_TOKEN, _LINE, _BAR, _MAP = 14, 76, 30, (76, 18)
# Layers that a table shows of a deep model, and tokens whose neighbours are shown.
_LAYERS, _NEIGHBOURS = 12, 8


def print_explanation(explanation: Explanation, console: Console, place: int | None = None) -> None:
    """The tables that there are something for. `place`: the token that is shown closely."""
    place = _default_place(explanation) if place is None else place
    for shown in (
        _tokens(explanation),
        _labels(explanation),
        _next(explanation),
        _attention(explanation, place),
        _lens(explanation, place),
        _attribution(explanation, place),
        _neighbours(explanation),
        _map(explanation),
    ):
        if shown is not None:
            title, body = shown
            console.print(Text(title, style="bold"))
            console.print(body, markup=False, highlight=False)
            console.print()
    for note in explanation.notes:
        console.print(Text(_(note), style="dim"))


def _default_place(explanation: Explanation) -> int:
    return min(explanation.n_prompt, len(explanation.tokens) - 1)


def visible(text: str, width: int = _TOKEN) -> str:
    """A token on one line, at most `width` cells wide; a space at its beginning or end as ␣, so that it can be seen."""
    text = printable(text).replace("\n", "↵").replace("\t", "⇥")
    stripped = text.strip(" ")
    lead = len(text) - len(text.lstrip(" ")) if stripped else len(text)
    text = "␣" * lead + stripped + "␣" * (len(text) - lead - len(stripped))
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"


def percent(probability: float) -> str:
    """`77 %`, `0.02 %`."""
    value = 100 * probability
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.2g} %" if value >= 0.001 else "<0.001 %"


def _table(*headings: str, right: Sequence[int] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index in right else "left", no_wrap=True)
    return table


def _alternatives(alternatives: Sequence[Alternative], width: int) -> Text:
    """As many as fit."""
    line = Text()
    for each in alternatives:
        part = f"{visible(each.text, 10)} {percent(each.probability)}"
        if line and cell_len(line.plain) + cell_len(part) + 3 > width:
            break
        line.append(("   " if line else "") + part)
    return line


def _tokens(explanation: Explanation) -> tuple[str, Table] | None:
    scored = any(token.logprob is not None for token in explanation.tokens)
    if not scored:
        return None
    table = _table(_("#"), _("TOKEN"), _("PROB."), _("RANK"), _("ENTROPY"), _("INSTEAD"), right=(0, 2, 3, 4))
    for token in explanation.tokens:
        style = "bold" if token.is_answer else ""
        if token.probability is None or token.entropy_bits is None:
            table.add_row(str(token.position), Text(visible(token.text), style), "", "", "", "")
            continue
        others = [each for each in token.alternatives if each.id != token.id]
        table.add_row(
            str(token.position),
            Text(visible(token.text), style),
            percent(token.probability),
            str(token.rank),
            f"{token.entropy_bits:.1f}",
            _alternatives(others, 26),
        )
    title = _("Tokens (bold: the answer), and what else was likely; entropy in bits")
    if explanation.answer_bits is not None:
        title += "\n" + _("The whole answer costs {bits:.1f} bits.", bits=explanation.answer_bits)
    return title, table


def _labels(explanation: Explanation) -> tuple[str, Table] | None:
    if explanation.labels:
        table = _table(_("LABEL"), _("PROB."), right=(1,))
        for each in explanation.labels[:10]:
            table.add_row(visible(each.label, 40), percent(each.probability))
        return _("What the model says of the text"), table
    if explanation.token_labels:
        table = _table(_("#"), _("TOKEN"), _("LABEL"), _("PROB."), right=(0, 3))
        for token, each in zip(explanation.tokens, explanation.token_labels, strict=True):
            table.add_row(str(token.position), visible(token.text), visible(each.label, 30), percent(each.probability))
        return _("The likeliest label of every token"), table
    return None


def _next(explanation: Explanation) -> tuple[str, Text] | None:
    if not explanation.next:
        return None
    return _("What would come next"), _alternatives(explanation.next, _LINE)


def _attention(explanation: Explanation, place: int) -> tuple[str, Table] | None:
    n_layer = len(explanation.attention)
    if not n_layer:
        return None
    # what the token is predicted from: the place before it
    query = place - 1 if explanation.kind == "decoder" and place > 0 else place
    table = _table(_("LAYER"), _("ALL HEADS LOOK AT"), _("THE SHARPEST HEAD LOOKS AT"), right=(0,))
    for layer in _chosen_layers(n_layer):
        heads_HT = explanation.attention[layer, :, query]
        head = int(heads_HT.max(axis=1).argmax())
        table.add_row(
            str(layer + 1),
            _looked_at(explanation, heads_HT.mean(axis=0), 3, 40),
            f"{_('head {n}', n=head + 1)}: " + _looked_at(explanation, heads_HT[head], 1, 22),
        )
    token = visible(explanation.tokens[query].text)
    return _("Attention from token {n}, {token}", n=query, token=token), table


def _looked_at(explanation: Explanation, weights_T: NDArray[np.float32], n: int, width: int) -> str:
    best = weights_T.argsort()[::-1][:n]
    parts = [f"{i} {visible(explanation.tokens[i].text, 8)} {percent(float(weights_T[i]))}" for i in best]
    while len(parts) > 1 and cell_len("  ".join(parts)) > width:
        parts.pop()
    return "  ".join(parts)


def _chosen_layers(n_layer: int) -> list[int]:
    """All of a shallow model, or as many as a screen has room for, evenly, the last one among them."""
    if n_layer <= _LAYERS:
        return list(range(n_layer))
    return sorted({round(i * (n_layer - 1) / (_LAYERS - 1)) for i in range(_LAYERS)})


def _lens(explanation: Explanation, place: int) -> tuple[str, Table] | None:
    if not explanation.lens:
        return None
    before = max(0, place - 1)
    table = _table(_("LAYER"), _("WOULD HAVE SAID"), _("WHAT CAME"), right=(0, 2))
    for layer in _chosen_layers(len(explanation.lens)):
        cell = explanation.lens[layer].cells[before]
        came = "" if cell.next_probability is None else percent(cell.next_probability)
        name = _("embedding") if layer == 0 else str(layer)
        table.add_row(name, _alternatives(cell.top, 52), came)
    token = visible(explanation.tokens[before].text)
    return _("What each layer would have predicted behind token {n}, {token}", n=before, token=token), table


def _attribution(explanation: Explanation, place: int) -> tuple[str, Table] | None:
    if not explanation.attributions:
        return None
    each = next((a for a in explanation.attributions if a.position == place), explanation.attributions[0])
    most = max((abs(score) for score in each.scores), default=0.0) or 1.0
    table = _table(_("#"), _("TOKEN"), _("SCORE"), "", right=(0, 2))
    for position, score in enumerate(each.scores):
        bar = ("█" if score >= 0 else "░") * math.ceil(_BAR * abs(score) / most - 1e-9)
        table.add_row(str(position), visible(explanation.tokens[position].text), f"{score:+.3f}", bar)
    if explanation.kind == "encoder":
        return _("Which tokens shape the text's vector (cosine distance without each)"), table
    how = _("by occlusion") if each.method == "occlusion" else _("by gradient x (embedding − mean)")
    return _("Which tokens spoke for {token} (nats, {how}; ░: against)", token=visible(each.text), how=how), table


def _neighbours(explanation: Explanation) -> tuple[str, Table] | None:
    shown = explanation.neighbours[-_NEIGHBOURS:]
    if not shown:
        return None
    table = _table(_("TOKEN"), _("NEAREST BY EMBEDDING (COSINE)"))
    for each in shown:
        line, width = "", 58
        for near in each.nearest:
            part = f"{visible(near.text, 12)} {near.cosine:.2f}"
            if line and cell_len(line) + cell_len(part) + 3 > width:
                break
            line += ("   " if line else "") + part
        table.add_row(visible(each.text), line)
    return _("Nearest tokens"), table


def _map(explanation: Explanation) -> tuple[str, Text] | None:
    """The text's tokens on the first two components; one that would cover another is left out."""
    if explanation.map is None:
        return None
    width, height = _MAP
    points = explanation.map.points
    x_low, x_high = min(p.x for p in points), max(p.x for p in points)
    y_low, y_high = min(p.y for p in points), max(p.y for p in points)
    rows = [[" "] * width for _row in range(height)]
    for kind in ("seen", "near", "other"):
        for point in points:
            if point.kind != kind:
                continue
            column = round((point.x - x_low) / ((x_high - x_low) or 1) * (width - 1))
            row = height - 1 - round((point.y - y_low) / ((y_high - y_low) or 1) * (height - 1))
            label = visible(point.text, 12) if kind != "other" else "·"
            n_cells = cell_len(label)
            column = min(column, width - n_cells)
            beside = range(max(0, column - 1), min(width, column + n_cells + 1)) if kind != "other" else [column]
            if all(rows[row][c] in " " for c in beside):
                rows[row][column] = label
                for c in range(column + 1, column + n_cells):
                    rows[row][c] = ""
    body = Text("\n".join("".join(row).rstrip() for row in rows))
    share = sum(explanation.map.explained)
    return _("A map of the embeddings (two main components, {share} of the variance)", share=percent(share)), body
