"""Every test that asks for `url` or `database` runs twice: on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from chatwright.store.database import Database
from chatwright.store.migrate import upgrade
from chatwright.store.url import parse_url
from tests.store.postgres import Cluster, binaries, running_cluster

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """PostgreSQL, started once. Where it is not installed its tests are skipped, but never where REQUIRE_POSTGRES is set."""
    found = binaries()
    if found is None:
        if os.environ.get("REQUIRE_POSTGRES"):
            pytest.fail("PostgreSQL is not installed, and REQUIRE_POSTGRES says that its tests must run")
        pytest.skip("PostgreSQL is not installed (on Debian: apt-get install postgresql)")
    with running_cluster(found) as running:
        yield running


@pytest.fixture
def postgres_url(cluster: Cluster) -> str:
    """An empty database of PostgreSQL."""
    name = f"test_{secrets.token_hex(8)}"
    cluster.sql(f"CREATE DATABASE {name}")
    return cluster.url(name)


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
