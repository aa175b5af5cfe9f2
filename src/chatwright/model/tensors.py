"""Tensors out of safetensors files, and weights into models built on the meta device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from chatwright.errors import InvalidModelError
from chatwright.model.checkpoint import StoredTensor
from chatwright.model.config import shown


def read_tensors(tensors: Iterable[StoredTensor]) -> Iterator[Tensor]:
    """The tensors in their order, each file opened once for neighbours in it. Raises InvalidModelError."""
    for path, group in groupby(tensors, lambda tensor: tensor.file):
        try:
            with safe_open(path, framework="pt") as file:
                for stored in group:
                    yield file.get_tensor(stored.name)
        except (SafetensorError, OSError) as error:
            raise InvalidModelError(
                "{path} is not a valid safetensors file ({reason}). Fetch it again.",
                path=path,
                reason=shown(str(error)),
            ) from error


def place(
    model: nn.Module,
    parameter: str,
    stored: Tensor,
    dtype: torch.dtype,
    device: torch.device | str,
    trainable: bool,
) -> None:
    """Puts a weight into a model that may have been built on the meta device."""
    # a copy also where nothing is converted: a weight mapped from a file dies with the file
    weight = torch.empty(stored.shape, dtype=dtype, device=device).copy_(stored)
    module, _, kind = parameter.rpartition(".")
    setattr(model.get_submodule(module), kind, nn.Parameter(weight, requires_grad=trainable))
