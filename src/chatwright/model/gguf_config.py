"""How GGUF spells a model: its metadata keys and tensor names as a ModelConfig."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from gguf.constants import GGMLQuantizationType

from chatwright.errors import InvalidModelError
from chatwright.model.config import Family, ModelConfig, RopeScaling, shown
from chatwright.model.gguf import GGUFFile, GGUFTensor
from chatwright.model.hf import SUPPORTED
from chatwright.model.layout import gguf_layout, tensor_shapes

ROPE_FACTORS = "rope_freqs.weight"
# what other models of these architectures' kind do to their numbers
NOT_SUPPORTED = (
    "attention.scale",
    "attn_logit_softcapping",
    "embedding_scale",
    "final_logit_softcapping",
    "logit_scale",
    "residual_scale",
)

_FAMILIES: Mapping[str, Family] = {
    "gpt2": "gpt2", "llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3",
}  # fmt: skip
# What a configuration calls its numbers, and what GGUF does. Read and written by these rows alone.
_COMMON_KEYS: dict[str, str] = {
    "d_model": "embedding_length",
    "n_layer": "block_count",
    "n_head": "attention.head_count",
    "d_ff": "feed_forward_length",
    "context_length": "context_length",
}
_KEYS: Mapping[bool, Mapping[str, str]] = {  # by whether it is GPT-2
    True: _COMMON_KEYS | {"norm_eps": "attention.layer_norm_epsilon"},
    False: _COMMON_KEYS | {"norm_eps": "attention.layer_norm_rms_epsilon"},
}
_OPTIONAL_KEYS: Mapping[str, str] = {
    "vocab_size": "vocab_size",
    "n_kv_head": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "rope_theta": "rope.freq_base",
    "local_rope_theta": "rope.freq_base_swa",
}
# What llama.cpp takes for granted in Gemma 3 where the file does not say otherwise.
_GEMMA3_WINDOW_PERIOD = 6
_GEMMA3_LOCAL_THETA = 10_000.0
_GEMMA3_27B_LAYERS = 62  # in which scores are scaled by the width of a head's share of d_model, not by head_dim


def config_from_gguf(file: GGUFFile) -> ModelConfig:
    """A GGUF header as a ModelConfig. Mistral's files call themselves llama. Raises InvalidModelError."""
    metadata, tensors = file.metadata, file.tensors
    architecture = metadata.get("general.architecture")
    family = _FAMILIES.get(architecture) if isinstance(architecture, str) else None
    if family is None:
        raise InvalidModelError(
            "The architecture {architecture} is not supported (supported: {supported}).",
            architecture=shown(architecture),
            supported=SUPPORTED,
        )
    if metadata.get("split.count", 0) not in (0, 1):
        raise InvalidModelError(
            "{path} is one part of a model that is split into several GGUF files. Join them with llama.cpp's"
            " `llama-gguf-split --merge`.",
            path=file.path,
        )
    keys = _Keys(file, f"{architecture}.")
    keys.expect("expert_count", (None, 0))
    keys.expect("attention.causal", (None, True))
    for key in NOT_SUPPORTED:
        keys.expect(key, (None,))
    gpt2, gemma3 = family == "gpt2", family == "gemma3"
    value = {field: keys.required(key) for field, key in _KEYS[gpt2].items()}
    given = {field: keys.get(key) for field, key in _OPTIONAL_KEYS.items()}
    d_model, n_head, n_layer = value["d_model"], value["n_head"], value["n_layer"]
    embed = tensors.get("token_embd.weight")
    if embed is None:
        raise InvalidModelError("{path} lacks the tensor {tensor}.", path=file.path, tensor="token_embd.weight")
    head_dim = given["head_dim"]
    if head_dim is None:
        valid = isinstance(d_model, int) and isinstance(n_head, int) and n_head > 0
        head_dim = d_model // n_head if valid else 0  # ModelConfig refuses the zero
    keys.expect("attention.value_length", (None, head_dim))
    keys.expect("rope.dimension_count", (None, head_dim))
    query_scale = None
    if gemma3 and n_layer == _GEMMA3_27B_LAYERS and isinstance(d_model, int) and isinstance(n_head, int) and n_head > 0:
        query_scale = (d_model / n_head) ** -0.5
    return ModelConfig(
        family=family,
        **value,
        vocab_size=given["vocab_size"] or embed.shape[0],
        n_kv_head=given["n_kv_head"] or n_head,
        head_dim=head_dim,
        norm="layernorm" if gpt2 else "rmsnorm",
        positions="learned" if gpt2 else "rotary",
        activation="gelu_tanh" if gpt2 or gemma3 else "silu",
        gated=not gpt2,
        rope_theta=given["rope_theta"] or (1_000_000.0 if gemma3 else 10_000.0),
        rope_scaling=None if gpt2 else _rope_scaling(file, keys, head_dim),
        local_rope_theta=(given["local_rope_theta"] or _GEMMA3_LOCAL_THETA) if gemma3 else None,
        qk_norm=family in ("qwen3", "gemma3"),
        query_scale=query_scale,
        post_norms=gemma3,
        embed_scale=math.sqrt(d_model) if gemma3 and isinstance(d_model, int) and d_model > 0 else 1.0,
        qkv_bias="blk.0.attn_qkv.bias" in tensors or "blk.0.attn_q.bias" in tensors,
        out_bias="blk.0.attn_output.bias" in tensors,
        mlp_bias="blk.0.ffn_up.bias" in tensors,
        windows=_windows(keys, n_layer, gemma3),
        tied="output.weight" not in tensors,
    )


