"""GPTQ (Frantar et al. 2023): 4-bit weights chosen one input after the other, each error made good by the inputs still to come.

What is kept small is not the error of the weights but that of the outputs on real text, which the second moment of the inputs
(`hessian_II`, the sum of x xᵀ) is enough to know. Inputs are taken in the order of their activity, whole blocks at a time: so a
block's scale and minimum are chosen when it is its turn, for what earlier errors have made of its weights.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chatwright.compression.blocks import BLOCK, fit_range, pack_q4_1, rounded

# Added to the diagonal, as a share of its mean: without, directions that the calibration text never took would cost nothing.
DAMPING = 0.01


def gptq(weight_OI: Tensor, hessian_II: Tensor, damping: float = DAMPING) -> NDArray[np.uint8]:
    """The matrix as rows of Q4_1 blocks. I is a multiple of 32."""
    n_out, n_in = weight_OI.shape
    order_I = _order(hessian_II.diagonal())
    hessian_II = hessian_II.double()[order_I][:, order_I]
    weight_OI = weight_OI.double()[:, order_I]
    diagonal = hessian_II.diagonal()
    diagonal[diagonal == 0] = diagonal.mean().clamp(min=1e-12)  # inputs that are always zero
    diagonal += damping * diagonal.mean()
    # row i of the factor says how an error at input i is made good by the later ones
    factor_II = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian_II)), upper=True)
    q_OI = torch.empty(n_out, n_in, dtype=torch.uint8)
    scale_OG, minimum_OG = torch.empty(2, n_out, n_in // BLOCK, dtype=torch.float64)
    for start in range(0, n_in, BLOCK):
        end = start + BLOCK
        place = order_I[start:end]
        part_OB, error_OB = weight_OI[:, start:end].clone(), torch.empty(n_out, BLOCK, dtype=torch.float64)
        own_BB = factor_II[start:end, start:end]
        scale_O, minimum_O = fit_range(part_OB, own_BB.diagonal().reciprocal().square())
        for i in range(BLOCK):
            q_O, value_O = rounded(part_OB[:, i], scale_O, minimum_O)
            error_OB[:, i] = (part_OB[:, i] - value_O) / own_BB[i, i]
            part_OB[:, i + 1 :] -= torch.outer(error_OB[:, i], own_BB[i, i + 1 :])
            q_OI[:, place[i]] = q_O.to(torch.uint8)
        weight_OI[:, end:] -= error_OB @ factor_II[start:end, end:]
        group = int(place[0]) // BLOCK
        scale_OG[:, group], minimum_OG[:, group] = scale_O, minimum_O
    return pack_q4_1(q_OI, scale_OG, minimum_OG)


def _order(activity_I: Tensor) -> Tensor:
    """Indices of inputs: the most active block first, and in it the most active input."""
    activity_GB = activity_I.reshape(-1, BLOCK)
    inner_GB = activity_GB.argsort(1, descending=True) + BLOCK * torch.arange(len(activity_GB))[:, None]
    return inner_GB[activity_GB.sum(1).argsort(descending=True)].flatten()
