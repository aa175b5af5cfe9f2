"""Reads a model's weights into the decoder, one tensor at a time, so that they are never held twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from chatwright.errors import InvalidModelError
from chatwright.model.checkpoint import GGUFCheckpoint, SafetensorsCheckpoint, StoredTensor, open_checkpoint
from chatwright.model.config import shown
from chatwright.model.gpt import GPT
from chatwright.model.hf import exported_config
from chatwright.model.layout import Slot, by_tensor


def load_model(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    dropout: float = 0.0,
    trainable: bool = False,
) -> GPT:
    """The model in an HF folder, in a folder with one GGUF file, or in a GGUF file; in eval mode.

    Weights of any stored precision are converted to `dtype`; they have gradients only where `trainable`. `dropout` is for
    train mode. Raises ModelNotFoundError, InvalidModelError.
    """
    checkpoint = open_checkpoint(path)
    with torch.device("meta"):  # no memory is taken for weights that are replaced at once
        model = GPT(checkpoint.config, dropout)
    held = by_tensor(checkpoint.layout)
    for name, stored in _read_gguf(checkpoint) if isinstance(checkpoint, GGUFCheckpoint) else _read_folder(checkpoint):
        for parameter, slot in held[name]:
            place(model, parameter, unpacked(stored, slot), dtype, device, trainable)
    model.to(device)
    return model.eval()


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


def load_weights(model: GPT, folder: Path) -> None:
    """The weights that `save_model` or `write_model_folder` wrote, back into a model of the same configuration, in place.

    The table that fixed positions were written as is passed over. Raises InvalidModelError for a folder of another model.
    """
    checkpoint = open_checkpoint(folder)
    if not isinstance(checkpoint, SafetensorsCheckpoint) or checkpoint.config != exported_config(model.config):
        raise InvalidModelError("{path} holds a model of another shape than the one it is to continue.", path=folder)
    held, parameters = by_tensor(checkpoint.layout), dict(model.named_parameters())
    with torch.no_grad():
        for name, stored in _read_folder(checkpoint):
            for parameter, slot in held[name]:
                if parameter in parameters:
                    parameters[parameter].copy_(unpacked(stored, slot))


def _read_gguf(checkpoint: GGUFCheckpoint) -> Iterator[tuple[str, Tensor]]:
    for name in by_tensor(checkpoint.layout):
        yield name, torch.from_numpy(checkpoint.file.read(name))


def _read_folder(checkpoint: SafetensorsCheckpoint) -> Iterator[tuple[str, Tensor]]:
    if checkpoint.duplicate_head is not None:
        [head] = read_tensors([checkpoint.duplicate_head])
        [embed] = read_tensors([checkpoint.tensors[checkpoint.layout["embed.weight"].tensor]])
        if not torch.equal(head, embed):
            raise InvalidModelError(
                "{path}: config.json says that the output head is the embedding (tie_word_embeddings), but the file"
                " holds a different one. Set tie_word_embeddings to false if that head is meant.",
                path=checkpoint.path,
            )
    yield from zip(checkpoint.tensors, read_tensors(checkpoint.tensors.values()), strict=True)


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


def unpacked(stored: Tensor, slot: Slot) -> Tensor:
    """A parameter as the decoder wants it, (out, in), from the tensor that holds it."""
    if slot.transposed:
        stored = stored.T
    if slot.rows:
        stored = stored[slot.rows[0] : slot.rows[1]]
    if slot.interleaved_heads:
        # rows of a head lie as 0, R, 1, R + 1, …; the decoder pairs channel r with r + R
        stored = stored.reshape(slot.interleaved_heads, -1, 2, *stored.shape[1:]).transpose(1, 2).reshape(stored.shape)
    return stored
