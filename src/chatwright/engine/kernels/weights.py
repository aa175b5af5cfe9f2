"""A model's weights as the kernels take them: matrices packed into panels, vectors as floats; kept in a file beside the next start.

Precision. GGUF's 4-bit blocks (Q4_0, Q4_1, Q4_K) stay exactly what they are, and so does Q8_0. Everything else becomes what
`Quantization` says: "int8" and "int4" with one scale per 32 weights, "bf16", "fp32". `auto` is int8 for all that is not 4-bit
already: on every model measured (LOG.md) it costs less than 0.2 % of perplexity, rounding to int4 several per cent.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gguf.constants import GGMLQuantizationType
from numpy.typing import NDArray

from chatwright.engine.kernels.library import ABI, PANEL, Kernels
from chatwright.model.checkpoint import GGUFCheckpoint, SafetensorsCheckpoint
from chatwright.model.config import ModelConfig, parameter_shapes

log = logging.getLogger(__name__)

Quantization = Literal["auto", "int8", "int4", "bf16", "fp32"]

MAGIC = b"chatwright packed weights\n"
ALIGNMENT = 4096


class Format(IntEnum):
    """cw_format."""

    F32 = 0
    BF16 = 1
    I8 = 2
    I4 = 3
    I4M = 4
    I4MF = 5


class Source(IntEnum):
    """cw_source."""

    F32 = 0
    Q8_0 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q4_K = 4


# Blocks of a GGUF file that the kernels hold exactly, and as what.
_KEPT: Mapping[GGMLQuantizationType, tuple[Source, Format]] = {
    GGMLQuantizationType.Q8_0: (Source.Q8_0, Format.I8),
    GGMLQuantizationType.Q4_0: (Source.Q4_0, Format.I4),
    GGMLQuantizationType.Q4_1: (Source.Q4_1, Format.I4M),
    GGMLQuantizationType.Q4_K: (Source.Q4_K, Format.I4MF),
}
# int4 by rounding has a minimum of its own in each block: Q4_1 is a good deal better than Q4_0, for a tenth more bytes.
_FORMATS: Mapping[Quantization, Format] = {
    "auto": Format.I8,
    "int8": Format.I8,
    "int4": Format.I4M,
    "bf16": Format.BF16,
    "fp32": Format.F32,
}


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
    """All weights of a model in one piece of memory. `quantization`: what was chosen for what the file did not decide."""

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
        """How many bytes of which format."""
        sizes: dict[str, int] = {}
        for matrix in self.index.values():
            if isinstance(matrix, Matrix):
                sizes[matrix.format.name] = sizes.get(matrix.format.name, 0) + matrix.rows * matrix.columns
        return sizes


@dataclass(frozen=True)
class Piece:
    """Rows of one parameter: as GGUF blocks (uint8, (rows, row bytes)) or as floats (rows, columns)."""

    source: Source
    rows: NDArray[Any]
    columns: int


Read = Callable[[str, bool], Piece]


def fused_matrices(config: ModelConfig) -> dict[str, list[str]]:
    """Name of a matrix → the parameters whose rows it holds, one after the other: those with the same input are one product."""
    matrices = {"embed": ["embed.weight"]}
    if not config.tied:
        matrices["head"] = ["head.weight"]
    for i in range(config.n_layer):
        layer, attention, ffn = f"layers.{i}", f"layers.{i}.attention", f"layers.{i}.feed_forward"
        matrices[f"{layer}.qkv"] = [f"{attention}.{name}.weight" for name in "qkv"]
        matrices[f"{layer}.out"] = [f"{attention}.out.weight"]
        matrices[f"{layer}.up"] = [f"{ffn}.{name}.weight" for name in (["gate"] if config.gated else []) + ["up"]]
        matrices[f"{layer}.down"] = [f"{ffn}.down.weight"]
    return matrices


def vectors(config: ModelConfig) -> dict[str, list[str]]:
    """Name of a vector → the parameters that it holds, one after the other."""
    shapes = parameter_shapes(config)
    fused = fused_matrices(config)
    in_matrix = {name for names in fused.values() for name in names}
    found = {name: [name] for name in shapes if name not in in_matrix and not name.endswith(".bias")}
    norms = {name.removesuffix(".bias") for name in shapes if "norm" in name and name.endswith(".bias")}
    found |= {f"{name}.bias": [f"{name}.bias"] for name in norms}
    for matrix, names in fused.items():
        biases = [name.removesuffix(".weight") + ".bias" for name in names]
        if biases[0] in shapes:
            found[f"{matrix}.bias"] = biases
    return found


def load_weights(
    kernels: Kernels,
    checkpoint: SafetensorsCheckpoint | GGUFCheckpoint,
    quantization: Quantization,
    store: Path | None,
) -> PackedWeights:
    """The packed weights of a checkpoint: from the file in the folder `store` where that is of this checkpoint, else packed, and
    put there. A file that can not be written is no error: the next start packs again. Raises InvalidModelError for files that can
    not be read.
    """
    fingerprint = _fingerprint(checkpoint, quantization)
    file = None
    if store is not None:
        file = store / f"{hashlib.sha256(str(checkpoint.path).encode()).hexdigest()[:16]}-{quantization}.weights"
        if (found := _read_file(file, fingerprint)) is not None:
            return found
    packed = pack(kernels, checkpoint.config, reader(checkpoint), quantization)
    if file is not None:
        _write_file(file, fingerprint, packed)
    return packed


def pack(kernels: Kernels, config: ModelConfig, read: Read, quantization: Quantization) -> PackedWeights:
    """Lay out and pack all weights; `read` gives a parameter's rows, as blocks where it may and can."""
    fused, shapes = fused_matrices(config), parameter_shapes(config)
    index: dict[str, Matrix | Vector] = {}
    end = 0
    pieces: dict[str, list[tuple[str, Format, list[str]]]] = {}
    for name, parameters in fused.items():
        formats = [_format_of(read, parameter, quantization) for parameter in parameters]
        together = len(set(formats)) == 1
        rows = [shapes[parameter][0] for parameter in parameters]
        if not together and any(n % PANEL for n in rows):
            # parts of several formats begin at whole panels, or all become one format
            formats, together = [_FORMATS[quantization]] * len(formats), True
        parts = (
            [(name, formats[0], parameters)]
            if together
            else [
                (f"{name}.{i}", form, [parameter])
                for i, (form, parameter) in enumerate(zip(formats, parameters, strict=True))
            ]
        )
        pieces[name] = parts
        for part, form, members in parts:
            n_rows, columns = sum(shapes[member][0] for member in members), shapes[members[0]][1]
            index[part] = Matrix(form, n_rows, columns, end)
            end = _aligned(end + kernels.c.cw_packed_bytes(form, n_rows, columns))
    for name, members in vectors(config).items():
        shape = shapes[members[0]] if len(members) == 1 else (sum(shapes[member][0] for member in members),)
        index[name] = Vector(shape, end)
        # a whole panel is read of a bias
        end = _aligned(end + 4 * -(-int(np.prod(shape)) // PANEL) * PANEL)
    packed = PackedWeights(_memory(end), index)
    for parts in pieces.values():
        for part, form, members in parts:
            rows_of = [_read_as(read, member, form) for member in members]
            if (
                len({piece.source for piece in rows_of}) > 1
            ):  # of GGUF's mixtures: as floats, blocks round to themselves
                rows_of = [read(member, False) for member in members]
            _pack_matrix(kernels, packed, part, form, rows_of)
    for name, members in vectors(config).items():
        values = np.concatenate([read(member, False).rows.ravel() for member in members]).astype(np.float32)
        start = index[name].offset
        packed.bytes[start : start + values.nbytes] = values.view(np.uint8)
    return packed


def reader(checkpoint: SafetensorsCheckpoint | GGUFCheckpoint) -> Read:
    """How a parameter's rows are read from a checkpoint."""
    if isinstance(checkpoint, GGUFCheckpoint):
        return _gguf_reader(checkpoint)
    return _folder_reader(checkpoint)


def _gguf_reader(checkpoint: GGUFCheckpoint) -> Read:
    file, layout = checkpoint.file, checkpoint.layout

    def read(parameter: str, exact: bool) -> Piece:
        slot = layout[parameter]
        tensor = file.tensors[slot.tensor]
        kept = _KEPT.get(tensor.type) if exact else None
        if kept is None:
            rows: NDArray[Any] = file.read(slot.tensor)
        else:
            rows = file.raw(slot.tensor).reshape(tensor.shape[0], -1)
        if slot.rows:
            rows = rows[slot.rows[0] : slot.rows[1]]
        if slot.interleaved_heads:
            # whole rows change their places, so blocks stay blocks
            shape = rows.shape
            rows = rows.reshape(slot.interleaved_heads, -1, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        return Piece(kept[0] if kept else Source.F32, rows, tensor.shape[-1])

    return read


def _folder_reader(checkpoint: SafetensorsCheckpoint) -> Read:
    # bfloat16 is a stranger to numpy
    from chatwright.model.load import unpacked
    from chatwright.model.tensors import read_tensors

    def read(parameter: str, exact: bool) -> Piece:
        del exact
        slot = checkpoint.layout[parameter]
        [stored] = read_tensors([checkpoint.tensors[slot.tensor]])
        rows = unpacked(stored, slot).float().contiguous().numpy()
        return Piece(Source.F32, rows, rows.shape[-1])

    return read


def _read_as(read: Read, parameter: str, form: Format) -> Piece:
    """Blocks where the format holds them exactly, else floats."""
    piece = read(parameter, True)
    return piece if (piece.source, form) in _KEPT.values() else read(parameter, False)


def _format_of(read: Read, parameter: str, quantization: Quantization) -> Format:
    if quantization in ("auto", "int8", "int4"):
        source = read(parameter, True).source
        for kept, form in _KEPT.values():
            # what has 8 bits becomes 4 where that is asked for; what has 4 does not get better by 8
            if kept == source and not (quantization == "int4" and form == Format.I8):
                return form
    return _FORMATS[quantization]


def _pack_matrix(kernels: Kernels, packed: PackedWeights, name: str, form: Format, pieces: Sequence[Piece]) -> None:
    matrix = packed.matrix(name)
    assert len({piece.source for piece in pieces}) == 1, "blocks of another format are read as floats"
    rows = np.ascontiguousarray(np.concatenate([piece.rows for piece in pieces]) if len(pieces) > 1 else pieces[0].rows)
    failed = kernels.c.cw_pack(
        form, pieces[0].source, rows.ctypes.data, rows.strides[0], matrix.rows, matrix.columns, packed.address(name)
    )
    assert not failed, (form, pieces[0].source)


def _memory(n_bytes: int) -> mmap.mmap:
    """Memory of our own, in large pages where the system has them: weights are streamed through in every step."""
    if hasattr(mmap, "MAP_ANONYMOUS"):
        # private: pages that processes share are never large ones
        memory = mmap.mmap(-1, max(n_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:
        memory = mmap.mmap(-1, max(n_bytes, 1))
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _aligned(n: int) -> int:
    return -(-n // 64) * 64


def _fingerprint(checkpoint: SafetensorsCheckpoint | GGUFCheckpoint, quantization: Quantization) -> dict[str, Any]:
    if isinstance(checkpoint, GGUFCheckpoint):
        files = [checkpoint.path]
    else:
        files = sorted({tensor.file for tensor in checkpoint.tensors.values()})
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return {
        "abi": ABI,
        "quantization": quantization,
        "files": [list(stat) for stat in stats],
        "config": repr(checkpoint.config),
    }


def _read_file(file: Path, fingerprint: Mapping[str, Any]) -> PackedWeights | None:
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
            memory = _memory(size)
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


def _write_file(file: Path, fingerprint: Mapping[str, Any], packed: PackedWeights) -> None:
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
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        log.warning(
            "the packed weights could not be kept in %s (%s): the next start packs them again", file, error.strerror
        )


def unpack(kernels: Kernels, packed: PackedWeights, name: str) -> NDArray[np.float32]:
    """A packed matrix as floats (rows, columns): what the kernels compute with."""
    matrix = packed.matrix(name)
    values = np.empty((matrix.rows, matrix.columns), np.float32)
    kernels.c.cw_unpack(matrix.format, packed.address(name), matrix.rows, matrix.columns, values.ctypes.data)
    return values


def parts_of(packed: PackedWeights, name: str) -> Iterator[tuple[str, int]]:
    """The packed matrices that make up a fused one, and the column of the output that each begins at."""
    if name in packed.index:
        yield name, 0
        return
    column = 0
    for i in range(3):
        if (part := f"{name}.{i}") in packed.index:
            yield part, column
            column += packed.matrix(part).rows
