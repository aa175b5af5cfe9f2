"""Transactions: what is read together is one state, what fails leaves nothing, and nobody who writes loses to another."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError

from chatwright.errors import StorageError, StoreUnavailableError
from chatwright.store.database import Database, one_at_a_time
from chatwright.store.migrate import upgrade
from chatwright.store.tables import User
from chatwright.store.url import parse_url
from tests.store.postgres import Cluster


def user(number: int, **changes: Any) -> User:
    values = {"role": "member", "status": "active", "created_at": 1_700_000_000, "name": f"Nr. {number} 名字"} | changes
    return User(id=f"user-{number:04}", email=f"{number}@example.org", **values)


async def count(database: Database) -> int:
    async with database.read() as session:
        return await session.scalar(select(func.count()).select_from(User)) or 0


async def test_what_was_written_can_be_read(database: Database) -> None:
    async with database.write() as session:
        session.add(user(1))
    async with database.read() as session:
        found = await session.scalar(select(User))
    assert found is not None
    assert (found.name, found.created_at, found.password_hash) == ("Nr. 1 名字", 1_700_000_000, None)


async def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 — the block is what is tested
        async with database.write() as session:
            session.add(user(1))
            await session.flush()
            _ = 1 / 0
    assert await count(database) == 0
    async with database.write() as session:
        session.add(user(2))
    assert await count(database) == 1


async def test_a_transaction_that_is_cancelled_leaves_nothing_and_blocks_nobody(database: Database) -> None:
    async def write_slowly() -> None:
        async with database.write() as session:
            session.add(user(1))
            await session.flush()
            started.set()
            await asyncio.sleep(60)

    for _ in range(20):
        started = asyncio.Event()
        task = asyncio.create_task(write_slowly())
        await started.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await count(database) == 0
    async with database.write() as session:
        session.add(user(2))
    assert await count(database) == 1


async def test_rules_of_the_tables_hold(database: Database) -> None:
    async with database.write() as session:
        session.add(user(1))
    for wrong in (user(1), user(2, role="god"), user(2, status="dead"), user(2, name=None)):
        with pytest.raises(IntegrityError):
            async with database.write() as session:
                session.add(wrong)
    assert await count(database) == 1


async def test_who_reads_can_not_write(database: Database) -> None:
    with pytest.raises((DBAPIError, StorageError)) as refused:  # noqa: PT012 — the block is what is tested
        async with database.read() as session:
            session.add(user(1))
            await session.flush()
    assert "read" in str(refused.value).lower()
    assert await count(database) == 0


async def test_a_reader_sees_one_state(database: Database) -> None:
    async with database.write() as session:
        session.add(user(1))
    async with database.read() as reader:
        before = await reader.scalar(select(func.count()).select_from(User))
        async with database.write() as session:
            session.add(user(2))
        assert await reader.scalar(select(func.count()).select_from(User)) == before == 1
    assert await count(database) == 2


async def test_a_hundred_writers_at_once_lose_nothing(database: Database) -> None:
    """Each reads, waits and writes what it read plus one: two that did so at the same time would lose a step."""
    async with database.write() as session:
        session.add(user(0, created_at=0))

    async def step() -> None:
        async with database.write() as session:
            await one_at_a_time(session, "counter")
            row = await session.get_one(User, "user-0000")
            await asyncio.sleep(0)
            row.created_at += 1

    async def look() -> int:
        async with database.read() as session:
            return (await session.get_one(User, "user-0000")).created_at

    results = await asyncio.gather(*(work() for _ in range(100) for work in (step, look)))
    assert all(0 <= value <= 100 for value in results if value is not None)
    assert await look() == 100


async def test_two_processes_write_in_turn(url: URL) -> None:
    """Two pools on one database are what two processes are."""
    await upgrade(url)
    one, other = Database(url), Database(url)
    try:

        async def add(database: Database, number: int) -> None:
            async with database.write() as session:
                session.add(user(number))
                await session.flush()
                await asyncio.sleep(0.001)

        await asyncio.gather(*(add((one, other)[n % 2], n) for n in range(60)))
        assert await count(one) == 60
    finally:
        await one.close()
        await other.close()


async def test_who_waits_too_long_is_told_that_the_database_is_busy(database: Database) -> None:
    if not database.is_sqlite:
        pytest.skip("PostgreSQL lets others write meanwhile")
    impatient = Database(database.url, wait_s=0.1)
    try:
        async with database.write() as session:
            session.add(user(1))
            await session.flush()
            with pytest.raises(StoreUnavailableError, match="is busy"):
                async with impatient.write() as second:
                    second.add(user(2))
            async with impatient.read() as reader:
                assert await reader.scalar(select(func.count()).select_from(User)) == 0, "readers wait for nobody"
    finally:
        await impatient.close()


async def test_a_request_waits_for_a_connection_no_longer_than_it_should(url: URL) -> None:
    await upgrade(url)
    database = Database(url, wait_s=0.1)
    try:
        async with asyncio.TaskGroup() as tasks:
            release = asyncio.Event()

            async def hold() -> None:
                async with database.read():
                    await release.wait()

            for _ in range(12):
                tasks.create_task(_quietly(hold()))
            await asyncio.sleep(0.05)
            with pytest.raises(StoreUnavailableError):
                async with database.read():
                    pass
            release.set()
    finally:
        await database.close()


async def _quietly(work: Any) -> None:
    with suppress(StoreUnavailableError):
        await work


async def test_sqlite_is_set_up_as_it_must_be(sqlite_file: Path) -> None:
    sqlite_file.parent.mkdir()
    url = parse_url(f"sqlite:///{sqlite_file}")
    await upgrade(url)
    database = Database(url)
    try:
        for transaction in (database.read, database.write):
            async with transaction() as session:
                for pragma, wanted in (
                    ("journal_mode", "wal"),
                    ("foreign_keys", 1),
                    ("synchronous", 1),
                    ("secure_delete", 1),
                ):
                    assert await session.scalar(text(f"PRAGMA {pragma}")) == wanted
        assert stat.S_IMODE(sqlite_file.stat().st_mode) == 0o600
    finally:
        await database.close()


OTHER_PROCESS = """
import sqlite3, sys
store = sqlite3.connect(sys.argv[1])
print(store.execute("SELECT count(*) FROM users").fetchone()[0])
store.close()
"""


async def test_a_connection_that_is_made_late_costs_the_others_no_lock(
    sqlite_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's locks are the process': whoever opens and closes the file beside SQLite gives all of them up. The next process that
    leaves then takes itself for the last one and removes the write-ahead log, with all that is written to it later."""
    sqlite_file.parent.mkdir()
    url = parse_url(f"sqlite:///{sqlite_file}")
    await upgrade(url)
    database, late = Database(url), Database(url)
    try:
        async with database.write() as session:
            session.add(user(1))
        with monkeypatch.context() as patch:
            # Made by another thread between the question and the answer.
            patch.setattr(Path, "exists", lambda path, **_: path != sqlite_file)
            assert await count(late) == 1

        async def seen_elsewhere() -> int:
            command = [sys.executable, "-c", OTHER_PROCESS, str(sqlite_file)]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
            return int(done.stdout)

        assert await seen_elsewhere() == 1
        async with database.write() as session:
            session.add(user(2))
        assert await seen_elsewhere() == 2
    finally:
        await database.close()
        await late.close()


