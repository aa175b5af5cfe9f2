"""Every test that asks for `url` or `database` runs twice: on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from chatwright.store.database import Database
from chatwright.store.migrate import upgrade
from chatwright.store.url import parse_url

KINDS = ("sqlite", "postgresql")


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    """Where a database shall be."""
    return tmp_path / "home" / "chatwright.db"


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, sqlite_file: Path) -> URL:
    """An empty database, of either kind."""
    if request.param == "postgresql":
        return parse_url(request.getfixturevalue("postgres_url"))
    sqlite_file.parent.mkdir()
    return parse_url(f"sqlite:///{sqlite_file}")


@pytest.fixture
async def database(url: URL) -> AsyncIterator[Database]:
    """A database with this version's schema and no rows."""
    await upgrade(url)
    database = Database(url)
    yield database
    await database.close()
