"""A row goes only for an earlier one that stays and that it is like itself: likeness does not add up along a chain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import pytest

from chatwright.text import duplicates
from chatwright.text.characters import CharacterTexts
from chatwright.text.options import PrepareOptions
from chatwright.text.prepare import prepare
from chatwright.text.shingles import shingle, sign, similarity

N_WORDS, N_CHANGED = 400, 24


def chain(length: int, seed: int) -> list[str]:
    """Texts of which each has 87 % of its phrases in common with the one before, 75 % with the one before that."""
    rng = np.random.default_rng(seed)
    words = [f"w{number}" for number in rng.integers(0, 10**6, N_WORDS)]
    texts = [" ".join(words)]
    for step in range(length - 1):
        at = step * N_CHANGED % (N_WORDS - N_CHANGED)
        words[at : at + N_CHANGED] = [f"v{number}" for number in rng.integers(0, 10**6, N_CHANGED)]
        texts.append(" ".join(words))
    return texts


def prepared(tmp_path: Path, texts: list[str], workers: int = 1) -> tuple[dict[int, str], dict[int, tuple[str, int]]]:
    """(duplicate → id of the row that stays, row that stays → (id, cluster)); rows by their numbers."""
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(texts):
        (folder / f"{number:04d}.txt").write_text(text)
    options = PrepareOptions(filters=False)
    dataset = prepare([folder], tmp_path / f"data{workers}", options, workers=workers)
    dropped = map(orjson.loads, (dataset.path / "dropped.jsonl").read_bytes().splitlines())
    gone = {
        int(entry["source"][-8:-4]): entry["duplicate_of"] for entry in dropped if entry["reason"] == "near duplicate"
    }
    stays = {
        int(row["source"][-8:-4]): (row["id"], row["cluster"])
        for split in ("train", "held_out")
        for row in dataset.rows(split, "documents")
    }
    return gone, stays


def test_the_end_of_a_chain_stays_and_stays_in_the_cluster(tmp_path: Path) -> None:
    gone, stays = prepared(tmp_path, chain(3, seed=2))
    assert set(gone) == {1}
    assert set(stays) == {0, 2}
    assert gone[1] == stays[0][0]
    assert stays[0][1] == stays[2][1]


@pytest.mark.parametrize("chunk", [3, duplicates._CHUNK_PAIRS])
def test_every_row_that_goes_is_like_the_row_that_stays_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(duplicates, "_CHUNK_PAIRS", chunk)
    texts = [text for seed in range(6) for text in chain(8, seed)]
    texts = [texts[number] for number in np.random.default_rng(0).permutation(len(texts))]
    gone, stays = prepared(tmp_path, texts)
    signatures = sign(shingle(CharacterTexts.of(texts), 5)).low_bytes
    number_of = {row_id: number for number, (row_id, _cluster) in stays.items()}
    assert len(gone) > 10
    assert len(gone) + len(stays) == len(texts)
    for number, row_id in gone.items():
        keeper = number_of[row_id]
        assert keeper < number
        assert similarity(signatures[[keeper]], signatures[[number]])[0] >= 0.8
    for number in stays:  # and whatever stays is like none that stays before it
        earlier = [each for each in stays if each < number]
        assert (similarity(signatures[earlier], signatures[[number]]) < 0.8).all()


def test_the_number_of_workers_changes_nothing(tmp_path: Path) -> None:
    texts = [text for seed in range(3) for text in chain(5, seed)]
    assert prepared(tmp_path, texts, 1) == prepared(tmp_path, texts, 2)


def test_many_copies_go_for_the_first(tmp_path: Path) -> None:
    first = chain(1, seed=5)[0]
    gone, stays = prepared(tmp_path, [f"{first} {number} ending" for number in range(50)])
    assert set(stays) == {0}
    assert set(gone.values()) == {stays[0][0]}
