"""Tiny random models of every family, built by Transformers, and GGUF files written from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from chatwright.model.encoder import Encoder
from chatwright.model.encoder_config import encoder_config_to_hf
from chatwright.model.encoder_hf import encoder_weights
from chatwright.model.save import write_tensors

GPT2 = {"vocab_size": 96, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 512}
LLAMA = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 500.0,
}
LOCAL = ["sliding_attention", "full_attention", "sliding_attention"]

CASES: Mapping[str, PretrainedConfig] = {
    "gpt2": GPT2Config(**GPT2),
    "gpt2, untied, narrow, exact gelu": GPT2Config(
        **GPT2, tie_word_embeddings=False, n_inner=160, activation_function="gelu"
    ),
    "llama, every head its own keys": LlamaConfig(**LLAMA | {"num_key_value_heads": 4}),
    "llama, tied": LlamaConfig(**LLAMA, tie_word_embeddings=True, rms_norm_eps=1e-5),
    "llama, one key head, biases": LlamaConfig(
        **LLAMA | {"num_key_value_heads": 1}, attention_bias=True, mlp_bias=True
    ),
    "llama, wide heads": LlamaConfig(**LLAMA, head_dim=32),
    "llama, linear rope": LlamaConfig(
        **LLAMA, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0}
    ),
    "llama, llama3 rope": LlamaConfig(**LLAMA, rope_parameters=LLAMA3_ROPE),
    "mistral, window of 20": MistralConfig(**LLAMA, sliding_window=20),
    "mistral, no window": MistralConfig(**LLAMA, sliding_window=None, hidden_act="gelu"),
    "qwen3": Qwen3Config(**LLAMA, head_dim=32),
    "qwen3, tied, biases": Qwen3Config(**LLAMA, head_dim=16, attention_bias=True, tie_word_embeddings=True),
    "qwen3, window in the last layers": Qwen3Config(
        **LLAMA, head_dim=16, use_sliding_window=True, sliding_window=9, max_window_layers=1
    ),
    "qwen3, window in the middle layer": Qwen3Config(
        **LLAMA,
        head_dim=16,
        use_sliding_window=True,
        sliding_window=30,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
    ),
    "qwen2": Qwen2Config(**LLAMA),
    "qwen2, tied, window in the last layers": Qwen2Config(
        **LLAMA, tie_word_embeddings=True, use_sliding_window=True, sliding_window=9, max_window_layers=1
    ),
    "gemma3": Gemma3TextConfig(**LLAMA, head_dim=32, query_pre_attn_scalar=32, sliding_window=20, layer_types=LOCAL),
    "gemma3, other scale, stretched, biases": Gemma3TextConfig(
        **LLAMA | {"num_key_value_heads": 1},
        head_dim=32,
        query_pre_attn_scalar=21,
        sliding_window=7,
        layer_types=LOCAL,
        attention_bias=True,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        },
    ),
    "gemma3, untied, no window": Gemma3TextConfig(
        **LLAMA, head_dim=16, query_pre_attn_scalar=16, tie_word_embeddings=False, layer_types=["full_attention"] * 3
    ),
}


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights that matter: logits of several units, no bias zero, no norm one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = "norm" in name or ".ln_" in name
            # Transformers' Gemma keeps the weight of a norm as its distance from one
            one = 0.0 if getattr(getattr(model, "config", None), "model_type", "") == "gemma3_text" else 1.0
            parameter.copy_(one + 0.3 * noise if is_norm and name.endswith("weight") else 0.2 * noise)


def reference(case: str) -> Any:
    """Transformers' model of a case, in eval mode."""
    model = AutoModelForCausalLM.from_config(deepcopy(CASES[case]))  # a model writes its precision into it
    randomise(model)
    return model.eval()


def random_ids(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 96, shape, generator=torch.Generator().manual_seed(seed))


