"""Spearman's rank correlation between grades and cosines, with its bootstrap interval."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatwright.evaluation.similarity.pairs import SentencePair

EmbedTexts = Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]]


@dataclass(frozen=True)
class Similarity:
    """Spearman's correlation over `n` pairs, and the bounds between which it lies with 95 % confidence."""

    correlation: float
    low: float
    high: float
    n: int


async def measure_similarity(
    embed: EmbedTexts, pairs: Sequence[SentencePair], *, n_resamples: int = 2_000, seed: int = 0
) -> Similarity:
    """How the cosines of a model's vectors agree with the grades. `embed`: one vector for each text."""
    texts = [text for pair in pairs for text in (pair.first, pair.second)]
    vectors_ND = np.asarray(await embed(texts), dtype=np.float64)
    vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    cosines = (vectors_ND[0::2] * vectors_ND[1::2]).sum(1)
    grades = np.array([pair.grade for pair in pairs])
    draws = np.random.default_rng(seed).integers(len(pairs), size=(n_resamples, len(pairs)))
    drawn = [spearman(grades[places], cosines[places]) for places in draws]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Similarity(spearman(grades, cosines), float(low), float(high), len(pairs))


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The correlation of ranks (Spearman 1904), ties at the mean of their ranks; NaN where one of them is all ties."""
    ranks = [_ranks(np.asarray(values, dtype=np.float64)) for values in (first, second)]
    centred = [values - values.mean() for values in ranks]
    spread = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    return float((centred[0] * centred[1]).sum() / spread) if spread else float("nan")


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[group]
    return mean_ranks
