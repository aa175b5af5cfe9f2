"""A decoder run over calibration text one layer at a time, so that a layer can be changed before the next one reads what it says.

Every matrix is visited with the second moment of its inputs, Σ x xᵀ over all tokens, in the order in which it is computed: those
inputs already carry the changes of everything before (GPTQ calls it "true sequential").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from chatwright.model.gpt import GPT, Attend, CausalAttention, Layer, Rotation
from chatwright.training.progress import Progress

# (names of matrices with the same input, Σ x xᵀ of it)
Visit = Callable[[Sequence[str], Tensor], None]


@torch.no_grad()
def walk(model: GPT, windows_NT: Tensor, visit: Visit, progress: Progress | None = None) -> None:
    """Visits the matrices of every layer; `visit` may change their weights in place. The model is in eval mode."""
    batches = _embedded(model, windows_NT)
    for index, layer in enumerate(model.layers):
        _walk_layer(cast(Layer, layer), f"layers.{index}", batches, index, visit)
        if progress is not None:
            progress.advance(index + 1)


class _Batch:
    """Hidden states of a few windows, and each layer's rotation."""

    def __init__(self, x_BTD: Tensor, rotations: Sequence[Rotation | None]) -> None:
        self.x_BTD, self.rotations = x_BTD, rotations


class _Recorder(nn.Module):
    """In the place of a layer: keeps what it is given, and changes nothing."""

    def forward(self, x_BTD: Tensor, rotation: Rotation | None, attend: Attend) -> Tensor:
        self.rotation = rotation
        return x_BTD


def _embedded(model: GPT, windows_NT: Tensor) -> list[_Batch]:
    """What comes into the first layer: by the model's own code, with recorders as its layers and a norm that does nothing."""
    layers, norm = model.layers, model.norm
    recorders = [_Recorder() for _ in layers]
    batches = []
    try:
        model.layers, model.norm = nn.ModuleList(recorders), nn.Identity()
        for ids_BT in torch.split(windows_NT, 4):
            x_BTD = model.hidden(ids_BT)
            batches.append(_Batch(x_BTD, [recorder.rotation for recorder in recorders]))
    finally:
        model.layers, model.norm = layers, norm
    return batches


def _walk_layer(layer: Layer, name: str, batches: Sequence[_Batch], index: int, visit: Visit) -> None:
    attention, feed_forward = layer.attention, layer.feed_forward
    gate = [] if feed_forward.gate is None else [f"{name}.feed_forward.gate"]

    normed = [layer.attention_norm(batch.x_BTD) for batch in batches]
    visit([f"{name}.attention.{each}" for each in "qkv"], second_moment(normed))
    inner = [
        _input_of(attention.out, partial(attention, x, b.rotations[index], CausalAttention()))
        for x, b in zip(normed, batches, strict=True)
    ]
    visit([f"{name}.attention.out"], second_moment(inner))
    _add(batches, inner, attention.out, layer.attention_post_norm)

    normed = [layer.feed_forward_norm(batch.x_BTD) for batch in batches]
    visit([*gate, f"{name}.feed_forward.up"], second_moment(normed))
    inner = [_input_of(feed_forward.down, partial(feed_forward, x)) for x in normed]
    visit([f"{name}.feed_forward.down"], second_moment(inner))
    _add(batches, inner, feed_forward.down, layer.feed_forward_post_norm)


def _add(batches: Sequence[_Batch], inner: Sequence[Tensor], last: nn.Module, post_norm: nn.Module | None) -> None:
    for batch, x in zip(batches, inner, strict=True):
        branch_BTD = last(x)
        batch.x_BTD = batch.x_BTD + (branch_BTD if post_norm is None else post_norm(branch_BTD))


def _input_of(module: nn.Module, call: Callable[[], Any]) -> Tensor:
    """What a module is given while something runs."""
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    try:
        call()
    finally:
        hook.remove()
    return seen[0]


def second_moment(inputs: Sequence[Tensor]) -> Tensor:
    """Σ x xᵀ over all tokens of all batches, (I, I)."""
    width = inputs[0].shape[-1]
    total_II = torch.zeros(width, width)
    for x in inputs:
        flat_NI = x.reshape(-1, width).float()
        total_II.addmm_(flat_NI.T, flat_NI)
    return total_II
