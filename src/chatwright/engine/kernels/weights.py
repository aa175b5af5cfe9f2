"""Which weights of a model become what for the kernels: matrices packed into panels, vectors as floats.

Precision. GGUF's 4-bit blocks (Q4_0, Q4_1, Q4_K) stay exactly what they are, and so does Q8_0. Everything else becomes what
`Quantization` says: "int8" and "int4" with one scale per 32 weights, "bf16", "fp32". `auto` is int8 for all that is not 4-bit
already. With 8-bit activations that cost 0.1 % of SmolLM2 135M's perplexity and 0.2 to 0.4 % of Gemma 3 270M's, both from 4-bit
files; rounding the former again to int4 cost 8 %.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chatwright.engine.kernels.library import ABI, PANEL, Format, Kernels, Source
from chatwright.engine.kernels.packed import Matrix, PackedWeights, Vector, new_memory, read_file, sweep, write_file
from chatwright.engine.kernels.rows import EXACT, Rows, rows_of
from chatwright.model.checkpoint import GGUFCheckpoint, SafetensorsCheckpoint
from chatwright.model.config import ModelConfig, parameter_shapes

Quantization = Literal["auto", "int8", "int4", "bf16", "fp32"]

# int4 by rounding has a minimum of its own in each block: Q4_1 is a good deal better than Q4_0, for a tenth more bytes.
_FORMATS: Mapping[Quantization, Format] = {
    "auto": Format.I8,
    "int8": Format.I8,
    "int4": Format.I4M,
    "bf16": Format.BF16,
    "fp32": Format.F32,
}


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
        if (found := read_file(file, fingerprint)) is not None:
            return found
    packed = pack(kernels, checkpoint.config, rows_of(checkpoint), quantization)
    if store is not None and file is not None:
        sweep(store)
        write_file(file, fingerprint, packed)
    return packed


def pack(kernels: Kernels, config: ModelConfig, source: Rows, quantization: Quantization) -> PackedWeights:
    """Lay out and pack all weights. Each parameter is read once. Raises InvalidModelError, also for NaN and infinity."""
    fused, shapes = fused_matrices(config), parameter_shapes(config)
    index: dict[str, Matrix | Vector] = {}
    end = 0
    pieces: dict[str, list[tuple[str, Format, list[str]]]] = {}
    for name, parameters in fused.items():
        formats = [_format_of(source.source(parameter), quantization) for parameter in parameters]
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
    packed = PackedWeights(new_memory(end), index)
    for parts in pieces.values():
        for part, form, members in parts:
            _pack_matrix(kernels, packed, source, part, form, members)
    for name, members in vectors(config).items():
        values = np.concatenate([source.read(member, Source.F32).ravel() for member in members]).astype(np.float32)
        start = index[name].offset
        packed.bytes[start : start + values.nbytes] = values.view(np.uint8)
    return packed


def _format_of(source: Source, quantization: Quantization) -> Format:
    if quantization in ("auto", "int8", "int4"):
        for kept, form in EXACT:
            # what has 8 bits becomes 4 where that is asked for; what has 4 does not get better by 8
            if kept == source and not (quantization == "int4" and form == Format.I8):
                return form
    return _FORMATS[quantization]


def _pack_matrix(
    kernels: Kernels, packed: PackedWeights, rows: Rows, name: str, form: Format, members: Sequence[str]
) -> None:
    matrix = packed.matrix(name)
    sources = {rows.source(member) for member in members}
    # Of several formats, or not of this one: as floats. Blocks round to themselves.
    source = sources.pop() if len(sources) == 1 else Source.F32
    if (source, form) not in EXACT:
        source = Source.F32
    pieces = [rows.read(member, source) for member in members]
    together = np.ascontiguousarray(np.concatenate(pieces) if len(pieces) > 1 else pieces[0])
    failed = kernels.c.cw_pack(
        form, source, together.ctypes.data, together.strides[0], matrix.rows, matrix.columns, packed.address(name)
    )
    assert not failed, (form, source)


def _fingerprint(checkpoint: SafetensorsCheckpoint | GGUFCheckpoint, quantization: Quantization) -> dict[str, Any]:
    if isinstance(checkpoint, GGUFCheckpoint):
        files = [checkpoint.path]
    else:
        files = sorted({tensor.file for tensor in checkpoint.tensors.values()})
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return {
        "abi": ABI,
        "finite": True,  # what was packed before that was looked at is packed again
        "quantization": quantization,
        "files": [list(stat) for stat in stats],
        "config": repr(checkpoint.config),
    }


def _aligned(n: int) -> int:
    return -(-n // 64) * 64


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
