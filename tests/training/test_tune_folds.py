"""Folds keep near-duplicates together, are even, reproducible and complete; their figures are the textbook's."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwright.errors import InvalidDatasetError
from chatwright.training import cross_validation
from chatwright.training.cross_validation import compare_augmentations
from chatwright.training.distributed import World
from chatwright.training.figures import figure_name
from chatwright.training.fold_report import fold_tables
from chatwright.training.folds import Spread, assign_folds, compare, summarise
from chatwright.training.progress import Silent
from chatwright.training.run import Run
from chatwright.training.trials import Fitted, Trial


@given(st.lists(st.integers(0, 30), min_size=5, max_size=120), st.integers(2, 5), st.integers(0, 3))
def test_near_duplicates_stay_in_one_fold_and_no_fold_is_empty(clusters: list[int], n_folds: int, seed: int) -> None:
    if len(set(clusters)) < n_folds:
        n = len(set(clusters))
        with pytest.raises(InvalidDatasetError, match=f"--folds {n} at most" if n > 1 else "Leave --folds out"):
            assign_folds(clusters, n_folds, seed)
        return
    folds = assign_folds(clusters, n_folds, seed)
    assert len({(cluster, fold) for cluster, fold in zip(clusters, folds, strict=True)}) == len(set(clusters))
    assert set(folds) == set(range(n_folds))


@pytest.mark.parametrize("clusters", [[], [7], [7, 7, 7]])
def test_one_group_of_near_duplicates_is_told_that_no_folds_are_possible(clusters: list[int]) -> None:
    """Not "--folds 1 at most", which --folds does not take."""
    with pytest.raises(InvalidDatasetError, match="folds are not possible with them") as refused:
        assign_folds(clusters, 3, 0)
    assert "at most" not in str(refused.value)


def test_folds_differ_by_no_more_than_one_row_without_duplicates() -> None:
    for n in (10, 11, 14):
        sizes = Counter(assign_folds(range(n), 4, 0)).values()
        assert max(sizes) - min(sizes) <= 1


def test_each_label_is_spread_over_the_folds() -> None:
    labels = ["rare"] * 5 + ["common"] * 95
    folds = assign_folds(range(100), 5, 0, labels=labels)
    for label, n in (("rare", 1), ("common", 19)):
        assert set(Counter(fold for fold, own in zip(folds, labels, strict=True) if own == label).values()) == {n}


def test_the_seed_decides_and_nothing_else() -> None:
    rows = range(60)
    assert assign_folds(rows, 5, 1) == assign_folds(rows, 5, 1) != assign_folds(rows, 5, 2)


def test_a_dominant_cluster_leaves_room_for_the_others() -> None:
    clusters = [0] * 50 + [1, 2, 3]
    folds = assign_folds(clusters, 4, 0)
    assert sorted(Counter(folds).values()) == [1, 1, 1, 50]


def test_figures_are_mean_and_sample_deviation() -> None:
    summary = summarise([{"loss": 1.0, "f1": 0.5}, {"loss": 2.0}, {"loss": 4.0, "f1": 0.7}])
    assert summary == {"loss": Spread(7 / 3, statistics.stdev([1, 2, 4]), 3, (1.0, 2.0, 4.0))}
    assert Spread.of([3.0]).sd == 0.0


def test_a_clear_difference_is_told_and_noise_is_not() -> None:
    plain = [1.00, 1.10, 0.95, 1.05, 1.02]
    lower = [value - 0.1 + noise for value, noise in zip(plain, (0, 0.01, 0, -0.01, 0.005), strict=True)]
    better = compare(plain, lower, lower_is_better=True)
    assert better.verdict == "helped"
    assert better.low <= better.difference.mean <= better.high < 0
    assert compare(plain, [value + 0.1 for value in plain], lower_is_better=True).verdict == "hurt"
    assert compare(plain, [value + 0.1 for value in plain], lower_is_better=False).verdict == "helped"
    assert compare(plain, [0.9, 1.2, 0.9, 1.1, 1.0], lower_is_better=True).verdict == "cannot tell"
    assert compare([1.0], [0.5], lower_is_better=True).verdict == "cannot tell"


def test_noise_is_called_an_effect_in_no_more_than_one_of_twenty_comparisons() -> None:
    rng = np.random.default_rng(0)
    told = [
        compare(rng.normal(size=5).tolist(), rng.normal(size=5).tolist(), lower_is_better=True).verdict
        for _ in range(1000)
    ]
    assert sum(verdict != "cannot tell" for verdict in told) / 1000 <= 0.05


@pytest.mark.parametrize(("method", "figure"), [("classify", "macro_f1"), ("tag", "f1"), ("dpo", "accuracy")])
def test_an_augmentation_is_judged_by_the_figure_of_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, figure: str
) -> None:
    """Where the loss says otherwise, too: typos lower both, word-dropout raises both."""
    change = {"word-dropout": 0.1, "typos": -0.1}

    def fit(run: Run, trial: Trial, *_others: object) -> Fitted:
        _augment, name, fold = trial.name.split("/")
        value = 0.5 + int(fold) / 100 + change.get(name, 0.0)
        return Fitted({"loss": value, figure: value}, 8, 4)

    monkeypatch.setattr(cross_validation, "_fit", fit)
    run = Run.create(tmp_path / "run", "tune", {"tune": {"method": method, "folds": 3}, "training": {"seed": 0}})
    comparisons, signal = compare_augmentations(run, cast(Any, None), Silent(), World(), force=False)
    assert signal is None
    assert comparisons is not None
    assert comparisons.metric == figure
    verdicts = {name: each.verdict for name, each in comparisons.differences.items()}
    assert verdicts == {"word-dropout": "helped", "word-swap": "cannot tell", "typos": "hurt"}
    assert comparisons.differences["word-dropout"].difference.mean == pytest.approx(0.1)
    assert f"<th>{figure_name(figure)}</th>" in "".join(fold_tables(run))
