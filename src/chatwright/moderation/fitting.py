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
from chatwright.moderation.words import lexicon, words_of


@dataclass(frozen=True)
class Fit:
    """How to fit. All were chosen by cross-validation on the training sentences (`scripts/train_moderation.py --folds 5`)."""

    # Sentences in which a feature must stand to be one.
    min_count: int = 2
    # L2 penalties, of words and of kinds.
    l2_words: float = 0.0003
    l2_kinds: float = 0.0005
    # How much more a sentence of a category counts than one that is not of it, as a power of their ratio.
    balance: float = 0.5
    threshold: float = 0.5
    n_steps: int = 300


def fit(sentences: Sequence[Sentence], how: Fit | None = None) -> Classifier:
    """A classifier trained with these sentences."""
    how = how or Fit()
    seen = [features(words_of(sentence.text), lexicon()) for sentence in sentences]
    counts = Counter(name for of_words, of_kinds in seen for name in of_words | of_kinds)
    names = sorted(name for name, count in counts.items() if count >= how.min_count)
    rows = {name: row for row, name in enumerate(names)}
    x_NF = np.zeros((len(sentences), len(names)), dtype=np.float32)
    for number, (of_words, of_kinds) in enumerate(seen):
        x_NF[number, [rows[name] for name in of_words if name in rows]] = 1 / math.sqrt(max(1, len(of_words)))
        x_NF[number, [rows[name] for name in of_kinds if name in rows]] = 1
    y_NC = np.array([[name in sentence.categories for name in CATEGORIES] for sentence in sentences], dtype=np.float32)
    is_kind_F = np.array([name[0] == "+" or ">" in name for name in names])
    l2_F1 = np.where(is_kind_F, how.l2_kinds, how.l2_words).astype(np.float32)[:, None]
    weights_FC, bias_C = _descend(x_NF, y_NC, l2_F1, how)
    thresholds_C = np.full(len(CATEGORIES), how.threshold, dtype=np.float32)
    return Classifier(names, weights_FC.astype(np.float16).astype(np.float32), bias_C, thresholds_C)


def _descend(
    x_NF: NDArray[np.float32], y_NC: NDArray[np.float32], l2_F1: NDArray[np.float32], how: Fit
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Nesterov's accelerated gradient; the step is one over the largest curvature that the loss can have."""
    n, n_features = x_NF.shape
    share_C = np.clip(y_NC.mean(axis=0), 1 / n, None)
    importance_NC = np.where(y_NC > 0, ((1 - share_C) / share_C) ** how.balance, 1.0).astype(np.float32)
    importance_NC /= importance_NC.mean(axis=0)
    # The largest curvature of each loss, by power iteration; a little more, as that comes from below.
    v_FC = np.ones((n_features, y_NC.shape[1]), dtype=np.float32)
    for _ in range(30):
        v_FC /= np.linalg.norm(v_FC, axis=0)
        v_FC = x_NF.T @ (importance_NC * (x_NF @ v_FC)) / n
    curvature_C = 0.25 * 1.2 * (np.linalg.norm(v_FC, axis=0) + importance_NC.mean(axis=0))
    step_C = (1 / (curvature_C + l2_F1.max())).astype(np.float32)
    weights_FC = np.zeros((n_features, y_NC.shape[1]), dtype=np.float32)
    bias_C = np.zeros(y_NC.shape[1], dtype=np.float32)
    ahead_FC, ahead_C = weights_FC, bias_C
    for number in range(how.n_steps):
        error_NC = (1 / (1 + np.exp(-(x_NF @ ahead_FC + ahead_C))) - y_NC) * importance_NC / n
        next_FC = ahead_FC - step_C * (x_NF.T @ error_NC + l2_F1 * ahead_FC)
        next_C = ahead_C - step_C * error_NC.sum(axis=0)
        momentum = number / (number + 3)
        ahead_FC = next_FC + momentum * (next_FC - weights_FC)
        ahead_C = next_C + momentum * (next_C - bias_C)
        weights_FC, bias_C = next_FC, next_C
    return weights_FC, bias_C
