"""What a user asks of a pretraining run; None leaves it to the recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Arch = Literal["qwen3", "gpt2", "rnn"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The flags of `train` and `plan`. `size`: parameters; `minutes`: of training, preparation not counted. `size_is_settled`:
    it was found or accepted elsewhere, and the text is not asked whether it is enough for it."""

    size: int | None = None
    minutes: float | None = None
    arch: Arch = "qwen3"
    cell: Literal["rnn", "lstm"] | None = None
    positions: Literal["learned", "sinusoidal"] | None = None
    tokenizer: Path | None = None
    vocab_size: int | None = None
    context: int | None = None
    steps: int | None = None
    batch_tokens: int | None = None
    micro_rows: int | None = None
    lr: float | None = None
    optimizer: Literal["muon", "adamw"] | None = None
    weight_decay: float | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    dropout: float | None = None
    fim: float = 0.0
    patience: int | None = None
    seed: int = 0
    size_is_settled: bool = False
