"""A tiny model on random ids: the loop with nothing around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from chatwright.model.config import ModelConfig
from chatwright.model.gpt import GPT
from chatwright.model.init import initialise
from chatwright.model.presets import config_for_size
from chatwright.training.config import TrainingConfig
from chatwright.training.loss import IGNORE, chunked_cross_entropy
from chatwright.training.objective import Sample
from chatwright.training.run import Run

VOCAB = 300


def toy_config(arch: str = "qwen3") -> ModelConfig:
    return config_for_size(40_000, VOCAB, 32, arch)  # type: ignore[arg-type]


class Toy:
    """Rows of random ids, of which a random share is supervised (in some rows nothing)."""

    metric = "nats"

    def __init__(self, *, n_rows: int = 13, seed: int = 0, dropout: float = 0.0, masked: bool = False) -> None:
        self.model = GPT(toy_config(), dropout)
        initialise(self.model, seed)
        generator = torch.Generator().manual_seed(seed)
        # learnable: each row counts up from a random id
        start = torch.randint(0, VOCAB, (n_rows, 1), generator=generator)
        self.ids = (start + torch.arange(17)) % VOCAB
        self.targets = self.ids[:, 1:].clone()
        if masked:
            share = torch.rand(n_rows, 1, generator=generator)
            self.targets[torch.rand(self.targets.shape, generator=generator) < share] = IGNORE
            self.targets[::4] = IGNORE
        self.n_rows = n_rows
        self.figures: list[float] = []

    def batch(self, rows: Sequence[int], epoch: int) -> tuple[Tensor, Tensor]:
        return self.ids[list(rows), :-1], self.targets[list(rows)]

    def weight(self, batch: tuple[Tensor, Tensor]) -> int:
        return int((batch[1] != IGNORE).sum())

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return chunked_cross_entropy(self.model.hidden(batch[0]), self.model.logits, batch[1])

    def documents(self, rows: Sequence[int], epoch: int) -> list[str]:
        return [f"document {row}" for row in rows]

    def evaluate(self, *, full: bool) -> Mapping[str, float]:
        with torch.no_grad():
            batch = self.batch(range(self.n_rows), 0)
            value = float(self.loss(batch)) / self.weight(batch)
        return {"nats": self.figures.pop(0) if self.figures and not full else value}

    def samples(self) -> Sequence[Sample]:
        return [Sample("ä ``` b", "续写", "en")]

    def save_model(self, folder: Path) -> None:
        from chatwright.model.save import save_model

        save_model(self.model, folder)


def toy_run(path: Path, config: TrainingConfig) -> Run:
    return Run.create(path, "train", {"training": config.to_dict()})


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}
