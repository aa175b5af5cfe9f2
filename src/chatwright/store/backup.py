"""Backups: one file of SQLite, whatever the database is, that any Chatwright from its version on can restore."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import URL

from chatwright.errors import StoreError, UsageError
from chatwright.store import clock, schema, sqlite_file
from chatwright.store.copying import copy_rows, is_empty
from chatwright.store.database import Database
from chatwright.store.failures import explained, explanation
from chatwright.store.files.aside import Known, put_aside, take_back
from chatwright.store.migrate import upgrade
from chatwright.store.url import file_of, shown, sqlite_url


@dataclass(frozen=True)
class Restored:
    """`replaced`: where what was there before lies now. `n_aside`: contents, now in `aside`, that the backup has no rows of;
    `n_back`: those that came back."""

    revision: str
    replaced: Path | None
    aside: Path
    n_aside: int
    n_back: int


async def back_up(url: URL, target: Path) -> None:
    """Write one state of the database, which may be in use, into a new file. Raises UsageError, StorageError, StoreError."""
    require_new(target)
    path = file_of(url)
    if path is not None:
        if not sqlite_file.exists(path):
            raise StoreError("There is no database at {path} yet.", path=path)
        sqlite_file.copy(path, target)
        return
    await _require_current(url)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".backup-") as folder:
        work = Path(folder) / "work.db"
        await _move(url, sqlite_url(work))
        sqlite_file.copy(work, target)


async def restore(source: Path, url: URL, home: Path, *, replace: bool, revoke: bool = False) -> Restored:
    """Make the database what the backup holds, brought to this version's schema. What was there before is kept aside, with the
    contents in the home folder that only it knows. `revoke`: no key, session or link of the backup opens anything.

    Nobody else may use the database meanwhile. Raises UsageError, StorageError, StoreError.
    """
    check_backup(source)
    path = file_of(url)
    place = path.parent if path is not None else None
    with tempfile.TemporaryDirectory(dir=place, prefix=".restore-") as folder:
        work = Path(folder) / "work.db"
        sqlite_file.copy(source, work)
        after = (await upgrade(sqlite_url(work))).after
        if revoke:
            _end_access(work)
        known = Known.to(work)
        aside = sqlite_file.replaced_folder(home)
        n_aside = 0

        def put_contents_aside() -> None:
            # Before the database changes: a server that starts after a kill takes back what its database knows.
            nonlocal n_aside
            n_aside = put_aside(home, shown(url), known, aside)

        if path is None:
            replaced = await _restore_postgres(work, url, replace, put_contents_aside)
            return Restored(after, replaced, aside, n_aside, take_back(home, known))
        whole = Path(folder) / "whole.db"  # with nothing left in a side file
        sqlite_file.copy(work, whole)
        replaced = None
        if path.exists() and not replace:
            raise UsageError(
                "There is a database at {path} already: --replace puts it aside and takes the backup in its place.",
                path=path,
            )
        put_contents_aside()
        if path.exists():
            replaced = aside if path.parent == home else sqlite_file.replaced_folder(path.parent)
            sqlite_file.move_aside(path, replaced)
        whole.rename(path)
    return Restored(after, replaced, aside, n_aside, take_back(home, known))


async def move(source: URL, target: URL) -> dict[str, int]:
    """Copy everything into an empty database of the other, or the same, kind. Returns table → rows. Raises StoreError."""
    if source == target:
        raise UsageError("{path} is the database in use: name another one.", path=shown(target))
    await _require_current(source)
    return await _move(source, target)


def require_new(target: Path) -> None:
    """Raises UsageError where something lies already."""
    if target.exists():
        raise UsageError("{path} exists already: choose another name for the backup.", path=target)


def check_backup(source: Path) -> None:
    """Raises UsageError for no file, StoreError for one that is damaged, foreign or newer than this version."""
    if not source.is_file():
        raise UsageError("There is no file {path}.", path=source)
    with (
        _explained(source),
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as backup,
    ):
        if backup.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
            raise _damaged(source)
        tables = {name for (name,) in backup.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        revision = (
            backup.execute("SELECT version_num FROM alembic_version").fetchone()
            if "alembic_version" in tables
            else None
        )
    if revision is None:
        raise StoreError("{path} is no backup of Chatwright.", path=source)
    if revision[0] not in schema.revisions():
        raise StoreError(
            "The database {path} was written by a newer Chatwright (revision {revision}, this one knows {head}): install that"
            " version again, or restore an older backup.",
            path=source,
            revision=revision[0],
            head=schema.head(),
        )


@contextmanager
def _explained(source: Path) -> Iterator[None]:
    """As `explained`; but whoever restores a backup that is damaged needs another backup, not the advice to restore one."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(source) from error
        found = explanation(error, sqlite_url(source))
        if found is None:
            raise
        raise found from error


def _damaged(source: Path) -> StoreError:
    return StoreError(
        "The backup {path} is itself damaged, or is no backup: nothing was changed. Restore another one.", path=source
    )


async def _restore_postgres(work: Path, url: URL, replace: bool, before: Callable[[], None]) -> Path | None:
    """`before`: called when nothing stands in the way any more. Returns where what was there lies now."""
    await upgrade(url)
    source, target = Database(sqlite_url(work)), Database(url)
    try:
        async with target.read() as session:
            empty = await is_empty(session)
        kept = None
        if not empty:
            if not replace:
                raise UsageError(
                    "There is a database at {path} already: --replace puts it aside and takes the backup in its place.",
                    path=shown(url),
                )
            kept = Path.cwd() / f"replaced-{sqlite_file.stamp()}.db"
            await back_up(url, kept)
        before()
        await copy_rows(source, target, replace=replace)
    finally:
        await source.close()
        await target.close()
    return kept


def _end_access(work: Path) -> None:
    """Leave passwords only. A backup knows nothing of keys that were revoked, and users who were suspended, after it."""
    with explained(sqlite_url(work)), closing(sqlite3.connect(work)) as connection, connection:
        connection.execute("UPDATE api_keys SET revoked_at = ? WHERE revoked_at IS NULL", (clock.now(),))
        for table in ("sessions", "links", "oidc_logins"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608  the names above


async def _move(source_url: URL, target_url: URL) -> dict[str, int]:
    await upgrade(target_url)
    source, target = Database(source_url), Database(target_url)
    try:
        return await copy_rows(source, target)
    finally:
        await source.close()
        await target.close()


async def _require_current(url: URL) -> None:
    database = Database(url)
    try:
        async with database.connect() as connection:
            state = await connection.run_sync(schema.state_of, url)
    finally:
        await database.close()
    if state is schema.State.EMPTY:
        raise StoreError("There is no database at {path} yet.", path=shown(url))
    if state is schema.State.BEHIND:
        raise StoreError(
            "The database {path} is of an older version: bring it up to date with `chatwright db upgrade`.",
            path=shown(url),
        )
