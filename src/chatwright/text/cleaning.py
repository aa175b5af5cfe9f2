"""Rows made of records: the steps that need no other part of the input, over windows of some thousand records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from chatwright.text.boilerplate import removed_lines, strip_frame, strip_repeated_edges
from chatwright.text.characters import CharacterTexts
from chatwright.text.language import detect_languages
from chatwright.text.manifest import Kind
from chatwright.text.normalise import normalise_characters, normalise_text
from chatwright.text.options import PrepareOptions
from chatwright.text.parts import check_row, identity, n_bytes, parts_of, passages, with_parts
from chatwright.text.quality import judge
from chatwright.text.readers import Record
from chatwright.text.reasons import Detail
from chatwright.text.repair import repair_text
from chatwright.text.rows import question_text, row_text
from chatwright.text.shingles import Shingles, Signatures, shingle, sign
from chatwright.text.tally import Tallies, Tally

WINDOW_CHARS = 500_000  # about 50 bytes of memory each while a window is worked on
WINDOW_RECORDS = 4_000
TEXT_SHINGLE = 5  # words
QUESTION_SHINGLE = 3
_NAMED_CHARS = 200  # of lines around a text, in dropped.jsonl


Named = set[tuple[str, str]]  # folders and lines that are named in dropped.jsonl already


@dataclass
class Row:
    """A record on its way through the steps. `n_bytes`: of its text now."""

    source: str
    kind: Kind
    payload: dict[str, Any]
    where: str
    markup: str
    parts: list[str]
    n_bytes: int
    language: str = ""

    @property
    def folder(self) -> str:
        """Where documents share a frame of boilerplate: the folder, or the file with many documents."""
        return self.source.rpartition("/")[0] if not self.where else self.source


@dataclass(frozen=True)
class Dropped:
    """A line of dropped.jsonl."""

    source: str
    where: str
    step: str
    reason: str
    detail: str = ""


@dataclass
class Window:
    """The rows that came through, what was dropped, and what finds their duplicates (one entry a row)."""

    rows: list[Row]
    dropped: list[Dropped]
    keys: NDArray[np.uint64] = field(default_factory=lambda: np.zeros((0, 2), np.uint64))  # 128 bits of identity
    groups: NDArray[np.uint64] = field(
        default_factory=lambda: np.zeros(0, np.uint64)
    )  # equal: parts of one document; 0: whole
    signed: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))  # has a signature worth comparing
    signatures: Signatures | None = None
    passages: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))  # hashes; several of a row
    passage_rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # the row of each passage
    asked: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # rows with a question
    questions: Signatures | None = None


def windows(records: Iterable[tuple[str, Record]], options: PrepareOptions, tallies: Tallies) -> Iterator[Window]:
    """Clean (source, record) pairs. Windows depend on nothing but the records and their order."""
    rows: list[Row] = []
    named: Named = set()
    n_chars = 0
    dropped: list[Dropped] = []
    for source, record in records:
        if record.kind == "tagged" and not _spans_fit(record.payload):
            tallies["read"].drop("span outside the text", 0)
            dropped.append(Dropped(source, record.where, "read", "span outside the text"))
            continue
        parts = parts_of(record.kind, record.payload)
        row = Row(source, record.kind, record.payload, record.where, record.markup, parts, n_bytes(record.kind, parts))
        tallies["read"].keep(row.n_bytes, row.n_bytes, record.encoding not in ("utf-8", "ascii"))
        if record.n_undecodable:
            tallies["read"].notes["undecodable characters"] += record.n_undecodable
        rows.append(row)
        n_chars += sum(map(len, parts))
        if n_chars >= WINDOW_CHARS or len(rows) >= WINDOW_RECORDS:
            yield _clean(rows, dropped, named, options, tallies)
            rows, dropped, n_chars = [], [], 0
    if rows or dropped:
        yield _clean(rows, dropped, named, options, tallies)


def _clean(rows: list[Row], dropped: list[Dropped], named: Named, options: PrepareOptions, tallies: Tallies) -> Window:
    for row in rows:
        _change(row, repair_text, tallies["repair"])
    _strip_boilerplate(rows, dropped, named, tallies["boilerplate"])
    for row in rows:
        _change(row, normalise_characters if row.kind == "tagged" else normalise_text, tallies["normalise"])
    kept: list[Row] = []
    for row in rows:
        row.payload = with_parts(row.kind, row.payload, row.parts)
        problem = check_row(row.kind, row.payload)
        if problem is None:
            kept.append(row)
            tallies["check"].keep(row.n_bytes, row.n_bytes)
        else:
            _drop(row, "check", *problem, dropped, tallies)
    texts = [row_text(row.kind, row.payload) for row in kept]
    characters = CharacterTexts.of(texts)
    shingles = shingle(characters, TEXT_SHINGLE)
    chosen = _judge(kept, texts, characters, shingles, dropped, options, tallies)
    kept = [kept[number] for number in chosen]
    for row in kept:
        if options.mask:
            _mask(row, tallies["personal data"])
        else:
            tallies["personal data"].keep(row.n_bytes, row.n_bytes)
    window = Window(kept, dropped)
    if kept:
        _sign(window, _select(shingles, chosen))
    return window


def _judge(
    rows: list[Row],
    texts: list[str],
    characters: CharacterTexts,
    shingles: Shingles,
    dropped: list[Dropped],
    options: PrepareOptions,
    tallies: Tallies,
) -> list[int]:
    """The numbers of the rows in a wanted language and of good enough quality."""
    languages = detect_languages(texts, characters)
    verdicts = judge(texts, characters, shingles, options.min_chars) if options.filters else [None] * len(rows)
    chosen = []
    for number, (row, language, verdict) in enumerate(zip(rows, languages, verdicts, strict=True)):
        row.language = language
        if options.languages and language not in options.languages:
            _drop(row, "language", language, "", dropped, tallies)
            continue
        tallies["language"].keep(row.n_bytes, row.n_bytes)
        if verdict and row.kind == "documents":
            _drop(row, "quality", *verdict, dropped, tallies)
            continue
        tallies["quality"].keep(row.n_bytes, row.n_bytes)
        chosen.append(number)
    return chosen


def _change(row: Row, change: Callable[[str], str], tally: Tally) -> None:
    parts = [change(part) for part in row.parts]
    _replace(row, parts, tally)


def _replace(row: Row, parts: list[str], tally: Tally) -> None:
    before = row.n_bytes
    changed = False
    if any(new is not old and new != old for new, old in zip(parts, row.parts, strict=True)):
        changed = any(
            new != old.strip() for new, old in zip(parts, row.parts, strict=True)
        )  # every file ends in a newline
        row.parts = parts
        row.n_bytes = n_bytes(row.kind, parts)
    tally.keep(before, row.n_bytes, changed)


def _strip_boilerplate(rows: list[Row], dropped: list[Dropped], named: Named, tally: Tally) -> None:
    documents = [row for row in rows if row.kind == "documents"]
    stripped = [strip_frame(row.parts[0], row.markup) for row in documents]
    without_edges = strip_repeated_edges(stripped, [row.folder for row in documents])
    for row, without_frame, text in zip(documents, stripped, without_edges, strict=True):
        before = row.parts[0]
        if text is not before:
            for reason, longer, shorter in (
                ("left out", before, without_frame),
                ("repeated line", without_frame, text),
            ):
                if longer is not shorter:
                    _name_removed(row, reason, removed_lines(longer, shorter), dropped, named, tally)
        _replace(row, [text], tally)
    for row in rows:
        if row.kind != "documents":
            tally.keep(row.n_bytes, row.n_bytes)


def _name_removed(
    row: Row, reason: str, lines: Iterable[str], dropped: list[Dropped], named: Named, tally: Tally
) -> None:
    """Say which lines went, the first time that they go from a document of a folder."""
    new = [line for line in lines if (row.folder, line) not in named]
    if new:
        named.update((row.folder, line) for line in new)
        tally.notes[reason] += 1
        text = " / ".join(new)
        detail = Detail("{n} characters around the text: {text}", n=f"{sum(map(len, new)):,}", text=text[:_NAMED_CHARS])
        dropped.append(Dropped(row.source, row.where, "boilerplate", reason, detail))


def _mask(row: Row, tally: Tally) -> None:
    from chatwright.text.masking import mask_payload

    before = row.n_bytes
    row.payload, found = mask_payload(row.kind, row.payload)
    if found:
        tally.notes.update(found)
        row.parts = parts_of(row.kind, row.payload)
        row.n_bytes = n_bytes(row.kind, row.parts)
    tally.keep(before, row.n_bytes, bool(found))


def _drop(row: Row, step: str, reason: str, detail: str, dropped: list[Dropped], tallies: Tallies) -> None:
    tallies[step].drop(reason, row.n_bytes)
    dropped.append(Dropped(row.source, row.where, step, reason, detail))


def _sign(window: Window, shingles: Shingles) -> None:
    keys, hashes, rows = [], [], []
    for number, row in enumerate(window.rows):
        same = identity(row.kind, row.payload)
        keys.append(xxhash.xxh3_128_digest(same.encode()))
        own = [xxhash.xxh3_64_intdigest(passage.encode()) for passage in passages(row.kind, row.payload, same)]
        hashes += own
        rows += [number] * len(own)
    window.keys = np.frombuffer(b"".join(keys), np.uint64).reshape(-1, 2)
    window.passages, window.passage_rows = np.array(hashes, np.uint64), np.array(rows, np.int64)
    window.groups = np.array([_group(row) for row in window.rows], np.uint64)
    window.signed = shingles.counts > 0
    window.signatures = sign(shingles)
    questions = {
        number: question
        for number, row in enumerate(window.rows)
        if (question := question_text(row.kind, row.payload)) is not None
    }
    asked = shingle(CharacterTexts.of(list(questions.values())), QUESTION_SHINGLE)
    comparable = np.flatnonzero(asked.counts)
    window.asked = np.array(list(questions), np.int64)[comparable]
    window.questions = sign(_select(asked, comparable.tolist()))


def _group(row: Row) -> int:
    """Equal for the parts of one document; 0 for a whole one."""
    whole, is_part, _number = row.where.rpartition("part ")
    if row.kind != "documents" or not is_part:
        return 0
    return xxhash.xxh3_64_intdigest(f"{row.source}\0{'' if whole.startswith('from byte') else whole}".encode())


def _select(shingles: Shingles, numbers: list[int]) -> Shingles:
    """The shingles of some of the texts."""
    counts = shingles.counts
    wanted = np.zeros(len(counts), np.bool_)
    wanted[numbers] = True
    if wanted.all():
        return shingles
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[wanted])])
    return Shingles(shingles.hashes[np.repeat(wanted, counts)], offsets)


def _spans_fit(payload: dict[str, Any]) -> bool:
    length = len(payload["text"])
    return all(0 <= span["start"] < span["end"] <= length for span in payload["spans"])
