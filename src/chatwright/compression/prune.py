"""Structured pruning: fewer layers, heads and feed-forward channels, chosen by importance; what stays is a small ordinary model.

All layers keep the same shape, so that the result is a model of its family that everything loads. Behind what is taken out, the
matrix that reads it is fitted again by least squares to say the same with what is left (Kurtic et al. 2023), layer after layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from chatwright.compression.importance import Importance
from chatwright.compression.layerwise import walk
from chatwright.errors import UsageError
from chatwright.model.config import ModelConfig
from chatwright.model.gpt import GPT
from chatwright.training.progress import Progress

Part = Literal["heads", "ffn", "layers"]
PARTS: tuple[Part, ...] = get_args(Part)
MULTIPLE = 32  # of every row, so that 8- and 4-bit blocks exist
RIDGE = 0.01


@dataclass(frozen=True)
class Shape:
    """What is left: of layers, of key/value heads and of the queries of each, of feed-forward channels."""

    n_layer: int
    n_kv_head: int
    queries: int
    d_ff: int


def pruned_shape(config: ModelConfig, ratio: float, what: Sequence[Part]) -> Shape:
    """About `ratio` less of the layers' parameters. Where both depth and width give way, each gives its part.

    Raises UsageError where the steps are too coarse for anything to be taken.
    """
    width, depth = bool({"heads", "ffn"} & set(what)), "layers" in what
    kept = math.sqrt(1 - ratio) if width and depth else 1 - ratio
    queries = config.n_head // config.n_kv_head
    shape = Shape(config.n_layer, config.n_kv_head, queries, config.d_ff)
    if depth:
        shape = replace(shape, n_layer=max(1, round(kept * config.n_layer)))
    if "ffn" in what:
        shape = replace(shape, d_ff=min(config.d_ff, max(1, round(kept * config.d_ff / MULTIPLE)) * MULTIPLE))
    if "heads" in what:
        n_kv_head, queries = _heads(config, kept)
        shape = replace(shape, n_kv_head=n_kv_head, queries=queries)
    if shape == Shape(config.n_layer, config.n_kv_head, config.n_head // config.n_kv_head, config.d_ff):
        raise UsageError(
            "With --ratio {ratio:g} nothing of {what} can be taken out of this model: it has {n_layer} layers, {n_kv_head} key"
            " heads and {d_ff} channels, of which multiples of {multiple} stay.",
            ratio=ratio,
            what=", ".join(what),
            n_layer=config.n_layer,
            n_kv_head=config.n_kv_head,
            d_ff=config.d_ff,
            multiple=MULTIPLE,
        )
    return shape


def _heads(config: ModelConfig, kept: float) -> tuple[int, int]:
    """Whole groups, or as many queries of each: what comes closest, nothing where that is closest; of equals the groups, whose keys
    need no cache any more."""
    n_groups, n_queries = config.n_kv_head, config.n_head // config.n_kv_head
    choices = [(g, n_queries) for g in range(n_groups, 0, -1)] + [(n_groups, q) for q in range(n_queries - 1, 0, -1)]
    fitting = [(g, q) for g, q in choices if (g, q) == (n_groups, n_queries) or not g * q * config.head_dim % MULTIPLE]
    return min(fitting, key=lambda c: round(abs(c[0] * c[1] / config.n_head - kept), 6))


def prune(model: GPT, shape: Shape, importance: Importance, windows_NT: Tensor, progress: Progress) -> GPT:
    """The smaller model. `model` is used up."""
    layers = _largest(importance.layers, shape.n_layer)
    model = _without_layers(model, layers)
    heads = [_kept_heads(importance.heads[i], model.config, shape) for i in layers.tolist()]
    channels = [_largest(importance.channels[i], shape.d_ff) for i in layers.tolist()]
    inputs = {f"layers.{i}.attention.out": _channels(heads[i], model.config.head_dim) for i in range(shape.n_layer)}
    inputs |= {f"layers.{i}.feed_forward.down": channels[i] for i in range(shape.n_layer)}

    def visit(names: Sequence[str], moment_II: Tensor) -> None:
        for name in names:
            if name in inputs and len(inputs[name]) < len(moment_II):
                _fit_again(model.get_submodule(name), inputs[name], moment_II)

    walk(model, windows_NT, visit, progress)
    return _sliced(model, shape, heads, channels)


def _largest(scores: Tensor, n: int) -> Tensor:
    """The indices of the `n` largest, in their order."""
    return scores.topk(n).indices.sort().values


def _kept_heads(scores_H: Tensor, config: ModelConfig, shape: Shape) -> Tensor:
    """Query heads that stay: as many of every group that stays."""
    scores_GQ = scores_H.view(config.n_kv_head, -1)
    groups = _largest(scores_GQ.sum(1), shape.n_kv_head)
    n_queries = scores_GQ.shape[1]
    return torch.cat([_largest(scores_GQ[g], shape.queries) + g * n_queries for g in groups.tolist()])


def _channels(heads: Tensor, head_dim: int) -> Tensor:
    """The channels of some heads."""
    return (heads[:, None] * head_dim + torch.arange(head_dim)).flatten()


def _fit_again(linear: torch.nn.Module, kept: Tensor, moment_II: Tensor) -> None:
    """W' on the kept inputs K that comes closest to W on all: what the others G said, as far as K can tell it, is added to what K
    says, W_K + W_G M_GK (M_KK + λ)⁻¹. The other columns become zero."""
    weight = linear.weight
    assert isinstance(weight, Tensor)
    gone = torch.ones(weight.shape[1], dtype=torch.bool)
    gone[kept] = False
    moment_II, whole_OI = moment_II.double(), weight.double()
    among_KK = moment_II[kept][:, kept]
    among_KK.diagonal().add_(RIDGE * among_KK.diagonal().mean() + 1e-12)
    said_OK = whole_OI[:, gone] @ moment_II[gone][:, kept]
    fitted_OK = whole_OI[:, kept] + torch.linalg.solve(among_KK, said_OK.T).T
    weight.zero_()
    weight[:, kept] = fitted_OK.to(weight.dtype)


@torch.no_grad()
def _without_layers(model: GPT, kept: Tensor) -> GPT:
    config = model.config
    indices = kept.tolist()
    if len(indices) == config.n_layer:
        return model
    smaller = GPT(replace(config, n_layer=len(indices), windows=tuple(config.windows[i] for i in indices)))
    for name, parameter in smaller.named_parameters():
        source = name
        if name.startswith("layers."):
            _, index, rest = name.split(".", 2)
            source = f"layers.{indices[int(index)]}.{rest}"
        parameter.copy_(model.get_parameter(source))
        parameter.requires_grad_(False)
    return smaller.eval()


@torch.no_grad()
def _sliced(model: GPT, shape: Shape, heads: Sequence[Tensor], channels: Sequence[Tensor]) -> GPT:
    config = model.config
    n_queries = config.n_head // config.n_kv_head
    smaller = GPT(replace(config, n_head=shape.n_kv_head * shape.queries, n_kv_head=shape.n_kv_head, d_ff=shape.d_ff))
    for name, parameter in smaller.named_parameters():
        whole: Tensor = model.get_parameter(name)
        if name.startswith("layers."):
            _, number, _block, matrix, *_kind = (*name.split("."), "")
            queries = heads[int(number)]
            groups = torch.unique(queries // n_queries)
            rows = {
                "q": _channels(queries, config.head_dim),
                "k": _channels(groups, config.head_dim),
                "v": _channels(groups, config.head_dim),
                "gate": channels[int(number)],
                "up": channels[int(number)],
            }
            columns = {"out": rows["q"], "down": channels[int(number)]}
            if matrix in rows:
                whole = whole[rows[matrix]]
            elif matrix in columns and whole.dim() == 2:
                whole = whole[:, columns[matrix]]
        parameter.copy_(whole)
    return smaller.eval()
