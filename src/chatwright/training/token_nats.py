"""The cost of each token by itself (`training.loss` has their sum), without the logits of all tokens ever in memory at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from chatwright.training.loss import most_logits


def token_nats(x_ND: Tensor, logits_of: Callable[[Tensor], Tensor], targets_N: Tensor, vocab_size: int) -> Tensor:
    """Nats of each target given its hidden state, (N,) in fp32, with its graph.

    Chunks of the logits are computed again in the backward pass instead of being kept.
    """

    def chunk_nats(x_nD: Tensor, targets_n: Tensor) -> Tensor:
        return F.cross_entropy(logits_of(x_nD).float(), targets_n, reduction="none")

    step = max(1, most_logits(x_ND.device) // vocab_size)
    parts = []
    for start in range(0, len(targets_N), step):
        place = slice(start, start + step)
        if torch.is_grad_enabled() and len(targets_N) > step:
            parts.append(checkpoint(chunk_nats, x_ND[place], targets_N[place], use_reentrant=False))
        else:
            parts.append(chunk_nats(x_ND[place], targets_N[place]))
    return torch.cat(parts) if parts else x_ND.new_zeros(0, dtype=torch.float32)
