"""csv and tsv: delimiter, header and columns recognised; rows become the same shapes as rows of JSON.

A table is read from its beginning, however large: a line may begin inside quotes, so that none is safe to begin at.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from typing import Literal

from chatwright.text.readers.columns import (
    ANSWER,
    LABEL,
    NUMBERING,
    PROMPT,
    TEXT,
    WEAK_LABEL,
    has_text,
    listed,
    text_of,
)
from chatwright.text.readers.encoding import is_binary
from chatwright.text.readers.json_rows import Row
from chatwright.text.readers.piece import Piece
from chatwright.text.readers.unit import Record, Refused, Skipped
from chatwright.text.reasons import Detail

_DELIMITERS = ",;\t|"
_SAMPLE_ROWS = 200
_QUOTED = re.compile(r'"[^"]*"')
# The line `sep=;` before the header tells Excel which separator follows, whatever the user's country; it is no row.
_SEP_LINE = re.compile(r'\ufeff?("?)sep=([^"\r\n\ufffd])\1(?:\r\n?|\n|\Z)', re.IGNORECASE)
_KNOWN = {*TEXT, *PROMPT, *ANSWER, *LABEL, *WEAK_LABEL, "chosen", "rejected", "system", "history", "title", "标题"}


def read_table(piece: Piece) -> Iterator[Row | Record | Skipped]:
    """A Row a line of the table where its columns have known names; else the texts of the column with the longest ones."""
    if is_binary(piece.head):
        raise Refused("binary")
    lines = _Lines(piece)
    csv.field_size_limit(piece.limits.max_line_bytes)
    rows = _rows(piece, lines, _delimiter(piece))
    sample = list(islice(rows, _SAMPLE_ROWS))
    first = next((found for found in sample if not isinstance(found, Skipped)), None)
    if first is None:
        yield from (found for found in sample if isinstance(found, Skipped))
        if not sample:
            yield Skipped(piece.source, "", "empty")
        return
    header = _header(first[1])
    everything = chain(sample, rows)
    if header is None:
        yield from _longest_column(piece, sample, everything, lines)
        return
    n_found = 0
    for found in everything:
        n_found += 1
        if isinstance(found, Skipped):
            yield found
        elif found is not first:
            yield _named(piece, found, header, lines)
    if n_found == 1:
        yield Skipped(piece.source, "", "empty", "a header without rows")


class _Lines:
    """The decoded lines of a piece for csv.reader; counts what was undecodable and what was too long."""

    def __init__(self, piece: Piece) -> None:
        self.piece = piece
        self.decoder = piece.decoder()
        self.end = _line_end(piece)
        self.has_sep_line = _separator(piece) is not None
        self.number = piece.first_line
        self.encoding = piece.encoding or "utf-8"
        self.n_undecodable = 0
        self.too_long: list[int] = []

    def __iter__(self) -> Iterator[str]:
        for number, line in self.piece.lines(blank=True, end=self.end.encode()):
            self.number = number
            if self.has_sep_line and number == self.piece.first_line:
                continue
            if line is None:
                self.too_long.append(number)
                continue
            decoded = self.decoder.decode(line)
            self.n_undecodable += decoded.n_undecodable
            if decoded.encoding not in ("", "utf-8"):
                self.encoding = decoded.encoding
            yield decoded.text.replace("\r", "") + "\n"

    def take_undecodable(self) -> int:
        """How much was undecodable since the last time."""
        n, self.n_undecodable = self.n_undecodable, 0
        return n


Found = tuple[int, list[str]]


def _rows(piece: Piece, lines: _Lines, delimiter: str) -> Iterator[Found | Skipped]:
    """(number of its last line, cells) of every row that is not blank."""
    reader = csv.reader(iter(lines), delimiter=delimiter, quoting=_quoting(piece, delimiter))
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            yield Skipped(
                piece.source,
                f"line {lines.number}",
                "bad row",
                Detail("{error}: a quote may not be closed", error=error),
            )
            continue
        while lines.too_long:
            detail = Detail("longer than {most:,} bytes", most=piece.limits.max_line_bytes)
            yield Skipped(piece.source, f"line {lines.too_long.pop(0)}", "too long", detail)
        if any(cell.strip() for cell in cells):
            yield lines.number, cells
    for number in lines.too_long:
        yield Skipped(
            piece.source,
            f"line {number}",
            "too long",
            Detail("longer than {most:,} bytes", most=piece.limits.max_line_bytes),
        )


def _line_end(piece: Piece) -> str:
    """A carriage return alone ends the lines of Excel for Mac, where a line feed stands only inside cells."""
    outside = _QUOTED.sub("", _head(piece))
    return "\r" if "\r" in outside and "\n" not in outside else "\n"


def _head(piece: Piece) -> str:
    """The first rows, without a line that only names the separator."""
    return _SEP_LINE.sub("", _decoded_head(piece), count=1) if _separator(piece) else _decoded_head(piece)


def _separator(piece: Piece) -> str | None:
    """The separator that the first line of the file names, as Excel's `sep=;`."""
    found = _SEP_LINE.match(_decoded_head(piece))
    return found[2] if found else None


