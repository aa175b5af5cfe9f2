"""Writes the decoder as a folder in Transformers' layout, which Transformers, vLLM and llama.cpp's converter read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor

from chatwright.model.checkpoint import CONFIG
from chatwright.model.folder import new_folder, write_json
from chatwright.model.gpt import GPT, fixed_positions
from chatwright.model.hf import config_to_hf, exported_config
from chatwright.model.layout import Slot, by_tensor, hf_layout


def save_model(
    model: GPT, folder: Path, *, max_shard_size: int | str = "5GB", extra: Mapping[str, Any] | None = None
) -> None:
    """Writes `config.json` and `model.safetensors` (in shards with an index where larger) to a new folder.

    `extra` is added to `config.json`, for what the decoder does not know, such as `eos_token_id`. The folder appears whole
    or not at all. Raises UsageError when it is there and not empty, StorageError when it cannot be written.
    """
    with new_folder(folder) as whole:
        write_model(model, whole, max_shard_size=max_shard_size, extra=extra)


def write_model(
    model: GPT, folder: Path, *, max_shard_size: int | str = "5GB", extra: Mapping[str, Any] | None = None
) -> None:
    """`save_model` into a folder that is there, with whatever else it holds; not atomic: the caller sees to that."""
    raw = config_to_hf(exported_config(model.config)) | dict(extra or {})
    write_tensors(packed(model), raw, folder, max_shard_size=max_shard_size)


def write_tensors(
    weights: Mapping[str, Tensor],
    raw_config: Mapping[str, Any],
    folder: Path,
    *,
    max_shard_size: int | str = "5GB",
) -> None:
    """config.json and safetensors of any model of Transformers into a folder that is there."""
    dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    save_torch_state_dict(dict(weights), folder, max_shard_size=max_shard_size, metadata={"format": "pt"})
    write_json(folder / CONFIG, {**raw_config, "torch_dtype": dtype})


def packed(model: GPT) -> dict[str, Tensor]:
    """The parameters under Transformers' names, fused and transposed as it has them; a tied head is left out.

    A model with LoRA layers must be merged first, or saved as an adapter.
    """
    parameters = dict(model.named_parameters())
    assert not any(".lora_" in name for name in parameters), "merge_lora or save_adapter first"
    config = model.config
    if config.positions == "sinusoidal":
        weight = model.embed.weight
        positions = torch.arange(config.context_length, device=weight.device)
        parameters["position_embed.weight"] = torch.nn.Parameter(
            fixed_positions(positions, config.d_model).to(weight.dtype), requires_grad=False
        )
    weights: dict[str, Tensor] = {}
    for tensor, held in by_tensor(hf_layout(exported_config(config))).items():
        weights[tensor] = stored([parameters[name].detach() for name, _ in held], [slot for _, slot in held])
    return weights


def stored(parts: Sequence[Tensor], slots: Sequence[Slot]) -> Tensor:
    """A tensor as its file has it, of the parameters in it in the layout's order; the inverse of `load.unpacked`."""
    if heads := slots[0].interleaved_heads:
        [whole] = parts
        whole = whole.reshape(heads, 2, -1, *whole.shape[1:]).transpose(1, 2).reshape(whole.shape)
    else:
        whole = torch.cat(list(parts)) if len(parts) > 1 else parts[0]
    if offset := slots[0].offset:
        whole = (whole.float() - offset).to(whole.dtype)
    return whole.T.contiguous() if slots[0].transposed else whole
