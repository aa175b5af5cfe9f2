"""Writes the decoder as a folder in Transformers' layout, which Transformers, vLLM and llama.cpp's converter read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from torch import Tensor

from chatwright.errors import StorageError, UsageError
from chatwright.model.checkpoint import CONFIG
from chatwright.model.gpt import GPT
from chatwright.model.hf import config_to_hf
from chatwright.model.layout import by_tensor, hf_layout


def save_model(
    model: GPT, folder: Path, *, max_shard_size: int | str = "5GB", extra: Mapping[str, Any] | None = None
) -> None:
    """Writes `config.json` and `model.safetensors` (in shards with an index where larger) to a new folder.

    `extra` is added to `config.json`, for what the decoder does not know, such as `eos_token_id`. The folder appears whole
    or not at all. Raises UsageError when it is there and not empty, StorageError when it cannot be written.
    """
    raw = config_to_hf(model.config)
    weights = _packed(model)
    raw |= {"torch_dtype": str(next(iter(weights.values())).dtype).removeprefix("torch.")} | dict(extra or {})
    folder = Path(folder)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UsageError("{folder} is not empty. Remove it or choose another folder.", folder=folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            whole = Path(temporary) / "model"
            whole.mkdir()
            save_torch_state_dict(weights, whole, max_shard_size=max_shard_size, metadata={"format": "pt"})
            (whole / CONFIG).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
            if folder.exists():
                folder.rmdir()  # it is empty; Windows would not replace it
            whole.rename(folder)
    except (OSError, SafetensorError) as error:
        raise StorageError("The model cannot be written to {folder}: {reason}", folder=folder, reason=error) from error


def _packed(model: GPT) -> dict[str, Tensor]:
    """The parameters under Transformers' names, fused and transposed as it has them; a tied head is left out."""
    parameters = dict(model.named_parameters())
    weights: dict[str, Tensor] = {}
    for tensor, held in by_tensor(hf_layout(model.config)).items():
        # the parts of a fused tensor stand in the layout in their order
        parts = [parameters[name].detach() for name, _ in held]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        weights[tensor] = whole.T.contiguous() if held[0][1].transposed else whole
    return weights
