"""What a preparation tells of itself while it works: the command line draws it, tests ignore it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told by the process that leads, in order."""

    def say(self, text: str) -> None:
        """Something that the user should know, already in the user's language."""

    def begin(self, label: str, total_bytes: int, done_bytes: int) -> None:
        """A phase begins; `done_bytes` were done before an interruption."""

    def advance(self, n_bytes: int) -> None:
        """So many bytes more are done."""

    def end(self) -> None:
        """The phase is over."""


class Silent:
    """Tells nobody."""

    def say(self, text: str) -> None:
        """See Progress."""

    def begin(self, label: str, total_bytes: int, done_bytes: int) -> None:
        """See Progress."""

    def advance(self, n_bytes: int) -> None:
        """See Progress."""

    def end(self) -> None:
        """See Progress."""
