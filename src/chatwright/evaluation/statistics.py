"""Whether a difference is real: means with standard deviations, and bootstrap intervals (Efron 1979; Koehn 2004 for pairs).

A metric is either a mean of values (token F1 of each question) or a ratio of sums (nats over bytes of each document), which is what
`weights` is for. Rows that belong together, such as paraphrases of one question, are drawn and swapped together: `groups` (the
cluster bootstrap, Davison and Hinkley 1997, 3.8). Taken one by one they would count as more evidence than they are.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

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
    """Percentile interval of sum(values) / sum(weights), which without weights is the mean. At least one value is needed; of one
    value, or one group, the bounds are NaN."""
    totals = _totals([values, [1.0] * len(values) if weights is None else weights], groups)
    estimate = totals[0].sum() / totals[1].sum()
    if len(totals[0]) < 2:
        return Interval(float(estimate), math.nan, math.nan, confidence)
    drawn = _resampled(totals, n_resamples, seed)
    return _interval(estimate, drawn[0] / drawn[1], confidence)


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
    for both cancels out. With one row, or one group of rows, there is nothing to draw from: the bounds are NaN, and p is 1."""
    assert len(first) == len(second)
    totals = _totals([first, second, [1.0] * len(first) if weights is None else weights], groups)
    estimate = (totals[0].sum() - totals[1].sum()) / totals[2].sum()
    if len(totals[0]) < 2:
        return Comparison(Interval(float(estimate), math.nan, math.nan, confidence), 1.0)
    drawn = _resampled(totals, n_resamples, seed)
    differences = (drawn[0] - drawn[1]) / drawn[2]
    turned = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p_value = min(1.0, 2 * (turned + 1) / (n_resamples + 1))
    return Comparison(_interval(estimate, differences, confidence), p_value)


class Finish(Protocol):
    """A figure from sums over rows: (R, D) → (R,), each row of it the sums of one draw."""

    def __call__(self, sums_RD: NDArray[np.float64], /) -> NDArray[np.float64]: ...


def bootstrap_figure(
    rows_ND: NDArray[np.float64],
    finish: Finish,
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile interval of any figure that is made of sums over rows: a mean, a ratio, F1 of counts, BLEU of n-gram counts. With
    one row, or one group of rows, there is nothing to draw from: the bounds are NaN.
    """
    rows_ND = grouped(rows_ND, groups)
    estimate = float(finish(rows_ND.sum(axis=0, keepdims=True))[0])
    if len(rows_ND) < 2:
        return Interval(estimate, math.nan, math.nan, confidence)
    drawn_R = np.concatenate([finish(counts_RN @ rows_ND) for counts_RN in _draws(len(rows_ND), n_resamples, seed)])
    return _interval(estimate, drawn_R, confidence)


def compare_figures(
    first_ND: NDArray[np.float64],
    second_ND: NDArray[np.float64],
    finish: Finish,
    *,
    groups: Sequence[Hashable] | None = None,
    margin: float = 0.0,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Two models on the same rows. The interval is a paired bootstrap's; the p-value a paired permutation test's, which swaps the
    models' rows and asks how often the difference gets as large: in all ways where those are no more than the draws, so that few
    rows give no finer a value than they can, else at random.
    Rows of one group are drawn and swapped together.

    `margin`: the hypothesis to be refuted is that the difference is no larger than this, in either direction (a minimum-effect
    test). The p-value is then no smaller than that of the bootstrap: twice the share of draws within the margin or beyond it on
    the other side.
    """
    assert first_ND.shape == second_ND.shape
    assert margin >= 0
    first_ND, second_ND = grouped(first_ND, groups), grouped(second_ND, groups)
    estimate = float((finish(first_ND.sum(0, keepdims=True)) - finish(second_ND.sum(0, keepdims=True)))[0])
    n = len(first_ND)
    if n < 2:
        return Comparison(Interval(estimate, math.nan, math.nan, confidence), 1.0)
    differences = np.concatenate(
        [finish(c_RN @ first_ND) - finish(c_RN @ second_ND) for c_RN in _draws(n, n_resamples, seed)]
    )
    extreme = 0
    total_D = first_ND.sum(0) + second_ND.sum(0)
    for swapped_RN in _swaps(n, n_resamples, seed + 1):
        mixed_RD = swapped_RN @ second_ND + (1 - swapped_RN) @ first_ND
        turned_R = finish(mixed_RD) - finish(total_D - mixed_RD)
        extreme += int((np.abs(turned_R) >= abs(estimate) - 1e-12).sum())
    p_value = extreme / 2**n if _all_swaps(n, n_resamples) else (extreme + 1) / (n_resamples + 1)
    if margin:
        short = int((math.copysign(1.0, estimate) * differences <= margin).sum())
        p_value = max(p_value, min(1.0, 2 * (short + 1) / (n_resamples + 1)))
    return Comparison(_interval(estimate, differences, confidence), p_value)


def grouped(rows_ND: NDArray[np.float64], groups: Sequence[Hashable] | None) -> NDArray[np.float64]:
    """(N, D) → (G, D): the sum of the rows of each group, in the order in which the groups come."""
    if groups is None:
        return rows_ND
    members_N, n_groups = _members(groups)
    assert len(members_N) == len(rows_ND)
    sums_GD = np.zeros((n_groups, rows_ND.shape[1]))
    np.add.at(sums_GD, members_N, rows_ND)
    return sums_GD


def _members(groups: Sequence[Hashable]) -> tuple[NDArray[np.int64], int]:
    """The number of each row's group, and how many groups there are."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], dtype=np.int64), len(numbers)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests corrected so that the chance of any false claim keeps its bound (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = largest
    return adjusted


def _draws(n: int, n_resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """(R, N): how often each row is drawn."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWN_AT_ONCE // n)
    for start in range(0, n_resamples, at_once):
        yield generator.multinomial(n, np.full(n, 1 / n), size=min(at_once, n_resamples - start)).astype(np.float64)


def _all_swaps(n: int, n_resamples: int) -> bool:
    """Whether there are so few ways to swap the rows that all can be gone through."""
    return n < n_resamples.bit_length() and 2**n <= n_resamples


def _swaps(n: int, n_resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """(R, N): 1 where the models' rows are swapped."""
    if _all_swaps(n, n_resamples):
        yield (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.float64)
        return
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWN_AT_ONCE // n)
    for start in range(0, n_resamples, at_once):
        yield generator.integers(2, size=(min(at_once, n_resamples - start), n)).astype(np.float64)


def _totals(columns: Sequence[Sequence[float]], groups: Sequence[Hashable] | None) -> list[NDArray[np.float64]]:
    """The columns, summed over each group."""
    assert columns[0], "nothing to estimate from"
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    assert all(len(array) == len(arrays[0]) for array in arrays)
    if groups is None:
        return arrays
    members, _n_groups = _members(groups)
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
