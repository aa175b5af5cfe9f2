"""Large files in ranges that begin where a line does, so that several workers read one file and memory stays flat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from chatwright.text.readers.encoding import SAMPLE_BYTES, wide_encoding
from chatwright.text.readers.json_rows import looks_like_jsonl
from chatwright.text.readers.parquet import row_group_bytes
from chatwright.text.readers.piece import BLOCK_BYTES
from chatwright.text.readers.plain import SEPARATOR
from chatwright.text.readers.unit import Limits, Refused, Unit

# How far a better place to cut than the end of a line is looked for.
_NEAR_BYTES = 1 << 20


def split_file(path: Path, source: str, format: str, size_bytes: int, limits: Limits) -> Iterator[Unit]:
    """The units of a file above `split_bytes`; one where it cannot be read from its middle. Raises OSError, Refused."""
    if format == "parquet":
        yield from _row_groups(path, source, size_bytes, limits)
        return
    with path.open("rb") as file:
        head = file.read(SAMPLE_BYTES)
        if format == "json" and looks_like_jsonl(head):
            format = "jsonl"
        by_line = format == "jsonl"
        if wide_encoding(head) or not (by_line or format in ("txt", "md")):
            yield Unit(source, path, format, size_bytes=size_bytes)
            return
        marks = [b"\n"] if by_line else [SEPARATOR, b"\n\n", b"\n"] if SEPARATOR in head else [b"\n\n", b"\n"]
        start = 0
        first_line = 1
        while start < size_bytes:
            end = min(_next_mark(file, start + limits.split_bytes, size_bytes, marks), size_bytes)
            whole = start == 0 and end == size_bytes
            yield Unit(
                source,
                path,
                format,
                start=start,
                end=None if whole else end,
                size_bytes=end - start,
                first_line=first_line,
            )
            if by_line and end < size_bytes:
                first_line += _count_lines(file, start, end)
            start = end


def _row_groups(path: Path, source: str, size_bytes: int, limits: Limits) -> Iterator[Unit]:
    """Units of as many row groups as make up `split_bytes`. Raises Refused."""
    sizes = row_group_bytes(path)
    share = size_bytes / max(1, sum(sizes))  # of the file's bytes, packed, in one byte unpacked
    start = 0
    n_bytes = 0
    for group, n_group in enumerate(sizes):
        n_bytes += n_group
        last = group == len(sizes) - 1
        if n_bytes >= limits.split_bytes or last:
            end = None if start == 0 and last else group + 1
            yield Unit(source, path, "parquet", start=start, end=end, size_bytes=int(n_bytes * share))
            start, n_bytes = group + 1, 0
    if not sizes:
        raise Refused("empty")


def _next_mark(file: BinaryIO, at: int, size_bytes: int, marks: list[bytes]) -> int:
    """Where the first mark after `at` ends: the best one nearby, else the end of the line, however long it is."""
    if at >= size_bytes:
        return size_bytes
    file.seek(at)
    window = file.read(_NEAR_BYTES)
    for mark in marks:
        if (found := window.find(mark)) >= 0:
            return at + found + len(mark)
    at += len(window)
    while block := file.read(BLOCK_BYTES):
        if (found := block.find(b"\n")) >= 0:
            return at + found + 1
        at += len(block)
    return size_bytes


def _count_lines(file: BinaryIO, start: int, end: int) -> int:
    file.seek(start)
    n_lines = 0
    while start < end:
        block = file.read(min(BLOCK_BYTES, end - start))
        if not block:
            break
        n_lines += block.count(b"\n")
        start += len(block)
    return n_lines
