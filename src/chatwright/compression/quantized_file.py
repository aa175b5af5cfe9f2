"""A model folder whose weights are one GGUF file: blocks that our reader, the kernels and llama.cpp take as they are.

`export_gguf` keeps the blocks of a GGUF file that have the wanted type already. So blocks that were chosen here are written as a
bare file first, without a tokenizer, and exported from there with all that belongs to a file for others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gguf
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType as Type
from numpy.typing import NDArray

from chatwright.compression.export_gguf import export_gguf
from chatwright.compression.gguf_parts import FILE_TYPES, add_value, rope_factors
from chatwright.compression.source import Source
from chatwright.errors import InvalidModelError
from chatwright.model.config import ModelConfig
from chatwright.model.gguf_config import ROPE_FACTORS, config_to_gguf
from chatwright.model.layout import by_tensor, gguf_layout
from chatwright.model.save import stored as stored_tensor

WEIGHTS, BARE = "model.gguf", "blocks.gguf"


class Stored(NamedTuple):
    """A parameter as rows: of blocks (bytes), or of floats."""

    rows: NDArray[Any]
    type: Type


def write_weights(
    folder: Path,
    config: ModelConfig,
    parameters: Mapping[str, Stored],
    kind: Literal["Q8_0", "Q4_1"],
    general: Mapping[str, Any],
) -> str | None:
    """model.gguf in a folder that has the tokenizer's files. `general`: metadata about the model, such as its name.

    The reason where llama.cpp does not load it: GGUF cannot say all of the model, most often its tokenizer, which lies beside
    the file then, where we find it and llama.cpp does not; or llama.cpp has no such model. None where it does.
    """
    bare = folder / BARE
    _write_bare(bare, config, parameters, {**general, "general.file_type": int(FILE_TYPES[kind])})
    try:
        exported = export_gguf(Source.open(bare), folder / WEIGHTS, kind)
    except InvalidModelError as error:
        bare.rename(folder / WEIGHTS)
        return str(error).replace(f"{folder}/", "")
    bare.unlink()
    return exported.not_loaded


def _write_bare(path: Path, config: ModelConfig, parameters: Mapping[str, Stored], general: Mapping[str, Any]) -> None:
    metadata = config_to_gguf(config) | dict(general)
    writer = gguf.GGUFWriter(path, metadata.pop("general.architecture"))
    try:
        for key, value in metadata.items():
            add_value(writer, key, value)
        if (factors := rope_factors(config)) is not None:
            writer.add_tensor(ROPE_FACTORS, factors)
        for tensor, held in by_tensor(gguf_layout(config)).items():
            parts = [parameters[parameter] for parameter, _ in held]
            # whole rows change their places, so blocks stay blocks
            rows = stored_tensor([torch.from_numpy(part.rows) for part in parts], [slot for _, slot in held])
            writer.add_tensor(tensor, np.ascontiguousarray(rows.numpy()), raw_dtype=parts[0].type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
