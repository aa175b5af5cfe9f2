"""The pieces of text in a payload, taken out to be cleaned and put back; and which rows cannot be used at all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import orjson

from chatwright.text.manifest import Kind
from chatwright.text.reasons import Detail

MAX_ROW_CHARS = 4_000_000  # of examples; documents are cut into parts by the readers
_LEAST_PASSAGE_BYTES = 40  # seven words, or thirteen Chinese characters: "Yes." answers too much to tell anything
_SHARED_ROLES = ("system", "developer")  # what all conversations begin with would make one cluster of them


def parts_of(kind: Kind, payload: dict[str, Any]) -> list[str]:
    """The texts in a payload. A tagged text is cut at the ends of its spans, so that cleaning cannot move these."""
    if kind == "tagged":
        return [payload["text"][start:end] for start, end in pairwise(_cuts(payload))]
    if kind in ("documents", "labelled"):
        return [payload["text"]]
    return [message["content"] for message in _messages(kind, payload) if isinstance(message.get("content"), str)]


def with_parts(kind: Kind, payload: dict[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    """The payload with other texts, in the order of `parts_of`. The spans of a tagged text move with it."""
    if kind in ("documents", "labelled"):
        return payload | {"text": parts[0]}
    if kind == "tagged":
        return _with_segments(payload, parts)
    remaining = iter(parts)
    fields = ("messages",) if kind == "conversations" else ("messages", "chosen", "rejected")
    return payload | {
        field: [
            message | {"content": next(remaining)} if isinstance(message.get("content"), str) else message
            for message in payload[field]
        ]
        for field in fields
    }


def n_bytes(kind: Kind, parts: Sequence[str]) -> int:
    """UTF-8 bytes of the parts, as `rows.row_text` joins them."""
    lengths = [len(part) if part.isascii() else len(part.encode("utf-8", "surrogatepass")) for part in parts]
    if kind in ("conversations", "preferences"):
        return sum(lengths) + max(0, sum(length > 0 for length in lengths) - 1)
    return sum(lengths)


def check_row(kind: Kind, payload: dict[str, Any]) -> tuple[str, str] | None:
    """None for a row that can be used, else (reason, detail) why not."""
    if kind == "documents":
        return None if payload["text"] else ("empty", "")
    if sum(map(len, parts_of(kind, payload))) > MAX_ROW_CHARS:
        return "too long", Detail("more than {most:,} characters", most=MAX_ROW_CHARS)
    if kind == "conversations":
        return _check_conversation(payload["messages"])
    if kind == "preferences":
        return _check_preference(payload)
    if not payload["text"].strip():
        return "empty", ""
    if kind == "labelled" and not str(payload["label"]).strip():
        return "no label", ""
    return None


def identity(kind: Kind, payload: dict[str, Any]) -> str:
    """What makes two rows the same one: everything but case and blanks."""
    if kind == "documents":
        content = payload["text"]
    elif kind == "labelled":
        content = f"{payload['label']}\0{payload['text']}"
    else:
        content = orjson.dumps(payload, option=orjson.OPT_SORT_KEYS).decode().replace("\\n", " ")
    return f"{kind}\0{_folded(content)}"


def passages(kind: Kind, payload: dict[str, Any], row_identity: str) -> list[str]:
    """What of a row may be the whole text of a row of another kind: its text, or each message; but for case and blanks.

    row_identity: what `identity` says of the row.
    """
    if kind == "documents":
        return [row_identity.removeprefix("documents\0")]
    if kind in ("labelled", "tagged"):
        return [_folded(payload["text"])]
    said = [message for message in _messages(kind, payload) if message.get("role") not in _SHARED_ROLES]
    contents = [_folded(content) for message in said if isinstance(content := message.get("content"), str)]
    return [content for content in contents if len(content.encode()) >= _LEAST_PASSAGE_BYTES]


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def _check_conversation(messages: Sequence[dict[str, Any]]) -> tuple[str, str] | None:
    answers = [message for message in messages if message.get("role") == "assistant"]
    if not answers:
        return "no assistant turn", ""
    empty = sum(_is_empty(message) for message in answers)
    if empty:
        return "empty answer", Detail("{n} of {total} assistant turns", n=empty, total=len(answers))
    return None


def _check_preference(payload: dict[str, Any]) -> tuple[str, str] | None:
    for field in ("chosen", "rejected"):
        if not payload[field] or all(map(_is_empty, payload[field])):
            return "empty answer", field
    if payload["chosen"] == payload["rejected"]:
        return "chosen equals rejected", ""
    return None


def _is_empty(message: dict[str, Any]) -> bool:
    content = message.get("content")
    blank = not content or (isinstance(content, str) and not content.strip())
    return blank and not message.get("tool_calls")


def _messages(kind: Kind, payload: dict[str, Any]) -> list[dict[str, Any]]:
    if kind == "conversations":
        return payload["messages"]  # type: ignore[no-any-return]
    return [*payload["messages"], *payload["chosen"], *payload["rejected"]]


def _cuts(payload: dict[str, Any]) -> list[int]:
    length = len(payload["text"])
    inside = {at for span in payload["spans"] for at in (span["start"], span["end"])}
    return sorted({0, length} | {min(max(at, 0), length) for at in inside}) if length else [0, 0]


def _with_segments(payload: dict[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    moved, at = {}, 0
    cuts = _cuts(payload)
    for cut, part in zip(cuts, [*parts, ""], strict=False):
        moved[cut] = at
        at += len(part)
    spans = [span | {"start": moved[span["start"]], "end": moved[span["end"]]} for span in payload["spans"]]
    return payload | {"text": "".join(parts), "spans": [span for span in spans if span["start"] < span["end"]]}
