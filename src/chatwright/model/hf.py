"""How Transformers spells a model: its `config.json`, read and written, and whole folders written in its layout.

Absent keys have the defaults of Transformers' configuration classes; rotary positions are read in the old spelling
(`rope_theta`, `rope_scaling`) and the new (`rope_parameters`, Transformers 5). What this decoder would compute otherwise
than Transformers is refused, not ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

from chatwright.errors import InvalidModelError
from chatwright.model.config import Activation, Family, ModelConfig, RopeScaling, shown

_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
}
HF_ACTIVATIONS: Mapping[Activation, str] = {"gelu": "gelu", "gelu_tanh": "gelu_new", "silu": "silu", "relu": "relu"}
_ARCHITECTURES: Mapping[Family, str] = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
}
# What Transformers calls a family where it is not our name: "gemma3" is the model of text and images around the decoder.
_MODEL_TYPES: Mapping[Family, str] = {"gemma3": "gemma3_text"}
SUPPORTED = "GPT-2, Llama, Mistral, Qwen2, Qwen3, Gemma 3"


def config_from_hf(raw: Mapping[str, Any]) -> ModelConfig:
    """A `config.json` as a ModelConfig. Raises InvalidModelError for what is unsafe, broken or not supported."""
    if raw.get("auto_map") is not None:
        raise InvalidModelError(
            "The model's config.json asks to run Python code that comes with the model (auto_map). Such code is never"
            " run; choose a model of a supported architecture ({supported}).",
            supported=SUPPORTED,
        )
    if raw.get("quantization_config") is not None:
        raise InvalidModelError(
            "The weights in this folder are quantised (quantization_config in config.json), which is not supported for"
            " safetensors. Choose the unquantised model, or a GGUF of it."
        )
    family = raw.get("model_type")
    if family == "gpt2":
        return _gpt2(raw)
    if family in ("llama", "mistral", "qwen2", "qwen3"):
        return _llama_like(family, raw)
    if family == "gemma3":
        return _gemma3(_text_part(raw))
    if family == "gemma3_text":
        return _gemma3(raw)
    raise InvalidModelError(
        "The architecture {architecture} is not supported (supported: {supported}).",
        architecture=shown(family or raw.get("architectures")),
        supported=SUPPORTED,
    )


def _gpt2(raw: Mapping[str, Any]) -> ModelConfig:
    for flag, harmless in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
    ):
        if raw.get(flag, harmless) is not harmless:
            _refuse_option(flag, raw[flag])
    # reorder_and_upcast_attn only changes rounding in half precision, where scores are kept in float32 here anyway
    d_model = _required(raw, "n_embd", "hidden_size")
    n_head = _required(raw, "n_head", "num_attention_heads")
    return ModelConfig(
        family="gpt2",
        vocab_size=_required(raw, "vocab_size"),
        n_layer=_required(raw, "n_layer", "num_hidden_layers"),
        d_model=d_model,
        n_head=n_head,
        n_kv_head=n_head,
        head_dim=_divided(d_model, n_head),
        d_ff=_optional(raw, "n_inner", 4 * d_model if isinstance(d_model, int) else None),
        context_length=_required(raw, "n_positions", "max_position_embeddings", "n_ctx"),
        norm="layernorm",
        norm_eps=raw.get("layer_norm_epsilon", 1e-5),
        positions="learned",
        activation=activation_from_hf(raw.get("activation_function", "gelu_new")),
        gated=False,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        tied=_flag(raw, "tie_word_embeddings", True),
    )


def _llama_like(family: Family, raw: Mapping[str, Any]) -> ModelConfig:
    d_model = _required(raw, "hidden_size")
    n_head = _required(raw, "num_attention_heads")
    n_layer = _required(raw, "num_hidden_layers")
    head_dim = _optional(raw, "head_dim", 128 if family == "qwen3" and "head_dim" not in raw else None)
    n_kv_head = _optional(raw, "num_key_value_heads", 8 if family == "mistral" and not _has_kv(raw) else n_head)
    attention_bias = family in ("llama", "qwen3") and _flag(raw, "attention_bias", False)
    theta, scaling = _rope(raw)
    return ModelConfig(
        family=family,
        vocab_size=_required(raw, "vocab_size"),
        n_layer=n_layer,
        d_model=d_model,
        n_head=n_head,
        n_kv_head=n_kv_head,
        head_dim=_divided(d_model, n_head) if head_dim is None else head_dim,
        d_ff=_required(raw, "intermediate_size"),
        context_length=_required(raw, "max_position_embeddings"),
        norm="rmsnorm",
        norm_eps=raw.get("rms_norm_eps", 1e-6),
        positions="rotary",
        activation=activation_from_hf(raw.get("hidden_act", "silu")),
        gated=True,
        rope_theta=theta,
        rope_scaling=scaling,
        qk_norm=family == "qwen3",
        qkv_bias=attention_bias or family == "qwen2",
        out_bias=attention_bias,
        mlp_bias=family == "llama" and _flag(raw, "mlp_bias", False),
        windows=_windows(family, raw, n_layer),
        tied=_flag(raw, "tie_word_embeddings", False),
    )


def _text_part(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the configuration of a model of text and images says of its decoder."""
    text = raw.get("text_config")
    if not isinstance(text, Mapping):
        raise InvalidModelError("The model's config.json lacks {key}.", key="text_config")
    tied = raw.get("tie_word_embeddings")
    return dict(text) if tied is None else {"tie_word_embeddings": tied} | dict(text)


