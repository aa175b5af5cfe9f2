"""What the verbs print with: data to standard output, everything else to standard error."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chatwright.cli.terminal import printable
from chatwright.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from chatwright.settings import Settings


@dataclass(frozen=True)
class Output:
    """How much is said. NO_COLOR and the width of the terminal are respected by rich."""

    quiet: bool = False
    verbose: bool = False

    def say(self, text: str) -> None:
        """A message to the user, on standard error; nothing with --quiet."""
        if not self.quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def data(self, text: str) -> None:
        """A line of data, on standard output."""
        sys.stdout.write(text + "\n")

    def json(self, data: Any) -> None:
        """JSON on standard output."""
        self.data(json.dumps(data, ensure_ascii=False, indent=2, default=str))

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table on standard output; whole, however long, where that is not a terminal."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for heading in headings:
            table.add_column(heading, overflow="fold", no_wrap=not sys.stdout.isatty())
        for row in rows:
            table.add_row(*(printable(cell) for cell in row))
        stdout_console().print(table, markup=False, highlight=False)

    def log_to_stderr(self, settings: Settings, *, warnings_only: bool = False) -> None:
        """Send log records of the given level to standard error. `warnings_only`: for a command that says itself what goes on, so
        that the default level is `warning`."""
        usual = "WARNING" if warnings_only and settings.log_level == "info" else settings.log_level.upper()
        level = "DEBUG" if self.verbose else "ERROR" if self.quiet else usual
        logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        if settings.log_format == "json":
            from chatwright.cli.json_logs import JsonLines

            for handler in logging.getLogger().handlers:
                handler.setFormatter(JsonLines())
        if not self.verbose:  # what uvicorn says at start and stop, and alembic of each table, the command says better
            for name in ("uvicorn.error", "httpx", "httpx2", "alembic.runtime.migration", "alembic.runtime.plugins"):
                logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.WARNING)


def read_settings(flags: Mapping[str, object] | None = None) -> Settings:
    """The user's settings. From here on messages are in the language that they name. Raises UsageError."""
    from chatwright.settings import load_settings, variable

    settings = load_settings(flags)
    if settings.language:
        os.environ[variable("language")] = settings.language
    return settings


def stdout_console() -> Console:
    """A console on standard output, wide enough for everything where that is a file or a pipe."""
    from rich.console import Console

    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 1000, soft_wrap=False)


def number(text: str | None, option: str, *, least: float, most: float, whole: bool = False) -> Any:
    """The number that an option gives; None when it is not given. Raises UsageError."""
    if text is None:
        return None
    try:
        value: float = int(text) if whole else float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:  # NaN included
        raise UsageError(
            "{option} takes a number from {least} to {most}, not {value!r}.",
            option=option,
            least=least,
            most=most,
            value=text,
        )
    return value


def choice(value: str | None, option: str, *choices: str) -> Any:
    """An option that is one of some words. Raises UsageError."""
    if value is not None and value not in choices:
        raise UsageError(
            "{option} is one of {choices}, not {value!r}.", option=option, choices=", ".join(choices), value=value[:40]
        )
    return value
