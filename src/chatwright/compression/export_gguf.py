"""Writes a decoder as one GGUF file, with its tokenizer and chat template, for llama.cpp and whatever is built on it.

Tensors go to the file one after the other, so that memory holds one of them, not the model. Matrices get the type that is asked
for; norms, biases, GPT-2's positions and rotary factors stay in float32, as in llama.cpp's converter.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType as Type
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import quantize

from chatwright.compression.gguf_parts import FILE_TYPES, GGUFType, add_value, rope_factors
from chatwright.compression.progress import Progress, Silent
from chatwright.compression.source import Source
from chatwright.errors import StorageError
from chatwright.i18n import _, format_size
from chatwright.model.checkpoint import GGUFCheckpoint
from chatwright.model.config import ModelConfig
from chatwright.model.folder import new_file
from chatwright.model.gguf_config import ROPE_FACTORS, config_to_gguf
from chatwright.model.gpt import fixed_positions
from chatwright.model.hf import exported_config
from chatwright.model.layout import Shape, by_tensor, gguf_layout, tensor_shapes
from chatwright.model.save import stored
from chatwright.tokenizer.huggingface import eos_ids_of_model
from chatwright.tokenizer.load import load_tokenizer
from chatwright.tokenizer.to_gguf import tokenizer_metadata

TYPES: tuple[GGUFType, ...] = get_args(GGUFType)
_BLOCK = 32
_BLOCKS = (Type.Q8_0, Type.Q4_0, Type.Q4_1)
_QUANTIZE_ELEMENTS = 1 << 20  # at a time: quantising needs several times its input
_ALIGNMENT = 32
# Families whose models have no biases in llama.cpp, which loads no file with a tensor that it has no place for. Ours and
# Transformers' have them where `attention_bias` says so; tried with xllamacpp 2026.10, where Llama's take all of them.
_WITHOUT_BIASES = ("qwen3", "gemma3")
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")


@dataclass(frozen=True)
class ExportedGGUF:
    """What was written. `n_kept`: tensors whose blocks were taken over as they were. `in_f16`: tensors whose rows do not divide
    into blocks. `window`: of attention, where llama.cpp's models of this family see everything. `n_ends_lost`: tokens that end an
    answer for which GGUF has no place. `not_loaded`: why llama.cpp does not load the file, where it does not; we do.
    """

    path: Path
    size_bytes: int
    types: Mapping[str, int]
    n_kept: int = 0
    in_f16: tuple[str, ...] = ()
    window: int | None = None
    n_ends_lost: int = 0
    not_loaded: str | None = None


@dataclass
class _Plan:
    """The tensors of the file in their order: shape and type."""

    tensors: dict[str, tuple[Shape, Type]] = field(default_factory=dict)
    in_f16: list[str] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(_size_bytes(shape, kind) for shape, kind in self.tensors.values())


def export_gguf(source: Source, out: Path, kind: GGUFType = "F16", progress: Progress | None = None) -> ExportedGGUF:
    """Writes `out`, which appears whole or not at all.

    A GGUF file as source is dequantised, but its blocks are kept where they have the type already, and all of them in a
    file that calls itself of this type. At 4 bits the matrix that
    chooses among words is kept in 8 (llama.cpp takes 6): it costs most of the quality and is read once a token. Raises UsageError
    when `out` is there, StorageError, InvalidModelError for what GGUF cannot say and for weights that are no numbers.
    """
    progress = progress or Silent()
    with new_file(out) as whole:  # first: it refuses what is there within milliseconds
        config = exported_config(source.config)
        metadata = config_to_gguf(config) | _general(source, kind) | _text_side(source, config)
        plan = _planned(config, Type[kind], _own_types(source, kind))
        _check_room(out, plan.size_bytes)
        n_kept = _write(source, config, metadata, plan, whole, progress)
    return ExportedGGUF(
        path=out,
        size_bytes=out.stat().st_size,
        types=Counter(type_.name for _, type_ in plan.tensors.values()),
        n_kept=n_kept,
        in_f16=tuple(plan.in_f16),
        window=_ignored_window(config),
        n_ends_lost=_ends_lost(source, metadata),
        not_loaded=_not_loaded(config),
    )


def _general(source: Source, kind: GGUFType) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if isinstance(source.checkpoint, GGUFCheckpoint):
        known = {
            key: value
            for key, value in source.checkpoint.file.metadata.items()
            if key.startswith("general.") and key not in ("general.architecture", "general.alignment")
        }
    info = source.info
    known |= {"general.type": "model", "general.name": info.name}
    if info.license is not None:
        known["general.license"] = info.license
    if info.languages:
        known["general.languages"] = list(info.languages)
    if info.fills_in:
        known["chatwright.fim"] = True
    return known | {"general.file_type": int(FILE_TYPES[kind]), "general.quantization_version": 2}


def _text_side(source: Source, config: ModelConfig) -> dict[str, Any]:
    """Tokenizer and template: of a GGUF as they are there, else out of the folder's files."""
    folder = source.folder
    from_files = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    if isinstance(source.checkpoint, GGUFCheckpoint) and not from_files:
        file = source.checkpoint.file.metadata
        load_tokenizer(folder, file)  # refuses one that is missing or broken
        metadata = {key: value for key, value in file.items() if key.startswith("tokenizer.")}
    else:
        load_tokenizer(folder)
        metadata = tokenizer_metadata(folder, config.vocab_size)
    if source.adapter is not None:
        ends = eos_ids_of_model(source.adapter) - {metadata.get(f"tokenizer.ggml.{key}") for key in _ENDS}
        if ends:  # a format that it taught a base model has an end of its own
            metadata["tokenizer.ggml.eos_token_id"] = min(ends)
    if source.template is not None:
        metadata["tokenizer.chat_template"] = source.template.source
    return metadata


