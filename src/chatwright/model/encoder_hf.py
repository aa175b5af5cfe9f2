"""BERT folders as Transformers writes them, read into the encoder and written from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from chatwright.model.checkpoint import StoredTensor, check_tensors
from chatwright.model.encoder import Encoder
from chatwright.model.encoder_checkpoint import open_encoder
from chatwright.model.encoder_config import EncoderConfig, encoder_shapes, hf_name
from chatwright.model.tensors import place, read_tensors


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
    checkpoint = open_encoder(Path(path))
    return build_encoder(
        checkpoint.path,
        checkpoint.config,
        checkpoint.tensors,
        dtype=dtype,
        device=device,
        dropout=dropout,
        trainable=trainable,
    )


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
    check_tensors(path, encoder_shapes(config), {name: tensor.shape for name, tensor in stored.items()})
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
        yield name, hf_name(name)