def config_to_gguf(config: ModelConfig) -> dict[str, Any]:
    """The metadata of a configuration, the architecture's name included; the inverse of `config_from_gguf`.

    Stretched frequencies of Llama 3's kind are a tensor there: see `rope_factors`. Whole numbers stay whole, others are for
    float32. Raises InvalidModelError for what GGUF has no words for.
    """
    c = config
    architecture = "llama" if c.family == "mistral" else c.family
    gpt2, gemma3 = c.family == "gpt2", c.family == "gemma3"
    own: dict[str, Any] = {key: getattr(c, field) for field, key in _KEYS[gpt2].items()}
    own["vocab_size"] = c.vocab_size
    if not gpt2:
        own |= {key: value for field, key in _OPTIONAL_KEYS.items() if (value := getattr(c, field)) is not None}
        own |= {"attention.value_length": c.head_dim, "rope.dimension_count": c.head_dim}
    if c.rope_scaling is not None and c.rope_scaling.kind == "linear":
        own |= {"rope.scaling.type": "linear", "rope.scaling.factor": c.rope_scaling.factor}
    if (window := next((window for window in c.windows if window is not None), None)) is not None:
        own["attention.sliding_window"] = window
        if gemma3:
            own["attention.sliding_window_pattern"] = _window_period(c)
    metadata = {"general.architecture": architecture} | {
        f"{architecture}.{key}": float(value) if key in _FLOATS else value for key, value in own.items()
    }
    if not _is_written_whole(config, metadata):
        raise InvalidModelError(
            "This model cannot be written as GGUF, whose {family} models lack one of its choices (activation, biases, windows,"
            " positions or scales).",
            family=c.family,
        )
    return metadata


_FLOATS = frozenset(
    {
        "attention.layer_norm_epsilon",
        "attention.layer_norm_rms_epsilon",
        "rope.freq_base",
        "rope.freq_base_swa",
        "rope.scaling.factor",
    }
)


def _window_period(config: ModelConfig) -> int | list[bool]:
    """llama.cpp knows patterns in which every n-th layer sees all; others are written as one truth value a layer."""
    first = next((i for i, window in enumerate(config.windows) if window is None), config.n_layer)
    period = first + 1
    slides = [window is not None for window in config.windows]
    return period if slides == [bool((i + 1) % period) for i in range(config.n_layer)] else slides


def _is_written_whole(config: ModelConfig, metadata: Mapping[str, Any]) -> bool:
    """Whether the reader makes the same model of the metadata and of tensors of these shapes."""
    expected = replace(config, family="llama") if config.family == "mistral" else config
    if config.rope_scaling is not None and config.rope_scaling.kind != "linear":
        expected = replace(expected, rope_scaling=None)  # a tensor says it
    shapes = tensor_shapes(config, gguf_layout(config))
    tensors = {name: GGUFTensor(name, shape, GGMLQuantizationType.F32, 0, 0) for name, shape in shapes.items()}
    return config_from_gguf(GGUFFile(Path(), np.empty(0, np.uint8), metadata, tensors)) == expected


def _windows(keys: _Keys, n_layer: object, gemma3: bool) -> tuple[int | None, ...]:
    window = keys.get("attention.sliding_window") or None
    if not gemma3:
        keys.expect("attention.sliding_window_pattern", (None,))
    if window is None or not isinstance(n_layer, int) or n_layer > 1 << 10:
        return ()  # a bad n_layer is refused by ModelConfig itself
    if not gemma3:
        return (window,) * n_layer
    pattern = keys.get("attention.sliding_window_pattern")
    period = _GEMMA3_WINDOW_PERIOD if pattern is None else pattern
    if isinstance(period, list) and len(period) == n_layer and all(isinstance(slides, bool) for slides in period):
        return tuple(window if slides else None for slides in period)
    if not isinstance(period, int) or period < 1:
        keys.refuse("attention.sliding_window_pattern")
    return tuple(window if (i + 1) % period else None for i in range(n_layer))


def _rope_scaling(file: GGUFFile, keys: _Keys, head_dim: object) -> RopeScaling | None:
    if (tensor := file.tensors.get(ROPE_FACTORS)) is not None:
        if not isinstance(head_dim, int) or tensor.shape != (head_dim // 2,):
            raise InvalidModelError(
                "{path}: the tensor {tensor} has the shape {shape}, but the model's configuration needs {expected}.",
                path=file.path,
                tensor=ROPE_FACTORS,
                shape=list(tensor.shape),
                expected=[head_dim // 2] if isinstance(head_dim, int) else [],
            )
        return RopeScaling(kind="factors", factors=tuple(file.read(ROPE_FACTORS).tolist()))
    kind = keys.get("rope.scaling.type")
    factor = keys.get("rope.scaling.factor") or keys.get("rope.scale_linear")
    if kind in (None, "none") and factor in (None, 1.0):
        return None
    if kind in (None, "linear"):
        return RopeScaling(kind="linear", factor=1.0 if factor is None else factor)
    keys.refuse("rope.scaling.type")


class _Keys:
    """The metadata of one architecture."""

    def __init__(self, file: GGUFFile, prefix: str) -> None:
        self.file = file
        self.prefix = prefix

    def get(self, key: str) -> Any:
        return self.file.metadata.get(self.prefix + key)

    def required(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise InvalidModelError("{path} lacks the metadata key {key}.", path=self.file.path, key=self.prefix + key)
        return value

    def expect(self, key: str, supported: tuple[object, ...]) -> None:
        if self.get(key) not in supported:
            self.refuse(key)

    def refuse(self, key: str) -> NoReturn:
        raise InvalidModelError(
            "{path} sets {key} to {value}, which is not supported.",
            path=self.file.path,
            key=self.prefix + key,
            value=shown(self.get(key)),
        )
