"""Whole files of SQLite: copied while they are in use, looked at before they are trusted, and never on a network."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psutil

from chatwright.errors import StorageError
from chatwright.settings import make_private_folder
from chatwright.store.failures import damaged, explained
from chatwright.store.url import sqlite_url

BACKUPS = "backups"
REPLACED = "replaced-"  # and a time: what a restore took the place of
SIDE_FILES = ("-wal", "-shm")
NETWORK_FILE_SYSTEMS = (
    "nfs",
    "cifs",
    "smb",
    "ceph",
    "fuse.sshfs",
    "fuse.s3fs",
    "fuse.rclone",
    "9p",
    "glusterfs",
    "afs",
    "lustre",
)


def exists(path: Path) -> bool:
    """Whether there is a database. SQLite's first step in making one is an empty file."""
    return path.exists() and path.stat().st_size > 0


def copy_aside(path: Path, why: str) -> Path:
    """A copy in the folder `backups` beside the file. Raises StorageError, StoreError."""
    folder = path.parent / BACKUPS
    make_private_folder(folder)
    target = folder / f"{path.stem}-{why}-{stamp()}.db"
    copy(path, target)
    return target


def stamp() -> str:
    """The time, for names of files that sort by it and never meet."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"


def copy(source: Path, target: Path) -> None:
    """One state of a database that may be in use, in a new file that only its user may read; whole or not at all.

    Raises FileExistsError, StorageError, StoreError where the source is damaged.
    """
    if target.exists():
        raise FileExistsError(target)
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with (
            explained(sqlite_url(source)),
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as reader,
        ):
            with explained(sqlite_url(target)), closing(sqlite3.connect(part)) as writer:
                reader.backup(writer)
                writer.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
                sound = writer.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok"
            if not sound:
                raise damaged(sqlite_url(source))
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(target)
    except OSError as error:
        raise StorageError(
            "The copy {path} cannot be written ({reason}): free some space, or choose another place.",
            path=target,
            reason=error.strerror or error,
        ) from error
    finally:
        part.unlink(missing_ok=True)


def replaced_folder(parent: Path) -> Path:
    """A new name in a home folder, or beside a database, for what a restore takes the place of."""
    return parent / BACKUPS / f"{REPLACED}{stamp()}"


def move_aside(path: Path, folder: Path) -> None:
    """Put a database, with what SQLite keeps beside it, into a folder."""
    make_private_folder(folder)
    for name in (path.name, *(path.name + ending for ending in SIDE_FILES)):
        if (path.parent / name).exists():
            (path.parent / name).rename(folder / name)


def network_file_system(path: Path) -> str | None:
    """The kind of network file system that a file lies on; None on a disk of this machine. SQLite's locks do not hold there."""
    resolved = path.resolve()  # a home folder is often a link to where there is room
    mounts = [
        mount
        for mount in psutil.disk_partitions(all=True)
        if resolved.is_relative_to(Path(mount.mountpoint).absolute())
    ]
    # Of two on the same folder the later one counts: an automounter's lies below what it mounts.
    kind = max(reversed(mounts), key=lambda mount: len(mount.mountpoint)).fstype.lower() if mounts else ""
    return kind if kind.startswith(NETWORK_FILE_SYSTEMS) else None
