"""How a connection to SQLite is set up."""

from __future__ import annotations

from typing import Any

PRAGMAS = (
    "PRAGMA journal_mode = WAL",  # readers do not wait for the writer
    "PRAGMA synchronous = NORMAL",  # with WAL a power cut may lose the last commits, never the database
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",  # what was deleted is overwritten: erased data must not be found in the file
    "PRAGMA trusted_schema = OFF",
)


def prepare(connection: Any, *, writes: bool, foreign_keys: bool = True) -> None:
    """Set up a DBAPI connection. The driver's own transactions are switched off: it would begin them as readers, who fail when
    they turn into writers beside another."""
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        for pragma in PRAGMAS:
            cursor.execute(pragma)
        if not writes:
            cursor.execute("PRAGMA query_only = ON")
        if not foreign_keys:
            cursor.execute("PRAGMA foreign_keys = OFF")
    finally:
        cursor.close()
