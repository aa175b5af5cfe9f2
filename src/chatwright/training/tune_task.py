"""What a method of tuning is: which rows it reads, what they become, and the objective over any part of them.

A task reads a dataset once. Folds then take their own parts of its items, so that nothing is encoded twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from chatwright.i18n import _
from chatwright.text.dataset import Dataset, Row
from chatwright.text.manifest import Split
from chatwright.training.chat_rows import Notes
from chatwright.training.objective import Objective
from chatwright.training.progress import Progress
from chatwright.training.tune_recipe import KIND_OF, Method, Shape

Items = Sequence[Any]


class Task(Protocol):
    """What is done with one dataset. Items are examples, pairs or texts; each has `cluster` and `name`."""

    @property
    def train(self) -> Items:
        """Items to train on."""
        ...

    @property
    def held_out(self) -> Items:
        """The dataset's held-out items."""
        ...

    @property
    def notes(self) -> Mapping[Split, Notes]:
        """What could not be used as it is, by split."""
        ...

    def settings(self) -> dict[str, Any]:
        """What was found in the training data and must stay as it is when the run goes on: for [tune]."""
        ...

    def shape(self, train: Items, held_out: Items, packed: bool) -> Shape:
        """The numbers that the recipe needs."""
        ...

    def labels(self) -> Sequence[str] | None:
        """A label for each training item, to be spread evenly over folds."""
        ...

    def sizes(self) -> Sequence[int]:
        """The size of each training item, so that folds are even."""
        ...

    def objective(self, train: Items, held_out: Items, tune: Mapping[str, Any], seed: int, folder: Path) -> Objective:
        """A fresh model and these items. `tune`: the section of config.toml. `folder`: the run's."""
        ...


class Rows:
    """The rows of one kind, with a bar for the reading."""

    def __init__(self, dataset: Dataset, method: Method, progress: Progress) -> None:
        self.dataset, self.kind, self.progress = dataset, KIND_OF[method], progress

    def read(self, split: Split) -> Iterator[Row]:
        """The rows of a split, as they are asked for."""
        self.progress.stage(_("Reading the dataset"), self.dataset.n_rows(split, self.kind))
        for number, row in enumerate(self.dataset.rows(split, self.kind), 1):
            yield row
            if number % 16 == 0:
                self.progress.advance(number)


def spread(items: Items, n: int) -> list[Any]:
    """At most `n`, evenly from the whole."""
    return [items[i * len(items) // min(n, len(items))] for i in range(min(n, len(items)))]
