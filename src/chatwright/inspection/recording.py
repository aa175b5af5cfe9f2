"""One forward pass that is watched: attention weights of every head, and the residual stream before and after every layer.

The model is the one that serves: a decoder is given an `Attend` that keeps what it computes, and hooks that are taken away again
catch what goes from layer to layer.

L layers, H heads, T tokens, D d_model; q_BHTD, k_BGTD as in `model.gpt`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from chatwright.inspection.subject import Subject
from chatwright.model.encoder import EncoderAttention
from chatwright.model.gpt import GPT
from chatwright.model.rnn import RNN

Hook = Callable[..., Any]
Hooked = tuple[Any, Hook, bool]  # module, hook, whether it runs before the module


class RecordingAttention:
    """An `Attend` that computes attention in the plainest way (Vaswani et al. 2017, eq. 1) and keeps its weights."""

    def __init__(self) -> None:
        self.weights: dict[int, Tensor] = {}  # layer → (H, T, T)

    def __call__(self, layer_index: int, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, window: int | None) -> Tensor:
        repeats = q_BHTD.shape[1] // k_BGTD.shape[1]
        k_BHTD, v_BHTD = (x.repeat_interleave(repeats, dim=1) for x in (k_BGTD, v_BGTD))
        t = torch.arange(q_BHTD.shape[2], device=q_BHTD.device)
        distance_TT = t[:, None] - t[None, :]
        hidden_TT = distance_TT < 0
        if window is not None:
            hidden_TT = hidden_TT | (distance_TT >= window)
        scores_BHTT = q_BHTD @ k_BHTD.mT / math.sqrt(q_BHTD.shape[-1])
        weights_BHTT = scores_BHTT.masked_fill(hidden_TT, -torch.inf).softmax(-1)
        self.weights[layer_index] = weights_BHTT[0].detach()
        return weights_BHTT @ v_BHTD


@dataclass(frozen=True)
class Recording:
    """`output` (T, D): what comes before the output head. `residuals`: L + 1 of (T, D), the first before any layer; empty for a
    recurrent model. `attention`: L of (H, T, T), the query first; empty for a recurrent model, which has none."""

    output: Tensor
    residuals: Sequence[Tensor]
    attention: Sequence[Tensor]


@torch.no_grad()
def record(subject: Subject, ids: Sequence[int]) -> Recording:
    """Reads one text while watching."""
    base, ids_1T = subject.base, torch.tensor([list(ids)], device=subject.device)
    if isinstance(base, RNN):
        return Recording(base.hidden(ids_1T)[0], (), ())
    residuals: list[Tensor] = []
    layers: list[Hooked] = [(layer, _keep_output(residuals), False) for layer in base.layers]
    with _hooked([(base.layers[0], _keep_input(residuals), True), *layers]):
        if isinstance(base, GPT):
            attend = RecordingAttention()
            output_1TD = base.hidden(ids_1T, attend=attend)
            return Recording(output_1TD[0], residuals, [attend.weights[n] for n in range(len(base.layers))])
        weights: list[Tensor] = []
        attentions: list[Hooked] = [(layer.attention, _keep_weights(weights), True) for layer in base.layers]
        with _hooked(attentions):
            output_1TD = base.hidden(ids_1T)
        return Recording(output_1TD[0], residuals, weights)


@contextmanager
def _hooked(hooks: Sequence[Hooked]) -> Iterator[None]:
    """Modules have these hooks while the block runs."""
    handles = [
        module.register_forward_pre_hook(hook) if before else module.register_forward_hook(hook)
        for module, hook, before in hooks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def embedded_as(embed: nn.Embedding, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While the block runs, `change(x_BTD)` goes into the model where x_BTD would."""

    def hook(module: nn.Module, inputs: Any, x_BTD: Tensor) -> Tensor:
        return change(x_BTD)

    with _hooked([(embed, hook, False)]):
        yield


def _keep_input(kept: list[Tensor]) -> Hook:
    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        kept.append(inputs[0][0].detach())

    return hook


def _keep_output(kept: list[Tensor]) -> Hook:
    def hook(module: nn.Module, inputs: Any, x_BTD: Tensor) -> None:
        kept.append(x_BTD[0].detach())

    return hook


def _keep_weights(kept: list[Tensor]) -> Hook:
    """An encoder calls torch's attention itself, which gives no weights: they are computed again from the same input."""

    def hook(attention: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(attention, EncoderAttention)
        q_HTD, k_HTD = (
            project(inputs[0][0]).unflatten(-1, (-1, attention.head_dim)).transpose(0, 1)
            for project in (attention.q, attention.k)
        )
        kept.append((q_HTD @ k_HTD.mT / math.sqrt(attention.head_dim)).softmax(-1).detach())

    return hook
