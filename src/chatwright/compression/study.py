"""For study: weights set to zero, and matrices of low rank. Files and speed stay; what is learned is how little is needed.

Unstructured zeros would need sparse products, which processors do not do faster below nine zeros in ten; matrices of low rank would
need two products in place of one, which no format that others read has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from chatwright.compression.layerwise import walk
from chatwright.model.gpt import GPT
from chatwright.training.progress import Progress

Unstructured = Literal["magnitude", "wanda"]
UNSTRUCTURED: tuple[Unstructured, ...] = get_args(Unstructured)


@torch.no_grad()
def zero_weights(model: GPT, ratio: float, method: Unstructured, windows_NT: Tensor | None, progress: Progress) -> None:
    """The least of each row become zero: by size, or (Wanda, Sun et al. 2024) by size times the norm of their input."""
    if method == "wanda":
        assert windows_NT is not None

        def visit(names: Sequence[str], moment_II: Tensor) -> None:
            for name in names:
                _zero(model.get_parameter(f"{name}.weight"), ratio, moment_II.diagonal().sqrt())

        walk(model, windows_NT, visit, progress)
        return
    for weight in matrices(model):
        _zero(weight, ratio, torch.ones(weight.shape[1]))


def _zero(weight_OI: Tensor, ratio: float, norm_I: Tensor) -> None:
    n = int(ratio * weight_OI.shape[1])
    if n:
        weight_OI.scatter_(1, (weight_OI.abs() * norm_I).topk(n, largest=False).indices, 0.0)


@torch.no_grad()
def reduce_rank(model: GPT, ratio: float) -> None:
    """Each matrix by the nearest one (in squares) that two factors with `ratio` fewer numbers can say (Eckart & Young 1936)."""
    for weight in matrices(model):
        rank = max(1, int((1 - ratio) * weight.numel() / sum(weight.shape)))
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        weight.copy_((u[:, :rank] * s[:rank]) @ v[:rank])


def matrices(model: GPT) -> list[Tensor]:
    """Those of the layers: embedding and head stay as they are."""
    return [p for name, p in model.named_parameters() if name.startswith("layers.") and p.dim() == 2]
