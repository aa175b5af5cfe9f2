"""BERT folders as Transformers writes them, read into the encoder and written from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chatwright.errors import InvalidModelError, ModelNotFoundError
from chatwright.model.checkpoint import (
    CONFIG,
    StoredTensor,
    check_tensors,
    read_header,
    read_json_object,
    weight_files,
)
from chatwright.model.config import shown
from chatwright.model.encoder import Encoder, EncoderConfig
from chatwright.model.hf import HF_ACTIVATIONS, activation_from_hf
from chatwright.model.tensors import place, read_tensors

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
# What a folder may hold beside the encoder: the heads of pretraining, and constants of old versions of Transformers.
_LEFT_OUT = ("cls.", "classifier.", "embeddings.position_ids", "embeddings.token_type_ids", "qa_outputs.")


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


def load_encoder(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    dropout: float = 0.0,
    trainable: bool = False,
) -> Encoder:
    """The encoder of a BERT folder, in eval mode; heads in it are passed over. See `load_model` for the rest.

    Raises ModelNotFoundError, InvalidModelError.
    """
    path = Path(path)
    if not (path / CONFIG).is_file():
        raise ModelNotFoundError("There is no model at {path}.", path=path)
    config = encoder_config_from_hf(read_json_object(path / CONFIG))
    tensors = (tensor for file in weight_files(path) for tensor in read_header(file, _is_left_out))
    stored = {_plain(tensor.name): tensor for tensor in tensors}
    if not any(name.startswith("pooler.") for name in stored):
        config = EncoderConfig(**{**vars(config), "pooler": False})
    return build_encoder(path, config, stored, dtype=dtype, device=device, dropout=dropout, trainable=trainable)


def build_encoder(
    path: Path,
    config: EncoderConfig,
    stored: Mapping[str, StoredTensor],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    dropout: float,
    trainable: bool,
) -> Encoder:
    """An encoder with the weights found, which are keyed by Transformers' names in `BertModel`."""
    with torch.device("meta"):
        encoder = Encoder(config, dropout)
    names = dict(encoder_names(encoder))
    shapes = {names[name]: tuple(parameter.shape) for name, parameter in encoder.named_parameters()}
    check_tensors(path, shapes, {name: tensor.shape for name, tensor in stored.items()})
    read = dict(zip(stored, read_tensors(stored.values()), strict=True))
    for name, _ in list(encoder.named_parameters()):
        place(encoder, name, read.pop(names[name]), dtype, device, trainable)
    return encoder.eval()


def encoder_weights(encoder: Encoder, prefix: str = "") -> dict[str, Tensor]:
    """The parameters under Transformers' names."""
    parameters = dict(encoder.named_parameters())
    return {prefix + theirs: parameters[ours].detach() for ours, theirs in encoder_names(encoder)}


def encoder_names(encoder: nn.Module) -> Iterator[tuple[str, str]]:
    """(our name, Transformers' name) of every parameter."""
    for name, _ in encoder.named_parameters():
        prefix, module, kind = "", *name.rsplit(".", 1)
        if module.startswith("layers."):
            _, index, module = module.split(".", 2)
            prefix = f"encoder.layer.{index}."
        yield name, f"{prefix}{_NAMES[module]}.{kind}"


def _is_left_out(name: str) -> bool:
    return _plain(name).startswith(_LEFT_OUT)


def _plain(name: str) -> str:
    """A tensor's name in `BertModel`: without the prefix of a model around it, and as PyTorch names a norm's parameters,
    which Google's own files call gamma and beta."""
    name = name.removeprefix("bert.")
    for theirs, ours in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        name = name.removesuffix(theirs) + ours if name.endswith(theirs) else name
    return name
