"""Which moment of its database the contents of a home folder go with.

A database file that somebody copied over the one that was there has the same place and is an earlier one: what it has no row of
was not deleted, it had not come yet. So the database and the folder carry the same number, drawn anew by the sweeps; a copy of
earlier has another one.
"""

from __future__ import annotations

import json
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import text

from chatwright.store.database import Database
from chatwright.text.work import write_atomically

MOMENT = ".moment"
# Between the last byte of a content and its row: waiting for the disk and for the turn to write.
MARGIN_S = 60.0


@dataclass(frozen=True)
class Moment:
    """`mark`: the database's at that moment; `at`: when it was, in seconds of Unix time."""

    mark: str
    at: float

    @classmethod
    def noted_in(cls, folder: Path) -> Moment | None:
        """The one that a folder was looked after at the last time; None where nobody wrote it down."""
        with suppress(OSError, ValueError, TypeError):
            return cls(**json.loads((folder / MOMENT).read_text(encoding="utf-8")))
        return None

    def note(self, folder: Path) -> None:
        """Write it down. A folder that takes no writes keeps the older one: nothing is deleted then that should not be."""
        with suppress(OSError):
            write_atomically(folder / MOMENT, json.dumps(asdict(self)).encode())


async def mark_of(database: Database) -> str:
    """Which database this is, and of SQLite which moment of it. Raises StoreError and its kin."""
    async with database.read() as session:
        if database.is_sqlite:
            return f"sqlite {await session.scalar(text('PRAGMA user_version'))}"
        # A table that comes out of a dump, or out of another cluster, has another number.
        return f"postgresql {await session.scalar(text('''SELECT 'files'::regclass::oid'''))}"


async def draw_anew(database: Database) -> Moment:
    """Give the database a mark that no copy of it has yet. Raises StoreError and its kin.

    In the header of the file, where SQLite keeps a number for programs: a table would be copied to PostgreSQL with the others.
    """
    at = time.time()
    if database.is_sqlite:
        async with database.write() as session:
            await session.execute(text(f"PRAGMA user_version = {1 + secrets.randbelow(2**31 - 1)}"))
    return Moment(await mark_of(database), at)
