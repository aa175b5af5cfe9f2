"""Blocks: what the first pass leaves on disk for the later ones. The rows as lines, and columns of numbers beside them.

A block holds some ten megabytes of text, so that memory stays flat however large one file of the input is. Columns lie in a
.safetensors file, from which each is read alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from chatwright.text.cleaning import Window
from chatwright.text.manifest import KINDS
from chatwright.text.shingles import N_BANDS

BLOCK_BYTES = 16 << 20
COLUMNS_VERSION = 2  # of what the columns mean: under another one an interrupted preparation begins anew
BEFORE_WHERE = ": "  # between a row's source and its place in it
KIND_NUMBER = {kind: number for number, kind in enumerate(KINDS)}
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Block:
    """A block on disk. `size_bytes`: of its files."""

    name: str
    rows: int
    size_bytes: int
    n_questions: int
    languages: tuple[str, ...]  # what the numbers in the column `language` mean

    def column(self, folder: Path, name: str) -> NDArray[Any]:
        """One column: key, group, kind, language, n_bytes, line_bytes, where_chars, passage, passage_row, signed,
        text, text-0…, asked, question, question-0…"""
        return self.columns(folder, name)[0]

    def columns(self, folder: Path, *names: str) -> list[NDArray[Any]]:
        """Several columns."""
        with safe_open(folder / f"{self.name}.columns", framework="np") as file:
            return [file.get_tensor(name) for name in names]

    def lines(self, folder: Path) -> Iterator[bytes]:
        """The rows as lines of JSON, without id and cluster."""
        with (folder / f"{self.name}.jsonl").open("rb") as stream:
            yield from stream

    def is_whole(self, folder: Path) -> bool:
        """Whether its files are there with their sizes."""
        try:
            return _size(folder, self.name) == self.size_bytes
        except OSError:
            return False

    def remove(self, folder: Path) -> None:
        """Free its space."""
        for suffix in (".jsonl", ".columns"):
            (folder / f"{self.name}{suffix}").unlink(missing_ok=True)


@dataclass(frozen=True)
class Blocks:
    """All blocks in the order of the input. Rows are numbered through them from 0."""

    folder: Path
    blocks: Sequence[Block]

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """(blocks + 1,) the number of each block's first row."""
        return np.array([0, *accumulate(block.rows for block in self.blocks)], np.int64)

    @property
    def n_rows(self) -> int:
        """All rows."""
        return int(self.offsets[-1])

    def column(self, name: str) -> Iterator[NDArray[Any]]:
        """A column, block by block."""
        for block in self.blocks:
            yield block.column(self.folder, name)

    def whole_column(self, name: str, dtype: Any) -> NDArray[Any]:
        """A column of all rows at once: for narrow ones only."""
        values = np.empty(self.n_rows, dtype)
        for offset, part in zip(self.offsets, self.column(name), strict=False):
            values[offset : offset + len(part)] = part
        return values


class BlockWriter:
    """Collects windows and writes them as blocks named after one work item."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.blocks: list[Block] = []
        self.windows: list[Window] = []
        self.lines: list[bytes] = []
        self.line_bytes: list[int] = []
        self.pending_bytes = 0

    def add(self, window: Window) -> None:
        """Append the rows of a window."""
        if not window.rows:
            return
        self.windows.append(window)
        for row in window.rows:
            source = f"{row.source}{BEFORE_WHERE}{row.where}" if row.where else row.source
            line = orjson.dumps(
                {"source": source, "language": row.language, **row.payload}, option=orjson.OPT_APPEND_NEWLINE
            )
            self.lines.append(line)
            self.line_bytes.append(len(line))
            self.pending_bytes += len(line)
            row.payload = {}
            row.parts = []
        if self.pending_bytes >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was collected. Raises OSError."""
        if not self.lines:
            return
        name = f"{self.name}-{len(self.blocks):04d}"
        with (self.folder / f"{name}.jsonl").open("wb") as stream:
            stream.writelines(self.lines)
        languages = sorted({row.language for window in self.windows for row in window.rows})
        columns = save(_columns(self.windows, self.line_bytes, languages))
        (self.folder / f"{name}.columns").write_bytes(columns)
        n_questions = sum(len(window.asked) for window in self.windows)
        self.blocks.append(Block(name, len(self.lines), _size(self.folder, name), n_questions, tuple(languages)))
        self.windows, self.lines, self.line_bytes, self.pending_bytes = [], [], [], 0


def _columns(windows: Sequence[Window], line_bytes: Sequence[int], languages: Sequence[str]) -> Columns:
    rows = [row for window in windows for row in window.rows]
    number = {language: n for n, language in enumerate(languages)}
    texts = [window.signatures for window in windows if window.signatures is not None]
    questions = [window.questions for window in windows if window.questions is not None]
    first_rows = list(accumulate((len(window.rows) for window in windows), initial=0))
    columns: Columns = {
        "key": np.concatenate([window.keys for window in windows]),
        "group": np.concatenate([window.groups for window in windows]),
        "signed": np.concatenate([window.signed for window in windows]),
        "kind": np.array([KIND_NUMBER[row.kind] for row in rows], np.uint8),
        "language": np.array([number[row.language] for row in rows], np.uint16),
        "n_bytes": np.array([row.n_bytes for row in rows], np.uint32),
        "line_bytes": np.array(line_bytes, np.uint32),
        "where_chars": np.array([len(row.where) for row in rows], np.uint32),  # at the end of the line's source
        "passage": np.concatenate([window.passages for window in windows]),
        "passage_row": np.concatenate(
            [window.passage_rows + first for window, first in zip(windows, first_rows, strict=False)]
        ).astype(np.uint32),
        "text": np.concatenate([signature.low_bytes for signature in texts]),
        "question": np.concatenate([signature.low_bytes for signature in questions]),
        "asked": np.concatenate(
            [window.asked + first for window, first in zip(windows, first_rows, strict=False)]
        ).astype(np.int64),
    }
    for band in range(N_BANDS):  # each alone, because each is read alone
        columns[f"text-{band}"] = np.concatenate([signature.bands[band] for signature in texts])
        columns[f"question-{band}"] = np.concatenate([signature.bands[band] for signature in questions])
    return columns


def _size(folder: Path, name: str) -> int:
    return sum((folder / f"{name}{suffix}").stat().st_size for suffix in (".jsonl", ".columns"))
