"""Which database: SQLite in the home folder, or what a URL names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from chatwright.errors import UsageError
from chatwright.settings import DATABASE_FILE, Settings

POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")


def database_url(settings: Settings) -> URL:
    """The database of these settings. Raises UsageError."""
    if settings.database_url is None:
        return sqlite_url(settings.home / DATABASE_FILE)
    return parse_url(settings.database_url.get_secret_value())


def sqlite_url(path: Path) -> URL:
    """The database in a file."""
    return URL.create("sqlite+aiosqlite", database=str(path))


def parse_url(text: str) -> URL:
    """`postgresql://USER:PASSWORD@HOST/NAME` or `sqlite:///PATH`, as our drivers want it. Raises UsageError, without the URL: it
    may hold a password."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = None
    if url is not None and url.drivername in POSTGRES:
        if importlib.util.find_spec("psycopg") is None:
            raise UsageError("PostgreSQL needs a driver that is not installed: pip install 'chatwright[postgres]'.")
        return url.set(drivername="postgresql+psycopg")
    if url is not None and url.drivername in ("sqlite", "sqlite+aiosqlite"):
        if not url.database or url.database == ":memory:" or url.query:
            raise UsageError(
                "A database of SQLite is a file, as in sqlite:////home/me/chatwright.db, without options behind a ?."
            )
        return sqlite_url(Path(url.database).expanduser().absolute())
    raise UsageError(
        "The database's URL is none that Chatwright knows: postgresql://USER:PASSWORD@HOST/NAME or sqlite:///PATH."
    )


def file_of(url: URL) -> Path | None:
    """The file of a SQLite database."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def shown(url: URL) -> str:
    """The database as a sentence names it: a path, or a URL without its password."""
    path = file_of(url)
    return str(path) if path is not None else url.set(drivername="postgresql").render_as_string(hide_password=True)
