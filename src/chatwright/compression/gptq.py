"""GPTQ (Frantar et al. 2023): 4-bit weights chosen one input after the other, each error made good by the inputs still to come.

What is kept small is not the error of the weights but that of the outputs on real text, which the second moment of the inputs
(`hessian_II`, the sum of x xᵀ) is enough to know. Inputs are taken in the order of their activity, whole blocks at a time: so a
block's scale and minimum are chosen when it is its turn, for what earlier errors have made of its weights.

Greedy as that is, what it has chosen is improved in turns afterwards: all scales and minima of a row at once by least squares, for
the integers as they are; then each integer once, for all others as they are (coordinate descent, as in QuantEase, Behdin et al.
2023). Two turns take an eighth off the error of the outputs, for as much time as the greedy pass.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chatwright.compression.blocks import BLOCK, fit_range, halves, pack_q4_1, rounded

# Added to the diagonal, as a share of its mean: without, directions that the calibration text never took would cost nothing.
DAMPING = 0.01
TURNS = 2
_ROWS = 256  # whose scales are solved for at once


def gptq(weight_OI: Tensor, hessian_II: Tensor, damping: float = DAMPING) -> NDArray[np.uint8]:
    """The matrix as rows of Q4_1 blocks. I is a multiple of 32."""
    hessian_II = _damped(hessian_II, damping)
    order_I = _order(hessian_II.diagonal())
    q_OI, scale_OG, minimum_OG = _greedy(weight_OI.double(), hessian_II, order_I)
    weight_OI, hessian_II = weight_OI.float(), hessian_II.float()
    error_O = _error(weight_OI, hessian_II, q_OI, scale_OG, minimum_OG)
    for _turn in range(TURNS):
        tried_OI = q_OI.clone()
        tried_scale_OG, tried_minimum_OG = _scales(weight_OI, hessian_II, q_OI, scale_OG, minimum_OG)
        _integers(weight_OI, hessian_II, tried_OI, tried_scale_OG, tried_minimum_OG, order_I)
        tried_O = _error(weight_OI, hessian_II, tried_OI, tried_scale_OG, tried_minimum_OG)
        # float16 has no scale between two of its numbers, and a system may be near singular: a row may get worse, or infinite
        better_O1 = (tried_O < error_O)[:, None]
        q_OI = torch.where(better_O1, tried_OI, q_OI)
        scale_OG = torch.where(better_O1, tried_scale_OG, scale_OG)
        minimum_OG = torch.where(better_O1, tried_minimum_OG, minimum_OG)
        error_O = torch.where(better_O1[:, 0], tried_O, error_O)
    return pack_q4_1(q_OI, scale_OG, minimum_OG)


def _error(weight_OI: Tensor, hessian_II: Tensor, q_OI: Tensor, scale_OG: Tensor, minimum_OG: Tensor) -> Tensor:
    """Of each row's outputs, squared; infinite where it is no number."""
    off_OI = weight_OI - _values(q_OI, scale_OG, minimum_OG)
    return ((off_OI @ hessian_II) * off_OI).sum(1).nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=torch.inf)


def _damped(hessian_II: Tensor, damping: float) -> Tensor:
    hessian_II = hessian_II.double().clone()
    diagonal = hessian_II.diagonal()
    diagonal[diagonal == 0] = diagonal.mean().clamp(min=1e-12)  # inputs that are always zero
    diagonal += damping * diagonal.mean()
    return hessian_II