def _decoded_head(piece: Piece) -> str:
    return piece.head.decode(piece.encoding or "utf-8", "replace")


def _quoting(piece: Piece, delimiter: str) -> Literal[0, 3]:
    """In tab-separated files a quote is mostly just a quote: it encloses only where every cell that opens with one ends so."""
    if delimiter != "\t":
        return csv.QUOTE_MINIMAL
    cells = (cell.strip() for line in _head(piece).split(_line_end(piece)) for cell in line.split("\t"))
    quoted = [cell for cell in cells if cell.startswith('"')]
    enclosed = all(len(cell) > 1 and cell.endswith('"') for cell in quoted)
    return csv.QUOTE_MINIMAL if quoted and enclosed else csv.QUOTE_NONE


def _delimiter(piece: Piece) -> str:
    """The delimiter that the file names in a line `sep=`, else the one that splits the first lines most evenly."""
    if (named := _separator(piece)) is not None:
        return named
    if piece.format == "tsv":
        return "\t"
    text = _head(piece)
    lines = [line for line in text.split(_line_end(piece))[:50] if line.strip()][
        : 50 if len(text) < 60_000 else -1
    ] or [text]
    best, best_score = ",", 0.0
    for delimiter in _DELIMITERS:
        try:
            widths = [len(cells) for cells in csv.reader(lines, delimiter=delimiter) if cells]
        except csv.Error:
            continue
        if not widths:
            continue
        width, n_rows = Counter(widths).most_common(1)[0]
        score = n_rows / len(widths) if width > 1 else 0.0
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _header(first: list[str]) -> list[str] | None:
    """The names of the columns, where the first row of the file holds any known one."""
    names = [name.strip().strip("\ufeff").lower().replace(" ", "_") for name in first]
    return names if any(name in _KNOWN for name in names) else None


def _named(piece: Piece, found: Found, header: list[str], lines: _Lines) -> Row | Skipped:
    number, cells = found
    where = f"line {number}"
    if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
        detail = Detail(
            "{n_cells} cells under {n_columns} columns: text with a delimiter in it needs quotes",
            n_cells=len(cells),
            n_columns=len(header),
        )
        return Skipped(piece.source, where, "bad row", detail)
    cells += [""] * (len(header) - len(cells))
    row = {name: cell for name, cell in zip(header, cells, strict=False) if name}
    return Row(row, where, lines.encoding, lines.take_undecodable())


def _longest_column(
    piece: Piece, sample: list[Found | Skipped], everything: Iterator[Found | Skipped], lines: _Lines
) -> Iterator[Record | Skipped]:
    """No known column: the one with the longest texts; its first row may be a header."""
    rows = [found[1] for found in sample if not isinstance(found, Skipped)]
    width = max(map(len, rows))
    body = rows[1:] or rows
    means = [sum(len(row[at]) for row in body if at < len(row)) / len(body) for at in range(width)]
    at = max(range(width), key=lambda index: means[index])
    first = rows[0]
    has_header = (
        len(rows) > 1
        and all(cell.strip() and len(cell) <= 40 and not cell.strip().isdigit() for cell in first)
        and len(first) > at
        and len(first[at]) * 3 < means[at]
    )
    if means[at] < 8 or all(name in NUMBERING for name in first):
        columns = ", ".join(cell.strip()[:40] for cell in first[:12])
        raise Refused(
            "no text column", Detail("its columns are {names}: name the one with the text `text`", names=columns)
        )
    name = f"column {first[at].strip()!r}" if has_header else f"column {at + 1}"
    others = [
        index for index in range(width) if index != at and any(has_text(row[index]) for row in body if index < len(row))
    ]
    if others:
        names = listed(first[index] if has_header and index < len(first) else index + 1 for index in others)
        yield Skipped(piece.source, "", "left out", Detail("fields that are not read: {names}", names=names))
    for found in everything:
        if isinstance(found, Skipped):
            yield found
            continue
        number, cells = found
        if has_header and cells is first:
            continue
        where = f"line {number}"
        try:
            text = text_of(cells[at] if at < len(cells) else "", name)
        except Refused as refused:
            yield Skipped(piece.source, where, refused.reason, refused.detail)
            continue
        yield Record("documents", {"text": text}, where, name, "", lines.encoding, lines.take_undecodable())
