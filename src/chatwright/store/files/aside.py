"""What a database of earlier knows nothing of: put beside the database that it went with, taken back with the rows.

A server deletes contents without a row when it starts. Without this a restore that is undone would have rows and no contents.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.settings import make_private_folder
from chatwright.store.batches import OPEN
from chatwright.store.batches import WORK as BATCHES
from chatwright.store.files.folder import PARTS, FilesFolder, explained
from chatwright.store.ids import is_id
from chatwright.store.sqlite_file import BACKUPS, REPLACED
from chatwright.store.tables import Batch, File, Job, UploadPart

FILES, JOBS, RUN = "files", "jobs", "run"


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
            jobs = ids("SELECT id FROM jobs")
        return cls._of(files, parts, batches, jobs)

    @classmethod
    async def read(cls, session: AsyncSession) -> Known:
        """What a database that is in use knows."""
        return cls._of(
            await session.scalars(select(File.id)),
            await session.scalars(select(UploadPart.id)),
            await session.scalars(select(Batch.id).where(Batch.status.in_(OPEN))),
            await session.scalars(select(Job.id)),
        )

    def but(self, folder: str) -> Known:
        """Without one of the folders, where nothing is moved then."""
        return Known({each: names for each, names in self.names.items() if each != folder})

    @classmethod
    def _of(cls, files: Iterable[str], parts: Iterable[str], batches: Iterable[str], jobs: Iterable[str]) -> Known:
        found = {FILES: files, f"{FILES}/{PARTS}": parts, BATCHES: batches, JOBS: jobs}
        return cls({folder: frozenset(names) for folder, names in found.items()})


def put_aside(
    home: Path, owner: str, known: Known, replaced: Path, *, since: float = -math.inf, until: float = math.inf
) -> int:
    """Move what has no row, and last changed between these times, into the folder of what is replaced. Returns how many. Raises
    StorageError.

    `owner`: the database, as the folder of files names it; contents that go with another one stay where they are.
    """
    files = FilesFolder(home, owner)
    if not files.is_ours(known.names[FILES]):
        return 0
    left_over = files.left_over()
    n_moved = 0
    for folder, names in known.names.items():
        for path in _named(home / folder):
            # A job that never began has nothing that its user has not.
            if path.name in names or (folder == JOBS and not (path / RUN).exists()):
                continue
            found = path.stat()
            if found.st_ino not in left_over and since <= found.st_mtime <= until:
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