def _greedy(weight_OI: Tensor, hessian_II: Tensor, order_I: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q_OI, scale_OG and minimum_OG, in float32."""
    n_out, n_in = weight_OI.shape
    hessian_II = hessian_II[order_I][:, order_I]
    weight_OI = weight_OI[:, order_I]
    # row i of the factor says how an error at input i is made good by the later ones
    factor_II = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian_II)), upper=True).float()
    weight_OI = weight_OI.float()
    q_OI = torch.empty(n_out, n_in)
    scale_OG, minimum_OG = torch.empty(2, n_out, n_in // BLOCK)
    for start in range(0, n_in, BLOCK):
        end = start + BLOCK
        place = order_I[start:end]
        part_OB, error_OB = weight_OI[:, start:end].clone(), torch.empty(n_out, BLOCK)
        own_BB = factor_II[start:end, start:end]
        scale_O, minimum_O = fit_range(part_OB, own_BB.diagonal().reciprocal().square())
        for i in range(BLOCK):
            q_O, value_O = rounded(part_OB[:, i], scale_O, minimum_O)
            error_OB[:, i] = (part_OB[:, i] - value_O) / own_BB[i, i]
            part_OB[:, i + 1 :] -= torch.outer(error_OB[:, i], own_BB[i, i + 1 :])
            q_OI[:, place[i]] = q_O
        weight_OI[:, end:] -= error_OB @ factor_II[start:end, end:]
        group = int(place[0]) // BLOCK
        scale_OG[:, group], minimum_OG[:, group] = scale_O, minimum_O
    return q_OI, scale_OG, minimum_OG


def _scales(
    weight_OI: Tensor, hessian_II: Tensor, q_OI: Tensor, scale_OG: Tensor, minimum_OG: Tensor
) -> tuple[Tensor, Tensor]:
    """The scales and minima that serve these integers best: for each row 2 G unknowns, all its blocks at once."""
    n_blocks = scale_OG.shape[1]
    hessian_GBGB = hessian_II.view(n_blocks, BLOCK, n_blocks, BLOCK)
    off_OI = (weight_OI - _values(q_OI, scale_OG, minimum_OG)) @ hessian_II
    found = []
    for q_oI, off_oI in zip(torch.split(q_OI, _ROWS), torch.split(off_OI, _ROWS), strict=True):
        q_oGB, off_oGB = q_oI.view(-1, n_blocks, BLOCK), off_oI.view(-1, n_blocks, BLOCK)
        moved_oGGB = torch.einsum("ogi,gihj->oghj", q_oGB, hessian_GBGB)
        ss_oGG = torch.einsum("oghj,ohj->ogh", moved_oGGB, q_oGB)
        sm_oGG = moved_oGGB.sum(-1)
        mm_oGG = hessian_GBGB.sum((1, 3)).expand_as(ss_oGG)
        system = torch.cat([torch.cat([ss_oGG, sm_oGG], 2), torch.cat([sm_oGG.mT, mm_oGG], 2)], 1).double()
        # blocks all of whose integers are alike have no scale to speak of
        system.diagonal(dim1=1, dim2=2).mul_(1 + 1e-4).add_(1e-9 * system.diagonal(dim1=1, dim2=2).mean())
        found.append(torch.linalg.solve(system, torch.cat([(off_oGB * q_oGB).sum(-1), off_oGB.sum(-1)], 1).double()))
    scale, minimum = torch.split(torch.cat(found).float(), n_blocks, 1)
    scale, minimum = scale + scale_OG, minimum + minimum_OG
    fit = scale > 0
    return torch.where(fit, halves(scale), scale_OG), torch.where(fit, halves(minimum), minimum_OG)


def _integers(
    weight_OI: Tensor, hessian_II: Tensor, q_OI: Tensor, scale_OG: Tensor, minimum_OG: Tensor, order_I: Tensor
) -> None:
    """Every integer, one input after the other, as all others now want it; in place."""
    off_OI = weight_OI - _values(q_OI, scale_OG, minimum_OG)
    for i in order_I.tolist():
        scale_O, minimum_O = scale_OG[:, i // BLOCK], minimum_OG[:, i // BLOCK]
        wanted_O = weight_OI[:, i] - off_OI[:, i] + (off_OI @ hessian_II[:, i]) / hessian_II[i, i]
        q_OI[:, i], value_O = rounded(wanted_O, scale_O, minimum_O)
        off_OI[:, i] = weight_OI[:, i] - value_O


def _values(q_OI: Tensor, scale_OG: Tensor, minimum_OG: Tensor) -> Tensor:
    return q_OI * scale_OG.repeat_interleave(BLOCK, 1) + minimum_OG.repeat_interleave(BLOCK, 1)


def _order(activity_I: Tensor) -> Tensor:
    """Indices of inputs: the most active block first, and in it the most active input."""
    activity_GB = activity_I.reshape(-1, BLOCK)
    inner_GB = activity_GB.argsort(1, descending=True) + BLOCK * torch.arange(len(activity_GB))[:, None]
    return inner_GB[activity_GB.sum(1).argsort(descending=True)].flatten()
