"""Rows → records: which of the known shapes a row has (chat, preference, labels, plain text), and what it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chatwright.text.readers.chatgpt import chatgpt_conversation
from chatwright.text.readers.columns import TEXT, Shaped, find_column, text_of
from chatwright.text.readers.conversations import (
    alpaca,
    message_list,
    openai_messages,
    prompt_completion,
    sharegpt,
    turns,
)
from chatwright.text.readers.json_rows import Row
from chatwright.text.readers.labels import labelled, tagged_spans, tagged_tokens
from chatwright.text.readers.piece import Piece
from chatwright.text.readers.preferences import kto, openai_preference, preference
from chatwright.text.readers.unit import Record, Refused, Skipped

# The more particular shape first: a preference in ShareGPT's form also has "conversations".
_SHAPES = (
    openai_preference,
    preference,
    kto,
    openai_messages,
    sharegpt,
    chatgpt_conversation,
    turns,
    alpaca,
    prompt_completion,
    tagged_tokens,
    tagged_spans,
    labelled,
)


def read_rows(piece: Piece, rows: Iterator[Row | Record | Skipped]) -> Iterator[Record | Skipped]:
    """A record a row; a row without a known shape, or with an unusable one, is Skipped."""
    for row in rows:
        if not isinstance(row, Row):
            yield row
            continue
        try:
            shaped = shape(row.value)
        except Refused as refused:
            yield Skipped(piece.source, row.where, refused.reason, refused.detail)
            continue
        yield Record(
            shaped.kind,
            shaped.payload,
            row.where,
            shaped.detected,
            encoding=row.encoding,
            n_undecodable=row.n_undecodable,
        )
        if shaped.left_out:
            yield Skipped(piece.source, row.where, "left out", shaped.left_out)


def shape(value: Any) -> Shaped:
    """What a row says. Raises Refused with the reason why it says nothing that can be used."""
    if isinstance(value, str):
        return Shaped("documents", {"text": text_of(value, "text")}, "strings")
    if isinstance(value, list):
        return message_list(value)
    if not isinstance(value, dict):
        raise Refused("bad row", f"a row is an object with named fields, not {_named(value)}")
    if not value:
        raise Refused("empty")
    for row in (value, _folded(value)):
        for find in _SHAPES:
            if (shaped := find(row)) is not None:
                return shaped
        if (column := find_column(row, TEXT)) is not None:
            return _document(row, column)
    keys = ", ".join(sorted(str(key)[:40] for key in value)[:12])
    raise Refused("unknown shape", f"its fields are {keys}: name the text `text`, or a conversation `messages`")


def _document(row: dict[str, Any], column: str) -> Shaped:
    text = text_of(row[column], column)
    title = row.get("title") or row.get("标题")
    # "text" is complete by custom (Wikipedia's data sets); other names hold the body alone.
    if column != "text" and isinstance(title, str) and title.strip() and not text.startswith(title):
        return Shaped("documents", {"text": f"{title.strip()}\n\n{text}"}, f"columns 'title' and {column!r}")
    return Shaped("documents", {"text": text}, f"column {column!r}")


def _folded(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its keys in small letters and without blanks around them."""
    return {str(key).strip().lower().replace(" ", "_"): value for key, value in row.items()}


def _named(value: object) -> str:
    return "nothing" if value is None else "true or false" if isinstance(value, bool) else "a number"
