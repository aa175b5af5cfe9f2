"""The home folder as a running server sees it: one server a home, who says where it is to be found."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from chatwright.errors import InUseError, StorageError
from chatwright.settings import make_private_folder


@contextmanager
def sole_server(home: Path, url: str) -> Iterator[bool]:
    """Hold the home folder for one server at `url`. Yields whether the folder can be written.

    Raises InUseError naming the process and the address of the server that holds it. The lock ends with the process.
    """
    try:
        make_private_folder(home)
        lock = FileLock(home / "server.lock", mode=0o600)
        lock.acquire(timeout=0)
    except Timeout as error:
        pid, address = _read(home / "server.json")
        raise InUseError(
            "Another Chatwright (process {pid}) already serves this home folder at {url}: use that one, stop it, or "
            "give "
            "this one its own folder with CHATWRIGHT_HOME.",
            pid=pid,
            url=address,
        ) from error
    except (OSError, StorageError):
        yield False
        return
    note = home / "server.json"
    try:
        with os.fdopen(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump({"pid": os.getpid(), "url": url}, file)
        yield True
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _read(note: Path) -> tuple[int | str, str]:
    try:
        data = json.loads(note.read_text(encoding="utf-8"))
        return data["pid"], data["url"]
    except (OSError, ValueError, KeyError):  # just starting
        return "?", "?"
