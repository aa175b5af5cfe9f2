"""Hits and misses of a classifier on labelled sentences, in the form that F1 and its interval are computed from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from chatwright.moderation.categories import CATEGORIES, GROUPS
from chatwright.moderation.sentences import Sentence

FLAGGED = "flagged"
# "flagged or not", the groups, and what lies within them.
FIGURES = (FLAGGED, *GROUPS, *(name for name in CATEGORIES if name not in GROUPS))


def counts(sentences: Sequence[Sentence], found: Iterable[frozenset[str]], figure: str) -> NDArray[np.float64]:
    """(N, 3): true positive, false positive, false negative of each sentence, for one of FIGURES."""
    rows = []
    for sentence, categories in zip(sentences, found, strict=True):
        is_so, is_found = (bool(c) if figure == FLAGGED else figure in c for c in (sentence.categories, categories))
        rows.append((is_so and is_found, not is_so and is_found, is_so and not is_found))
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def f1(sums_R3: NDArray[np.float64]) -> NDArray[np.float64]:
    """From sums of `counts`, for each row; 0 where there is nothing to find and nothing was found."""
    hits, wrong, missed = sums_R3.T
    return np.asarray(2 * hits / np.maximum(1.0, 2 * hits + wrong + missed), dtype=np.float64)
