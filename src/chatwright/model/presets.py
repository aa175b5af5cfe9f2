"""From a number of parameters to the shape of a model: the one dial from which width, depth and heads follow.

Without torch, so that a plan costs nothing. Each derivation has its reason beside it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Literal

from chatwright.errors import UsageError
from chatwright.model.config import ModelConfig, parameter_count
from chatwright.model.rnn_config import Cell, RNNConfig, rnn_parameter_count

Architecture = Literal["qwen3", "gpt2"]

# Width over depth: nanochat's one dial has 64 channels a layer, GPT-2 small too. Not critical: Kaplan et al. (2020, section 3.1)
# see the loss change by a few percent over a 40-fold range of the ratio.
CHANNELS_PER_LAYER = 64
# How much a worse ratio may cost in distance from the wanted size: a model twice too wide is as bad as one 4 % off.
RATIO_WEIGHT = 0.04
MIN_LAYERS, MAX_LAYERS = 2, 48
MAX_WIDTH = 4096
# The smallest size that any vocabulary fits into, and the largest that presets are meant for.
SMALLEST, LARGEST = 10_000, 20_000_000_000

_SUFFIXES = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000, "g": 1_000_000_000}


def parse_size(text: str) -> int:
    """ "10m" → 10,000,000; also "0.3m", "1b", "350k", "1_000_000". Raises UsageError."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s?([kmbg]?)", text.strip().lower().replace("_", ""))
    n = round(float(match[1]) * _SUFFIXES[match[2]]) if match else 0
    if not SMALLEST <= n <= LARGEST:
        raise UsageError(
            "{text!r} is not a size: write a number of parameters from 10k to 20b, such as 3m, 0.5m or 120m.",
            text=text[:40],
        )
    return n


def shown_size(n_parameters: float) -> str:
    """As `--size` takes it, rounded down to two digits: 12345678 → "12m"."""
    for unit, suffix in ((1e9, "b"), (1e6, "m"), (1e3, "k")):
        if n_parameters >= unit:
            number = n_parameters / unit
            shown = int(number) if number >= 10 else int(number * 10) / 10
            return f"{shown:g}{suffix}"
    return str(int(n_parameters))


def config_for_size(
    n_parameters: int,
    vocab_size: int,
    context_length: int,
    arch: Architecture = "qwen3",
    *,
    positions: Literal["learned", "sinusoidal"] | None = None,
) -> ModelConfig:
    """The decoder with a total of about `n_parameters`, the embedding included (once: it is also the output head).

    Of all shapes the one is taken that is nearest in size, unless another is almost as near and of a better ratio of width to
    depth. `positions` is for gpt2 only. Raises UsageError when the vocabulary does not leave room for a model.
    """
    if arch == "qwen3" and positions is not None:
        raise UsageError("Positions can be chosen for gpt2 only: models of the kind qwen3 have rotary ones.")
    best: ModelConfig | None = None
    best_score = math.inf
    for d_model in _widths():
        for n_layer in _depths(n_parameters, vocab_size, d_model):
            config = (
                _qwen3(n_layer, d_model, vocab_size, context_length)
                if arch == "qwen3"
                else _gpt2(n_layer, d_model, vocab_size, context_length, positions or "learned")
            )
            distance = abs(math.log(parameter_count(config) / n_parameters))
            ratio = abs(math.log2(d_model / (CHANNELS_PER_LAYER * n_layer)))
            if distance + RATIO_WEIGHT * ratio < best_score:
                best, best_score = config, distance + RATIO_WEIGHT * ratio
    if best is None or parameter_count(best) > 2 * n_parameters:
        raise _no_room(n_parameters, vocab_size, context_length if arch == "gpt2" else 0, best)
    return best


def rnn_config_for_size(n_parameters: int, vocab_size: int, cell: Cell, context_length: int = 256) -> RNNConfig:
    """The recurrent model with a total of about `n_parameters`, the embedding included.

    Two layers, three from 20 million parameters on, as the language models of Zaremba et al. (2014) and Merity et al. (2017)
    had: deeper plain networks lose the gradient. Raises UsageError when the vocabulary does not leave room.
    """
    n_layer = 2 if n_parameters < 20_000_000 else 3
    configs = (
        RNNConfig(cell=cell, vocab_size=vocab_size, n_layer=n_layer, d_model=d_model, context_length=context_length)
        for d_model in range(16, 4 * MAX_WIDTH, 8)
    )
    best = min(configs, key=lambda config: abs(math.log(rnn_parameter_count(config) / n_parameters)))
    if rnn_parameter_count(best) > 2 * n_parameters:
        raise _no_room(n_parameters, vocab_size, 0, None)
    return best


