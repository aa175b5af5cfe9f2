"""The rows of a model's parameters, as the kernels pack them: GGUF blocks where they stay what they are, else floats.

All of them are looked through: rounding to blocks makes an ordinary number of NaN, and the model would go on talking.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from gguf.constants import GGMLQuantizationType
from numpy.typing import NDArray

from chatwright.engine.kernels.library import Format, Source
from chatwright.errors import InvalidModelError
from chatwright.model.checkpoint import GGUFCheckpoint, SafetensorsCheckpoint

# Blocks of a GGUF file that the kernels hold exactly, and as what.
_BLOCKS: Mapping[GGMLQuantizationType, tuple[Source, Format]] = {
    GGMLQuantizationType.Q8_0: (Source.Q8_0, Format.I8),
    GGMLQuantizationType.Q4_0: (Source.Q4_0, Format.I4),
    GGMLQuantizationType.Q4_1: (Source.Q4_1, Format.I4M),
    GGMLQuantizationType.Q4_K: (Source.Q4_K, Format.I4MF),
}
EXACT = frozenset(_BLOCKS.values())
# Of those blocks, the 16-bit words of each, and how many of them, the first, are scales in half precision.
_SCALES: Mapping[Source, tuple[int, int]] = {
    Source.Q8_0: (17, 1),
    Source.Q4_0: (9, 1),
    Source.Q4_1: (10, 2),
    Source.Q4_K: (72, 2),
}
_HALF_EXPONENT = 0x7C00  # all ones: infinity or NaN


class Rows(Protocol):
    """A checkpoint's parameters by the decoder's names."""

    def source(self, parameter: str) -> Source:
        """What a parameter can be read as without loss; nothing is read for it."""

    def read(self, parameter: str, source: Source) -> NDArray[Any]:
        """A parameter as that, or as floats (F32): (rows, bytes of a row's blocks) or (rows, columns).

        Raises InvalidModelError, also for one that holds NaN or infinity.
        """


def rows_of(checkpoint: SafetensorsCheckpoint | GGUFCheckpoint) -> Rows:
    """The parameters of a checkpoint."""
    return _GGUFRows(checkpoint) if isinstance(checkpoint, GGUFCheckpoint) else _FolderRows(checkpoint)


class _GGUFRows:
    def __init__(self, checkpoint: GGUFCheckpoint) -> None:
        self._path, self._file, self._layout = checkpoint.path, checkpoint.file, checkpoint.layout

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
        check_finite(rows, source, self._path, parameter)
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
        check_finite(floats, Source.F32, self._checkpoint.path, parameter)
        return floats


def check_finite(rows: NDArray[Any], source: Source, path: Path, parameter: str) -> None:
    """Raises InvalidModelError where floats, or scales of blocks, are NaN or infinite."""
    if source == Source.F32:
        # both are NaN where one number is; as fast as `isfinite`, without the memory for its answers
        finite = bool(np.isfinite(rows.min()) and np.isfinite(rows.max()))
    else:
        words, n_scales = _SCALES[source]
        blocks = rows.view(np.uint16).reshape(-1, words)
        finite = all(int((blocks[:, i] & _HALF_EXPONENT).max()) < _HALF_EXPONENT for i in range(n_scales))
    if not finite:
        raise InvalidModelError(
            "{path}: the parameter {parameter} holds numbers that are not finite (NaN or infinity). The model is broken: take its"
            " last good checkpoint, or fetch it again.",
            path=path,
            parameter=parameter,
        )
