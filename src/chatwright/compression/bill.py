"""What a compression costs and saves: size, speed, and what held-out text costs, before and after, on the same documents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatwright.compression.speed import decode_speed
from chatwright.evaluation.bits_per_byte import score_documents
from chatwright.evaluation.documents import DocumentScores, EncodedDocument
from chatwright.evaluation.statistics import Interval, paired_bootstrap
from chatwright.i18n import _, format_size
from chatwright.model.config import ModelConfig, parameter_count
from chatwright.model.describe import describe_model
from chatwright.model.gpt import GPT

SUFFIXES = (".safetensors", ".gguf")
# Tokens that a document is scored with at once: the same for both models. Windows do not overlap: that would cost twice the time,
# and what is wanted is the difference.
SCORED_CONTEXT = 512


@dataclass(frozen=True)
class Measured:
    """One model. `size_bytes`: of its weight files; `tokens_per_s`: of one conversation, as `serve` would answer it here, with
    `n_threads`: measured once, beside whatever else the machine did."""

    size_bytes: int
    n_parameters: int
    tokens_per_s: float | None = None
    scores: DocumentScores | None = None
    n_threads: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        values: dict[str, Any] = {"size_bytes": self.size_bytes, "n_parameters": self.n_parameters}
        values["tokens_per_s"], values["n_threads"] = self.tokens_per_s, self.n_threads
        values["bits_per_byte"] = None if self.scores is None else self.scores.bits_per_byte
        values["perplexity"] = None if self.scores is None else self.scores.perplexity
        return values


@dataclass(frozen=True)
class Bill:
    """`perplexity_change`: (after / before - 1), with its 95 % interval over documents. `notes`: sentences that belong to it.
    `teacher`: of a distillation."""

    before: Measured
    after: Measured
    notes: Sequence[str] = field(default_factory=tuple)
    teacher: Measured | None = None

    @property
    def n_documents(self) -> int:
        """Held-out documents that both were measured on."""
        return 0 if self.after.scores is None else len(self.after.scores.nats)

    @property
    def perplexity_change(self) -> Interval | None:
        """None without held-out text, and between models of different vocabularies; of one document its bounds are NaN."""
        before, after = self.before.scores, self.after.scores
        if before is None or after is None or not len(before.nats) or (before.n_tokens != after.n_tokens).any():
            return None
        compared = paired_bootstrap(
            after.nats.tolist(), before.nats.tolist(), [float(n) for n in before.n_tokens], n_resamples=4000
        ).difference
        low, estimate, high = (
            math.expm1(min(each, 100.0)) for each in (compared.low, compared.estimate, compared.high)
        )
        return Interval(estimate, low, high, compared.confidence)

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        change = self.perplexity_change
        return {
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "teacher": None if self.teacher is None else self.teacher.to_dict(),
            "n_documents": self.n_documents,
            "n_tokens": 0 if self.after.scores is None else int(self.after.scores.n_tokens.sum()),
            "perplexity_change": None
            if change is None
            else {name: None if math.isnan(value) else value for name, value in _bounds(change).items()},
            "notes": list(self.notes),
        }


def _bounds(change: Interval) -> dict[str, float]:
    return {"estimate": change.estimate, "low": change.low, "high": change.high}


def weights_size(path: Path) -> int:
    """Bytes of the weight files of a model: a file, or those in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.iterdir() if file.suffix in SUFFIXES)


def score(model: GPT, documents: Sequence[EncodedDocument]) -> DocumentScores | None:
    """What the documents cost the model; None where there are none."""
    if not documents:
        return None
    length = min(SCORED_CONTEXT, model.config.context_length)
    return score_documents(model, documents, length, stride=length, batch_tokens=2048)


def measured(path: Path, config: ModelConfig, scores: DocumentScores | None, n_threads: int, speed: bool) -> Measured:
    """The figures of the model that lies at `path`."""
    tokens_per_s = decode_speed(path, config, n_threads) if speed else None
    return Measured(weights_size(path), parameter_count(config), tokens_per_s, scores, n_threads if speed else None)


def precision_notes(base: Path, made: Path) -> list[str]:
    """That a model which was pruned or has learned is in float32, though what it was made of was not: it may be the larger one."""
    before, after = describe_model(base), describe_model(made)
    if after.quantization != "F32" or before.quantization in ("F32", "F64"):
        return []
    command = f"chatwright export --to hf --type {before.quantization}"
    if before.quantization not in ("F16", "BF16"):
        command = f"chatwright quantize --to {'int8' if before.quantization.startswith('Q8') else 'int4'}"
    return [
        _(
            "The weights were in {kind} ({before}) and are written in float32 ({after}): `{command}` makes them small again.",
            kind=before.quantization,
            before=format_size(weights_size(base)),
            after=format_size(weights_size(made)),
            command=command,
        )
    ]


def scored_bytes(n_parameters: int) -> int:
    """Held-out text that is worth its time: a fifth of a megabyte of a small model, less of a large one (a minute or two)."""
    return int(min(200_000, max(20_000, 8e12 / n_parameters)))
