"""Where each parameter of the decoder lies in a file: tensor names of HF folders and GGUF, transposed and fused ones.

A `Slot` says which tensor of the file holds a parameter, and how. Reading and writing follow the same table, so that
they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chatwright.model.config import ModelConfig, parameter_shapes

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """A parameter's place.

    `rows`: its share of the output axis of a fused tensor, (start, stop). `transposed`: the file has (in, out).
    `interleaved_heads`: of so many heads, the two halves of the channels lie interleaved, as in GGUF's Llama. `offset`: what is
    added to the stored numbers: Gemma keeps the weight of a norm as its distance from one.
    """

    tensor: str
    rows: tuple[int, int] | None = None
    transposed: bool = False
    interleaved_heads: int = 0
    offset: float = 0.0


Layout = Mapping[str, Slot]

_HF_LLAMA = {
    "embed": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "attention_norm": "input_layernorm",
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
_HF_GEMMA3 = _HF_LLAMA | {
    "attention_post_norm": "post_attention_layernorm",
    "feed_forward_norm": "pre_feedforward_layernorm",
    "feed_forward_post_norm": "post_feedforward_layernorm",
}
_HF_GPT2 = {
    "embed": "transformer.wte",
    "position_embed": "transformer.wpe",
    "norm": "transformer.ln_f",
    "head": "lm_head",
    "attention_norm": "ln_1",
    "attention.q": "attn.c_attn",
    "attention.k": "attn.c_attn",
    "attention.v": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}
_GGUF = {
    "embed": "token_embd",
    "position_embed": "position_embd",
    "norm": "output_norm",
    "head": "output",
    "attention_norm": "attn_norm",
    "attention.q": "attn_q",
    "attention.k": "attn_k",
    "attention.v": "attn_v",
    "attention.out": "attn_output",
    "attention.q_norm": "attn_q_norm",
    "attention.k_norm": "attn_k_norm",
    "attention_post_norm": "post_attention_norm",
    "feed_forward_norm": "ffn_norm",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
    "feed_forward_post_norm": "post_ffw_norm",
}
_GGUF_GPT2 = _GGUF | {"attention.q": "attn_qkv", "attention.k": "attn_qkv", "attention.v": "attn_qkv"}


def hf_layout(config: ModelConfig) -> dict[str, Slot]:
    """Parameter → place in the safetensors of an HF folder."""
    if config.family == "gpt2":
        # Transformers keeps GPT-2's matrices as TensorFlow had them, (in, out), in "Conv1D" layers
        return _layout(config, _HF_GPT2, "transformer.h.{}.", transposes=("attention.", "feed_forward."))
    if config.family == "gemma3":
        return _layout(config, _HF_GEMMA3, "model.layers.{}.", norm_offset=1.0)
    return _layout(config, _HF_LLAMA, "model.layers.{}.")


def gguf_layout(config: ModelConfig) -> dict[str, Slot]:
    """Parameter → place in a GGUF file."""
    if config.family == "gpt2":
        return _layout(config, _GGUF_GPT2, "blk.{}.")
    # llama.cpp rotates neighbouring channels for Llama and Mistral, the two halves of a head for Qwen and Gemma, whose norms it
    # keeps with the one added
    interleaves = config.family in ("llama", "mistral")
    return _layout(config, _GGUF, "blk.{}.", interleaves=interleaves)


def _layout(
    config: ModelConfig,
    names: Mapping[str, str],
    layer_prefix: str,
    transposes: tuple[str, ...] = (),
    interleaves: bool = False,
    norm_offset: float = 0.0,
) -> dict[str, Slot]:
    slots: dict[str, Slot] = {}
    filled: dict[str, int] = {}
    fused = names["attention.q"] == names["attention.k"]
    for parameter, shape in parameter_shapes(config).items():
        prefix, module, kind = "", *parameter.rsplit(".", 1)
        if module.startswith("layers."):
            _, index, module = module.split(".", 2)
            prefix = layer_prefix.format(index)
        tensor = f"{prefix}{names[module]}.{kind}"
        rows = None
        if fused and module in ("attention.q", "attention.k", "attention.v"):
            start = filled.get(tensor, 0)
            rows = (start, start + shape[0])
            filled[tensor] = rows[1]
        heads = {"attention.q": config.n_head, "attention.k": config.n_kv_head}.get(module, 0) if interleaves else 0
        offset = norm_offset if module.endswith("norm") else 0.0
        slots[parameter] = Slot(tensor, rows, len(shape) == 2 and module.startswith(transposes), heads, offset)
    return slots


def tensor_shapes(config: ModelConfig, layout: Layout) -> dict[str, Shape]:
    """Tensor of the file → the shape it must have."""
    parameters = parameter_shapes(config)
    shapes: dict[str, Shape] = {}
    for parameter, slot in layout.items():
        shape = parameters[parameter]
        if slot.rows:
            shape = (slot.rows[1], *shape[1:])  # parts come in order, so the last one tells the whole
        shapes[slot.tensor] = shape[::-1] if slot.transposed else shape
    return shapes


def by_tensor(layout: Layout) -> dict[str, list[tuple[str, Slot]]]:
    """Tensor of the file → the parameters in it, so that each tensor is read once."""
    held: dict[str, list[tuple[str, Slot]]] = {}
    for parameter, slot in layout.items():
        held.setdefault(slot.tensor, []).append((parameter, slot))
    return held