async def test_a_database_that_goes_away_is_told_of_and_found_again(cluster: Cluster, postgres_url: str) -> None:
    url = parse_url(postgres_url)
    await upgrade(url)
    database = Database(url)
    try:
        async with database.write() as session:
            session.add(user(1))
        # In the middle of a transaction.
        with pytest.raises(StoreUnavailableError, match="cannot be reached"):  # noqa: PT012 — the block is what is tested
            async with database.write() as session:
                session.add(user(2))
                await session.flush()
                cluster.stop()
                await session.scalar(select(func.count()).select_from(User))
        for transaction in (database.read, database.write):
            with pytest.raises(StoreUnavailableError, match="cannot be reached"):
                async with transaction():
                    pass
        cluster.start()
        assert await count(database) == 1
    finally:
        await database.close()


async def test_a_database_that_is_not_there_is_told_of(cluster: Cluster) -> None:
    for url, said in (
        (cluster.url("nowhere"), "does not exist"),
        ("postgresql://ann:geheim@127.0.0.1:1/x", "cannot be reached"),
    ):
        database = Database(parse_url(url), wait_s=2)
        with pytest.raises(StoreUnavailableError, match=said) as refused:
            async with database.read():
                pass
        assert "geheim" not in str(refused.value)
        await database.close()
