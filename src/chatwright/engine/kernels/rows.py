"""The rows of a model's parameters, as the kernels pack them: GGUF blocks where they stay what they are, else floats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from gguf.constants import GGMLQuantizationType
from numpy.typing import NDArray

from chatwright.engine.kernels.library import Format, Source
from chatwright.model.checkpoint import GGUFCheckpoint, SafetensorsCheckpoint

# Blocks of a GGUF file that the kernels hold exactly, and as what.
_BLOCKS: Mapping[GGMLQuantizationType, tuple[Source, Format]] = {
    GGMLQuantizationType.Q8_0: (Source.Q8_0, Format.I8),
    GGMLQuantizationType.Q4_0: (Source.Q4_0, Format.I4),
    GGMLQuantizationType.Q4_1: (Source.Q4_1, Format.I4M),
    GGMLQuantizationType.Q4_K: (Source.Q4_K, Format.I4MF),
}
EXACT = frozenset(_BLOCKS.values())


class Rows(Protocol):
    """A checkpoint's parameters by the decoder's names."""

    def source(self, parameter: str) -> Source:
        """What a parameter can be read as without loss; nothing is read for it."""

    def read(self, parameter: str, source: Source) -> NDArray[Any]:
        """A parameter as that, or as floats (F32): (rows, bytes of a row's blocks) or (rows, columns). Raises InvalidModelError."""


def rows_of(checkpoint: SafetensorsCheckpoint | GGUFCheckpoint) -> Rows:
    """The parameters of a checkpoint."""
    return _GGUFRows(checkpoint) if isinstance(checkpoint, GGUFCheckpoint) else _FolderRows(checkpoint)


class _GGUFRows:
    def __init__(self, checkpoint: GGUFCheckpoint) -> None:
        self._file, self._layout = checkpoint.file, checkpoint.layout

    def source(self, parameter: str) -> Source:
        kind = self._file.tensors[self._layout[parameter].tensor].type
        return _BLOCKS[kind][0] if kind in _BLOCKS else Source.F32

    def read(self, parameter: str, source: Source) -> NDArray[Any]:
        slot = self._layout[parameter]
        if source == Source.F32:
            rows: NDArray[Any] = self._file.read(slot.tensor)
        else:
            rows = self._file.raw(slot.tensor).reshape(self._file.tensors[slot.tensor].shape[0], -1)
        if slot.rows:
            rows = rows[slot.rows[0] : slot.rows[1]]
        if slot.interleaved_heads:
            # whole rows change their places, so blocks stay blocks
            shape = rows.shape
            rows = rows.reshape(slot.interleaved_heads, -1, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        return rows


class _FolderRows:
    def __init__(self, checkpoint: SafetensorsCheckpoint) -> None:
        self._checkpoint = checkpoint

    def source(self, parameter: str) -> Source:
        return Source.F32

    def read(self, parameter: str, source: Source) -> NDArray[np.float32]:
        # by PyTorch: bfloat16 is a stranger to numpy
        from chatwright.model.load import unpacked
        from chatwright.model.tensors import read_tensors

        slot = self._checkpoint.layout[parameter]
        [stored] = read_tensors([self._checkpoint.tensors[slot.tensor]])
        floats: NDArray[np.float32] = unpacked(stored, slot).float().contiguous().numpy()
        return floats
