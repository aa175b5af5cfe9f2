"""Which held-out documents a pretraining run is measured on: a part on the way, more at the end."""

from __future__ import annotations

import pytest

from chatwright.text.dataset import Dataset
from chatwright.text.prepare import prepare
from chatwright.tokenizer.train import train_tokenizer
from chatwright.training.pretraining import HeldOut, read_held_out

SIZES = [40, 3000, 60, 50, 3900, 45, 2500, 55]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("held-out")
    for place, n_chars in enumerate(SIZES):
        words = " ".join(f"word{place}x{number}" for number in range(n_chars))[:n_chars]
        (folder / f"{place}.txt").write_text(words, encoding="utf-8")
    (folder / "train.txt").write_text("Something else, that training reads, in words of its own.", encoding="utf-8")
    held_out = [folder / f"{place}.txt" for place in range(len(SIZES))]
    return prepare([folder / "train.txt"], folder / "data", held_out=held_out)


def read(dataset: Dataset, part_bytes: int, most_bytes: int) -> HeldOut:
    tokenizer = train_tokenizer(["a word of some length"], 300, "qwen2").tokenizer
    return read_held_out(dataset, ["documents"], tokenizer, 0, part_bytes=part_bytes, most_bytes=most_bytes)


def test_all_are_read_where_they_are_few(dataset: Dataset) -> None:
    found = read(dataset, 1_000_000, 1_000_000)
    assert len(found.documents) == found.n_all == found.part == len(SIZES)


def test_a_part_is_read_where_they_are_many(dataset: Dataset) -> None:
    found = read(dataset, 1000, 4000)
    assert len(found.documents) < found.n_all == len(SIZES)
    n_bytes = [document.n_bytes for document in found.documents]
    assert sum(n_bytes) >= 4000 > sum(n_bytes[:-1])


@pytest.mark.parametrize("part_bytes", [50, 100, 1500, 3000, 6000])
def test_what_is_looked_at_on_the_way_is_about_as_much_as_was_wanted(dataset: Dataset, part_bytes: int) -> None:
    """Not a few short ones because the next one is longer, nor a long one that takes many times the time."""
    found = read(dataset, part_bytes, 1_000_000)
    n_bytes = [document.n_bytes for document in found.documents]
    looked_at = sum(n_bytes[: found.part])
    assert found.part >= 1
    assert looked_at <= 2 * part_bytes or found.part == 1
    after = looked_at + n_bytes[found.part]
    assert looked_at > part_bytes / 2 or after > 2 * part_bytes
