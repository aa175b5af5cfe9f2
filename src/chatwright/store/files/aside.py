"""What a restored database knows nothing of: put beside the database that it went with, taken back with the rows.

A server deletes contents without a row when it starts. Without this a restore that is undone would have rows and no contents.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from chatwright.settings import make_private_folder
from chatwright.store.batches import OPEN
from chatwright.store.batches import WORK as BATCHES
from chatwright.store.files.folder import PARTS, FilesFolder, explained
from chatwright.store.ids import is_id
from chatwright.store.sqlite_file import BACKUPS, REPLACED

FILES = "files"


@dataclass(frozen=True)
class Known:
    """What a database has rows of: folder in the home → the names that belong there."""

    names: dict[str, frozenset[str]]

    @classmethod
    def to(cls, database: Path) -> Known:
        """What a file of SQLite knows that nobody uses."""
        with closing(sqlite3.connect(database)) as connection:

            def ids(query: str, *values: str) -> frozenset[str]:
                return frozenset(name for (name,) in connection.execute(query, values))

            files, parts = ids("SELECT id FROM files"), ids("SELECT id FROM upload_parts")
            marks = ", ".join("?" * len(OPEN))
            batches = ids(f"SELECT id FROM batches WHERE status IN ({marks})", *OPEN)  # noqa: S608  question marks only
        return cls({FILES: files, f"{FILES}/{PARTS}": parts, BATCHES: batches})


def put_aside(home: Path, owner: str, known: Known, replaced: Path) -> int:
    """Move what has no row into the folder of what is replaced. Returns how many. Raises StorageError.

    `owner`: the database, as the folder of files names it; contents that go with another one stay where they are.
    """
    if not FilesFolder(home, owner).is_ours(known.names[FILES]):
        return 0
    n_moved = 0
    for folder, names in known.names.items():
        for path in _named(home / folder):
            if path.name not in names:
                _move(path, replaced / folder / path.name)
                n_moved += 1
    return n_moved


def take_back(home: Path, known: Known) -> int:
    """Move what has a row again back to its place. Returns how many. Raises StorageError."""
    n_moved = 0
    for replaced in sorted((home / BACKUPS).glob(f"{REPLACED}*")):
        for folder, names in known.names.items():
            for path in _named(replaced / folder):
                if path.name in names and not (home / folder / path.name).exists():
                    _move(path, home / folder / path.name)
                    n_moved += 1
    return n_moved


def known_files(file_ids: Collection[str], part_ids: Collection[str]) -> Known:
    """For who has read the rows already, and looks after files only."""
    return Known({FILES: frozenset(file_ids), f"{FILES}/{PARTS}": frozenset(part_ids)})


def _named(folder: Path) -> list[Path]:
    """Whatever lies there under the id of a row."""
    if not folder.is_dir():
        return []
    with explained(folder):
        return sorted(path for path in folder.iterdir() if is_id(path.name))


def _move(path: Path, place: Path) -> None:
    make_private_folder(place.parent)
    with explained(place):
        path.rename(place)
