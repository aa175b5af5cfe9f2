"""Labelled texts and labelled spans of a dataset as token ids with what is to be predicted, and the labels there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from chatwright.errors import InvalidDatasetError
from chatwright.training.chat_rows import Notes, row_name
from chatwright.training.spans import OUTSIDE, Range, Span, compose, read_spans, tags_of

EMPTY = "texts without any token"
LONG = "texts longer than the context, their end cut off"
UNSEEN = "held-out texts with a label that no training text has"
NOT_ALIGNED = "texts that the tokenizer does not spell"


class EncodeText(Protocol):
    """A text as the model reads it."""

    def __call__(self, text: str) -> tuple[list[int], list[Range] | None]:
        """Ids, with whatever the model wants around a text, and the characters of each; None where they do not spell the text."""
        ...


@dataclass(frozen=True)
class Frame:
    """What a model wants around every text: an encoder [CLS] and [SEP], many a decoder a token of the beginning, or nothing."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(cls, encode: EncodeText) -> Self:
        """As the tokenizer puts it around a text of one letter, and around none."""
        around, some = encode("")[0], encode("a")[0]
        n = 0
        while n < min(len(around), len(some)) and some[n] == around[n]:
            n += 1
        return cls(tuple(around[:n]), tuple(around[n:]))

    def windows(self, ids: Sequence[int], length: int) -> list[range]:
        """The places in `ids`, a text in its frame, of parts that with a frame of their own have at most `length` ids."""
        start, end = len(self.before), len(ids) - len(self.after)
        room = max(1, length - len(self.before) - len(self.after))
        return [range(first, min(first + room, end)) for first in range(start, end, room)] or [range(start, end)]

    def around(self, ids: Sequence[int]) -> tuple[int, ...]:
        """A part of a text in a frame of its own."""
        return (*self.before, *ids, *self.after)

    def cut(self, ids: Sequence[int], length: int) -> tuple[int, ...]:
        """The beginning of a text, with what belongs behind it: as Transformers truncates."""
        first = self.windows(ids, length)[0]
        return self.around(ids[first.start : first.stop])


@dataclass(frozen=True)
class LabelledText:
    """A text and its label."""

    name: str
    id: str
    cluster: int
    text: str
    label: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """Part of a tagged text, in a frame of its own: ids with the characters and the tag of each."""

    ids: tuple[int, ...]
    ranges: tuple[Range, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class TaggedText:
    """A text and its entities. `windows`: its parts that fit the context; a text longer than that is several windows, so that no
    entity is lost.
    """

    name: str
    id: str
    cluster: int
    text: str
    spans: tuple[Span, ...]
    windows: tuple[Window, ...]

    @property
    def n_tokens(self) -> int:
        """Of all windows."""
        return sum(len(window.ids) for window in self.windows)


def labelled_texts(
    rows: Iterable[Mapping[str, Any]], encode: EncodeText, context_length: int, notes: Notes
) -> list[LabelledText]:
    """Rows of kind labelled. A text longer than the context keeps its beginning."""
    texts = []
    frame = Frame.of(encode)
    for row in rows:
        ids, _ranges = encode(row["text"])
        if not ids:
            notes.add(EMPTY, row_name(row))
            continue
        if len(ids) > context_length:
            notes.add(LONG, row_name(row))
        texts.append(
            LabelledText(
                name=row_name(row),
                id=str(row["id"]),
                cluster=int(row["cluster"]),
                text=row["text"],
                label=str(row["label"]),
                ids=frame.cut(ids, context_length),
            )
        )
    return texts


def tagged_texts(
    rows: Iterable[Mapping[str, Any]], encode: EncodeText, context_length: int, notes: Notes
) -> list[TaggedText]:
    """Rows of kind tagged, whole: in windows where they are longer than the context."""
    texts = []
    frame = Frame.of(encode)
    for row in rows:
        name = row_name(row)
        text, spans = compose(row["text"], read_spans(row))
        ids, ranges = encode(text)
        if not ids:
            notes.add(EMPTY, name)
        elif ranges is None:
            notes.add(NOT_ALIGNED, name)
        else:
            texts.append(
                TaggedText(
                    name=name,
                    id=str(row["id"]),
                    cluster=int(row["cluster"]),
                    text=text,
                    spans=tuple(spans),
                    windows=tuple(windows_of(ids, ranges, tags_of(text, ranges, spans), frame, context_length)),
                )
            )
    return texts


def windows_of(
    ids: Sequence[int], ranges: Sequence[Range], tags: Sequence[str], frame: Frame, context_length: int
) -> Iterator[Window]:
    """A text that is longer than the context in parts, each as if it were a text."""
    before, after = len(frame.before), len(frame.after)
    for place in frame.windows(ids, context_length):
        part = slice(place.start, place.stop)
        yield Window(
            frame.around(ids[part]),
            ((0, 0),) * before + tuple(ranges[part]) + ((0, 0),) * after,  # a frame has no characters
            (OUTSIDE,) * before + tuple(tags[part]) + (OUTSIDE,) * after,
        )


def class_labels(texts: Sequence[LabelledText]) -> tuple[str, ...]:
    """The labels of the training texts, sorted. Raises InvalidDatasetError unless there are two."""
    labels = sorted({text.label for text in texts})
    if len(labels) < 2:
        raise InvalidDatasetError(
            "All {n} training texts have the label {label!r}: there is nothing to tell apart. Add texts with other labels.",
            n=len(texts),
            label=labels[0] if labels else "",
        )
    return tuple(labels)


def entity_labels(texts: Sequence[TaggedText]) -> tuple[str, ...]:
    """The labels of the training texts' entities, sorted. Raises InvalidDatasetError where there is none."""
    labels = sorted({label for text in texts for _start, _end, label in text.spans})
    if not labels:
        raise InvalidDatasetError(
            "None of the {n} training texts has a labelled span: there is nothing to find. Add texts with labelled spans.",
            n=len(texts),
        )
    return tuple(labels)


def label_counts(texts: Sequence[LabelledText] | Sequence[TaggedText]) -> dict[str, int]:
    """How often each label occurs, the most frequent first."""
    counts: Counter[str] = Counter()
    for text in texts:
        if isinstance(text, LabelledText):
            counts[text.label] += 1
        else:
            counts.update(label for _start, _end, label in text.spans)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def without_unseen(texts: Sequence[LabelledText], labels: Sequence[str], notes: Notes) -> list[LabelledText]:
    """Held-out texts whose label can be predicted at all; the others are counted."""
    known = set(labels)
    for text in texts:
        if text.label not in known:
            notes.add(UNSEEN, f"{text.name}: {text.label}")
    return [text for text in texts if text.label in known]
