"""Scores of labelled texts and of labelled spans: accuracy, F1, confusion matrix, and entities by their exact place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

# (start, end, label), in characters
Entity = tuple[int, int, str]


def confusion_matrix(truth: Sequence[int], predicted: Sequence[int], n_labels: int) -> NDArray[np.int64]:
    """(n_labels, n_labels): how often label `row` was taken for label `column`."""
    matrix = np.zeros((n_labels, n_labels), dtype=np.int64)
    np.add.at(matrix, (np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64)), 1)
    return matrix


def accuracy(matrix: NDArray[np.int64]) -> float:
    """Share of texts with the right label."""
    return float(np.trace(matrix) / max(1, matrix.sum()))


def f1_by_label(matrix: NDArray[np.int64]) -> list[float | None]:
    """F1 of each label; None for one that neither occurs nor was predicted."""
    hits, truth, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    total = truth + predicted
    return [float(2 * hit / both) if both else None for hit, both in zip(hits, total, strict=True)]


def macro_f1(matrix: NDArray[np.int64]) -> float:
    """Mean F1 over the labels that occur: every label counts the same, however rare it is."""
    occurring = [score or 0.0 for score, n in zip(f1_by_label(matrix), matrix.sum(axis=1), strict=True) if n]
    return float(np.mean(occurring)) if occurring else 0.0


def entity_scores(truth: Iterable[Iterable[Entity]], predicted: Iterable[Iterable[Entity]]) -> Mapping[str, float]:
    """Precision, recall and F1 of entities over all texts (micro average): one is found when start, end and label are
    exactly right, as in CoNLL-2003's evaluation. Without any entity on either side all three are 1.
    """
    n_hits = n_truth = n_predicted = 0
    for true_entities, predicted_entities in zip(truth, predicted, strict=True):
        wanted, found = set(true_entities), set(predicted_entities)
        n_hits += len(wanted & found)
        n_truth += len(wanted)
        n_predicted += len(found)
    if not n_truth and not n_predicted:
        return {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    return {
        "precision": n_hits / n_predicted if n_predicted else 0.0,
        "recall": n_hits / n_truth if n_truth else 0.0,
        "f1": 2 * n_hits / (n_truth + n_predicted),
    }
