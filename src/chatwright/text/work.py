"""The work folder of a preparation: plan, finished items and lock, so that a killed one goes on where it was.

An item is finished when its marker lies there; markers are written last and whole. Whatever else lies there is written anew.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import orjson

from chatwright.errors import InUseError, StorageError
from chatwright.i18n import format_size

if sys.platform != "win32":
    import fcntl

PLAN = "plan.json"
Marker = dict[str, Any]


def work_folder(out: Path) -> Path:
    """Beside the dataset, so that the last step is a rename on one file system."""
    return out.with_name(f".{out.name}.preparing")


def lock_file(out: Path) -> Path:
    """Held while the dataset is being made; gone after."""
    return out.with_name(f".{out.name}.lock")


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the right to make `out`. The kernel drops the lock with the process, however that ends. Raises InUseError."""
    path = lock_file(out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_locked(path)
    except OSError as error:
        raise storage_error(error, path.parent) from error
    if file is None:
        raise InUseError(
            "Another process is preparing {path} just now: wait for it, or choose another folder with --out.", path=out
        )
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def open_locked(path: Path) -> IO[bytes] | None:
    """A file to append to, locked; None when somebody else has the lock. Raises OSError."""
    while True:
        file = path.open("ab")
        if sys.platform == "win32":
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        try:
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        except FileNotFoundError:
            pass
        file.close()  # the last holder removed this file between our open and our lock


class Work:
    """Markers of finished items in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, plan: Marker) -> bool:
        """Begin, or go on with the same plan: True when something of it was done before. Another plan's work is removed."""
        found = self.read(PLAN)
        if found is not None and found == plan:
            return True
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        self.write(PLAN, plan)
        return False

    def read(self, name: str) -> Marker | None:
        """A marker; None while the item is not finished."""
        try:
            marker: Marker = orjson.loads((self.folder / name).read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return None
        return marker

    def write(self, name: str, marker: Marker) -> None:
        """Say that an item is finished. Raises OSError."""
        write_atomically(self.folder / name, orjson.dumps(marker, option=orjson.OPT_SORT_KEYS))


def write_atomically(path: Path, data: bytes) -> None:
    """The whole file or none, also after a kill or a power cut. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_names(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush every file below, and the folders themselves, to the disk. Raises OSError."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_names(path)
        elif path.is_file():
            _sync(path)
    sync_names(folder)


def sync_names(folder: Path) -> None:
    """Flush the names in a folder to the disk; a no-op where the system has no way to. Raises OSError."""
    if sys.platform != "win32":
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def need_space(folder: Path, needed_bytes: int) -> None:
    """Raises StorageError when the disk has less than is needed."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise StorageError(
            "Not enough disk space in {path}: {needed} needed for the dataset and its temporary files, {free} free. Free some, or "
            "choose a folder on another disk with --out.",
            path=folder,
            needed=format_size(needed_bytes),
            free=format_size(free),
        )


def storage_error(error: OSError, path: Path) -> StorageError:
    """The sentence for a folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None):  # NumPy says only how much it could write
        return StorageError(
            "The disk of {path} is full. Free some space and run the same command again: it goes on where it stopped.",
            path=path,
        )
    return StorageError(
        "{path} cannot be written ({reason}): choose another folder with --out.",
        path=path,
        reason=error.strerror or error,
    )
