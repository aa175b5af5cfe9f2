"""Opens a folder with a recurrent model, which is of our own kind, and checks it without torch and without reading a weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from chatwright.errors import InvalidModelError
from chatwright.model.checkpoint import (
    CONFIG,
    StoredTensor,
    check_tensors,
    read_header,
    read_json_object,
    weight_files,
)
from chatwright.model.rnn_config import RNN_MODEL_TYPE, RNNConfig, rnn_parameter_shapes


@dataclass(frozen=True)
class RecurrentCheckpoint:
    """A folder whose weights fit its configuration."""

    path: Path
    config: RNNConfig
    tensors: Mapping[str, StoredTensor]


def is_recurrent(path: Path) -> bool:
    """Whether a folder says that it holds a recurrent model. Raises InvalidModelError for a broken config.json."""
    return (path / CONFIG).is_file() and read_json_object(path / CONFIG).get("model_type") == RNN_MODEL_TYPE


def open_rnn(path: Path) -> RecurrentCheckpoint:
    """The recurrent model in a folder. Raises InvalidModelError when it cannot be loaded, with the reason."""
    raw = read_json_object(path / CONFIG)
    missing = [field.name for field in fields(RNNConfig) if field.name not in raw]
    if raw.get("model_type") != RNN_MODEL_TYPE or missing:
        raise InvalidModelError("The model's config.json lacks {key}.", key=missing[0] if missing else "model_type")
    config = RNNConfig(**{field.name: raw[field.name] for field in fields(RNNConfig)})
    tensors = {tensor.name: tensor for file in weight_files(path) for tensor in read_header(file)}
    check_tensors(path, rnn_parameter_shapes(config), {name: tensor.shape for name, tensor in tensors.items()})
    return RecurrentCheckpoint(path, config, tensors)
