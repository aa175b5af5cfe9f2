"""What a driver says when it fails, as a sentence that a user can act on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from chatwright.errors import ChatwrightError, InvalidRequestError, StorageError, StoreError, StoreUnavailableError
from chatwright.store.url import shown

# PostgreSQL's codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
PG_DISK_FULL = "53100"
PG_READ_ONLY = "25006"
PG_NO_DATABASE = "3D000"
PG_BUSY = ("55P03", "40001", "40P01")  # waited too long for a lock, or two waited for each other
PG_WRONG_PASSWORD = ("28P01", "28000")


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """Raise what a driver raises as StorageError (full, read-only), StoreUnavailableError (busy, gone), StoreError (damaged) or
    InvalidRequestError (a text that PostgreSQL does not take).

    IntegrityError passes: whoever breaks a rule of a table knows which one.
    """
    try:
        yield
    except IntegrityError:
        raise
    except (SQLAlchemyError, sqlite3.Error) as error:
        found = explanation(error, url)
        if found is None:
            raise
        raise found from error


def explanation(error: Exception, url: URL) -> ChatwrightError | None:
    """The sentence for an error of a driver; None where it is a bug of ours."""
    if isinstance(error, (PoolTimeoutError, DisconnectionError)):
        return _busy(url)
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        return _sqlite(cause, url)
    return _postgres(error, cause, url) if isinstance(error, DBAPIError) else None


def _sqlite(error: sqlite3.Error, url: URL) -> ChatwrightError | None:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            return StorageError(
                "The database {path} cannot be written: the disk is full or fails. Nothing was changed; free some space and try"
                " again.",
                path=shown(url),
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StorageError(
                "The database {path} is read-only: make the file and its folder writable, or choose another place with"
                " CHATWRIGHT_DATABASE_URL.",
                path=shown(url),
            )
        case sqlite3.SQLITE_CANTOPEN:
            return StorageError(
                "The database {path} cannot be opened: its folder must exist, and be writable for you.", path=shown(url)
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return damaged(url)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return _busy(url)
        case _:
            return None


def _postgres(error: DBAPIError, cause: BaseException | None, url: URL) -> ChatwrightError | None:
    state = getattr(cause, "sqlstate", None)
    if state == PG_DISK_FULL:
        return StorageError(
            "The database {path} cannot be written: the disk is full or fails. Nothing was changed; free some space and try"
            " again.",
            path=shown(url),
        )
    if state in PG_BUSY:
        return _busy(url)
    if state == PG_READ_ONLY:
        return StorageError(
            "The database {path} takes no writes: it is a copy of another one, or set to read-only.", path=shown(url)
        )
    # A connection that was refused brings no code, only what the server wrote.
    written = str(cause) if state is None else ""
    if "cannot contain NUL" in written:  # found by the driver, in whatever a request had
        return InvalidRequestError("A text has a NUL character: no name or id has one.", code="invalid_value")
    if state == PG_NO_DATABASE or ('database "' in written and "does not exist" in written):
        return StoreUnavailableError(
            "The database {path} does not exist: create it with PostgreSQL's createdb.", path=shown(url)
        )
    if state in PG_WRONG_PASSWORD or "authentication failed" in written:
        return StoreUnavailableError(
            "The database {path} does not accept this user or password: correct CHATWRIGHT_DATABASE_URL.",
            path=shown(url),
        )
    # Connection lost or refused (no code, or class 08), too many connections (53), shutting down (57P).
    connection = error.connection_invalidated or state is None or state.startswith(("08", "53", "57P"))
    if connection and type(cause).__name__ in ("OperationalError", "InterfaceError", *_SHUTDOWNS):
        return StoreUnavailableError(
            "The database {path} cannot be reached: is it running? Nothing was changed; try again in a moment.",
            path=shown(url),
        )
    return None


_SHUTDOWNS = ("AdminShutdown", "CrashShutdown", "CannotConnectNow", "TooManyConnections", "IdleSessionTimeout")


def damaged(url: URL) -> StoreError:
    """The file is broken, or no database at all."""
    return StoreError(
        "The database {path} is damaged, or is no database: move it away and restore a backup with `chatwright db restore`.",
        path=shown(url),
    )


def _busy(url: URL) -> StoreUnavailableError:
    return StoreUnavailableError(
        "The database {path} is busy: another process writes to it, or upgrades it. Nothing was changed; try again in a moment.",
        path=shown(url),
    )
