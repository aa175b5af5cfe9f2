"""What long work here reports to whoever watches it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A stage with a known amount of work, and how much of it is done."""

    def begin(self, label: str, total: int) -> None:
        """A stage begins; `total` in bytes, or in whatever is counted."""

    def advance(self, done: int) -> None:
        """So much of it is done."""


class Silent:
    """Nobody watches."""

    def begin(self, label: str, total: int) -> None:
        """See Progress."""

    def advance(self, done: int) -> None:
        """See Progress."""
