"""Opens a folder with a head for labels and checks it without torch and without reading a weight."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from chatwright.errors import InvalidModelError, ModelNotFoundError
from chatwright.model.checkpoint import (
    CONFIG,
    StoredTensor,
    check_tensors,
    is_leftover,
    read_header,
    read_json_object,
    weight_files,
)
from chatwright.model.config import ModelConfig, shown
from chatwright.model.encoder_config import EncoderConfig, encoder_config_from_hf, encoder_shapes
from chatwright.model.hf import config_from_hf
from chatwright.model.layout import hf_layout, tensor_shapes

MAX_LABELS = 10_000

_ARCHITECTURE = re.compile(r"(GPT2|Llama|Mistral|Qwen2|Qwen3|Gemma3Text|Bert)For(Sequence|Token)Classification")


@dataclass(frozen=True)
class HeadCheckpoint:
    """A base, and a head over it, that fit their configuration. `base`: tensors by the names of the base alone; `head`: weight and,
    mostly, bias of the head's matrix by their own names. `raw` is config.json.

    `kind`: what is labelled, whole texts (Sequence) or tokens. `several`: a text can have several labels at once.
    """

    path: Path
    config: ModelConfig | EncoderConfig
    kind: Literal["Sequence", "Token"]
    labels: tuple[str, ...]
    several: bool
    base: Mapping[str, StoredTensor]
    head: Mapping[str, StoredTensor]
    raw: Mapping[str, Any]

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """All of them."""
        return {**self.base, **self.head}


def is_head(path: Path) -> bool:
    """Whether the folder holds a model that labels texts or tokens. Raises InvalidModelError for a broken config.json."""
    return (path / CONFIG).is_file() and head_architecture(read_json_object(path / CONFIG)) is not None


def head_architecture(raw: Mapping[str, Any]) -> tuple[str, Literal["Sequence", "Token"]] | None:
    """("Qwen3", "Sequence") of a `config.json`; None when it has no head for labels."""
    named = raw.get("architectures")
    match = (
        _ARCHITECTURE.fullmatch(named[0]) if isinstance(named, list) and named and isinstance(named[0], str) else None
    )
    return (match[1], "Sequence" if match[2] == "Sequence" else "Token") if match else None


def open_head(path: Path) -> HeadCheckpoint:
    """The model with a head in a folder of Transformers. Raises ModelNotFoundError, InvalidModelError."""
    path = Path(path)
    if not (path / CONFIG).is_file():
        raise ModelNotFoundError("There is no model at {path}.", path=path)
    raw = read_json_object(path / CONFIG)
    architecture = head_architecture(raw)
    if architecture is None:
        raise InvalidModelError(
            "{path} is not a model with a head for labels: its architecture is {architecture}.",
            path=path,
            architecture=shown(raw.get("architectures")),
        )
    prefix, kind = architecture
    labels = _labels(path, raw)
    stored = {tensor.name: tensor for file in weight_files(path) for tensor in read_header(file, _is_left_out)}
    score = f"{score_name(prefix, kind)}."
    head = {name.removeprefix(score): stored.pop(name) for name in list(stored) if name.startswith(score)}
    config: ModelConfig | EncoderConfig
    if prefix == "Bert":
        config = replace(encoder_config_from_hf(raw), pooler=kind == "Sequence")
        base = {name.removeprefix("bert."): tensor for name, tensor in stored.items()}
        expected = encoder_shapes(config)
    else:
        config, base = replace(config_from_hf(raw), tied=True), stored  # no output head: the embedding may stand for it
        expected = tensor_shapes(config, hf_layout(config))
    check_tensors(path, expected, {name: tensor.shape for name, tensor in base.items()})
    has_bias = prefix == "Bert" or kind == "Token"
    shapes = {"weight": (len(labels), config.d_model)} | ({"bias": (len(labels),)} if has_bias else {})
    check_tensors(
        path,
        {score + name: shape for name, shape in shapes.items()},
        {score + name: tensor.shape for name, tensor in head.items()},
    )
    several = raw.get("problem_type") == "multi_label_classification"
    return HeadCheckpoint(path, config, kind, tuple(labels), several, base, head, raw)


def score_name(prefix: str, kind: str) -> str:
    """Transformers' name of the matrix."""
    return "classifier" if prefix == "Bert" or (prefix == "GPT2" and kind == "Token") else "score"


def _labels(path: Path, raw: Mapping[str, Any]) -> list[str]:
    listed = raw.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    labels = [listed.get(str(i)) for i in range(len(listed))] if isinstance(listed, dict) else []
    if not 1 <= len(labels) <= MAX_LABELS or not all(isinstance(label, str) for label in labels):
        raise InvalidModelError(
            "{path}: id2label must give the numbers from 0 their labels, 10,000 at most; it is {value}.",
            path=path / CONFIG,
            value=shown(listed),
        )
    if len(set(labels)) != len(labels):
        raise InvalidModelError("{path}: id2label gives a label twice.", path=path / CONFIG)
    return [str(label) for label in labels]


def _is_left_out(name: str) -> bool:
    return is_leftover(name) or name.endswith(("embeddings.position_ids", "embeddings.token_type_ids"))
