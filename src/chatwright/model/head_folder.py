"""Folders of models with a head, in the layout of Transformers' …ForSequenceClassification and …ForTokenClassification."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from chatwright.errors import InvalidModelError, ModelNotFoundError, UsageError
from chatwright.model.card import write_card
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
from chatwright.model.encoder import Encoder
from chatwright.model.encoder_config import EncoderConfig, encoder_config_from_hf, encoder_config_to_hf
from chatwright.model.encoder_hf import (
    build_encoder,
    encoder_weights,
)
from chatwright.model.folder import new_folder
from chatwright.model.gpt import GPT
from chatwright.model.heads import MAX_LABELS, TextClassifier, TokenTagger
from chatwright.model.hf import config_from_hf, config_to_hf, exported_config
from chatwright.model.layout import by_tensor, hf_layout, tensor_shapes
from chatwright.model.load import unpacked
from chatwright.model.save import packed, write_tensors
from chatwright.model.tensors import place, read_tensors

_ARCHITECTURE = re.compile(r"(GPT2|Llama|Mistral|Qwen2|Qwen3|Gemma3Text|Bert)For(Sequence|Token)Classification")
_PREFIXES = {
    "gpt2": "GPT2", "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma3": "Gemma3Text",
}  # fmt: skip


def check_can_tag(config: ModelConfig | EncoderConfig) -> None:
    """Raises UsageError for a base over which Transformers has no head for labelled tokens, so that nobody could read ours."""
    if isinstance(config, ModelConfig) and config.family == "gemma3":
        raise UsageError(
            "Transformers has no model that labels the tokens of Gemma 3, so what came of it could not be read. Take another model"
            " for --method tag, best an encoder."
        )


def save_head(
    head: TextClassifier | TokenTagger,
    folder: Path,
    *,
    write_tokenizer: Callable[[Path], None] | None = None,
    card: str = "",
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Writes base, head and labels (and tokenizer and card) to a new folder, whole or not at all.

    An untied output head of a decoder is left out: nothing here reads it. Raises UsageError when the folder is not empty,
    StorageError, InvalidModelError for a base that has no HF form.
    """
    base = head.base
    kind = "Sequence" if isinstance(head, TextClassifier) else "Token"
    dropout = head.dropout.p
    if isinstance(base, Encoder):
        raw = encoder_config_to_hf(base.config, base.dropout.p or 0.1)
        prefix = "Bert"
        weights = encoder_weights(base, "bert.")
        if kind == "Token":
            weights = {name: weight for name, weight in weights.items() if not name.startswith("bert.pooler.")}
    else:
        raw = config_to_hf(exported_config(base.config))
        prefix = _PREFIXES[base.config.family]
        weights = {name: weight for name, weight in packed(base).items() if name != "lm_head.weight"}
        if head.pad_id is not None:
            raw["pad_token_id"] = head.pad_id
    raw |= {
        "architectures": [f"{prefix}For{kind}Classification"],
        "id2label": {str(i): label for i, label in enumerate(head.labels)},
        "label2id": {label: i for i, label in enumerate(head.labels)},
        "classifier_dropout": dropout,
        **({"problem_type": "single_label_classification"} if kind == "Sequence" else {}),
    }
    name = _score_name(prefix, kind)
    weights |= {f"{name}.{key}": weight.detach() for key, weight in head.score.named_parameters()}
    with new_folder(folder) as whole:
        write_tensors(weights, raw | dict(extra or {}), whole)
        if write_tokenizer is not None:
            write_tokenizer(whole)
        if card:
            write_card(whole, card)


def load_head(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    dropout: float = 0.0,
    trainable: bool = False,
) -> TextClassifier | TokenTagger:
    """A folder that `save_head` or Transformers wrote, in eval mode. See `load_model` for the rest.

    Raises ModelNotFoundError, InvalidModelError.
    """
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
    name = _score_name(prefix, kind)
    own = {key: stored.pop(key) for key in list(stored) if key.startswith(f"{name}.")}
    base: GPT | Encoder
    if prefix == "Bert":
        base = _load_encoder(path, raw, stored, kind, dtype, device, dropout, trainable)
    else:
        base = _load_decoder(path, raw, stored, dtype, device, dropout, trainable)
    pad_id = raw.get("pad_token_id")
    head_dropout = raw.get("classifier_dropout")
    cls = TextClassifier if kind == "Sequence" else TokenTagger
    head = cls(
        base,
        labels,
        pad_id=pad_id if isinstance(pad_id, int) else None,
        dropout=head_dropout if isinstance(head_dropout, float) and 0 <= head_dropout < 1 else 0.1,
    )
    expected = {f"{name}.{key}": tuple(weight.shape) for key, weight in head.score.named_parameters()}
    check_tensors(path, expected, {key: tensor.shape for key, tensor in own.items()})
    for key, weight in zip(own, read_tensors(own.values()), strict=True):
        place(head.score, key.removeprefix(f"{name}."), weight, dtype, device, trainable)
    return head.eval()


def head_architecture(raw: Mapping[str, Any]) -> tuple[str, str] | None:
    """("Qwen3", "Sequence") of a `config.json`; None when it has no head for labels."""
    named = raw.get("architectures")
    match = (
        _ARCHITECTURE.fullmatch(named[0]) if isinstance(named, list) and named and isinstance(named[0], str) else None
    )
    return (match[1], match[2]) if match else None


def _load_encoder(
    path: Path,
    raw: Mapping[str, Any],
    stored: Mapping[str, StoredTensor],
    kind: str,
    dtype: torch.dtype,
    device: torch.device | str,
    dropout: float,
    trainable: bool,
) -> Encoder:
    config = replace(encoder_config_from_hf(raw), pooler=kind == "Sequence")
    plain = {name.removeprefix("bert."): tensor for name, tensor in stored.items()}
    return build_encoder(path, config, plain, dtype=dtype, device=device, dropout=dropout, trainable=trainable)


def _load_decoder(
    path: Path,
    raw: Mapping[str, Any],
    stored: Mapping[str, StoredTensor],
    dtype: torch.dtype,
    device: torch.device | str,
    dropout: float,
    trainable: bool,
) -> GPT:
    config = replace(config_from_hf(raw), tied=True)  # no output head: the embedding may stand for it
    layout = hf_layout(config)
    check_tensors(path, tensor_shapes(config, layout), {name: tensor.shape for name, tensor in stored.items()})
    with torch.device("meta"):
        model = GPT(config, dropout)
    held = by_tensor(layout)
    for tensor, weight in zip(stored, read_tensors(stored.values()), strict=True):
        for parameter, slot in held[tensor]:
            place(model, parameter, unpacked(weight, slot), dtype, device, trainable)
    model.to(device)
    return model.eval()


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


def _score_name(prefix: str, kind: str) -> str:
    """Transformers' name of the matrix."""
    return "classifier" if prefix == "Bert" or (prefix == "GPT2" and kind == "Token") else "score"


def _is_left_out(name: str) -> bool:
    return is_leftover(name) or name.endswith(("embeddings.position_ids", "embeddings.token_type_ids"))
