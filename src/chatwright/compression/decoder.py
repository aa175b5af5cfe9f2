"""The decoder that is to be made smaller: opened, checked to be one, its numbers checked to be numbers."""

from __future__ import annotations

import torch

from chatwright.compression.finite import check_finite
from chatwright.errors import InvalidModelError
from chatwright.model.config import ModelConfig
from chatwright.model.gpt import GPT
from chatwright.training.base_model import BaseModel


def check_decoder(base: BaseModel, verb: str) -> ModelConfig:
    """Its configuration. Raises InvalidModelError for an encoder; one for a recurrent model was raised when it was opened."""
    if not isinstance(base.config, ModelConfig):
        raise InvalidModelError(
            "{name} is an encoder: `{verb}` works on models that write text.",
            name=base.title,
            verb=f"chatwright {verb}",
        )
    return base.config


def load_decoder(base: BaseModel, *, trainable: bool = False) -> GPT:
    """Its weights in float32, in eval mode. Raises InvalidModelError for numbers that are none."""
    model = base.load_decoder(torch.device("cpu"), 0.0, trainable=trainable)
    for name, parameter in model.named_parameters():
        check_finite(base.path, name, parameter)
    return model
