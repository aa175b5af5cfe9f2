"""A decoder run over calibration text one layer at a time, so that a layer can be changed before the next one reads what it says.

Every matrix is visited in the order in which it is computed, with the second moment of its inputs, Σ x xᵀ over all tokens: those
inputs already carry the changes of everything before (GPTQ calls it "true sequential"). Where it is asked for, the unchanged
model is run beside it over the same text, so that a matrix can make good what earlier ones did (GPTAQ, Li et al. 2025): how far its
inputs have drifted, and, where it writes to the residual stream, how far that has.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from chatwright.model.gpt import GPT, Attend, CausalAttention, Layer, Rotation
from chatwright.training.progress import Progress


@dataclass(frozen=True)
class Inputs:
    """Of a matrix with I inputs x that had been x̄ in the unchanged model, and O outputs that are added to a residual r, once r̄.

    `moment_II`: Σ x xᵀ. `drift_II`: Σ (x̄ − x) xᵀ, None where it was not asked for. `residual_OI`: Σ (r̄ − r) xᵀ, None too where the
    outputs go elsewhere.
    """

    moment_II: Tensor  # noqa: N815 — axes
    drift_II: Tensor | None = None  # noqa: N815
    residual_OI: Tensor | None = None  # noqa: N815


# (names of matrices with the same input, that input)
Visit = Callable[[Sequence[str], Inputs], None]


@torch.no_grad()
def walk(
    model: GPT, windows_NT: Tensor, visit: Visit, progress: Progress | None = None, *, drift: bool = False
) -> None:
    """Visits the matrices of every layer; `visit` may change their weights in place. The model is in eval mode.

    `drift`: run the unchanged model beside it, for twice the time.
    """
    batches = _embedded(model, windows_NT)
    for index, layer in enumerate(model.layers):
        _walk_layer(cast(Layer, layer), f"layers.{index}", batches, index, visit, drift)
        if progress is not None:
            progress.advance(index + 1)


class _Batch:
    """Hidden states of a few windows, as they are and as the unchanged model has them, and each layer's rotation."""

    def __init__(self, x_BTD: Tensor, rotations: Sequence[Rotation | None]) -> None:
        self.x_BTD, self.clean_BTD, self.rotations = x_BTD, x_BTD, rotations


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


# What a module is given now, and what it was given in the unchanged model: the same where that is not run.
_Pair = tuple[Tensor, Tensor]


def _walk_layer(layer: Layer, name: str, batches: Sequence[_Batch], index: int, visit: Visit, drift: bool) -> None:
    clean = copy.deepcopy(layer) if drift else layer
    gate = [] if layer.feed_forward.gate is None else [f"{name}.feed_forward.gate"]

    def both(call: Callable[[Layer, Tensor, _Batch], Tensor], inputs: Sequence[_Pair]) -> list[_Pair]:
        now = [call(layer, x, batch) for (x, _was), batch in zip(inputs, batches, strict=True)]
        if not drift:
            return [(x, x) for x in now]
        was = [call(clean, was, batch) for (_x, was), batch in zip(inputs, batches, strict=True)]
        return list(zip(now, was, strict=True))

    def attended(layer: Layer, x_BTD: Tensor, batch: _Batch) -> Tensor:
        attend = partial(layer.attention, x_BTD, batch.rotations[index], CausalAttention())
        return _input_of(layer.attention.out, attend)

    def given(pairs: Sequence[_Pair], adds: bool = False) -> Inputs:
        inputs = [x for x, _was in pairs]
        if not drift:
            return Inputs(second_moment(inputs))
        residual = moment([each.clean_BTD - each.x_BTD for each in batches], inputs) if adds else None
        return Inputs(second_moment(inputs), moment([was - x for x, was in pairs], inputs), residual)

    normed = both(lambda layer, x, _batch: layer.attention_norm(x), [(each.x_BTD, each.clean_BTD) for each in batches])
    visit([f"{name}.attention.{each}" for each in "qkv"], given(normed))
    inner = both(attended, normed)
    visit([f"{name}.attention.out"], given(inner, adds=layer.attention_post_norm is None))
    branch = both(lambda layer, x, _batch: layer.attention.out(x), inner)
    _add(batches, branch, layer.attention_post_norm)

    normed = both(
        lambda layer, x, _batch: layer.feed_forward_norm(x), [(each.x_BTD, each.clean_BTD) for each in batches]
    )
    visit([*gate, f"{name}.feed_forward.up"], given(normed))
    inner = both(lambda layer, x, _batch: _input_of(layer.feed_forward.down, partial(layer.feed_forward, x)), normed)
    visit([f"{name}.feed_forward.down"], given(inner, adds=layer.feed_forward_post_norm is None))
    branch = both(lambda layer, x, _batch: layer.feed_forward.down(x), inner)
    _add(batches, branch, layer.feed_forward_post_norm)


def _add(batches: Sequence[_Batch], branches: Sequence[_Pair], post_norm: nn.Module | None) -> None:
    for batch, branch in zip(batches, branches, strict=True):
        now_BTD, was_BTD = branch if post_norm is None else (post_norm(branch[0]), post_norm(branch[1]))
        batch.x_BTD, batch.clean_BTD = batch.x_BTD + now_BTD, batch.clean_BTD + was_BTD


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
    return moment(inputs, inputs)


def moment(outer: Sequence[Tensor], inner: Sequence[Tensor]) -> Tensor:
    """Σ y xᵀ over all tokens of all batches, (O, I)."""
    total_OI = torch.zeros(outer[0].shape[-1], inner[0].shape[-1])
    for y, x in zip(outer, inner, strict=True):
        total_OI.addmm_(y.flatten(0, -2).float().T, x.flatten(0, -2).float())
    return total_OI
