"""What every GGUF file written here shares: metadata in the widths that llama.cpp expects, rotary factors as a tensor,
and what a file of each type calls itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGUFValueType, LlamaFileType

from chatwright.model.config import ModelConfig
from chatwright.model.gpt import rotary_frequencies

GGUFType = Literal["F32", "F16", "Q8_0", "Q4_0", "Q4_1"]
FILE_TYPES: Mapping[GGUFType, LlamaFileType] = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
    "Q4_1": LlamaFileType.MOSTLY_Q4_1,
}


def rope_factors(config: ModelConfig) -> npt.NDArray[np.float32] | None:
    """By what each rotary frequency is divided, where it is not the same for all: llama.cpp reads them as a tensor."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind == "linear" or config.positions != "rotary":
        return None
    if scaling.kind == "factors":
        return np.array(scaling.factors, dtype=np.float32)
    plain = rotary_frequencies(config.head_dim, config.rope_theta)
    factors: npt.NDArray[np.float32] = (plain / rotary_frequencies(config.head_dim, config.rope_theta, scaling)).numpy()
    return factors


def add_value(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    """With the type that llama.cpp expects: 32 bits wherever they are enough."""
    if isinstance(value, list):
        writer.add_key_value(key, value, GGUFValueType.ARRAY, sub_type=_value_type(value[0], signed=True))
    else:
        writer.add_key_value(key, value, _value_type(value))


def _value_type(value: object, *, signed: bool = False) -> GGUFValueType:
    match value:
        case bool():
            return GGUFValueType.BOOL
        case int():
            if not 0 <= value < 1 << 31:
                return GGUFValueType.UINT64 if value >= 0 else GGUFValueType.INT64
            return GGUFValueType.INT32 if signed else GGUFValueType.UINT32
        case float():
            return GGUFValueType.FLOAT32
        case _:
            return GGUFValueType.STRING
