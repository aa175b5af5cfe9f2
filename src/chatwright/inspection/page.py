"""One HTML file of an explanation: everything inside it, nothing loaded, nothing sent.

Whatever a model or a user wrote is data: it lies in the page as JSON in which no `<` is left, and the script puts it on the
screen as text. The page's own policy (Content-Security-Policy) allows this one script and this one style sheet by their hashes,
and nothing else, so that markup that got in all the same could do nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from chatwright.errors import Detail, StorageError, UsageError
from chatwright.i18n import Language, translate
from chatwright.inspection.explain import Explanation
from chatwright.inspection.tokens import Alternative

# Attention weights that a page holds, a byte each: above it the heads' mean, and when that is too much none.
MOST_WEIGHTS = 8_000_000


def explanation_page(explanation: Explanation, language: Language = "en") -> str:
    """The text of the file; it can be switched to the other language in the browser."""
    parts = files("chatwright.inspection") / "page_parts"
    style, script, page = ((parts / name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "page.html"))
    return Template(page).substitute(
        lang=language,
        title=html.escape(translate("What {model} was thinking", language, model=explanation.model)),
        noscript=html.escape(translate("This page shows its pictures by a script inside it: allow scripts.", language)),
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        data=_as_script_text(_page_data(explanation)),
    )


def check_page_path(path: Path) -> None:
    """Raises UsageError when the page would overwrite something or lie in a file, StorageError for an impossible name."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise StorageError("{path} cannot be written: {reason}", path=path, reason=error.strerror) from error
    else:
        raise UsageError("{path} is there already. Choose another name, or remove it.", path=path)
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(
            "{path} cannot be written: {reason}", path=path, reason=Detail("{path} is no folder", path=above)
        )


def write_page(explanation: Explanation, path: Path, language: Language = "en") -> None:
    """Writes the page to a new file. Raises UsageError when the file is there, StorageError."""
    check_page_path(path)
    text = explanation_page(explanation, language)
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StorageError("{path} cannot be written: {reason}", path=path, reason=error.strerror) from error


def _page_data(explanation: Explanation) -> dict[str, Any]:
    attention = explanation.attention
    mean_only = attention.size > MOST_WEIGHTS
    if mean_only:
        attention = attention.mean(axis=1, keepdims=True)
    kept = 0 < attention.size <= MOST_WEIGHTS
    return {
        "model": explanation.model,
        "kind": explanation.kind,
        "answer_bits": explanation.answer_bits,
        "tokens": [
            {
                "id": token.id,
                "text": token.text,
                "answer": token.is_answer,
                "control": token.is_control,
                "p": token.probability,
                "logprob": token.logprob,
                "rank": token.rank,
                "entropy": token.entropy_bits,
                "top": _alternatives(token.alternatives),
            }
            for token in explanation.tokens
        ],
        "next": _alternatives(explanation.next),
        "n_layer": attention.shape[0],
        "n_head": attention.shape[1],
        "mean_only": mean_only,
        "attention": base64.b64encode(np.rint(attention * 255).astype(np.uint8).tobytes()).decode() if kept else "",
        "lens": [
            [{"top": _alternatives(cell.top), "next": cell.next_probability} for cell in row.cells]
            for row in explanation.lens
        ],
        "attributions": [
            {"method": each.method, "position": each.position, "text": each.text, "scores": list(each.scores)}
            for each in explanation.attributions
        ],
        "neighbours": [
            {
                "id": each.id,
                "text": each.text,
                "nearest": [{"id": near.id, "text": near.text, "cosine": near.cosine} for near in each.nearest],
            }
            for each in explanation.neighbours
        ],
        "map": None
        if explanation.map is None
        else {
            "explained": explanation.map.explained,
            "points": [
                {"id": point.id, "text": point.text, "x": point.x, "y": point.y, "kind": point.kind}
                for point in explanation.map.points
            ],
        },
        "labels": [{"label": each.label, "p": each.probability} for each in explanation.labels],
        "token_labels": [{"label": each.label, "p": each.probability} for each in explanation.token_labels],
        "notes": {
            "en": [translate(note, "en") for note in explanation.notes],
            "zh": [translate(note, "zh") for note in explanation.notes],
        },
    }


def _alternatives(alternatives: Iterable[Alternative]) -> list[dict[str, Any]]:
    return [{"id": each.id, "text": each.text, "p": each.probability} for each in alternatives]


def _as_script_text(data: Any) -> str:
    """JSON that ends no script element and begins no comment, whatever texts are in it."""
    text = json.dumps(_rounded(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _rounded(value: Any) -> Any:
    """Five digits are more than a screen shows."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
