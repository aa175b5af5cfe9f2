"""Opens a folder with an encoder and checks it without torch and without reading a weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from chatwright.errors import ModelNotFoundError
from chatwright.model.checkpoint import (
    CONFIG,
    StoredTensor,
    check_tensors,
    read_header,
    read_json_object,
    weight_files,
)
from chatwright.model.encoder_config import EncoderConfig, encoder_config_from_hf, encoder_shapes

# What a folder may hold beside the encoder: the heads of pretraining, and constants of old versions of Transformers.
_LEFT_OUT = ("cls.", "classifier.", "embeddings.position_ids", "embeddings.token_type_ids", "qa_outputs.")


@dataclass(frozen=True)
class EncoderCheckpoint:
    """A BERT folder whose weights fit its configuration. `tensors` is keyed by the names in Transformers' `BertModel`."""

    path: Path
    config: EncoderConfig
    tensors: Mapping[str, StoredTensor]


def is_encoder(path: Path) -> bool:
    """Whether a folder holds an encoder without a head for labels. Raises InvalidModelError for a broken config.json."""
    if not (path / CONFIG).is_file():
        return False
    raw = read_json_object(path / CONFIG)
    named = raw.get("architectures")
    has_head = isinstance(named, list) and any("Classification" in str(name) for name in named)
    return raw.get("model_type") == "bert" and not has_head


def open_encoder(path: Path) -> EncoderCheckpoint:
    """The encoder of a BERT folder; heads in it are passed over. Raises ModelNotFoundError, InvalidModelError."""
    if not (path / CONFIG).is_file():
        raise ModelNotFoundError("There is no model at {path}.", path=path)
    config = encoder_config_from_hf(read_json_object(path / CONFIG))
    found = (tensor for file in weight_files(path) for tensor in read_header(file, _is_left_out))
    tensors = {_plain(tensor.name): tensor for tensor in found}
    if not any(name.startswith("pooler.") for name in tensors):
        config = replace(config, pooler=False)
    check_tensors(path, encoder_shapes(config), {name: tensor.shape for name, tensor in tensors.items()})
    return EncoderCheckpoint(path, config, tensors)


def _is_left_out(name: str) -> bool:
    return _plain(name).startswith(_LEFT_OUT)


def _plain(name: str) -> str:
    """A tensor's name in `BertModel`: without the prefix of a model around it, and as PyTorch names a norm's parameters,
    which Google's own files call gamma and beta."""
    name = name.removeprefix("bert.")
    for theirs, ours in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        name = name.removesuffix(theirs) + ours if name.endswith(theirs) else name
    return name
