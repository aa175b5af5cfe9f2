"""One operation as a program of its own: the kernels are tested through the same door that the engine uses."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatwright.engine.kernels.library import (
    Cache,
    Kernels,
    Op,
    Shape,
    Span,
    Step,
    Unavailable,
    library_path,
    open_library,
)

Array = NDArray[np.float32]


def all_kernels() -> list[Kernels]:
    """The library once for each instruction set that this processor has."""
    path = library_path()
    assert path is not None, "the compiled kernels are not installed: make install-dev"
    found = []
    for name in ("avx512vnni", "avx512", "avx2", "neon", "portable"):
        kernels = open_library(path, name)
        if not isinstance(kernels, Unavailable):
            found.append(kernels)
    return found


@dataclass
class Heads:
    """The shape of a cache."""

    n_layers: int = 1
    n_kv_heads: int = 1
    head_dim: int = 32
    n_blocks: int = 1
    cache: Cache = Cache.F16


class Machine:
    """An engine over a list of operations. Rows go in as embeddings and come out as logits."""

    def __init__(
        self,
        kernels: Kernels,
        ops: list[Op],
        widths: list[int],
        *,
        rows: int,
        n_threads: int = 1,
        heads: Heads | None = None,
    ) -> None:
        heads = heads or Heads()
        self.kernels = kernels
        n_heads = heads.n_blocks * heads.n_layers * heads.n_kv_heads
        sizes = [n_heads * kernels.c.cw_cache_bytes(heads.cache, heads.head_dim, values) for values in (False, True)]
        # What was never written is NaN, or huge where it has to be finite: whoever reads it is found out.
        self.keys, self.values = (np.full(size, 0x7F if heads.cache == Cache.I8 else 0xFF, np.uint8) for size in sizes)
        self._widths = np.array(widths, np.int32)
        shape = Shape(
            n_ops=len(ops),
            n_buffers=len(widths),
            max_tokens=rows,
            n_layers=heads.n_layers,
            n_kv_heads=heads.n_kv_heads,
            head_dim=heads.head_dim,
            n_cache_blocks=heads.n_blocks,
            n_threads=n_threads,
            cache=heads.cache,
            ops=(Op * len(ops))(*ops),
            widths=self._widths.ctypes.data,
            keys=self.keys.ctypes.data,
            values=self.values.ctypes.data,
        )
        self.engine = kernels.c.cw_create(ctypes.byref(shape), kernels.isa)
        assert self.engine, "the engine refused the program"

    def run(
        self,
        ids: list[int],
        *,
        spans: list[tuple[int, int, list[int]]] | None = None,
        wanted: list[int] | None = None,
        width: int,
        adapters: list[int] | None = None,
    ) -> Array:
        """Run a step; `spans`: (tokens, position of the first, blocks) of each sequence. The logits of the wanted rows."""
        spans = spans or [(len(ids), 0, [0] * (len(ids) // 16 + 1))]
        wanted = list(range(len(ids))) if wanted is None else wanted
        ids_array, rows = np.array(ids, np.int32), np.array(wanted, np.int32)
        positions = np.concatenate([np.arange(p, p + n, dtype=np.int32) for n, p, _ in spans])
        tables = [np.array(blocks, np.int32) for _, _, blocks in spans]
        first = np.concatenate([[0], np.cumsum([n for n, _, _ in spans])])
        array = np.zeros(len(spans), np.dtype(Span))
        for i, (n, position, _) in enumerate(spans):
            array[i] = (first[i], n, position, -1 if adapters is None else adapters[i], tables[i].ctypes.data)
        out = np.full((len(wanted), width), np.nan, np.float32)
        step = Step(
            n_tokens=len(ids),
            n_sequences=len(spans),
            n_wanted=len(wanted),
            logits_stride=width,
            ids=ids_array.ctypes.data,
            positions=positions.ctypes.data,
            sequences=array.ctypes.data,
            wanted=rows.ctypes.data,
            logits=out.ctypes.data,
        )
        assert self.kernels.c.cw_run(self.engine, ctypes.byref(step)) == 0
        return out

    def close(self) -> None:
        self.kernels.c.cw_destroy(self.engine)


def packed(kernels: Kernels, form: int, source: int, rows: NDArray, columns: int) -> NDArray[np.uint8]:
    """Packed weights, 64 bytes aligned."""
    rows = np.ascontiguousarray(rows)
    size = kernels.c.cw_packed_bytes(form, len(rows), columns)
    room = np.zeros(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    place = room[start : start + size]
    assert (
        kernels.c.cw_pack(form, source, rows.ctypes.data, rows.strides[0], len(rows), columns, place.ctypes.data) == 0
    )
    return place


def unpacked(kernels: Kernels, form: int, place: NDArray[np.uint8], n_rows: int, columns: int) -> Array:
    values = np.empty((n_rows, columns), np.float32)
    kernels.c.cw_unpack(form, place.ctypes.data, n_rows, columns, values.ctypes.data)
    return values
