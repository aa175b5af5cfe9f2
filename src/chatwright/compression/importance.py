"""How much each part of a decoder matters on a text: what the loss would change by, to first order, if it were not there.

Of a channel or head with activation a that is |Σ a · ∂loss/∂a| summed over windows (Molchanov et al. 2019); of a whole layer,
how far it turns its input (1 − cosine; Men et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chatwright.model.gpt import GPT, Layer
from chatwright.training.loss import chunked_cross_entropy
from chatwright.training.progress import Progress


@dataclass(frozen=True)
class Importance:
    """`channels`: (L, F) of the feed-forward; `heads`: (L, H) of the queries; `layers`: (L,)."""

    channels: Tensor
    heads: Tensor
    layers: Tensor


def measure_importance(model: GPT, windows_NT: Tensor, progress: Progress) -> Importance:
    """From a forward and a backward pass over each window. The weights are not changed."""
    config = model.config
    found = Importance(
        torch.zeros(config.n_layer, config.d_ff),
        torch.zeros(config.n_layer, config.n_head),
        torch.zeros(config.n_layer),
    )
    hooks = []
    for index, module in enumerate(model.layers):
        layer = cast(Layer, module)
        hooks.append(layer.feed_forward.down.register_forward_pre_hook(_watch(found.channels[index], 1)))
        hooks.append(layer.attention.out.register_forward_pre_hook(_watch(found.heads[index], config.head_dim)))
        hooks.append(layer.register_forward_hook(_turn(found.layers, index)))
    # a graph is needed from the input on; gradients of weights are not
    hooks.append(model.embed.register_forward_hook(lambda _m, _a, x: x.detach().requires_grad_()))
    try:
        for number, ids_T in enumerate(windows_NT, 1):
            x_BTD = model.hidden(ids_T[None, :-1])
            chunked_cross_entropy(x_BTD, model.logits, ids_T[None, 1:]).backward()  # type: ignore[no-untyped-call]
            progress.advance(number)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _watch(total: Tensor, width: int) -> Callable[[nn.Module, Any], None]:
    """Adds |Σ a · gradient| of each run of `width` numbers of what a module is given."""

    def hook(_module: nn.Module, args: Any) -> None:
        activation = args[0]

        def add(gradient: Tensor) -> None:
            effect = (activation.detach() * gradient).flatten(0, -2).sum(0)
            total.add_(effect.view(-1, width).sum(1).abs())

        activation.register_hook(add)

    return hook


def _turn(total_L: Tensor, index: int) -> Callable[[nn.Module, Any, Tensor], None]:
    def hook(_module: nn.Module, args: Any, output: Tensor) -> None:
        with torch.no_grad():
            total_L[index] += (1 - F.cosine_similarity(args[0], output, dim=-1)).mean()

    return hook
