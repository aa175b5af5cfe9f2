"""Folders of models with a head, in the layout of Transformers' …ForSequenceClassification and …ForTokenClassification."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from chatwright.errors import UsageError
from chatwright.model.card import write_card
from chatwright.model.checkpoint import StoredTensor
from chatwright.model.config import ModelConfig
from chatwright.model.encoder import Encoder
from chatwright.model.encoder_config import EncoderConfig, encoder_config_to_hf
from chatwright.model.encoder_hf import build_encoder, encoder_weights
from chatwright.model.folder import new_folder
from chatwright.model.gpt import GPT
from chatwright.model.head_checkpoint import open_head, score_name
from chatwright.model.heads import TextClassifier, TokenTagger
from chatwright.model.hf import config_to_hf, exported_config
from chatwright.model.layout import by_tensor, hf_layout
from chatwright.model.load import unpacked
from chatwright.model.save import packed, write_tensors
from chatwright.model.tensors import place, read_tensors

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
    name = score_name(prefix, kind)
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
    checkpoint = open_head(path)
    base: GPT | Encoder
    if isinstance(checkpoint.config, EncoderConfig):
        base = build_encoder(
            checkpoint.path,
            checkpoint.config,
            checkpoint.base,
            dtype=dtype,
            device=device,
            dropout=dropout,
            trainable=trainable,
        )
    else:
        base = _load_decoder(checkpoint.config, checkpoint.base, dtype, device, dropout, trainable)
    pad_id = checkpoint.raw.get("pad_token_id")
    head_dropout = checkpoint.raw.get("classifier_dropout")
    cls = TextClassifier if checkpoint.kind == "Sequence" else TokenTagger
    head = cls(
        base,
        checkpoint.labels,
        pad_id=pad_id if isinstance(pad_id, int) else None,
        dropout=head_dropout if isinstance(head_dropout, float) and 0 <= head_dropout < 1 else 0.1,
    )
    for key, weight in zip(checkpoint.head, read_tensors(checkpoint.head.values()), strict=True):
        place(head.score, key, weight, dtype, device, trainable)
    return head.eval()


def _load_decoder(
    config: ModelConfig,
    stored: Mapping[str, StoredTensor],
    dtype: torch.dtype,
    device: torch.device | str,
    dropout: float,
    trainable: bool,
) -> GPT:
    with torch.device("meta"):
        model = GPT(config, dropout)
    held = by_tensor(hf_layout(config))
    for tensor, weight in zip(stored, read_tensors(stored.values()), strict=True):
        for parameter, slot in held[tensor]:
            place(model, parameter, unpacked(weight, slot), dtype, device, trainable)
    model.to(device)
    return model.eval()