def _gemma3(raw: Mapping[str, Any]) -> ModelConfig:
    for option in ("attn_logit_softcapping", "final_logit_softcapping"):
        if raw.get(option) is not None:
            _refuse_option(option, raw[option])
    if raw.get("use_bidirectional_attention"):
        _refuse_option("use_bidirectional_attention", raw["use_bidirectional_attention"])
    defaults: dict[str, Any] = {  # of Transformers' Gemma3TextConfig
        "vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    }  # fmt: skip
    value = {key: _optional(raw, key, default) for key, default in defaults.items()}
    d_model, head_dim, scalar = value["hidden_size"], value["head_dim"], value["query_pre_attn_scalar"]
    for option in ("hidden_size", "query_pre_attn_scalar"):  # of which roots are taken
        number = value[option]
        if not isinstance(number, int | float) or isinstance(number, bool) or not 0 < number <= 1 << 18:
            _refuse_option(option, number)
    bias = _flag(raw, "attention_bias", False)
    theta, local_theta, scaling = _gemma3_rope(raw)
    return ModelConfig(
        family="gemma3",
        vocab_size=value["vocab_size"],
        n_layer=value["num_hidden_layers"],
        d_model=d_model,
        n_head=value["num_attention_heads"],
        n_kv_head=value["num_key_value_heads"],
        head_dim=head_dim,
        d_ff=value["intermediate_size"],
        context_length=value["max_position_embeddings"],
        norm="rmsnorm",
        norm_eps=value["rms_norm_eps"],
        positions="rotary",
        activation=activation_from_hf(value["hidden_activation"]),
        gated=True,
        rope_theta=theta,
        rope_scaling=scaling,
        local_rope_theta=local_theta,
        qk_norm=True,
        query_scale=None if scalar == head_dim else scalar**-0.5,
        post_norms=True,
        embed_scale=math.sqrt(d_model),
        qkv_bias=bias,
        out_bias=bias,
        windows=_gemma3_windows(raw, value["num_hidden_layers"], value["sliding_window"]),
        tied=_flag(raw, "tie_word_embeddings", True),
    )


def _gemma3_rope(raw: Mapping[str, Any]) -> tuple[float, float, RopeScaling | None]:
    """The base of layers that see all, that of layers with a window, and how the first is stretched."""
    theta, local_theta = raw.get("rope_theta", 1_000_000.0), raw.get("rope_local_base_freq", 10_000.0)
    sets = raw.get("rope_parameters")
    if sets is None:
        theta, scaling = _rope({"rope_theta": theta} | dict(raw))
        return theta, local_theta, scaling
    if not isinstance(sets, Mapping):
        _refuse_option("rope_parameters", sets)
    whole, local = (sets.get(kind) or {} for kind in ("full_attention", "sliding_attention"))
    if not isinstance(whole, Mapping) or not isinstance(local, Mapping):
        _refuse_option("rope_parameters", dict(sets))
    theta, scaling = _rope(dict(raw) | {"rope_theta": theta, "rope_parameters": whole, "rope_scaling": None})
    local_theta, stretched = _rope({"rope_theta": local_theta, "rope_parameters": local})
    if stretched is not None:
        _refuse_option("rope_parameters", dict(sets))
    return theta, local_theta, scaling


def _gemma3_windows(raw: Mapping[str, Any], n_layer: Any, window: Any) -> tuple[int | None, ...]:
    if not isinstance(n_layer, int) or n_layer > 1 << 10:
        return ()  # a bad n_layer is refused by ModelConfig itself
    kinds = raw.get("layer_types")
    if kinds is None:
        period = _optional(raw, "sliding_window_pattern", 6)
        if not isinstance(period, int) or period < 1:
            _refuse_option("sliding_window_pattern", period)
        return tuple(window if (i + 1) % period else None for i in range(n_layer))
    return tuple(window if slide else None for slide in _slides(kinds))


def _has_kv(raw: Mapping[str, Any]) -> bool:
    return "num_key_value_heads" in raw


def _windows(family: Family, raw: Mapping[str, Any], n_layer: Any) -> tuple[int | None, ...]:
    if family == "llama" or not isinstance(n_layer, int) or n_layer > 1 << 10:
        return ()  # a bad n_layer is refused by ModelConfig itself
    window = raw.get("sliding_window", 4096)
    if family == "mistral":
        return (window,) * n_layer
    if not _flag(raw, "use_sliding_window", False):
        window = None
    first = raw.get("max_window_layers", 28)
    kinds = raw.get("layer_types")
    if kinds is None:
        if not isinstance(first, int):
            _refuse_option("max_window_layers", first)
        slides = [window is not None and i >= first for i in range(n_layer)]
    else:
        slides = _slides(kinds)
        if any(slides) and window is None:
            _refuse_option("sliding_window", None)
    return tuple(window if slide else None for slide in slides)


def _slides(kinds: object) -> list[bool]:
    """`layer_types`: which layers have a window."""
    if not isinstance(kinds, list) or any(kind not in ("full_attention", "sliding_attention") for kind in kinds):
        _refuse_option("layer_types", kinds)
    return [kind == "sliding_attention" for kind in kinds]


def _rope(raw: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        _refuse_option("rope_parameters", rope)
    theta = rope.get("rope_theta", raw.get("rope_theta", 10_000.0))
    partial = rope.get("partial_rotary_factor", raw.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        _refuse_option("partial_rotary_factor", partial)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        if any(isinstance(value, Mapping) for value in rope.values()):
            _refuse_option("rope_parameters", dict(rope))  # one set a kind of layer
        return theta, None
    if kind == "linear":
        return theta, RopeScaling(kind="linear", factor=_required(rope, "factor"))
    if kind == "llama3":
        return theta, RopeScaling(
            kind="llama3",
            factor=_required(rope, "factor"),
            low_freq_factor=_required(rope, "low_freq_factor"),
            high_freq_factor=_required(rope, "high_freq_factor"),
            original_context_length=_required(
                {"max_position_embeddings": raw.get("max_position_embeddings")} | dict(rope),
                "original_max_position_embeddings",
                "max_position_embeddings",
            ),
        )
    _refuse_option("rope_type", kind)


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """A `config.json` that Transformers 4 and 5, vLLM and llama.cpp read; the inverse of `config_from_hf`."""
    c = config
    common = {
        "architectures": [_ARCHITECTURES[c.family]],
        "model_type": _MODEL_TYPES.get(c.family, c.family),
        "vocab_size": c.vocab_size,
        "tie_word_embeddings": c.tied,
    }
    if c.family == "gpt2":
        raw: dict[str, Any] = common | {
            "n_layer": c.n_layer,
            "n_embd": c.d_model,
            "n_head": c.n_head,
            "n_inner": c.d_ff,
            "n_positions": c.context_length,
            "layer_norm_epsilon": c.norm_eps,
            "activation_function": HF_ACTIVATIONS[c.activation],
        }
    else:
        raw = common | {
            "num_hidden_layers": c.n_layer,
            "hidden_size": c.d_model,
            "num_attention_heads": c.n_head,
            "num_key_value_heads": c.n_kv_head,
            "head_dim": c.head_dim,
            "intermediate_size": c.d_ff,
            "max_position_embeddings": c.context_length,
            "rms_norm_eps": c.norm_eps,
            "hidden_act": HF_ACTIVATIONS[c.activation],
            "rope_theta": c.rope_theta,
            "rope_scaling": _rope_to_hf(c.rope_scaling),
        }
        window = next((window for window in c.windows if window is not None), None)
        layer_types = ["full_attention" if w is None else "sliding_attention" for w in c.windows]
        if c.family == "mistral":
            raw["sliding_window"] = c.windows[0]
        if c.family in ("llama", "qwen3", "gemma3"):
            raw["attention_bias"] = c.qkv_bias
        if c.family == "llama":
            raw["mlp_bias"] = c.mlp_bias
        if c.family in ("qwen2", "qwen3"):
            raw |= {"use_sliding_window": window is not None, "sliding_window": window, "layer_types": layer_types}
        if c.family == "gemma3":
            raw |= {
                "hidden_activation": raw.pop("hidden_act"),
                "query_pre_attn_scalar": c.head_dim if c.query_scale is None else round(c.query_scale**-2),
                "rope_local_base_freq": c.local_rope_theta,
                "sliding_window": 4096 if window is None else window,
                "layer_types": layer_types,
            }
    if config_from_hf(raw) != config:
        raise InvalidModelError(
            "This model cannot be written in the layout of Transformers, whose {family} models lack one of its choices"
            " (biases, windows, positions or frequencies).",
            family=c.family,
        )
    return raw


def exported_config(config: ModelConfig) -> ModelConfig:
    """The configuration that files get: Transformers' GPT-2 knows learned positions only, so fixed ones are written as such."""
    return replace(config, positions="learned") if config.positions == "sinusoidal" else config


def _rope_to_hf(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None or scaling.kind == "factors":
        return None
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_context_length,
    }


def activation_from_hf(name: object) -> Activation:
    """An activation by Transformers' name. Raises InvalidModelError."""
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        _refuse_option("hidden_act", name)
    return _ACTIVATIONS[name]


def _required(raw: Mapping[str, Any], *keys: str) -> Any:
    """The first of the keys that is there; ModelConfig checks the value."""
    for key in keys:
        if raw.get(key) is not None:
            return raw[key]
    raise InvalidModelError("The model's config.json lacks {key}.", key=keys[0])


def _optional(raw: Mapping[str, Any], key: str, default: Any) -> Any:
    value = raw.get(key)
    return default if value is None else value


def _flag(raw: Mapping[str, Any], key: str, default: bool) -> bool:
    value = raw.get(key, default)
    if not isinstance(value, bool):
        _refuse_option(key, value)
    return value


def _divided(d_model: Any, n_head: Any) -> int:
    if not isinstance(d_model, int) or not isinstance(n_head, int) or n_head < 1 or d_model % n_head:
        raise InvalidModelError(
            "In the model's configuration, the width {d_model} cannot be divided among {n_head} heads.",
            d_model=shown(d_model),
            n_head=shown(n_head),
        )
    return d_model // n_head


def _refuse_option(option: str, value: object) -> NoReturn:
    raise InvalidModelError(
        "The model's config.json sets {option} to {value}, which is not supported.", option=option, value=shown(value)
    )
