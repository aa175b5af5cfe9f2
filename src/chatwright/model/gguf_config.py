"""How GGUF spells a model: its metadata keys and tensor names as a ModelConfig."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

from chatwright.errors import InvalidModelError
from chatwright.model.config import Family, ModelConfig, RopeScaling, shown
from chatwright.model.gguf import GGUFFile
from chatwright.model.hf import SUPPORTED

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
    d_model, n_head = keys.required("embedding_length"), keys.required("attention.head_count")
    n_layer = keys.required("block_count")
    embed = tensors.get("token_embd.weight")
    if embed is None:
        raise InvalidModelError("{path} lacks the tensor {tensor}.", path=file.path, tensor="token_embd.weight")
    head_dim = keys.get("attention.key_length")
    if head_dim is None:
        valid = isinstance(d_model, int) and isinstance(n_head, int) and n_head > 0
        head_dim = d_model // n_head if valid else 0  # ModelConfig refuses the zero
    keys.expect("attention.value_length", (None, head_dim))
    keys.expect("rope.dimension_count", (None, head_dim))
    gpt2, gemma3 = family == "gpt2", family == "gemma3"
    query_scale = None
    if gemma3 and n_layer == _GEMMA3_27B_LAYERS and isinstance(d_model, int) and isinstance(n_head, int) and n_head > 0:
        query_scale = (d_model / n_head) ** -0.5
    return ModelConfig(
        family=family,
        vocab_size=keys.get("vocab_size") or embed.shape[0],
        n_layer=n_layer,
        d_model=d_model,
        n_head=n_head,
        n_kv_head=keys.get("attention.head_count_kv") or n_head,
        head_dim=head_dim,
        d_ff=keys.required("feed_forward_length"),
        context_length=keys.required("context_length"),
        norm="layernorm" if gpt2 else "rmsnorm",
        norm_eps=keys.required("attention.layer_norm_epsilon" if gpt2 else "attention.layer_norm_rms_epsilon"),
        positions="learned" if gpt2 else "rotary",
        activation="gelu_tanh" if gpt2 or gemma3 else "silu",
        gated=not gpt2,
        rope_theta=keys.get("rope.freq_base") or (1_000_000.0 if gemma3 else 10_000.0),
        rope_scaling=None if gpt2 else _rope_scaling(file, keys, head_dim),
        local_rope_theta=(keys.get("rope.freq_base_swa") or _GEMMA3_LOCAL_THETA) if gemma3 else None,
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
