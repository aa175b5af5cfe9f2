"""The logit lens (nostalgebraist 2020): what each layer would have predicted, had the model ended there.

The residual stream after each layer goes through the model's own last norm and output head. What middle layers hold is not made
to be read so: a layer that says nothing sensible may still be doing its work.

L layers, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chatwright.inspection.recording import Recording
from chatwright.inspection.subject import Subject
from chatwright.inspection.tokens import Alternative, likeliest
from chatwright.model.gpt import GPT


@dataclass(frozen=True)
class LensCell:
    """At one layer and place: the likeliest tokens, and how likely the one that really comes next is (None behind the last)."""

    top: Sequence[Alternative]
    next_probability: float | None


@dataclass(frozen=True)
class LensRow:
    """`layer` 0 is the embedding, before any layer; the last one is what the model says. A cell for every place."""

    layer: int
    cells: Sequence[LensCell]


def has_lens(subject: Subject) -> bool:
    """Only a decoder's layers share one stream that its head can read."""
    return isinstance(subject.model, GPT)


@torch.no_grad()
def lens_logits(model: GPT, residual_TD: Tensor) -> Tensor:
    """(T, V): the final norm and the head on a residual stream."""
    return model.logits(model.norm(residual_TD))


@torch.no_grad()
def logit_lens(subject: Subject, ids: Sequence[int], recording: Recording, top: int = 3) -> list[LensRow]:
    """A row for the embedding and for every layer."""
    assert isinstance(subject.model, GPT)
    rows = []
    for layer, residual_TD in enumerate(recording.residuals):
        logits_TV = lens_logits(subject.model, residual_TD)
        cells = []
        for position, logits_V in enumerate(logits_TV):
            probability = None
            if position + 1 < len(ids):
                probability = float(logits_V.float().softmax(-1)[ids[position + 1]])
            cells.append(LensCell(likeliest(subject, logits_V, top), probability))
        rows.append(LensRow(layer, cells))
    return rows
