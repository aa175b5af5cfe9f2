"""Bringing a database to this version's schema: one process at a time, all or nothing, after a backup."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from filelock import FileLock, Timeout
from sqlalchemy import text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from chatwright.errors import StorageError, StoreUnavailableError
from chatwright.store import schema, sqlite_file
from chatwright.store.database import sqlite_engine
from chatwright.store.failures import damaged, explained
from chatwright.store.url import file_of, shown

# An upgrade may rewrite large tables; who comes second waits for it this long.
PATIENCE_S = 600.0
# Any number, but always the same one.
ADVISORY_LOCK = 0x63686174  # "chat"


@dataclass(frozen=True)
class Upgraded:
    """What was done. `before`: None for a new database. `backup`: the file that holds what was there before, on SQLite."""

    before: str | None
    after: str
    backup: Path | None


async def upgrade(url: URL, *, to: str = "head", patience_s: float = PATIENCE_S) -> Upgraded:
    """Bring the database to a revision, the newest one unless a test asks for another.

    Raises StoreError (newer, of another program, damaged), StoreUnavailableError, StorageError. A process that is killed, or
    fails, in the middle leaves what was there before.
    """
    with _file_lock(url, patience_s):
        async with _migrating(url, patience_s) as connection:
            return await connection.run_sync(_upgrade, url, to)


def _upgrade(connection: Connection, url: URL, to: str) -> Upgraded:
    state = schema.state_of(connection, url)
    before = schema.revision_of(connection)
    target = schema.head() if to == "head" else to
    path = file_of(url)
    backup = None
    if path is not None and state is schema.State.BEHIND and before != target:
        if connection.exec_driver_sql("PRAGMA quick_check(1)").scalar() != "ok":
            raise damaged(url)
        # Another connection reads what was last committed, while this one holds off all other writers.
        backup = sqlite_file.copy_aside(path, f"before-{target}")
    run_migrations(connection, target)
    if path is not None and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
        raise AssertionError(f"the migration broke a reference: {broken[0]}")
    return Upgraded(before, target, backup)


def run_migrations(connection: Connection, target: str) -> None:
    """Apply what lies between, in the connection's transaction: both databases take schema changes back with the rest."""
    scripts = schema.scripts()
    context = EnvironmentContext(
        Config(), scripts, fn=lambda revision, _context: scripts._upgrade_revs(target, revision), destination_rev=target
    )
    with context:
        # SQLite changes tables by making them anew, and its driver would commit before each change: ours does not.
        context.configure(connection=connection, transactional_ddl=True, render_as_batch=True)
        context.run_migrations()


@asynccontextmanager
async def _migrating(url: URL, patience_s: float) -> AsyncIterator[AsyncConnection]:
    """A connection in a transaction that no other migration shares."""
    if file_of(url) is not None:
        # Without foreign keys: tables are made anew and take each other's place. They are checked at the end.
        engine = sqlite_engine(url, 1, patience_s, writes=True, foreign_keys=False)
    else:
        engine = create_async_engine(url, poolclass=NullPool, hide_parameters=True)
    try:
        with explained(url):
            async with engine.begin() as connection:
                if file_of(url) is None:
                    await connection.execute(text(f"SET LOCAL lock_timeout = '{round(patience_s)}s'"))
                    await connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
                yield connection
    finally:
        await engine.dispose()


@contextmanager
def _file_lock(url: URL, patience_s: float) -> Iterator[None]:
    """For SQLite: from before the file exists. Two processes that make it at once would fail in setting it up."""
    path = file_of(url)
    if path is None:
        yield
        return
    lock = FileLock(path.with_name(path.name + ".lock"), mode=0o600)
    try:
        lock.acquire(timeout=patience_s)
    except Timeout as error:
        raise StoreUnavailableError(
            "Another process has been upgrading the database {path} for {minutes} minutes: wait for it, or end it.",
            path=shown(url),
            minutes=round(patience_s / 60),
        ) from error
    except OSError as error:
        raise StorageError(
            "The database {path} is read-only: make the file and its folder writable, or choose another place with"
            " CHATWRIGHT_DATABASE_URL.",
            path=shown(url),
        ) from error
    try:
        yield
    finally:
        lock.release()
