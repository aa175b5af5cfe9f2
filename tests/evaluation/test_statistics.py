"""Intervals cover the truth as often as they promise, and pairs and groups are respected."""

from __future__ import annotations

import math

import numpy as np
import pytest

from chatwright.evaluation.statistics import bootstrap_interval, mean_sd, paired_bootstrap


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
