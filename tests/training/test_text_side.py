"""A run's own tokenizer is the one that `tokenizer train` makes of the same text, for as little memory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from chatwright.tokenizer import corpus
from chatwright.tokenizer.train import train_tokenizer
from chatwright.training import text_side
from chatwright.training.progress import Silent
from chatwright.training.recipe import resolve
from chatwright.training.request import Request
from chatwright.training.speed import Machine
from chatwright.training.stats import text_stats
from tests.training.corpus import make_dataset


def test_a_runs_tokenizer_is_trained_on_no_more_text_than_changes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "LEAST_BYTES", 4096)
    monkeypatch.setattr(corpus, "BYTES_PER_VOCAB_ENTRY", 16)
    dataset = make_dataset(tmp_path / "data")
    stats = text_stats(dataset)
    recipe = resolve(stats, Request(size=60_000, vocab_size=320, steps=1), Machine("cpu", 1, 1 << 33, 1e11, 1e11))
    enough = corpus.enough_bytes(recipe.vocab_size)
    assert stats.n_bytes > 3 * enough
    read: list[str] = []

    def recorded(texts: Iterable[str], vocab_size: int, pattern: Any) -> Any:
        read.extend(texts)
        return train_tokenizer(read, vocab_size, pattern)

    monkeypatch.setattr(text_side, "train_tokenizer", recorded)
    text_side.prepare_tokenizer(tmp_path, dataset, stats, recipe, Silent())
    assert read == list(corpus.sample(dataset.texts("train"), stats.n_bytes, enough))
    assert sum(len(text.encode()) for text in read) == pytest.approx(enough, rel=0.2)
