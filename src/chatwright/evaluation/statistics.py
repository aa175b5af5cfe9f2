"""Whether a difference is real: means with standard deviations, and bootstrap intervals (Efron 1979; Koehn 2004 for pairs).

A metric is either a mean of values (token F1 of each question) or a ratio of sums (nats over bytes of each document), which is what
`weights` is for. Rows that belong together, such as paraphrases of one question, are drawn together: `groups`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Numbers drawn at a time, which bounds memory.
_DRAWN_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Interval:
    """An estimate, and the bounds between which it lies with the given confidence."""

    estimate: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class Comparison:
    """`difference` is first minus second. `p_value`: two-sided, how often resampling turns the sign; never 0."""

    difference: Interval
    p_value: float


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); NaN for the latter when there is one value only."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def bootstrap_interval(
    values: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of sum(values) / sum(weights), which without weights is the mean. At least one value is needed."""
    totals = _totals([values, [1.0] * len(values) if weights is None else weights], groups)
    drawn = _resampled(totals, n_resamples, seed)
    return _interval(totals[0].sum() / totals[1].sum(), drawn[0] / drawn[1], confidence)


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Two models on the same rows: the difference of their metrics. Both see the same draws, so that what makes a row easy or hard
    for both cancels out."""
    assert len(first) == len(second)
    totals = _totals([first, second, [1.0] * len(first) if weights is None else weights], groups)
    drawn = _resampled(totals, n_resamples, seed)
    differences = (drawn[0] - drawn[1]) / drawn[2]
    estimate = (totals[0].sum() - totals[1].sum()) / totals[2].sum()
    turned = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p_value = min(1.0, 2 * (turned + 1) / (n_resamples + 1))
    return Comparison(_interval(estimate, differences, confidence), p_value)


def _totals(columns: Sequence[Sequence[float]], groups: Sequence[Hashable] | None) -> list[NDArray[np.float64]]:
    """The columns, summed over each group."""
    assert columns[0], "nothing to estimate from"
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    assert all(len(array) == len(arrays[0]) for array in arrays)
    if groups is None:
        return arrays
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    members = np.array([numbers[group] for group in groups])
    assert len(members) == len(arrays[0])
    return [np.bincount(members, weights=array).astype(np.float64) for array in arrays]


def _resampled(totals: Sequence[NDArray[np.float64]], n_resamples: int, seed: int) -> list[NDArray[np.float64]]:
    """Sums of each column over `n_resamples` draws with replacement: the same draws for all columns."""
    generator = np.random.default_rng(seed)
    n = len(totals[0])
    sums: list[list[NDArray[np.float64]]] = [[] for _ in totals]
    at_once = max(1, _DRAWN_AT_ONCE // n)
    for first in range(0, n_resamples, at_once):
        drawn = generator.integers(n, size=(min(at_once, n_resamples - first), n))
        for column, parts in zip(totals, sums, strict=True):
            parts.append(column[drawn].sum(axis=1))
    return [np.concatenate(parts) for parts in sums]


def _interval(estimate: float, resampled: NDArray[np.float64], confidence: float) -> Interval:
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Interval(float(estimate), float(low), float(high), confidence)
