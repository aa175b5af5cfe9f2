"""Counts of what each step did: rows and bytes in and out, what was changed, what was dropped and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chatwright.text.manifest import Step

# In the order in which they happen: what is done row by row, then what needs all rows.
ROW_STEPS = ("read", "repair", "boilerplate", "normalise", "check", "language", "quality", "personal data")
SET_STEPS = ("exact duplicates", "near duplicates", "split")


@dataclass
class Tally:
    """The counts of one step."""

    rows_in: int = 0
    rows_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    changed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str, n_bytes: int) -> None:
        """A row came in and goes no further."""
        self.rows_in += 1
        self.bytes_in += n_bytes
        self.dropped[reason] += 1

    def keep(self, bytes_in: int, bytes_out: int, changed: bool = False) -> None:
        """A row came in and went out."""
        self.rows_in += 1
        self.rows_out += 1
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out
        self.changed += changed

    def add(self, other: Tally) -> None:
        """Add the counts of another part of the input."""
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.changed += other.changed
        self.dropped.update(other.dropped)
        self.notes.update(other.notes)

    def as_step(self, name: str) -> Step:
        """For the manifest; reasons in the order of their names."""
        return Step(
            name=name,
            rows_in=self.rows_in,
            rows_out=self.rows_out,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            changed=self.changed,
            dropped=dict(sorted(self.dropped.items())),
            notes=dict(sorted(self.notes.items())),
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tally:
        """The inverse of `as_step(…).model_dump()`."""
        counts = {key: data[key] for key in ("rows_in", "rows_out", "bytes_in", "bytes_out", "changed")}
        return cls(**counts, dropped=Counter(data["dropped"]), notes=Counter(data["notes"]))


Tallies = dict[str, Tally]


def new_tallies(names: Iterable[str] = ROW_STEPS) -> Tallies:
    """Zeros for every step."""
    return {name: Tally() for name in names}
