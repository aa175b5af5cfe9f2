"""What a method of tuning is: which rows it reads, what they become, and the objective over any part of them.

A task reads a dataset once. Folds then take their own parts of its items, so that nothing is encoded twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from chatwright.errors import InvalidDatasetError
from chatwright.i18n import _
from chatwright.text.dataset import Dataset, Row
from chatwright.text.manifest import Kind, Split
from chatwright.training.chat_rows import Notes
from chatwright.training.objective import Objective
from chatwright.training.progress import Progress
from chatwright.training.tune_recipe import KIND_OF, Method, Shape

Items = Sequence[Any]
Item = TypeVar("Item")


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
        if n_rows := self.dataset.n_rows(split, self.kind):
            label = _("Reading the dataset") if split == "train" else _("Reading the held-out rows")
            self.progress.stage(label, n_rows)
        for number, row in enumerate(self.dataset.rows(split, self.kind), 1):
            if problem := _problem(self.kind, row):
                raise InvalidDatasetError(
                    "{path}, {split} row {number} of {kind}: {problem}. Prepare the dataset again, or mend what wrote it.",
                    path=self.dataset.path,
                    split=split,
                    number=number,
                    kind=self.kind,
                    problem=problem,
                )
            yield row
            if number % 16 == 0:
                self.progress.advance(number)


def _problem(kind: Kind, row: Any) -> str:
    """What is wrong with the shape of a row that some other program wrote; "" for nothing."""
    if not isinstance(row, dict) or "id" not in row or not isinstance(row.get("cluster"), int):
        return _("it has no id or no cluster")
    lists = {"conversations": ("messages",), "preferences": ("messages", "chosen", "rejected"), "tagged": ("spans",)}
    for name in lists.get(kind, ()):
        entries = row.get(name)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            return _("{name} is not a list of objects", name=name)
        if name == "spans" and not all(map(_is_span, entries)):
            return _("a span needs start and end (whole numbers) and a label")
        if name != "spans" and not all(isinstance(entry.get("role"), str) for entry in entries):
            return _("a message has no role")
    texts = {"labelled": ("text", "label"), "tagged": ("text",)}
    for name in texts.get(kind, ()):
        if not isinstance(row.get(name), str):
            return _("{name} is not a text", name=name)
    return ""


def _is_span(entry: Mapping[str, Any]) -> bool:
    places = (entry.get("start"), entry.get("end"))
    return all(isinstance(place, int) for place in places) and isinstance(entry.get("label"), str)


def spread(items: Sequence[Item], n: int) -> list[Item]:
    """At most `n`, evenly from the whole."""
    return [items[i * len(items) // min(n, len(items))] for i in range(min(n, len(items)))]
