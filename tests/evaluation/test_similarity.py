"""Rank correlation is scipy's, the pairs are sound, and a good encoder beats a hash of letters on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwright.engine.load import load_text_model
from chatwright.evaluation.similarity import measure_similarity, sentence_pairs, spearman
from chatwright.settings import Settings


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3)), min_size=3, max_size=30))
def test_it_is_the_correlation_of_ranks(pairs: list[tuple[int, int]]) -> None:
    first, second = (np.array(values, dtype=np.float64) for values in zip(*pairs, strict=True))
    found = spearman(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert np.isnan(found)
        return
    # By the definition, rank by rank.
    ranks = [
        [(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values] for values in (first, second)
    ]
    assert found == pytest.approx(np.corrcoef(ranks)[0, 1], abs=1e-9)
    assert spearman(first, -second) == pytest.approx(-found, abs=1e-9)
    assert spearman(first, np.exp(second)) == pytest.approx(found, abs=1e-9)


def test_the_pairs_are_the_same_in_both_languages() -> None:
    english, chinese = sentence_pairs("en"), sentence_pairs("zh")
    assert [pair.grade for pair in english] == [pair.grade for pair in chinese]
    assert set(Counter(pair.grade for pair in english).values()) == {10}
    for pairs in (english, chinese):
        assert len({(pair.first, pair.second) for pair in pairs}) == len(pairs) == 60
        assert all(pair.first != pair.second for pair in pairs)
    assert all(any("一" <= letter <= "鿿" for letter in pair.first + pair.second) for pair in chinese)


async def test_a_good_encoder_beats_counting_letters(minilm: Path) -> None:
    async def letters(texts: Sequence[str]) -> list[list[float]]:
        return [[text.lower().count(chr(97 + i)) + 0.01 for i in range(26)] for text in texts]

    model = load_text_model(minilm, "minilm", Settings(device="cpu", threads=1))
    try:

        async def vectors(texts: Sequence[str]) -> Sequence[Sequence[float]]:
            return (await model.embed(texts)).vectors

        good = await measure_similarity(vectors, sentence_pairs("en"), n_resamples=200)
    finally:
        await model.close()
    poor = await measure_similarity(letters, sentence_pairs("en"), n_resamples=200)
    assert good.low <= good.correlation <= good.high
    assert good.low > poor.correlation
    assert good.correlation > 0.8
