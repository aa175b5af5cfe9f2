"""Reads a model's weights into the decoder, one tensor at a time, so that they are never held twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from chatwright.errors import InvalidModelError
from chatwright.model.checkpoint import GGUFCheckpoint, SafetensorsCheckpoint, open_checkpoint
from chatwright.model.gpt import GPT
from chatwright.model.layout import Slot, by_tensor
from chatwright.model.rnn import RNN
from chatwright.model.rnn_checkpoint import is_recurrent
from chatwright.model.rnn_folder import load_rnn
from chatwright.model.tensors import place, read_tensors


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


def load_language_model(
    path: Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> GPT | RNN:
    """Whatever continues text: `load_model`, or `load_rnn` for a folder with a recurrent model."""
    if is_recurrent(Path(path)):
        return load_rnn(path, dtype=dtype, device=device)
    return load_model(path, dtype=dtype, device=device)


def read_parameter(checkpoint: GGUFCheckpoint | SafetensorsCheckpoint, parameter: str) -> Tensor:
    """One parameter as the decoder wants it, in the precision of its file (float32 of a GGUF), the others left where they are."""
    slot = checkpoint.layout[parameter]
    if isinstance(checkpoint, GGUFCheckpoint):
        return unpacked(torch.from_numpy(checkpoint.file.read(slot.tensor)), slot)
    [stored] = read_tensors([checkpoint.tensors[slot.tensor]])
    return unpacked(stored, slot)


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


def unpacked(stored: Tensor, slot: Slot) -> Tensor:
    """A parameter as the decoder wants it, (out, in), from the tensor that holds it."""
    if slot.transposed:
        stored = stored.T
    if slot.rows:
        stored = stored[slot.rows[0] : slot.rows[1]]
    if slot.interleaved_heads:
        # rows of a head lie as 0, R, 1, R + 1, …; the decoder pairs channel r with r + R
        stored = stored.reshape(slot.interleaved_heads, -1, 2, *stored.shape[1:]).transpose(1, 2).reshape(stored.shape)
    if slot.offset:
        stored = stored.float() + slot.offset  # in bfloat16 the sum would lose what the difference holds
    return stored
