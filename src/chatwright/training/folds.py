"""K folds: which rows are held out when, what the K results say together, and whether one way of training beats another."""

from __future__ import annotations

import hashlib
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from chatwright.errors import InvalidDatasetError

Verdict = Literal["helped", "hurt", "cannot tell"]

# Two-sided 95 % quantiles of Student's t by degrees of freedom (1 to 30).
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def assign_folds(
    clusters: Sequence[int],
    n_folds: int,
    seed: int,
    *,
    sizes: Sequence[int] | None = None,
    labels: Sequence[str] | None = None,
) -> list[int]:
    """The fold (0 to n_folds - 1) of each row. Rows of one cluster (near-duplicates) are in one fold.

    Folds are of nearly equal size (`sizes`: of each row, 1 by default), and, given `labels`, each label is spread over them as
    evenly as its clusters allow. The largest clusters are placed first, each where it disturbs least; ties are broken by the
    seed. Raises InvalidDatasetError where there are fewer clusters than folds.
    """
    sizes = [1] * len(clusters) if sizes is None else sizes
    total_of = Counter(labels or ())
    members: dict[int, list[int]] = {}
    for row, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(row)
    if len(members) < 2:
        raise InvalidDatasetError(
            "All rows that are to be divided are one group of near-duplicates, which stay together: folds are not possible with"
            " them. Leave --folds out, or add data."
        )
    if len(members) < n_folds:
        raise InvalidDatasetError(
            "The dataset has {n} groups of rows that are no near-duplicates of each other, too few for {folds} folds. Use"
            " --folds {n} at most, or add data.",
            n=len(members),
            folds=n_folds,
        )
    size_of = {cluster: sum(sizes[row] for row in rows) for cluster, rows in members.items()}
    fold_of_cluster: dict[int, int] = {}
    fold_size = [0] * n_folds
    fold_clusters = [0] * n_folds
    fold_labels = [Counter[str]() for _ in range(n_folds)]
    order = sorted(members, key=lambda cluster: (-size_of[cluster], _shuffled(seed, cluster)))
    for placed, cluster in enumerate(order):
        found = Counter(labels[row] for row in members[cluster]) if labels else Counter[str]()
        empty = [fold for fold in range(n_folds) if not fold_clusters[fold]]
        # the last clusters go to folds that have none yet, so that no fold stays empty
        candidates = empty if len(order) - placed <= len(empty) else range(n_folds)
        chosen = min(
            candidates,
            key=lambda fold: (
                sum(n * fold_labels[fold][label] / total_of[label] for label, n in found.items()),
                fold_size[fold],
                _shuffled(seed, fold),
            ),
        )
        fold_of_cluster[cluster] = chosen
        fold_size[chosen] += size_of[cluster]
        fold_clusters[chosen] += 1
        fold_labels[chosen] += found
    return [fold_of_cluster[cluster] for cluster in clusters]


def _shuffled(seed: int, number: int) -> bytes:
    return hashlib.sha256(f"{seed}/{number}".encode()).digest()


@dataclass(frozen=True)
class Spread:
    """A figure over folds: mean, sample standard deviation (n - 1; 0 for one fold), n, and the figures themselves."""

    mean: float
    sd: float
    n: int
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one figure; one that is no number makes mean and deviation none either."""
        if not all(map(math.isfinite, values)):  # `statistics` fails on them
            return cls(math.nan, math.nan, len(values), tuple(values))
        return cls(
            statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values), tuple(values)
        )

    def to_dict(self) -> dict[str, Any]:
        """For folds.json."""
        return asdict(self)


def summarise(results: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Every figure that all folds have."""
    shared = [name for name in results[0] if all(name in result for result in results)]
    return {name: Spread.of([result[name] for result in results]) for name in shared}


@dataclass(frozen=True)
class Comparison:
    """The difference of a figure between two ways of training, fold by fold (with minus without), and what it tells."""

    difference: Spread
    low: float
    high: float
    verdict: Verdict


def compare(without: Sequence[float], with_it: Sequence[float], *, lower_is_better: bool) -> Comparison:
    """Paired by fold. The interval (95 %) is that of Nadeau & Bengio (2003): the folds share training data, so their results are
    not independent, and the plain paired t-test finds differences that are not there. With one fold nothing can be told.
    """
    spread = Spread.of([b - a for a, b in zip(without, with_it, strict=True)])
    if spread.n < 2:
        return Comparison(spread, -math.inf, math.inf, "cannot tell")
    # test share / training share of K folds is 1 / (K - 1)
    error = spread.sd * math.sqrt(1 / spread.n + 1 / (spread.n - 1))
    margin = (_T[spread.n - 2] if spread.n - 1 <= len(_T) else 1.96) * error
    low, high = spread.mean - margin, spread.mean + margin
    if not (low > 0 or high < 0):  # so that a difference that is no number tells nothing either
        return Comparison(spread, low, high, "cannot tell")
    return Comparison(spread, low, high, "helped" if (high < 0) == lower_is_better else "hurt")
