"""Recurrent models on disk: config.json and safetensors of our own kind, which no other program reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from chatwright.model.rnn import RNN
from chatwright.model.rnn_checkpoint import open_rnn
from chatwright.model.save import write_tensors
from chatwright.model.tensors import read_tensors


def load_rnn(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    dropout: float = 0.0,
    trainable: bool = False,
) -> RNN:
    """The recurrent model in a folder, in eval mode. Raises InvalidModelError."""
    checkpoint = open_rnn(Path(path))
    # built with memory: a recurrent layer's flat weights do not survive a replacement of its parameters
    model = RNN(checkpoint.config, dropout).to(device, dtype)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in zip(checkpoint.tensors, read_tensors(checkpoint.tensors.values()), strict=True):
            parameters[name].copy_(weight)
    return model.requires_grad_(trainable).eval()


def write_rnn(model: RNN, folder: Path, *, extra: Mapping[str, Any] | None = None) -> None:
    """config.json and weights into a folder that is there; see `folder.write_model_folder` for a whole one."""
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    write_tensors(weights, model.config.to_dict() | dict(extra or {}), folder)
