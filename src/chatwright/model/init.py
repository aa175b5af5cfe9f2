"""The weights before the first step: deterministic by seed, the same on every device, and never one left out."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from chatwright.model.config import ModelConfig
from chatwright.model.rnn_config import RNNConfig

# GPT-2's and BERT's standard deviation (Radford et al. 2019, Devlin et al. 2018), chosen at a width of 768; Transformers'
# `initializer_range`.
STD, STD_WIDTH = 0.02, 768

Draw = Callable[[tuple[int, ...], torch.Generator], Tensor]


def initialise(model: nn.Module, seed: int) -> None:
    """Gives every parameter of a GPT, encoder, head or recurrent model its first value, in place.

    Numbers are drawn on the CPU in float32, parameter by parameter in the model's order, then copied: device and precision
    change nothing. A tied head is the embedding, and stays it. Parameters must have memory (`to_empty` after the meta device).
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    config = getattr(model, "config", None)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            assert not parameter.is_meta, f"{name} has no memory yet"
            if isinstance(config, RNNConfig):
                draw = _draw_of_recurrent(name, config)
            else:
                draw = _draw_of(name, config if isinstance(config, ModelConfig) else None, parameter.shape[-1])
            parameter.copy_(draw(tuple(parameter.shape), generator))


def _draw_of(name: str, config: ModelConfig | None, d_in: int) -> Draw:
    module, kind = name.rsplit(".", 1)
    if "norm" in module.rsplit(".", 1)[-1]:
        return _ones if kind == "weight" else _zeros
    if kind == "bias":
        return _zeros
    if config is None or module == "position_embed":
        return _normal(STD)
    if module in ("embed", "head"):
        # as large as the paper's beside fixed positions, which are divided by √d_model (see `gpt.fixed_positions`)
        return _normal(1 / math.sqrt(d_in) if config.positions == "sinusoidal" else _std_at(config.d_model))
    is_output = module.endswith((".attention.out", ".feed_forward.down"))
    if config.family == "gpt2":
        # each of the 2·n_layer branches adds to the residual stream: their sum keeps its size (Radford et al. 2019, 2.3)
        return _normal(_std_at(config.d_model) / (math.sqrt(2 * config.n_layer) if is_output else 1))
    # each layer is the identity at first (record 5 of modded-nanogpt, nanochat); elsewhere what comes in has unit size
    # (RMSNorm), so that what goes out has: uniform, as nanochat's, without outliers
    return _zeros if is_output else _uniform(math.sqrt(3 / d_in))


def _std_at(d_model: int) -> float:
    """GPT-2's 0.02 at its own width, more for narrower models, as variance goes with 1 / width (Glorot & Bengio 2010).

    Measured with 0.7 million parameters (width 128, 160 steps, nats a token): gpt2 4.50 → 4.25, qwen3 4.15 → 4.03.
    """
    return STD * math.sqrt(STD_WIDTH / d_model)


def _draw_of_recurrent(name: str, config: RNNConfig) -> Draw:
    if name == "embed.weight":
        return _uniform(0.1)  # as Zaremba et al. (2014)
    if name.startswith("cells.bias_ih") and config.cell == "lstm":
        return _open_forget_gate  # or the state is halved at every token (Jozefowicz et al. 2015, 2.2)
    return _zeros if name.startswith("cells.bias") else _uniform(1 / math.sqrt(config.d_model))


def _open_forget_gate(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """torch stacks the gates as input, forget, cell, output."""
    bias = torch.zeros(shape)
    bias[shape[0] // 4 : shape[0] // 2] = 1.0
    return bias


def _zeros(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.zeros(shape)


def _ones(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.ones(shape)


def _normal(std: float) -> Draw:
    return lambda shape, generator: torch.randn(shape, generator=generator) * std


def _uniform(bound: float) -> Draw:
    return lambda shape, generator: (torch.rand(shape, generator=generator) * 2 - 1) * bound
