"""Locks between processes: who uses a model, so that it is not removed from under a server.

A holder keeps a file of its own locked with flock for as long as it lives. The kernel drops the lock when the process
dies, however it dies, so a stale file is told from a live one by trying its lock, never by guessing from a process id.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

if sys.platform != "win32":
    import fcntl


@dataclass(frozen=True)
class Holder:
    """A process that holds something: its id, and what it says about itself (a URL or a command)."""

    pid: int
    what: str


@contextmanager
def held(folder: Path, key: str, what: str) -> Iterator[None]:
    """Hold `key` (a file name stem) in `folder` while the block runs.

    On a file system that cannot be written nothing is held: nobody could remove anything there either.
    """
    path = folder / f"{key}.{uuid.uuid4().hex}.held"
    try:
        file = path.open("x", encoding="utf-8")
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            yield
            return
        raise
    with file:
        json.dump(asdict(Holder(os.getpid(), what)), file)
        file.flush()
        _try_lock(file)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def holders(folder: Path, key: str) -> list[Holder]:
    """Who holds `key` now. Files left by dead processes are cleaned away."""
    living = []
    for path in sorted(folder.glob(f"{_escape(key)}.*.held")):
        try:
            with path.open("r+", encoding="utf-8") as file:
                if _try_lock(file):
                    path.unlink(missing_ok=True)
                    continue
                living.append(Holder(**json.load(file)))
        except FileNotFoundError:
            continue
        except (PermissionError, json.JSONDecodeError, TypeError):  # another user's, or just being written
            living.append(Holder(0, "?"))
    return living


def _escape(key: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in key)


def _try_lock(file: IO[str]) -> bool:
    """Lock without waiting; False when somebody else has the lock."""
    if sys.platform == "win32":  # an open file cannot be deleted there, which protects a model in use by itself
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True
