"""The conversations of a dataset as rows to train on: encoded, fitted to the context, counted; nothing is lost silently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chatwright.errors import Detail, InvalidRequestError
from chatwright.tokenizer.supervision import Supervised
from chatwright.training.augmentation import augment
from chatwright.training.fitting import Message, fit

Tools = Sequence[Mapping[str, Any]]

# How many rows of each kind of loss are named; the rest is only counted.
MOST_NAMES = 20


class EncodeChat(Protocol):
    """`tokenizer.supervision.encode_supervised` for one model."""

    def __call__(self, messages: Sequence[Message], *, tools: Tools | None = None) -> Sequence[Supervised]:
        """Messages, and the tools offered with them, as rows."""
        ...


@dataclass(frozen=True)
class Example:
    """One row: inputs predict targets where `learned` says so. n_bytes: UTF-8 bytes of what is learned.

    `messages`, `tools` and `index`: what the row is made from and which of its rows this is, to be made again with other
    words; `messages` is None where it was cut.
    """

    name: str
    id: str
    cluster: int
    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]
    learned: NDArray[np.bool_]
    n_bytes: int
    messages: tuple[Message, ...] | None = None
    tools: Tools | None = None
    index: int = 0

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass
class Notes:
    """What became of rows that could not be used as they are: counts and the first names of each kind."""

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, name: str, n: int = 1) -> None:
        """`kind`: a short English phrase, such as "nothing to learn"."""
        self.counts[kind] += n
        if len(kept := self.names.setdefault(kind, [])) < MOST_NAMES:
            kept.append(name)

    def to_dict(self) -> dict[str, Any]:
        """For an event."""
        return {kind: {"n": n, "first": self.names[kind]} for kind, n in sorted(self.counts.items())}


# The kinds of notes.
NOTHING_TO_LEARN = "no answer to learn from"
REFUSED = "refused by the chat template"
SPLIT = "longer than the context, split between turns"
CUT = "answers longer than the context, their end cut off"
NO_ROOM = "answers left out, as their question fills the context"


def row_name(row: Mapping[str, Any]) -> str:
    """How a row is named to the user."""
    source = str(row.get("source") or "")
    return f"{source} ({row['id']})" if source else str(row["id"])


def examples_of(
    rows: Iterable[Mapping[str, Any]],
    encode: EncodeChat,
    n_bytes: Callable[[Supervised], int],
    context_length: int,
    notes: Notes,
) -> list[Example]:
    """Rows of kind conversations as examples, in their order."""
    examples: list[Example] = []
    for row in rows:
        name = row_name(row)
        tools = row.get("tools") or None
        try:
            fitted = fit(partial(encode, tools=tools), row["messages"], context_length)
        except InvalidRequestError as error:
            why = Detail(error.template, **error.params)
            notes.add(REFUSED, Detail("{name}: refused ({reason})", name=name, reason=why))
            continue
        if not fitted.pieces and not fitted.n_dropped:
            notes.add(NOTHING_TO_LEARN, name)
        if len(fitted.pieces) > 1:
            notes.add(SPLIT, name)
        if fitted.n_cut:
            notes.add(CUT, name, fitted.n_cut)
        if fitted.n_dropped:
            notes.add(NO_ROOM, name, fitted.n_dropped)
        for piece in fitted.pieces:
            for index, supervised in enumerate(piece.rows):
                examples.append(
                    Example(
                        name=name,
                        id=str(row["id"]),
                        cluster=int(row["cluster"]),
                        **arrays_of(supervised),
                        n_bytes=n_bytes(supervised),
                        messages=piece.messages if piece.whole else None,
                        tools=tools,
                        index=index,
                    )
                )
    return examples


def arrays_of(row: Supervised) -> dict[str, Any]:
    """inputs, targets, learned: shifted against each other by one token."""
    ids = np.array(row.ids, dtype=np.int32)
    return {"inputs": ids[:-1], "targets": ids[1:], "learned": np.array(row.supervised[1:], dtype=np.bool_)}


def reworded(messages: Sequence[Message], names: Sequence[str], seed: int, epoch: int, row_id: str) -> list[Message]:
    """The messages with what users say augmented; answers, system messages and tools stay as they are."""
    changed: list[Message] = []
    for number, message in enumerate(messages):
        content = message.get("content")
        if message.get("role") == "user" and isinstance(content, str):
            content, _spans = augment(content, names, (seed, epoch, f"{row_id}/{number}"))
            message = {**message, "content": content}
        changed.append(message)
    return changed
