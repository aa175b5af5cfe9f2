"""Scores of labels and entities, against worked examples."""

from __future__ import annotations

import pytest

from chatwright.evaluation.labels import accuracy, confusion_matrix, entity_scores, f1_by_label, macro_f1


def test_accuracy_f1_and_confusion() -> None:
    matrix = confusion_matrix([0, 0, 0, 1, 1], [0, 0, 1, 1, 0], 3)
    assert matrix.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert accuracy(matrix) == 0.6
    assert f1_by_label(matrix) == [pytest.approx(2 / 3), 0.5, None]
    assert macro_f1(matrix) == pytest.approx((2 / 3 + 0.5) / 2)


def test_always_the_majority_has_high_accuracy_and_low_macro_f1() -> None:
    matrix = confusion_matrix([0] * 9 + [1], [0] * 10, 2)
    assert accuracy(matrix) == 0.9
    assert macro_f1(matrix) == pytest.approx(18 / 19 / 2)


def test_an_entity_counts_only_at_its_exact_place_with_its_label() -> None:
    truth = [[(0, 3, "person"), (7, 9, "place")], [(0, 2, "place")]]
    predicted = [[(0, 3, "person"), (7, 8, "place")], [(0, 2, "person"), (5, 6, "place")]]
    scores = entity_scores(truth, predicted)
    assert scores == {"precision": 1 / 4, "recall": 1 / 3, "f1": pytest.approx(2 / 7)}


def test_without_entities_nothing_was_missed() -> None:
    assert entity_scores([[]], [[]]) == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert entity_scores([[(0, 1, "x")]], [[]])["f1"] == 0.0
    assert entity_scores([[]], [[(0, 1, "x")]])["precision"] == 0.0
