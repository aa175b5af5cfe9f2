"""What all progress on a terminal shares, and the progress of a pull. Always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from chatwright.cli.output import Output
from chatwright.i18n import _, format_size

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

LINE_EVERY_S = 10.0


class ProgressBar:
    """One bar with one task: live in a terminal, lines elsewhere; a context manager, so that the bar goes away.

    A subclass gives the columns and says what it is told (see the Progress protocols of hub, text and training).
    """

    def __init__(self, output: Output, *columns: ProgressColumn) -> None:
        from rich.console import Console
        from rich.progress import Progress, TextColumn

        self.output = output
        console = Console(stderr=True)
        self.drawn = console.is_terminal and not output.quiet
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            *columns,
            console=console,
            disable=not self.drawn,
            transient=True,
        )
        self.task = self.bar.add_task("", total=None, start=False, visible=False, figures="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Without the bar, so that the user can be asked something."""
        self.bar.stop()
        try:
            yield
        finally:
            self.bar.start()

    def say(self, text: str) -> None:
        """A line that stays, above the bar where there is one."""
        if self.drawn:
            self.bar.console.print(text, markup=False, highlight=False)
        else:
            self.output.say(text)


def byte_columns() -> Sequence[ProgressColumn]:
    """Of a task that is counted in bytes."""
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    return BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()


class PullProgress(ProgressBar):
    """Draws what the hub reports (see `chatwright.hub.progress.Progress`)."""

    def __init__(self, output: Output) -> None:
        super().__init__(output, *byte_columns())
        self.label = ""
        self.total: int | None = None
        self.done = 0
        self.last_line = 0.0

    def begin(self, label: str, total: int | None, done: int = 0) -> None:
        """See Progress."""
        self.label, self.total, self.done, self.last_line = label, total, done, time.monotonic()
        self.bar.reset(self.task, total=total, completed=done, description=label, visible=True)
        if done:
            self.say(_("Continuing {file} at {done}.", file=label, done=format_size(done)))
        elif not self.drawn:
            size = format_size(total) if total is not None else "?"
            self.say(_("Fetching {file} ({size})…", file=label, size=size))

    def advance(self, done: int) -> None:
        """See Progress."""
        self.done = done
        self.bar.update(self.task, completed=done)
        if not self.drawn and time.monotonic() - self.last_line >= LINE_EVERY_S:
            self.last_line = time.monotonic()
            share = f"{100 * done // self.total} %" if self.total else format_size(done)
            self.say(f"{self.label}: {share}")

    def end(self) -> None:
        """See Progress."""
        self.bar.update(self.task, visible=False)
        if self.drawn:
            self.say(_("Fetched {file} ({size}).", file=self.label, size=format_size(self.done)))


def interactive() -> bool:
    """Whether a person can be asked something."""
    return sys.stdin.isatty() and sys.stderr.isatty()