def _widths() -> Iterator[int]:
    """Multiples of 64, the head dimension, so that heads are whole; 32 and 96 for the smallest, and of 128 above 512, where
    a step is small enough and the number of heads stays even (see `_key_heads`).

    Each is a multiple of 32, as Q8_0 and Q4_0 blocks of GGUF files need of every row of a matrix.
    """
    yield from (32, 64, 96)
    yield from range(128, 512, 64)
    yield from range(512, MAX_WIDTH + 1, 128)


def _depths(n_parameters: int, vocab_size: int, d_model: int) -> Iterator[int]:
    """The depths worth a look: those whose size comes near, as a layer has 9 to 13 d² parameters."""
    rest = max(0, n_parameters - vocab_size * d_model)
    shallow, deep = rest / (14 * d_model**2), rest / (8 * d_model**2)
    yield from range(
        min(MAX_LAYERS, max(MIN_LAYERS, int(shallow))), min(MAX_LAYERS, max(MIN_LAYERS, math.ceil(deep))) + 1
    )


def _head_dim(d_model: int) -> int:
    """64 as in GPT-2 and SmolLM2; 32 where 64 would leave fewer than four heads, or no whole number of them."""
    return 64 if d_model >= 256 else 32


def _key_heads(n_head: int) -> int:
    """Half the query heads (as Qwen3-0.6B), or a third (as SmolLM2): the KV cache shrinks as much, the loss hardly changes
    (Ainslie et al. 2023). All of them where neither divides.
    """
    return next((n_head // group for group in (2, 3) if n_head % group == 0), n_head)


def _qwen3(n_layer: int, d_model: int, vocab_size: int, context_length: int) -> ModelConfig:
    head_dim = _head_dim(d_model)
    return ModelConfig(
        family="qwen3",
        vocab_size=vocab_size,
        n_layer=n_layer,
        d_model=d_model,
        n_head=d_model // head_dim,
        n_kv_head=_key_heads(d_model // head_dim),
        head_dim=head_dim,
        # three times the width, as Qwen3: with three matrices about as large as GPT-2's two of four times (Shazeer 2020)
        d_ff=3 * d_model,
        context_length=context_length,
        norm="rmsnorm",
        norm_eps=1e-6,
        positions="rotary",
        activation="silu",
        gated=True,
        # the slowest channel turns once in 2π·theta positions; longer contexts want slower ones (Qwen3: 10⁶ for 32k)
        rope_theta=10_000.0 if context_length <= 4096 else 1_000_000.0,
        qk_norm=True,
        # the embedding is most of a small model; Press & Wolf 2017. Models of 0.6b and 1.7b are tied in Qwen3 too
        tied=True,
    )


def _gpt2(
    n_layer: int,
    d_model: int,
    vocab_size: int,
    context_length: int,
    positions: Literal["learned", "sinusoidal"],
) -> ModelConfig:
    """As Radford et al. (2019) have it: four times the width inside the feed-forward, biases everywhere, a tied head."""
    head_dim = _head_dim(d_model)
    n_head = d_model // head_dim
    return ModelConfig(
        family="gpt2",
        vocab_size=vocab_size,
        n_layer=n_layer,
        d_model=d_model,
        n_head=n_head,
        n_kv_head=n_head,
        head_dim=head_dim,
        d_ff=4 * d_model,
        context_length=context_length,
        norm="layernorm",
        norm_eps=1e-5,
        positions=positions,
        activation="gelu_tanh",
        gated=False,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        tied=True,
    )


def _no_room(n_parameters: int, vocab_size: int, n_positions: int, nearest: ModelConfig | None) -> UsageError:
    embedding = 32 * (vocab_size + n_positions)
    least = parameter_count(nearest) if nearest is not None else 2 * embedding
    return UsageError(
        "A model of {n} parameters has no room for a vocabulary of {vocab_size} tokens: the smallest embedding of it alone has"
        " {embedding}. Take --size {nearest}k or larger, or train a tokenizer with a smaller vocabulary.",
        n=f"{n_parameters:,}",
        vocab_size=f"{vocab_size:,}",
        embedding=f"{embedding:,}",
        nearest=math.ceil(least / 1000),
    )
