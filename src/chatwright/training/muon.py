"""Muon (Jordan 2024) as PyTorch has it, in the precision of the run and with equal matrices together.

`torch.optim.Muon` orthogonalises in bfloat16 always. On a processor without bfloat16 products that is slower than float32, and its
rounding blows up the last digits of a gradient: runs that differ only in how a step is cut into micro-batches or processes parted
after some steps by more than the 1e-5 that our tests allow. State, hyper-parameters and update rule are PyTorch's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# The quintic's coefficients, of steepest slope at zero (https://kellerjordan.github.io/posts/muon/), and its number of iterations.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5
_EPS = 1e-7


class Muon(torch.optim.Muon):
    """`dtype`: of the iteration. Decay is left to the caller (see `optimizer`)."""

    def __init__(self, params: list[Tensor], *, lr: float, momentum: float, dtype: torch.dtype) -> None:
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=0.0)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            momentum, lr = group["momentum"], group["lr"]
            same: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    same[parameter.shape].append(parameter)
            for shape, parameters in same.items():
                gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
                buffers = [self._buffer(parameter) for parameter in parameters]
                torch._foreach_lerp_(buffers, gradients, 1 - momentum)
                # Nesterov: the gradient, moved towards where the average has just gone
                updates_KMN = torch.stack(torch._foreach_lerp(gradients, buffers, momentum))
                orthogonal_KMN = orthogonalise(updates_KMN, self.dtype)
                scale = -lr * max(1, shape[0] / shape[1]) ** 0.5
                torch._foreach_add_(parameters, list(orthogonal_KMN.to(parameters[0].dtype).unbind()), alpha=scale)

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def orthogonalise(x_KMN: Tensor, dtype: torch.dtype) -> Tensor:
    """Each of K matrices with all its singular values moved near 1 (0.7 to 1.2), by Newton–Schulz iterations."""
    x = x_KMN.to(dtype)
    if tall := x.shape[1] > x.shape[2]:
        x = x.mT
    x = x / x.flatten(1).norm(dim=1).clamp(min=_EPS)[:, None, None]
    for _ in range(_STEPS):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if tall else x
