"""Packing puts every conversation in exactly one row, within the context, with little room to spare; and ends."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from chatwright.training.best_fit import best_fit


@given(st.lists(st.integers(1, 64), max_size=200))
def test_every_conversation_is_in_exactly_one_row_that_holds_it(lengths: list[int]) -> None:
    bins = best_fit(lengths, 64)
    assert sorted(index for each in bins for index in each) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in each) <= 64 for each in bins)
    # the guarantee of best-fit decreasing
    assert len(bins) <= 11 / 9 * (-(-sum(lengths) // 64) * 2) + 1


def test_little_of_a_row_is_padding() -> None:
    rng = random.Random(0)
    lengths = [min(512, int(rng.lognormvariate(4, 0.8)) + 1) for _ in range(5000)]
    bins = best_fit(lengths, 512)
    assert sum(lengths) / (512 * len(bins)) > 0.98


def test_conversations_of_the_full_context_fill_a_row_each() -> None:
    assert best_fit([8, 8, 8], 8) == [[0], [1], [2]]


def test_a_hundred_thousand_conversations_are_packed_in_seconds() -> None:
    rng = random.Random(1)
    assert best_fit([rng.randint(1, 2048) for _ in range(100_000)], 2048)
