"""Intervals cover the truth as often as they promise, and pairs and groups are respected."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from chatwright.evaluation.statistics import (
    bootstrap_figure,
    bootstrap_interval,
    compare_figures,
    mean_sd,
    paired_bootstrap,
)


def test_mean_and_standard_deviation() -> None:
    assert mean_sd([1.0, 2.0, 3.0]) == (2.0, 1.0)
    mean, sd = mean_sd([4.0])
    assert mean == 4.0
    assert math.isnan(sd)


def test_intervals_cover_the_true_mean_about_as_often_as_promised() -> None:
    generator = np.random.default_rng(0)
    intervals = [
        bootstrap_interval(generator.exponential(size=100).tolist(), n_resamples=500, confidence=0.9, seed=i)
        for i in range(300)
    ]
    covered = sum(interval.low <= 1.0 <= interval.high for interval in intervals)
    assert 0.83 <= covered / 300 <= 0.95


def test_weights_make_a_ratio_of_sums() -> None:
    interval = bootstrap_interval([10.0, 1.0], [5.0, 1.0])
    assert interval.estimate == pytest.approx(11 / 6)
    assert interval.low == pytest.approx(1.0)
    assert interval.high == pytest.approx(2.0)


def test_the_same_seed_draws_the_same() -> None:
    values = np.random.default_rng(1).normal(size=50).tolist()
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_pairs_reveal_a_small_difference_that_two_separate_intervals_hide() -> None:
    generator = np.random.default_rng(2)
    difficulty = generator.normal(size=200)
    first = (difficulty + 0.05 + 0.02 * generator.normal(size=200)).tolist()
    second = difficulty.tolist()
    comparison = paired_bootstrap(first, second)
    assert comparison.difference.low > 0.03
    assert comparison.p_value < 0.001
    assert bootstrap_interval(first).low < bootstrap_interval(second).high
    same = paired_bootstrap(first, first)
    assert same.difference.estimate == 0.0
    assert same.p_value == 1.0


def test_paraphrases_of_one_question_do_not_count_as_many_questions() -> None:
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    copies = [value for value in values for _ in range(20)]
    groups = [number for number in range(5) for _ in range(20)]
    grouped, alone = bootstrap_interval(copies, groups=groups), bootstrap_interval(values)
    assert (grouped.low, grouped.high) == pytest.approx((alone.low, alone.high))
    naive = bootstrap_interval(copies)
    assert naive.high - naive.low < 0.5 * (grouped.high - grouped.low)


def ratio(sums_RD: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = sums_RD[:, 0] / sums_RD[:, 1]
    return found


def test_a_figure_is_drawn_by_groups_as_if_each_were_one_row() -> None:
    rng = np.random.default_rng(1)
    rows = np.stack([rng.normal(size=60), np.ones(60)], axis=1)
    groups = [f"document {n % 12}" for n in range(60)]
    summed = np.stack([rows[n::12].sum(0) for n in range(12)])
    assert bootstrap_figure(rows, ratio, groups=groups) == bootstrap_figure(summed, ratio)
    assert compare_figures(rows, rows * 0.5, ratio, groups=groups) == compare_figures(summed, summed * 0.5, ratio)
    assert math.isnan(bootstrap_figure(rows, ratio, groups=[0] * 60).low), "one group says nothing of another"
    assert compare_figures(rows, rows * 0.5, ratio, groups=[0] * 60).p_value == 1


def test_items_of_one_document_deceive_a_test_that_takes_them_one_by_one() -> None:
    """Two models that are equally good on documents in general, and differ in each by chance: 10 documents of 20 items."""
    rng = np.random.default_rng(2)
    groups = [n // 20 for n in range(200)]
    claims = {"items": 0, "documents": 0}
    for seed in range(60):
        noise = rng.normal(size=10).repeat(20) + 0.1 * rng.normal(size=200)
        first, second = (np.stack([values, np.ones(200)], axis=1) for values in (noise, np.zeros(200)))
        for name, own in (("items", None), ("documents", groups)):
            found = compare_figures(first, second, ratio, groups=own, n_resamples=300, seed=seed)
            claims[name] += found.p_value < 0.05
    assert claims["items"] > 25
    assert claims["documents"] <= 8


def test_a_margin_asks_for_more_than_that_a_difference_is_there() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(size=400)
    second = np.stack([noise + 10, np.ones(400)], axis=1)
    first = np.stack([noise + 10.2 + 0.1 * rng.normal(size=400), np.ones(400)], axis=1)
    assert compare_figures(first, second, ratio).p_value < 0.01
    assert compare_figures(first, second, ratio, margin=0.1).p_value < 0.01
    assert compare_figures(first, second, ratio, margin=0.2).p_value > 0.05
    assert compare_figures(first, second, ratio, margin=0.3).p_value > 0.5
    turned = compare_figures(second, first, ratio, margin=0.1)
    assert turned.p_value < 0.01
    assert turned.difference.high < -0.1


def test_of_few_rows_a_p_value_is_what_all_ways_to_swap_them_give() -> None:
    """Drawn at random, three rows that all speak for one model were given p = 0.247 or 0.253: 2 of 8 ways are 0.25."""
    second = np.stack([np.zeros(3), np.ones(3)], axis=1)
    first = np.stack([np.ones(3), np.ones(3)], axis=1)
    for seed in range(5):
        assert compare_figures(first, second, ratio, seed=seed).p_value == 0.25
    rng = np.random.default_rng(4)
    for n in (2, 7, 10):
        some, other = (np.stack([rng.normal(size=n), np.ones(n)], axis=1) for _ in range(2))
        found = compare_figures(some, other, ratio)
        assert (found.p_value * 2**n) % 2 == 0, "two-sided: a way and its opposite count together"
        signs = np.array(list(itertools.product((1, -1), repeat=n)))
        totals = np.abs(signs @ (some - other)[:, 0]) / n
        assert found.p_value == (totals >= abs(found.difference.estimate) - 1e-12).mean()


def test_of_many_rows_ways_to_swap_are_drawn() -> None:
    rng = np.random.default_rng(5)
    some, other = (np.stack([rng.normal(size=12), np.ones(12)], axis=1) for _ in range(2))
    drawn = compare_figures(some, other, ratio, n_resamples=2000).p_value
    assert drawn == pytest.approx(compare_figures(some, other, ratio, n_resamples=2**12).p_value, abs=0.05)


def test_one_row_or_one_group_has_no_interval() -> None:
    found = [
        bootstrap_interval([2.0]),
        bootstrap_interval([1.0, 3.0], groups=["a", "a"]),
        paired_bootstrap([3.0], [1.0]).difference,
        paired_bootstrap([3.0, 4.0], [1.0, 2.0], groups=["a", "a"]).difference,
    ]
    assert [each.estimate for each in found] == [2.0] * 4
    assert all(math.isnan(each.low) and math.isnan(each.high) for each in found)
    assert paired_bootstrap([3.0], [1.0]).p_value == 1.0
