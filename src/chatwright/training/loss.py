"""Next-token cross-entropy without the logits of a whole batch at once: they are the largest tensor of a small model.

16k tokens of a vocabulary of 32k are 2.1 GB of float32. In chunks, the loss and its gradients are the same sums in another
order; litgpt and torchtitan hold theirs to the plain loss by the same test as ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

IGNORE = -100  # a target that is not to be predicted, torch's and Transformers' convention


def most_logits(device: torch.device) -> int:
    """How many at a time. 8 MiB of float32 on a processor, whose caches hold that: forward and backward of 4,096 tokens over a
    vocabulary of 8,192 take 0.4 s, with 32 MiB 0.65 s, with 1 MiB 0.7 s. A GPU wants larger products.
    """
    return 1 << (21 if device.type == "cpu" else 25)


def chunked_cross_entropy(
    hidden_ND: Tensor,
    logits_fn: Callable[[Tensor], Tensor],
    targets_N: Tensor,
    *,
    head: Sequence[Tensor] = (),
    max_logits: int | None = None,
) -> Tensor:
    """The SUM in nats over the targets that are not IGNORE, float32; 0 with a graph when there are none.

    hidden: (N, D) or (B, T, D); targets: as many. `logits_fn`: (n, D) → (n, V). `head`: the parameters that `logits_fn` uses, all
    of them; given, the gradients are made chunk by chunk in the forward pass (as Liger's fused loss does) and no product is
    computed twice. Without, each chunk's logits are computed again in the backward pass.
    """
    hidden_ND, targets_N = hidden_ND.reshape(-1, hidden_ND.shape[-1]), targets_N.reshape(-1)
    supervised_N = targets_N != IGNORE
    if not bool(supervised_N.all()):  # the output head is the widest matrix: only rows that count pass through it
        hidden_ND, targets_N = hidden_ND[supervised_N], targets_N[supervised_N]
    if len(targets_N) == 0:
        return hidden_ND.float().sum()  # nothing, but part of the graph: every rank has a backward pass
    if max_logits is None:
        max_logits = most_logits(hidden_ND.device)
    with torch.no_grad():
        vocab_size = logits_fn(hidden_ND[:1]).shape[-1]
    chunk = max(1, max_logits // vocab_size)
    if chunk >= len(targets_N):
        return _sum_of_nats(hidden_ND, logits_fn, targets_N)
    if not torch.is_grad_enabled():
        parts = zip(torch.split(hidden_ND, chunk), torch.split(targets_N, chunk), strict=True)
        return torch.stack([_sum_of_nats(h, logits_fn, t) for h, t in parts]).sum()
    trained = [parameter for parameter in head if parameter.requires_grad]
    if head:
        loss: Tensor = _Fused.apply(logits_fn, chunk, targets_N, hidden_ND, *trained)  # type: ignore[no-untyped-call]
        return loss
    losses = []
    for h, t in zip(torch.split(hidden_ND, chunk), torch.split(targets_N, chunk), strict=True):
        losses.append(checkpoint(_sum_of_nats, h, logits_fn, t, use_reentrant=False))
    return torch.stack(losses).sum()


def _sum_of_nats(hidden_ND: Tensor, logits_fn: Callable[[Tensor], Tensor], targets_N: Tensor) -> Tensor:
    # float32 also under autocast: a bfloat16 log-sum-exp over thousands of tokens is off in the second digit
    return F.cross_entropy(logits_fn(hidden_ND).float(), targets_N, reduction="sum")


class _Fused(torch.autograd.Function):
    """Gradients of every chunk in the forward pass, scaled in the backward pass by what comes from above."""

    @staticmethod
    def forward(
        ctx: Any,
        logits_fn: Callable[[Tensor], Tensor],
        chunk: int,
        targets_N: Tensor,
        hidden_ND: Tensor,
        *head: Tensor,
    ) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        d_hidden_ND = torch.empty_like(hidden_ND)
        d_head = [torch.zeros_like(parameter) for parameter in head]
        for start in range(0, len(targets_N), chunk):
            part = slice(start, start + chunk)
            h = hidden_ND[part].detach().requires_grad_()
            with torch.enable_grad():
                loss = _sum_of_nats(h, logits_fn, targets_N[part])
            gradients = torch.autograd.grad(loss, [h, *head])
            total += loss.detach()
            d_hidden_ND[part] = gradients[0]
            for summed, gradient in zip(d_head, gradients[1:], strict=True):
                summed += gradient
        ctx.save_for_backward(d_hidden_ND, *d_head)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *(gradient * outer[0].to(gradient.dtype) for gradient in ctx.saved_tensors))