def _ends_lost(source: Source, metadata: Mapping[str, Any]) -> int:
    folder = source.folder
    if isinstance(source.checkpoint, GGUFCheckpoint) and not (folder / "tokenizer.json").is_file():
        return 0
    return len(load_tokenizer(folder).eos_ids - load_tokenizer(Path("/nonexistent"), metadata).eos_ids)


def _ignored_window(config: ModelConfig) -> int | None:
    if config.family == "gemma3":
        return None
    windows = [window for window in config.windows if window is not None and window < config.context_length]
    return min(windows, default=None)


def _not_loaded(config: ModelConfig) -> str | None:
    if config.family in _WITHOUT_BIASES and (config.qkv_bias or config.out_bias or config.mlp_bias):
        return _("its {family} models have no biases, this one has.", family=config.family)
    return None


def default_type(source: Source) -> GGUFType:
    """The type that a GGUF file calls itself, so that what is quantised stays as it is and as small; F16 for all else."""
    if not isinstance(source.checkpoint, GGUFCheckpoint) or source.adapter is not None:
        return "F16"
    own = source.checkpoint.file.metadata.get("general.file_type")
    return next((kind for kind in TYPES if int(FILE_TYPES[kind]) == own), "F16")


def _own_types(source: Source, kind: GGUFType) -> dict[str, Type]:
    """The types of blocks that a file has chosen which calls itself what is asked for: `quantize` keeps some matrices in 8 bits."""
    if not isinstance(source.checkpoint, GGUFCheckpoint) or source.adapter is not None:
        return {}
    file = source.checkpoint.file
    if file.metadata.get("general.file_type") != int(FILE_TYPES[kind]):
        return {}
    return {name: tensor.type for name, tensor in file.tensors.items() if tensor.type in _BLOCKS}


def _planned(config: ModelConfig, kind: Type, own: Mapping[str, Type]) -> _Plan:
    plan = _Plan()
    head = "token_embd.weight" if config.tied else "output.weight"
    if rope_factors(config) is not None:
        plan.tensors[ROPE_FACTORS] = ((config.head_dim // 2,), Type.F32)
    for name, shape in tensor_shapes(config, gguf_layout(config)).items():
        chosen = kind
        if len(shape) == 1 or name == "position_embd.weight":
            chosen = Type.F32
        elif kind in _BLOCKS:
            chosen = own.get(name, kind)
            if name == head:
                chosen = Type.Q8_0
            if shape[-1] % _BLOCK:
                chosen = Type.F16
                plan.in_f16.append(name)
        plan.tensors[name] = (shape, chosen)
    return plan


def _size_bytes(shape: Shape, kind: Type) -> int:
    elements, size = GGML_QUANT_SIZES[kind]
    return int(math.prod(shape) // elements * size)


def _check_room(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise StorageError(
            "{path} needs {needed}, but only {free} are free there. Free some space, or choose a smaller --type.",
            path=out,
            needed=format_size(needed),
            free=format_size(free),
        )


def _write(
    source: Source,
    config: ModelConfig,
    metadata: Mapping[str, Any],
    plan: _Plan,
    path: Path,
    progress: Progress,
) -> int:
    writer = gguf.GGUFWriter(path, metadata["general.architecture"])
    n_kept = done = 0
    try:
        for key, value in metadata.items():
            if key != "general.architecture" and value != []:
                add_value(writer, key, value)
        for name, (shape, kind) in plan.tensors.items():
            writer.add_tensor_info(name, shape, np.dtype(np.float32), _size_bytes(shape, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        progress.begin(path.name, plan.size_bytes)
        held = by_tensor(gguf_layout(config))
        for name, (shape, kind) in plan.tensors.items():
            # looked at also where its blocks are kept: a broken scale is a broken model
            parts = [_parameter(source, config, parameter) for parameter, _ in held.get(name, ())]
            for (parameter, _), part in zip(held.get(name, ()), parts, strict=True):
                source.check_finite(parameter, part)
            if (kept := _kept(source, name, shape, kind)) is not None:
                n_kept += 1
                writer.write_tensor_data(kept)
            elif name == ROPE_FACTORS:
                factors = rope_factors(config)
                assert factors is not None
                writer.write_tensor_data(factors)
            else:
                whole = stored(parts, [slot for _, slot in held[name]]).float().contiguous().numpy()
                writer.write_tensor_data(_encoded(whole, kind))
            done += _size_bytes(shape, kind)
            progress.advance(done)
    finally:
        writer.close()
    return n_kept


def _kept(source: Source, name: str, shape: Shape, kind: Type) -> npt.NDArray[np.uint8] | None:
    """The bytes of a quantised tensor of the source that has the type already: quantising again would lose a little more."""
    if not isinstance(source.checkpoint, GGUFCheckpoint) or source.adapter is not None or kind is Type.F32:
        return None
    tensor = source.checkpoint.file.tensors.get(name)
    if tensor is None or tensor.type is not kind or tensor.shape != shape:
        return None
    return np.array(source.checkpoint.file.raw(name))


def _parameter(source: Source, config: ModelConfig, name: str) -> torch.Tensor:
    if name == "position_embed.weight" and source.config.positions == "sinusoidal":
        return fixed_positions(torch.arange(config.context_length), config.d_model)
    return source.parameter(name)


def _encoded(values: npt.NDArray[np.float32], kind: Type) -> npt.NDArray[Any]:
    if kind is Type.F32:
        return values
    if kind is Type.F16:
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is seen by `verify`
            return values.astype(np.float16)
    rows = max(1, _QUANTIZE_ELEMENTS // values.shape[-1])
    return np.concatenate([quantize(values[i : i + rows], kind) for i in range(0, len(values), rows)])
