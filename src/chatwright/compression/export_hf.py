"""Writes a decoder as a folder that Transformers and vLLM load: weights, configuration, tokenizer, template, card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from chatwright.compression.finite import is_finite
from chatwright.compression.source import Source
from chatwright.engine.tokenizers import copy_tokenizer
from chatwright.hub.manifest import pulled_license
from chatwright.model.card import ModelCard, write_card
from chatwright.model.checkpoint import CONFIG, GGUFCheckpoint, SafetensorsCheckpoint, read_json_object
from chatwright.model.folder import CARD, GENERATION_CONFIG, check_free, new_folder, write_json
from chatwright.model.save import write_model

HFType = Literal["F32", "F16", "BF16"]
TYPES: tuple[HFType, ...] = get_args(HFType)
_DTYPES: dict[str, torch.dtype] = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class ExportedHF:
    """What was written."""

    path: Path
    size_bytes: int
    type: HFType


def export_hf(source: Source, out: Path, kind: HFType | None = None) -> ExportedHF:
    """Writes the folder `out`, which appears whole or not at all.

    Without `kind` weights keep the precision that they are stored in; those of a quantised GGUF become float32, which holds them
    exactly. Raises UsageError when `out` is there, StorageError, InvalidModelError for what Transformers cannot be told and for
    weights that are no numbers.
    """
    check_free(out)
    chosen = kind or _stored(source)
    with new_folder(out) as whole:
        copy_tokenizer(source.checkpoint.path, whole)
        generation = _generation(source, whole)
        extra: dict[str, Any] = {key: generation[key] for key in _SPECIAL if key in generation}
        if source.info.fills_in:
            extra["chatwright"] = {"fim": True}
        model = source.model(_DTYPES[chosen])
        for name, parameter in model.named_parameters():
            # In the file already? What float16 cannot hold becomes infinite, and is seen by `verify`.
            if not is_finite(parameter):
                source.check_finite(name, source.parameter(name))
        write_model(model, whole, extra=extra)
        if source.adapter is not None and source.template is not None:
            (whole / "chat_template.jinja").write_text(source.template.source, encoding="utf-8", newline="")
        write_json(whole / GENERATION_CONFIG, generation)
        write_card(whole, _card(source, chosen))
    return ExportedHF(out, sum(file.stat().st_size for file in out.rglob("*") if file.is_file()), chosen)


def _stored(source: Source) -> HFType:
    if isinstance(source.checkpoint, GGUFCheckpoint):
        types = {tensor.type.name for tensor in source.checkpoint.file.tensors.values() if len(tensor.shape) > 1}
    else:
        types = {tensor.dtype for tensor in source.checkpoint.tensors.values()}
    return next((kind for kind in TYPES if types == {kind}), "F32")


def _generation(source: Source, whole: Path) -> dict[str, Any]:
    """Sampling defaults: those of the source, or which tokens end an answer; an adapter's come first."""
    own = read_json_object(whole / GENERATION_CONFIG)
    for folder in (source.folder, source.adapter):
        if folder is not None and (folder / GENERATION_CONFIG).is_file():
            own |= read_json_object(folder / GENERATION_CONFIG)
    if isinstance(source.checkpoint, SafetensorsCheckpoint):
        config = read_json_object(source.folder / CONFIG)
        own = {key: config[key] for key in _SPECIAL if config.get(key) is not None} | own
    return own


def _card(source: Source, kind: HFType) -> str:
    """The source's own card where it has one, else a new one."""
    card = source.folder / CARD
    if source.adapter is not None and (source.adapter / CARD).is_file():
        card = source.adapter / CARD
    if card.is_file() and card.parent.is_dir() and isinstance(source.checkpoint, SafetensorsCheckpoint):
        return card.read_text(encoding="utf-8", errors="replace")
    return ModelCard(
        title=source.info.name,
        pipeline_tag="text-generation",
        languages=source.info.languages,
        license=source.info.license or pulled_license(source.checkpoint.path) or "unknown",
        recipe={"exported from": f"{source.checkpoint.path.name} ({source.info.quantization})", "weights": kind},
    ).render()
