"""Rows → records: which of the known shapes a row has (chat, preference, labels, plain text), and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from chatwright.text.readers.chatgpt import chatgpt_conversation
from chatwright.text.readers.columns import (
    LABEL,
    NUMBERING,
    PROMPT,
    TEXT,
    TURNS,
    WEAK_LABEL,
    Shaped,
    find_column,
    has_text,
    listed,
    text_of,
    type_of,
)
from chatwright.text.readers.conversations import (
    alpaca,
    message_list,
    openai_messages,
    prompt_completion,
    sharegpt,
    turns,
    unread_in_messages,
)
from chatwright.text.readers.json_rows import Row
from chatwright.text.readers.labels import labelled, tagged_spans, tagged_tokens
from chatwright.text.readers.piece import Piece
from chatwright.text.readers.preferences import kto, openai_preference, preference
from chatwright.text.readers.unit import Record, Refused, Skipped
from chatwright.text.reasons import Detail

Find = Callable[[dict[str, Any]], Shaped | None]
# What finds a shape, and the fields of which a row must have one. The more particular shape first: a preference in
# ShareGPT's form also has "conversations".
_SHAPES: tuple[tuple[Find, frozenset[str]], ...] = (
    (openai_preference, frozenset({"preferred_output"})),
    (preference, frozenset({"chosen"})),
    (kto, frozenset({"completion"})),
    (openai_messages, frozenset({"messages"})),
    (sharegpt, frozenset({"conversations", "conversation", "chat_messages"})),
    (chatgpt_conversation, frozenset({"mapping"})),
    (turns, frozenset(TURNS)),
    (alpaca, frozenset({"instruction"})),
    (prompt_completion, frozenset(PROMPT)),
    (tagged_tokens, frozenset({"tokens", "words", "chars"})),
    (tagged_spans, frozenset({"spans", "entities", "label", "labels"})),
    (labelled, frozenset({*LABEL, *WEAK_LABEL})),
)
_REMEMBERED = 1000
_LOOKED_AT = 20  # rows of the same fields, to see which of them are not read: in the first ones some may be empty


class Shapes:
    """The shapes of a file's rows. Remembers which are possible for a set of fields: rows come by the million."""

    def __init__(self) -> None:
        self.possible: dict[tuple[str, ...], tuple[Find, ...]] = {}
        self.n_looked_at: dict[tuple[str, ...], int] = {}
        self.unread: dict[str, None] = {}  # fields with text that no row was read from, in the order in which they came

    def of(self, value: Any) -> Shaped:
        """What a row says. Raises Refused with the reason why it says nothing that can be used."""
        if isinstance(value, dict) and value:
            if (shaped := self._of_row(value) or self._of_row(_folded(value))) is not None:
                return shaped
            keys = ", ".join(sorted(str(key)[:40] for key in value)[:12])
            raise Refused(
                "unknown shape",
                Detail("its fields are {names}: name the text `text`, or a conversation `messages`", names=keys),
            )
        if isinstance(value, str):
            return Shaped("documents", {"text": text_of(value, "text")}, "strings")
        if isinstance(value, list):
            return message_list(value)
        if isinstance(value, dict):
            raise Refused("empty text", "the row has no fields")
        raise Refused("bad row", Detail("a row is an object with named fields, not {type}", type=type_of(value)))

    def _of_row(self, row: dict[str, Any]) -> Shaped | None:
        keys = tuple(row)
        finders = self.possible.get(keys)
        if finders is None:
            finders = tuple(find for find, needed in _SHAPES if not needed.isdisjoint(keys))
            if len(self.possible) < _REMEMBERED:
                self.possible[keys] = finders
        n_looked_at = self.n_looked_at.get(keys, 0)
        looks = n_looked_at < _LOOKED_AT and (n_looked_at > 0 or len(self.n_looked_at) < _REMEMBERED)
        for find in (*finders, _document):
            read = _Read(row) if looks else row
            if (shaped := find(read)) is not None:
                if isinstance(read, _Read):
                    self.n_looked_at[keys] = n_looked_at + 1
                    self.unread.update(dict.fromkeys(read.unread()))
                return shaped
        return None


class _Read(dict[str, Any]):
    """A row that notes which of its fields are read."""

    def __init__(self, row: dict[str, Any]) -> None:
        super().__init__(row)
        self.seen: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.seen.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.seen.add(key)
        return super().get(key, default)

    def unread(self) -> Iterator[str]:
        """The fields with text that were not read."""
        for key, value in self.items():
            if key not in self.seen and key.lower() not in NUMBERING and has_text(value):
                yield key


def read_rows(piece: Piece, rows: Iterator[Row | Record | Skipped]) -> Iterator[Record | Skipped]:
    """A record a row; a row without a known shape, or with an unusable one, is Skipped, and at the end fields never read."""
    shapes = Shapes()
    for row in rows:
        if not isinstance(row, Row):
            yield row
            continue
        try:
            shaped = shapes.of(row.value)
        except Refused as refused:
            yield Skipped(piece.source, row.where, refused.reason, refused.detail)
            continue
        if shaped.kind in ("conversations", "preferences") and len(shapes.unread) < _REMEMBERED:
            shapes.unread.update(dict.fromkeys(unread_in_messages(row.value)))
        yield Record(
            shaped.kind,
            shaped.payload,
            row.where,
            shaped.detected,
            encoding=row.encoding,
            n_undecodable=row.n_undecodable,
        )
        for sentence in shaped.left_out:
            yield Skipped(piece.source, row.where, "left out", sentence)
    if shapes.unread:
        detail = Detail("fields that are not read: {names}", names=listed(shapes.unread))
        yield Skipped(piece.source, "", "left out", detail)


def _document(row: dict[str, Any]) -> Shaped | None:
    column = find_column(row, TEXT)
    if column is None:
        return None
    text = text_of(row[column], column)
    # "text" is complete by custom (Wikipedia's data sets); other names hold the body alone.
    if column != "text":
        title = row.get("title") or row.get("标题")
        if isinstance(title, str) and title.strip() and not text.startswith(title):
            return Shaped("documents", {"text": f"{title.strip()}\n\n{text}"}, f"columns 'title' and {column!r}")
    return Shaped("documents", {"text": text}, f"column {column!r}")


def _folded(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its keys in small letters and without blanks around them."""
    return {str(key).strip().lower().replace(" ", "_"): value for key, value in row.items()}