_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def factors(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """What an adapter learns: A and B of each layer."""
    return [parameter for name, parameter in model.named_parameters() if ".lora_" in name]


def write_encoder(encoder: Encoder, folder: Path) -> None:
    """A BERT folder without a head."""
    folder.mkdir()
    write_tensors(encoder_weights(encoder), encoder_config_to_hf(encoder.config, 0.1), folder)


def write_gguf(
    model: Any, path: Path, kind: Type | Callable[[str], Type] = Type.F32, extra: Mapping[str, Any] | None = None
) -> None:
    """Writes the model as llama.cpp's converter would, and gives `model` the weights as they are after quantisation.

    `kind`: of all matrices, or of the one of a name.
    """
    config = model.config
    gpt2 = config.model_type == "gpt2"
    architecture = {"mistral": "llama", "gemma3_text": "gemma3"}.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("Tiny")
    writer.add_license("apache-2.0")
    writer.add_languages(["en", "zh"])
    writer.add_token_list(["<a>", "b", "中"])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if gpt2:
        writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        rope = config.rope_parameters
        if architecture == "gemma3":
            writer.add_sliding_window(config.sliding_window)
            writer.add_key_value(
                "gemma3.attention.sliding_window_pattern",
                [kind == "sliding_attention" for kind in config.layer_types],
                gguf.GGUFValueType.ARRAY,
                gguf.GGUFValueType.BOOL,
            )
            writer.add_float32("gemma3.rope.freq_base_swa", rope["sliding_attention"]["rope_theta"])
            rope = rope["full_attention"]
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
        writer.add_rope_freq_base(rope["rope_theta"])
        if rope["rope_type"] == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
        if rope["rope_type"] == "llama3":
            plain = rope["rope_theta"] ** -(torch.arange(0, config.head_dim, 2) / config.head_dim)
            writer.add_tensor("rope_freqs.weight", (plain / model.model.rotary_emb.inv_freq).numpy())
    for key, value in (extra or {}).items():
        writer.add_key_value(
            f"{architecture}.{key}",
            value,
            gguf.GGUFValueType.get_type(value),
        )
    for name, parameter in model.named_parameters():
        _add_tensor(writer, name, parameter.data, config, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tensor(
    writer: gguf.GGUFWriter, name: str, weight: torch.Tensor, config: Any, kind: Type | Callable[[str], Type]
) -> None:
    module, ending = name.rsplit(".", 1)
    prefix = ""
    if ".layers." in module or ".h." in module:
        _, _, index, module = module.split(".", 3)
        prefix = f"blk.{index}."
    conv1d = module in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj") and ending == "weight"
    heads = {"self_attn.q_proj": config.num_attention_heads}.get(module, 0)
    if module == "self_attn.k_proj":
        heads = config.num_key_value_heads
    if config.model_type not in ("llama", "mistral"):
        heads = 0
    stored = (weight.T if conv1d else weight).contiguous().numpy()
    if heads:  # as in llama.cpp's convert_hf_to_gguf.py
        stored = stored.reshape(heads, 2, -1, *stored.shape[1:]).swapaxes(1, 2).reshape(stored.shape)
    kind = kind if isinstance(kind, Type) else kind(name)
    stored_kind = kind if stored.ndim > 1 and "wpe" not in name else Type.F32
    gemma3 = config.model_type == "gemma3_text"
    if gemma3 and module.endswith("norm"):
        stored = stored + 1
    target = "post_attention_norm" if gemma3 and module == "post_attention_layernorm" else _GGUF_NAMES[module]
    raw = quantize(np.ascontiguousarray(stored), stored_kind)
    writer.add_tensor(f"{prefix}{target}.{ending}", raw, raw_dtype=stored_kind)
    seen = torch.from_numpy(dequantize(raw, stored_kind).copy())
    if heads:
        seen = seen.reshape(heads, -1, 2, *seen.shape[1:]).swapaxes(1, 2).reshape(seen.shape)
    if gemma3 and module.endswith("norm"):
        seen = seen - 1
    weight.copy_(seen.T if conv1d else seen)
