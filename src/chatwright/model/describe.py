"""What a model is, told from its headers and its card, without reading a weight and without torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from chatwright.model.checkpoint import (
    Format,
    GGUFCheckpoint,
    SafetensorsCheckpoint,
    open_checkpoint,
    read_json_object,
)
from chatwright.model.config import ModelConfig, parameter_count
from chatwright.model.encoder_checkpoint import EncoderCheckpoint, is_encoder, open_encoder
from chatwright.model.encoder_config import EncoderConfig, encoder_parameter_count
from chatwright.model.head_checkpoint import HeadCheckpoint, is_head, open_head
from chatwright.model.layout import Shape
from chatwright.model.pooling import read_pooling
from chatwright.model.rnn_checkpoint import RecurrentCheckpoint, is_recurrent, open_rnn
from chatwright.model.rnn_config import RNNConfig, rnn_parameter_count

MAX_CARD_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelInfo:
    """What a model is. `size_bytes` counts the weight files; `quantization` is the number format of most of the weights
    ("Q4_1", "BF16"); `languages` are codes as the model's author gave them ("en", "zh"), empty when not told; `fills_in`: it was
    trained here to write what belongs between two texts; `longest_text`: tokens of the longest text of an encoder's training.
    `labels`: those that it gives texts, or tokens where it `tags`; a text can have `several` at once.
    """

    config: ModelConfig | RNNConfig | EncoderConfig
    format: Format
    n_parameters: int
    size_bytes: int
    quantization: str
    name: str
    license: str | None
    languages: tuple[str, ...]
    has_chat_template: bool
    fills_in: bool = False
    longest_text: int | None = None
    labels: tuple[str, ...] = ()
    tags: bool = False
    several: bool = False

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together; of an encoder, those of a text as it was trained with them."""
        return self.config.context_length if self.longest_text is None else self.longest_text

    @property
    def writes_text(self) -> bool:
        """An encoder turns texts into vectors instead, a model with a head gives labels."""
        return not isinstance(self.config, EncoderConfig) and not self.labels


def describe_model(path: Path) -> ModelInfo:
    """The model at a GGUF file or in a folder.

    Everything but the weights is checked as `load_model` checks it: raises ModelNotFoundError, InvalidModelError.
    """
    if is_recurrent(Path(path)):
        recurrent = open_rnn(Path(path))
        return _of_folder(recurrent, rnn_parameter_count(recurrent.config))
    if is_head(Path(path)):
        return _of_head(open_head(Path(path)))
    if is_encoder(Path(path)):
        encoder = open_encoder(Path(path))
        most = encoder.config.context_length
        info = _of_folder(encoder, encoder_parameter_count(encoder.config))
        return replace(info, longest_text=min(most, read_pooling(encoder.path).max_tokens or most))
    checkpoint = open_checkpoint(Path(path))
    return (
        _of_gguf(checkpoint)
        if isinstance(checkpoint, GGUFCheckpoint)
        else _of_folder(checkpoint, parameter_count(checkpoint.config))
    )


def _of_head(checkpoint: HeadCheckpoint) -> ModelInfo:
    config = checkpoint.config
    base = encoder_parameter_count(config) if isinstance(config, EncoderConfig) else parameter_count(config)
    info = _of_folder(checkpoint, base + sum(math.prod(tensor.shape) for tensor in checkpoint.head.values()))
    return replace(
        info,
        has_chat_template=False,  # the base's, with which nothing can be said any more
        labels=checkpoint.labels,
        tags=checkpoint.kind == "Token",
        several=checkpoint.several,
    )


def _of_gguf(checkpoint: GGUFCheckpoint) -> ModelInfo:
    metadata = checkpoint.file.metadata
    tensors = checkpoint.file.tensors.values()
    return ModelInfo(
        config=checkpoint.config,
        format="gguf",
        n_parameters=parameter_count(checkpoint.config),
        size_bytes=checkpoint.path.stat().st_size,
        quantization=_most((tensor.type.name, tensor.shape) for tensor in tensors),
        name=_text(metadata.get("general.name")) or checkpoint.path.stem,
        license=_text(metadata.get("general.license")),
        languages=_texts(metadata.get("general.languages")),
        # files beside it come first, as where it is loaded
        has_chat_template=_text(metadata.get("tokenizer.chat_template")) is not None
        or _has_template(checkpoint.path.parent),
        fills_in=metadata.get("chatwright.fim") is True,
    )


def _of_folder(
    checkpoint: SafetensorsCheckpoint | RecurrentCheckpoint | EncoderCheckpoint | HeadCheckpoint, n_parameters: int
) -> ModelInfo:
    folder = checkpoint.path
    card = _read_card(folder / "README.md")
    stored = checkpoint.tensors.values()
    return ModelInfo(
        config=checkpoint.config,
        format="safetensors",
        n_parameters=n_parameters,
        size_bytes=sum(file.stat().st_size for file in {tensor.file for tensor in stored}),
        quantization=_most((tensor.dtype, tensor.shape) for tensor in stored),
        name=_text(card.get("model_name")) or folder.resolve().name,
        license=_text(card.get("license")),
        languages=_texts(card.get("language")),
        has_chat_template=_has_template(folder),
        fills_in=_fills_in(folder),
    )


def _fills_in(folder: Path) -> bool:
    """`"chatwright": {"fim": true}` in config.json. Tokens for it are no proof: many tokenizers have them, few models use them."""
    own = read_json_object(folder / "config.json").get("chatwright")
    return isinstance(own, dict) and own.get("fim") is True


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    settings = folder / "tokenizer_config.json"
    return settings.is_file() and read_json_object(settings).get("chat_template") is not None


def _read_card(path: Path) -> Mapping[str, Any]:
    """The YAML at the head of a model card; nothing when the card is absent or broken, since a model works without it."""
    if not path.is_file() or path.stat().st_size > MAX_CARD_BYTES:
        return {}
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
    if not text.startswith("---\n") or (end := text.find("\n---", 3)) < 0:
        return {}
    try:
        card = yaml.safe_load(text[4:end])
    except (yaml.YAMLError, RecursionError, ValueError):
        return {}
    return card if isinstance(card, Mapping) else {}


def _most(tensors: Iterable[tuple[str, Shape]]) -> str:
    total: Counter[str] = Counter()
    for kind, shape in tensors:
        total[kind] += math.prod(shape)
    return total.most_common(1)[0][0]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(item for item in values if isinstance(item, str) and item)
