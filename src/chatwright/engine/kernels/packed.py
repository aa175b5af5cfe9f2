"""A model's packed weights: one piece of memory with an index, and the file in which it waits for the next start."""

from __future__ import annotations

import json
import logging
import mmap
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chatwright.engine.kernels.library import Format

log = logging.getLogger(__name__)

MAGIC = b"chatwright packed weights\n"
ALIGNMENT = 4096


@dataclass(frozen=True)
class Matrix:
    """A packed matrix: (rows, columns) in `format`, at `offset` of the weights' memory."""

    format: Format
    rows: int
    columns: int
    offset: int


@dataclass(frozen=True)
class Vector:
    """float32 numbers: norms, biases, tables; `shape` at `offset`."""

    shape: tuple[int, ...]
    offset: int


class PackedWeights:
    """All weights of a model in one piece of memory."""

    def __init__(self, memory: mmap.mmap, index: Mapping[str, Matrix | Vector]) -> None:
        self.memory = memory
        self.index = index
        self.bytes = np.frombuffer(memory, np.uint8)

    def address(self, name: str) -> int:
        """Where a matrix or vector lies."""
        return int(self.bytes.ctypes.data) + self.index[name].offset

    def matrix(self, name: str) -> Matrix:
        """A matrix's place."""
        matrix = self.index[name]
        assert isinstance(matrix, Matrix)
        return matrix

    def formats(self) -> Mapping[str, int]:
        """How many weights of which format."""
        sizes: dict[str, int] = {}
        for matrix in self.index.values():
            if isinstance(matrix, Matrix):
                sizes[matrix.format.name] = sizes.get(matrix.format.name, 0) + matrix.rows * matrix.columns
        return sizes


def new_memory(n_bytes: int) -> mmap.mmap:
    """Memory of our own, in large pages where the system has them: weights are streamed through in every step."""
    if hasattr(mmap, "MAP_ANONYMOUS"):
        # private: pages that processes share are never large ones
        memory = mmap.mmap(-1, max(n_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:
        memory = mmap.mmap(-1, max(n_bytes, 1))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def sweep(folder: Path) -> None:
    """Remove the packed weights of models whose files are gone."""
    for file in folder.glob("*.weights"):
        try:
            with file.open("rb") as opened:
                known = opened.read(len(MAGIC)) == MAGIC
                header = json.loads(opened.read(int.from_bytes(opened.read(8), "little"))) if known else {}
            if all(os.path.exists(name) for name, *_ in header["fingerprint"]["files"]):  # noqa: PTH110 — as it was written
                continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.debug("%s is no file of packed weights: %s", file, error)
        with suppress(OSError):
            file.unlink()


def read_file(file: Path, fingerprint: Mapping[str, Any]) -> PackedWeights | None:
    """The weights in a file, or None where it is not there, of something else, or not whole."""
    try:
        with file.open("rb") as opened:
            if opened.read(len(MAGIC)) != MAGIC:
                return None
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
            if header["fingerprint"] != fingerprint:
                return None
            index: dict[str, Matrix | Vector] = {
                name: Matrix(Format(entry["format"]), entry["rows"], entry["columns"], entry["offset"])
                if "format" in entry
                else Vector(tuple(entry["shape"]), entry["offset"])
                for name, entry in header["index"].items()
            }
            start, size = header["start"], header["size"]
            if os.fstat(opened.fileno()).st_size != start + size:
                return None
            opened.seek(start)
            memory = new_memory(size)
            view = memoryview(memory)
            done = 0
            while done < size:
                n = opened.readinto(view[done:])
                if not n:
                    return None
                done += n
            return PackedWeights(memory, index)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.debug("no packed weights in %s: %s", file, error)
        return None


def write_file(file: Path, fingerprint: Mapping[str, Any], packed: PackedWeights) -> None:
    size = len(packed.bytes)
    header = {
        "fingerprint": fingerprint,
        "index": {name: asdict(entry) for name, entry in packed.index.items()},
        "size": size,
        "start": 0,
    }
    # the header says where the weights start, which depends on its own length: 32 digits are room enough
    start = -(-(len(json.dumps(header)) + len(MAGIC) + 8 + 32) // ALIGNMENT) * ALIGNMENT
    text = json.dumps(header | {"start": start}).encode()
    temporary = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as opened:
            opened.write(MAGIC + len(text).to_bytes(8, "little") + text)
            opened.seek(start)
            opened.write(packed.memory)
            opened.flush()
            os.fsync(opened.fileno())  # or a power cut could leave a file of the right size and of zeros
        temporary.replace(file)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        log.warning(
            "the packed weights could not be kept in %s (%s): the next start packs them again", file, error.strerror
        )
