"""What an encoder is, as one frozen value, how Transformers spells it, and the tensors that it has. No torch.

Everything of BERT (Devlin et al. 2018) that can be told without reading a weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from chatwright.errors import InvalidModelError
from chatwright.model.config import Activation, shown
from chatwright.model.hf import HF_ACTIVATIONS, activation_from_hf
from chatwright.model.layout import Shape

_LARGEST = {
    "vocab_size": 1 << 24,
    "n_layer": 1 << 10,
    "d_model": 1 << 18,
    "n_head": 1 << 12,
    "d_ff": 1 << 22,
    "context_length": 1 << 20,
    "n_token_types": 1 << 10,
}


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Raises InvalidModelError when a number is of the wrong type, out of range or inconsistent.

    `n_token_types`: kinds of segments a sequence can have (BERT: first and second sentence). `pad_id`: the token of padding.
    `pooler`: whether the layer over the first token is there, which BERT's sentence heads stand on.
    """

    vocab_size: int
    n_layer: int
    d_model: int
    n_head: int
    d_ff: int
    context_length: int
    n_token_types: int = 2
    norm_eps: float = 1e-12
    activation: Activation = "gelu"
    pad_id: int = 0
    pooler: bool = True

    @property
    def family(self) -> str:
        """What Transformers calls its kind."""
        return "bert"

    def __post_init__(self) -> None:
        for field, largest in _LARGEST.items():
            _check_number(field, getattr(self, field), 1, largest)
        _check_number("pad_id", self.pad_id, 0, self.vocab_size - 1)
        if not isinstance(self.norm_eps, int | float) or not 0 <= self.norm_eps <= 1:
            _check_number("norm_eps", self.norm_eps, 0, 1)
        if self.activation not in get_args(Activation):
            raise InvalidModelError(
                "In the model's configuration, {field} is {value}, which is not supported (supported: {choices}).",
                field="activation",
                value=shown(self.activation),
                choices=", ".join(get_args(Activation)),
            )
        if self.d_model % self.n_head:
            raise InvalidModelError(
                "In the model's configuration, the width {d_model} cannot be divided among {n_head} heads.",
                d_model=self.d_model,
                n_head=self.n_head,
            )


def encoder_shapes(config: EncoderConfig) -> dict[str, Shape]:
    """The name in Transformers' `BertModel` and the shape of every parameter of `Encoder(config)`."""
    return {hf_name(name): shape for name, shape in _parameters(config)}


def encoder_parameter_count(config: EncoderConfig) -> int:
    """Numbers that training would change."""
    return sum(math.prod(shape) for _, shape in _parameters(config))


def _parameters(config: EncoderConfig) -> Iterator[tuple[str, Shape]]:
    d, d_ff = config.d_model, config.d_ff

    def linear(name: str, d_out: int, d_in: int) -> Iterator[tuple[str, Shape]]:
        yield from ((f"{name}.weight", (d_out, d_in)), (f"{name}.bias", (d_out,)))

    def norm(name: str) -> Iterator[tuple[str, Shape]]:
        yield from ((f"{name}.weight", (d,)), (f"{name}.bias", (d,)))

    yield "embed.weight", (config.vocab_size, d)
    yield "position_embed.weight", (config.context_length, d)
    yield "type_embed.weight", (config.n_token_types, d)
    yield from norm("norm")
    for i in range(config.n_layer):
        for part in ("q", "k", "v", "out"):
            yield from linear(f"layers.{i}.attention.{part}", d, d)
        yield from norm(f"layers.{i}.attention_norm")
        yield from linear(f"layers.{i}.feed_forward.up", d_ff, d)
        yield from linear(f"layers.{i}.feed_forward.down", d, d_ff)
        yield from norm(f"layers.{i}.feed_forward_norm")
    if config.pooler:
        yield from linear("pooler", d, d)


_NAMES = {
    "embed": "embeddings.word_embeddings",
    "position_embed": "embeddings.position_embeddings",
    "type_embed": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "pooler": "pooler.dense",
    "attention.q": "attention.self.query",
    "attention.k": "attention.self.key",
    "attention.v": "attention.self.value",
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "feed_forward.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}


def hf_name(name: str) -> str:
    """Transformers' name in `BertModel` of one of our parameters."""
    prefix, module, kind = "", *name.rsplit(".", 1)
    if module.startswith("layers."):
        _, index, module = module.split(".", 2)
        prefix = f"encoder.layer.{index}."
    return f"{prefix}{_NAMES[module]}.{kind}"


def encoder_config_from_hf(raw: Mapping[str, Any]) -> EncoderConfig:
    """A `config.json` of BERT. Raises InvalidModelError for what is unsafe, broken or computed otherwise here."""
    if raw.get("auto_map") is not None or raw.get("model_type") != "bert":
        raise InvalidModelError(
            "The architecture {architecture} is not an encoder that is supported (supported: {supported}).",
            architecture=shown(raw.get("auto_map") or raw.get("model_type") or raw.get("architectures")),
            supported="BERT",
        )
    for option, harmless in (
        ("position_embedding_type", "absolute"),
        ("is_decoder", False),
        ("add_cross_attention", False),
    ):
        if raw.get(option, harmless) not in (harmless, None):
            raise InvalidModelError(
                "The model's config.json sets {option} to {value}, which is not supported.",
                option=option,
                value=shown(raw[option]),
            )
    defaults: dict[str, Any] = {  # of Transformers' BertConfig
        "vocab_size": 30522, "num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12,
        "intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "hidden_act": "gelu", "pad_token_id": 0,
    }  # fmt: skip
    value = {key: default if raw.get(key) is None else raw[key] for key, default in defaults.items()}
    return EncoderConfig(
        vocab_size=value["vocab_size"],
        n_layer=value["num_hidden_layers"],
        d_model=value["hidden_size"],
        n_head=value["num_attention_heads"],
        d_ff=value["intermediate_size"],
        context_length=value["max_position_embeddings"],
        n_token_types=value["type_vocab_size"],
        norm_eps=value["layer_norm_eps"],
        activation=activation_from_hf(value["hidden_act"]),
        pad_id=value["pad_token_id"],
    )


def encoder_config_to_hf(config: EncoderConfig, dropout: float = 0.1) -> dict[str, Any]:
    """A `config.json` that Transformers reads; `dropout` is what it trains with, if it does."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": config.vocab_size,
        "num_hidden_layers": config.n_layer,
        "hidden_size": config.d_model,
        "num_attention_heads": config.n_head,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.context_length,
        "type_vocab_size": config.n_token_types,
        "layer_norm_eps": config.norm_eps,
        "hidden_act": HF_ACTIVATIONS[config.activation],
        "pad_token_id": config.pad_id,
        "position_embedding_type": "absolute",
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }


def _check_number(field: str, value: object, smallest: int, largest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not smallest <= value <= largest:
        raise InvalidModelError(
            "In the model's configuration, {field} is {value}; it must be a number from {smallest} to {largest}.",
            field=field,
            value=shown(value),
            smallest=smallest,
            largest=largest,
        )
