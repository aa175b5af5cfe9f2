"""How a pull tells of its progress: the hub calls these methods, the command line draws them."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives what a pull is doing. All sizes in bytes."""

    def say(self, text: str) -> None:
        """A sentence for the user, in the user's language."""

    def begin(self, label: str, total: int | None, done: int = 0) -> None:
        """A file starts (or, with `done` > 0, continues). `total` is None where the size is not known."""

    def advance(self, done: int) -> None:
        """The current file has `done` bytes now; less than before when it had to start again."""

    def end(self) -> None:
        """The current file is complete."""


class Silent:
    """Progress that nobody looks at."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def begin(self, label: str, total: int | None, done: int = 0) -> None:
        """Say nothing."""

    def advance(self, done: int) -> None:
        """Say nothing."""

    def end(self) -> None:
        """Say nothing."""
