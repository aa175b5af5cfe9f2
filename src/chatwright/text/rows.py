"""The text of a row: what of its payload a model reads, for each kind of row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chatwright.text.manifest import Kind


def row_text(kind: Kind, row: Mapping[str, Any]) -> str:
    """The plain text of a row: the text itself, or the contents of all its messages joined by newlines."""
    if kind == "conversations":
        return "\n".join(_contents(row["messages"]))
    if kind == "preferences":
        return "\n".join(_contents([*row["messages"], *row["chosen"], *row["rejected"]]))
    return str(row["text"])


def question_text(kind: Kind, row: Mapping[str, Any]) -> str | None:
    """What rows are grouped by besides likeness: what is asked first, or the text that is labelled; None for documents."""
    if kind in ("conversations", "preferences"):
        asked = [message for message in row["messages"] if message.get("role") == "user"]
        return "\n".join(_contents(asked[:1])) or None
    return None if kind == "documents" else str(row["text"])


def _contents(messages: Iterable[Mapping[str, Any]]) -> list[str]:
    return [content for message in messages if isinstance(content := message.get("content"), str) and content]
