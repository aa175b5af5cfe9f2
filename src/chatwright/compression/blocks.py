"""Blocks of 32 weights, exactly as GGUF files and the kernels hold them: Q8_0 (q * d) and Q4_1 (q * d + m), d and m in float16.

Axes: O outputs, I inputs, G blocks of a row (I / 32).
"""

from __future__ import annotations

import numpy as np
import torch
from gguf.constants import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 32
LEVELS = 15  # the largest q of four bits

# By how much the ends of a block's range are drawn in: clipping one weight can make the other 31 finer.
_SHRINK = (1.0, 0.92, 0.84, 0.76, 0.68)
_AT_ONCE = 1 << 20


def round_to_blocks(weight_OI: NDArray[np.float32], kind: Type) -> NDArray[np.uint8]:
    """Rounding, as llama.cpp and the kernels do when they load: (O, bytes of a row)."""
    rows = max(1, _AT_ONCE // weight_OI.shape[-1])
    parts = [quantize(weight_OI[i : i + rows], kind) for i in range(0, len(weight_OI), rows)]
    packed: NDArray[np.uint8] = np.concatenate(parts)
    return packed


def values_of_blocks(packed: NDArray[np.uint8], kind: Type) -> NDArray[np.float32]:
    """What the blocks stand for, (O, I): what is computed with."""
    parts = [dequantize(packed[i : i + 4096], kind) for i in range(0, len(packed), 4096)]
    values: NDArray[np.float32] = np.concatenate(parts)
    return values


def rounding_error(weight_OI: Tensor) -> Tensor:
    """By how much rounding to four bits (Q4_1) changes each weight, (O, I)."""
    weight_OGB = weight_OI.reshape(len(weight_OI), -1, BLOCK)
    low_OG1, high_OG1 = weight_OGB.aminmax(dim=2, keepdim=True)
    scale_OG1 = ((high_OG1 - low_OG1) / LEVELS).clamp(min=torch.finfo(torch.float32).tiny)
    values_OGB = ((weight_OGB - low_OG1) / scale_OG1).round() * scale_OG1 + low_OG1
    error_OI: Tensor = (values_OGB - weight_OGB).flatten(1)
    return error_OI


def fit_range(weight_OB: Tensor, importance_B: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and minimum of one block of each row, (O,) and (O,), both numbers that float16 has.

    Of several ranges, that with the smallest squared error, each weight's error counting as much as `importance_B` says.
    """
    low_O, high_O = weight_OB.amin(1), weight_OB.amax(1)
    best_O = torch.full_like(low_O, torch.inf)
    scale_O, minimum_O = torch.zeros_like(low_O), low_O.clone()
    middle_O = (low_O + high_O) / 2
    for shrink_low in _SHRINK:
        for shrink_high in _SHRINK:
            least_O = middle_O + (low_O - middle_O) * shrink_low
            most_O = middle_O + (high_O - middle_O) * shrink_high
            d_O, m_O = halves((most_O - least_O) / LEVELS), halves(least_O)
            error_OB = rounded(weight_OB, d_O, m_O)[1] - weight_OB
            error_O = (error_OB.square() * importance_B).sum(1)
            better_O = error_O < best_O
            best_O = torch.where(better_O, error_O, best_O)
            scale_O, minimum_O = torch.where(better_O, d_O, scale_O), torch.where(better_O, m_O, minimum_O)
    return scale_O, minimum_O


def rounded(weight: Tensor, scale_O: Tensor, minimum_O: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest q of each weight, and the value that it stands for; `weight` is (O,) or (O, B)."""
    d, m = (scale_O, minimum_O) if weight.dim() == 1 else (scale_O[:, None], minimum_O[:, None])
    q = torch.where(d > 0, (weight - m) / torch.where(d > 0, d, 1), 0).round().clamp(0, LEVELS)
    return q, q * d + m


def pack_q4_1(q_OI: Tensor, scale_OG: Tensor, minimum_OG: Tensor) -> NDArray[np.uint8]:
    """ggml's block_q4_1: d, m, then 16 bytes, whose low halves are weights 0 to 15 and whose high halves are 16 to 31."""
    n_rows, n_blocks = scale_OG.shape
    q = q_OI.to(torch.uint8).numpy().reshape(n_rows, n_blocks, 2, BLOCK // 2)
    nibbles = q[:, :, 0] | (q[:, :, 1] << np.uint8(4))
    halves = np.stack([scale_OG.numpy(), minimum_OG.numpy()], axis=-1).astype("<f2").view(np.uint8)
    return np.ascontiguousarray(np.concatenate([halves, nibbles], axis=-1).reshape(n_rows, -1))


def halves(values: Tensor) -> Tensor:
    """To the nearest numbers that float16 has."""
    return values.half().to(values.dtype)
