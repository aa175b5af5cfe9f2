"""The edge of the process: runs the command and turns whatever comes out of it into one sentence and an exit code."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chatwright.errors import ChatwrightError, UsageError
from chatwright.i18n import _, describe_error

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


def main() -> None:
    """Entry point of the `chatwright` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character gets a '?', not a crash
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run the command line `args` and return its exit code. Prints errors to standard error; never raises."""
    from typer._click.exceptions import ClickException
    from typer.exceptions import Abort

    from chatwright.cli.app import build_command

    try:
        result: Any = build_command().main(args=list(args), prog_name="chatwright", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except ChatwrightError as error:
        _say(describe_error(error))
        return WRONG_USAGE if isinstance(error, UsageError) else FAILED
    except ClickException as error:
        return _wrong_usage(error)
    except (KeyboardInterrupt, Abort):
        return INTERRUPTED
    except SystemExit as error:  # SIGTERM, after what was half written is gone
        return error.code if isinstance(error.code, int) else FAILED
    except BrokenPipeError:
        # The reader of our output has gone (`chatwright ls | head`): nobody is left to complain to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # noqa: BLE001 — the edge of the process
        return _unexpected(error, "-v" in args or "--verbose" in args)


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 — the error itself, on standard error


_EXTRA_ARGUMENTS = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", re.DOTALL)


def _wrong_usage(error: Any) -> int:
    from typer._click.exceptions import BadOptionUsage, MissingParameter, NoArgsIsHelpError, NoSuchOption

    if isinstance(error, NoArgsIsHelpError):
        _say(error.message)
        return WRONG_USAGE
    context = error.ctx
    command = context.command_path if context else "chatwright"
    if isinstance(error, NoSuchOption):
        sentence = _("There is no option {option}.", option=error.option_name)
        if error.possibilities:
            sentence += " " + _("Did you mean {nearest}?", nearest=", ".join(sorted(error.possibilities)))
    elif isinstance(error, MissingParameter) and error.param is not None:
        sentence = _("{what} is missing.", what=error.param.get_error_hint())
    elif error.message.startswith("No such command"):
        from difflib import get_close_matches

        given = error.message.split("'")[1]
        sentence = _("There is no command {name}.", name=given)
        if nearest := get_close_matches(given, context.command.list_commands(context), n=1):
            sentence += " " + _("Did you mean {nearest}?", nearest=nearest[0])
    elif extra := _EXTRA_ARGUMENTS.match(error.message):
        sentence = _("Too many arguments: {arguments}.", arguments=extra[1])
    elif isinstance(error, BadOptionUsage) and "requires" in error.message:
        sentence = _("{option} needs a value behind it.", option=error.option_name)
    elif isinstance(error, BadOptionUsage):
        sentence = _("{option} takes no value.", option=error.option_name)
    else:
        sentence = error.format_message()
    _say(sentence)
    _say(_("`{command} --help` shows how it is used.", command=command))
    return WRONG_USAGE


def _unexpected(error: Exception, verbose: bool) -> int:
    """A bug, ours or a library's: one sentence, and the traceback in a file that can be sent to us."""
    trace = "".join(traceback.format_exception(error))
    if verbose:
        _say(trace)
    name = f"crash-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.log"
    path = None
    for folder in (_logs_folder(), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(trace)
            path = folder / name
            break
        except OSError:
            continue
    summary = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    _say(
        _("Something went wrong inside Chatwright ({summary}). The details are in {path}.", summary=summary, path=path)
    )
    return FAILED


def _logs_folder() -> Path:
    from chatwright.settings import load_settings

    try:
        return load_settings().home / "logs"
    except ChatwrightError:
        return Path(tempfile.gettempdir())
