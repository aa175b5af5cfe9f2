"""Fitting the classifier: logistic regression for each category, by full-batch gradient descent with momentum, from zero.

There is no chance in it: the same sentences give the same weights, up to the rounding of the machine's matrix products.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatwright.moderation.categories import CATEGORIES
from chatwright.moderation.classifier import Classifier
from chatwright.moderation.features import features
from chatwright.moderation.sentences import Sentence
from chatwright.moderation.sparse import Sparse
from chatwright.moderation.vectors import word_vectors
from chatwright.moderation.words import lexicon, words_of


@dataclass(frozen=True)
class Fit:
    """How to fit. All were chosen by cross-validation on the training sentences (`scripts/train_moderation.py --folds 5`)."""

    # Sentences in which a feature must stand to be one.
    min_count: int = 3
    # L2 penalties, of words, of kinds, and of the dimensions of words' vectors.
    l2_words: float = 0.0003
    l2_kinds: float = 0.0005
    l2_vectors: float = 0.001
    # How much more a sentence of a category counts than one that is not of it, as a power of their ratio.
    balance: float = 0.5
    # What is flagged is at least so probable as the fit has it; scores are shifted so that this is 0.5. With 0.5 one harmless text
    # of the tasks in eighteen was flagged, with 0.6 one in thirty.
    threshold: float = 0.6
    n_steps: int = 200


def fit(sentences: Sequence[Sentence], how: Fit | None = None) -> Classifier:
    """A classifier trained with these sentences."""
    how = how or Fit()
    words = [words_of(sentence.text) for sentence in sentences]
    seen = [features(some, lexicon()) for some in words]
    counts = Counter(name for of_words, of_kinds in seen for name in of_words | of_kinds)
    names = sorted(name for name, count in counts.items() if count >= how.min_count)
    # The last column, of ones, is for the bias.
    rows = {name: row for row, name in enumerate(names)}
    columns, values = [], []
    for of_words, of_kinds in seen:
        share = 1 / math.sqrt(max(1, len(of_words)))
        weighed = dict.fromkeys(sorted(of_words), share) | dict.fromkeys(sorted(of_kinds), 1.0)
        known = [(rows[name], value) for name, value in weighed.items() if name in rows]
        columns.append([*(column for column, _ in known), len(names)])
        values.append([*(value for _, value in known), 1.0])
    x_NF = Sparse(columns, values, len(names) + 1)
    v_ND = np.stack([word_vectors().of(some) for some in words])
    y_NC = np.array([[name in sentence.categories for name in CATEGORIES] for sentence in sentences], dtype=np.float32)
    l2_names = [how.l2_kinds if name[0] == "+" or ">" in name else how.l2_words for name in names]
    l2_F1 = np.array([*l2_names, 0.0, *[how.l2_vectors] * v_ND.shape[1]], dtype=np.float32)[:, None]
    weights_FC = _descend(x_NF, v_ND, y_NC, l2_F1, how)
    n = len(names)
    return Classifier(
        names,
        weights_FC[:n].astype(np.float16).astype(np.float32),
        weights_FC[n + 1 :],
        weights_FC[n] - np.float32(math.log(how.threshold / (1 - how.threshold))),
        np.full(len(CATEGORIES), 0.5, dtype=np.float32),
    )


def _descend(
    x_NF: Sparse, v_ND: NDArray[np.float32], y_NC: NDArray[np.float32], l2_F1: NDArray[np.float32], how: Fit
) -> NDArray[np.float32]:
    """Nesterov's accelerated gradient; the step is one over the largest curvature that the loss can have."""
    n, n_sparse = x_NF.shape

    def forward(w_FC: NDArray[np.float32]) -> NDArray[np.float32]:
        return x_NF.times(w_FC[:n_sparse]) + v_ND @ w_FC[n_sparse:]

    def backward(e_NC: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([x_NF.transposed_times(e_NC), v_ND.T @ e_NC])

    share_C = np.clip(y_NC.mean(axis=0), 1 / n, None)
    importance_NC = np.where(y_NC > 0, ((1 - share_C) / share_C) ** how.balance, 1.0).astype(np.float32)
    importance_NC /= importance_NC.mean(axis=0)
    # The largest curvature of each loss, by power iteration; a little more, as that comes from below.
    u_FC = np.ones((len(l2_F1), y_NC.shape[1]), dtype=np.float32)
    for _ in range(30):
        u_FC /= np.linalg.norm(u_FC, axis=0)
        u_FC = (backward(importance_NC * forward(u_FC)) / n).astype(np.float32)
    curvature_C = 0.25 * 1.2 * np.linalg.norm(u_FC, axis=0)
    step_C = (1 / (curvature_C + l2_F1.max())).astype(np.float32)
    weights_FC = np.zeros_like(u_FC)
    ahead_FC = weights_FC
    for number in range(how.n_steps):
        error_NC = ((1 / (1 + np.exp(-forward(ahead_FC))) - y_NC) * importance_NC / n).astype(np.float32)
        next_FC = ahead_FC - step_C * (backward(error_NC) + l2_F1 * ahead_FC)
        ahead_FC = next_FC + np.float32(number / (number + 3)) * (next_FC - weights_FC)
        weights_FC = next_FC
    return weights_FC
