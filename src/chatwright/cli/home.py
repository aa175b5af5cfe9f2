"""The home folder as a running server sees it: one server a home, who says where it is to be found."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from chatwright.errors import InUseError, StorageError
from chatwright.settings import make_private_folder


@dataclass(frozen=True)
class RunningServer:
    """Where a server is to be found, and the token for changing what it serves."""

    pid: int | str
    url: str
    admin_token: str


@contextmanager
def sole_server(home: Path, url: str, admin_token: str = "") -> Iterator[bool]:
    """Hold the home folder for one server at `url`. Yields whether the folder can be written.

    The token lies beside the address, in a file that only its user may read: who can read that can change the files themselves.

    Raises InUseError naming the process and the address of the server that holds it. The lock ends with the process.
    """
    try:
        make_private_folder(home)
        lock = FileLock(home / "server.lock", mode=0o600)
        lock.acquire(timeout=0)
    except Timeout as error:
        running = running_server(home)
        raise InUseError(
            "Another Chatwright (process {pid}) already serves this home folder at {url}: use that one, stop it, or "
            "give "
            "this one its own folder with CHATWRIGHT_HOME.",
            pid=running.pid,
            url=running.url,
        ) from error
    except (OSError, StorageError):
        yield False
        return
    note = home / "server.json"
    try:
        note.unlink(missing_ok=True)  # a server that was killed left it, and nobody knows who may read it
        with os.fdopen(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump({"pid": os.getpid(), "url": url, "admin_token": admin_token}, file)
        yield True
    finally:
        note.unlink(missing_ok=True)
        lock.release()


@contextmanager
def stopped_server(home: Path, command: str) -> Iterator[None]:
    """Keep servers away from the home folder while a command works on its database. Raises InUseError."""
    with ExitStack() as stack:
        try:
            stack.enter_context(sole_server(home, command))
        except InUseError as error:
            raise InUseError(
                "A server (process {pid}, {url}) uses this database: stop it, then run `{command}` again.",
                **error.params,
                command=command,
            ) from error
        yield


def running_server(home: Path) -> RunningServer:
    """What the server of a home folder wrote down; "?" where it is just starting, or there is none."""
    try:
        data = json.loads((home / "server.json").read_text(encoding="utf-8"))
        return RunningServer(data["pid"], data["url"], data.get("admin_token", ""))
    except (OSError, ValueError, KeyError):
        return RunningServer("?", "?", "")
