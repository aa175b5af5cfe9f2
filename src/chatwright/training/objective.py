"""What the training loop trains: everything that differs between pretraining, chat tuning, preferences and heads.

The loop (`training.loop`) knows rows, micro-batches, steps, checkpoints and the held-out metric; an objective knows what a
row is and what its loss is. Rows are numbered from 0 to `n_rows`; the loop decides which row is seen when.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Sample:
    """A prompt, and what the model says to it now."""

    prompt: str
    text: str
    language: str = ""


class Objective(Protocol):
    """See the module. `model`'s parameters with `requires_grad` are trained; the loop puts it into train and eval mode.

    More names are read where they are there: `unit`, what `weight` counts ("tokens" unless said otherwise, "answer_tokens",
    "pairs", "texts"); `result_name`, the folder of the result within the run ("model" unless said otherwise); `finish()`, called
    once when training is over, before the result is measured and written; `strength`, the part of its change that the result then
    keeps; and `measured`, how many held-out documents a full evaluation looks at, and how many there are.
    """

    @property
    def model(self) -> nn.Module:
        """The model being trained, on its device."""

    @property
    def n_rows(self) -> int:
        """Rows of training data, at least 1."""

    @property
    def metric(self) -> str:
        """The key of `evaluate()` that is minimised, such as `bits_per_byte`."""

    def batch(self, rows: Sequence[int], epoch: int) -> Any:
        """These rows collated, on the model's device: a pure function of (rows, epoch, the seed)."""

    def weight(self, batch: Any) -> int:
        """How many units (tokens, pairs, texts) of the batch are supervised; 0 makes the loop skip it."""

    def loss(self, batch: Any) -> Tensor:
        """The SUM over the supervised units of the batch in nats, a scalar with its graph. Never a mean: the loop divides by
        the weight of the whole step, over all micro-batches and ranks."""

    def documents(self, rows: Sequence[int], epoch: int) -> list[str]:
        """The names of the documents in these rows, for the sentence of a divergence."""

    def evaluate(self, *, full: bool) -> Mapping[str, float]:
        """Figures on held-out data: all of it (but see `measured`) when `full`, else the same part each time. Empty without any."""

    def samples(self) -> Sequence[Sample]:
        """A few prompts and what the model says now; empty where that makes no sense."""

    def save_model(self, folder: Path) -> None:
        """Writes a complete model folder (or adapter) to `folder`, which does not exist yet."""
