"""Upgrades: from nothing and from every earlier revision, with data, by one process at a time, all or nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, insert, inspect, select
from sqlalchemy.engine import URL, Connection

from chatwright.errors import StorageError, StoreError, StoreUnavailableError
from chatwright.settings import Settings
from chatwright.store import migrate, schema
from chatwright.store.backup import check_backup
from chatwright.store.database import Database
from chatwright.store.migrate import upgrade
from chatwright.store.opening import open_store
from chatwright.store.tables import Base
from chatwright.store.url import file_of, parse_url
from tests.store.history import ROWS, rows_until


async def on(url: URL, work: Any) -> Any:
    database = Database(url)
    try:
        async with database.connect() as connection:
            return await connection.run_sync(work)
    finally:
        await database.close()


def fill(revision: str) -> Any:
    def work(connection: Connection) -> None:
        tables = MetaData()
        tables.reflect(connection)
        rows = rows_until(revision)
        for table in tables.sorted_tables:
            if table.name in rows:
                for row in rows[table.name]:  # not all of them have the same columns
                    connection.execute(insert(table), row)

    return work


def differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return compare_metadata(context, Base.metadata)


def test_there_are_rows_for_every_revision() -> None:
    assert list(ROWS) == schema.revisions(), "write into tests/store/history.py what the new revision can hold"


async def test_an_empty_database_gets_what_the_tables_say(url: URL) -> None:
    done = await upgrade(url)
    assert (done.before, done.after, done.backup) == (None, schema.head(), None)
    assert await on(url, differences) == []
    assert (await upgrade(url)).before == schema.head(), "a second time changes nothing"


@pytest.mark.parametrize("revision", schema.revisions())
async def test_an_upgrade_keeps_every_row(url: URL, revision: str) -> None:
    await upgrade(url, to=revision)
    await on(url, fill(revision))
    done = await upgrade(url)
    assert (done.before, done.after) == (revision, schema.head())
    assert await on(url, differences) == []

    def check(connection: Connection) -> None:
        for name, rows in rows_until(revision).items():
            table = Base.metadata.tables[name]
            key = [column.name for column in table.primary_key]
            stored = connection.execute(select(table)).mappings()
            found = {tuple(row[name] for name in key): dict(row) for row in stored}
            found = {
                tuple(row[name] for name in key): dict(row) for row in connection.execute(select(table)).mappings()
            }
            for row in rows:
                assert found[tuple(row[name] for name in key)].items() >= row.items()
            assert len(found) == len(rows)

    await on(url, check)
    if file_of(url) and revision != schema.head():
        assert done.backup is not None
        check_backup(done.backup)
        with sqlite3.connect(done.backup) as backup:
            assert backup.execute("SELECT version_num FROM alembic_version").fetchone()[0] == revision
            assert backup.execute("SELECT count(*) FROM users").fetchone()[0] == len(rows_until(revision)["users"])
        assert done.backup.stat().st_mode & 0o777 == 0o600


async def test_what_was_kept_before_is_measured(url: URL) -> None:
    await upgrade(url, to="0010")
    await on(url, fill("0010"))
    await upgrade(url)

    def sizes(connection: Connection) -> dict[str, int]:
        tables = ("responses", "api_conversations", "stored_completions", "evals", "eval_runs")
        rows = [connection.execute(select(Base.metadata.tables[name])).mappings().all() for name in tables]
        return {row["id"]: row["size_bytes"] for found in rows for row in found}

    found, kept = await on(url, sizes), rows_until("0010")

    def size(table: str, names: tuple[str, ...], **where: str) -> int:
        rows = [row for row in kept[table] if where.items() <= row.items()]
        assert rows
        return sum(len((row[name] or "").encode()) for row in rows for name in names)

    assert found["resp_1"] == size("responses", ("head", "pieces"), id="resp_1") + size(
        "response_items", ("content",), response_id="resp_1"
    )
    assert found["resp_2"] == size("responses", ("head", "pieces"), id="resp_2")
    assert found["conv_1"] == size("api_conversation_items", ("content",))
    assert found["chatcmpl-" + "0" * 32] == size("stored_completions", ("body",)) + size(
        "stored_messages", ("content",)
    )
    assert found["eval_1"] == size("evals", ("source", "criteria", "user_metadata"), id="eval_1")
    assert found["evalrun_1"] == size("eval_runs", ("source", "user_metadata")) + size(
        "eval_items", ("content", "given", "results", "sample")
    )


def upgrade_in_processes(url: URL, n: int) -> list[subprocess.Popen[str]]:
    code = (
        "import asyncio, sys; from chatwright.store.migrate import upgrade; from chatwright.store.url import parse_url\n"
        "sys.stdin.readline(); done = asyncio.run(upgrade(parse_url(sys.argv[1]))); print(done.before, done.after)"
    )
    text = url.set(drivername=url.get_backend_name()).render_as_string(hide_password=False)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, text],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(n)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return processes


async def test_processes_that_upgrade_at_once_take_turns(url: URL) -> None:
    said = [process.communicate()[0].split() for process in upgrade_in_processes(url, 4)]
    assert sorted(said) == sorted([["None", schema.head()], *[[schema.head(), schema.head()]] * 3])
    assert await on(url, differences) == []


async def test_who_waits_for_an_upgrade_too_long_is_told(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    original = migrate._migrating

    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def slow(url: URL, patience_s: float) -> Any:
        async with original(url, patience_s) as connection:
            if not entered.is_set():
                entered.set()
                await leave.wait()
            yield connection

    monkeypatch.setattr(migrate, "_migrating", slow)
    first = asyncio.create_task(upgrade(url))
    await entered.wait()
    with pytest.raises(StoreUnavailableError):
        await asyncio.to_thread(asyncio.run, upgrade(url, patience_s=1))
    leave.set()
    assert (await first).before is None


async def test_a_failing_upgrade_leaves_what_was_there(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(connection: Connection, target: str) -> None:
        original(connection, target)
        assert inspect(connection).has_table("users")
        raise RuntimeError("the power fails")

    original = migrate.run_migrations
    monkeypatch.setattr(migrate, "run_migrations", half)
    with pytest.raises(RuntimeError):
        await upgrade(url)
    assert await on(url, lambda connection: inspect(connection).get_table_names()) == []
    monkeypatch.undo()
    assert (await upgrade(url)).before is None


async def test_an_upgrade_that_is_killed_leaves_what_was_there(url: URL) -> None:
    code = (
        "import asyncio, os, sys; from chatwright.store import migrate; from chatwright.store.url import parse_url\n"
        "original = migrate.run_migrations\n"
        "def killed(connection, target):\n"
        "    original(connection, target)\n"
        "    os.kill(os.getpid(), 9)\n"
        "migrate.run_migrations = killed\n"
        "asyncio.run(migrate.upgrade(parse_url(sys.argv[1])))"
    )
    text = url.set(drivername=url.get_backend_name()).render_as_string(hide_password=False)
    assert subprocess.run([sys.executable, "-c", code, text]).returncode == -signal.SIGKILL
    assert (await upgrade(url)).before is None
    assert await on(url, differences) == []


async def test_a_newer_database_is_left_alone(url: URL) -> None:
    await upgrade(url)
    await on(
        url, lambda connection: connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'") and None
    )
    for work in (upgrade(url), open_store(_settings(url), create=True)):
        with pytest.raises(StoreError, match=r"newer Chatwright \(revision 9999"):
            await work


async def test_a_database_of_another_program_is_left_alone(url: URL) -> None:
    await on(url, lambda connection: connection.exec_driver_sql("CREATE TABLE theirs (x integer)") and None)
    with pytest.raises(StoreError, match="another program"):
        await upgrade(url)
    assert await on(url, lambda connection: inspect(connection).get_table_names()) == ["theirs"]


async def test_opening_upgrades_files_and_leaves_servers_to_their_masters(url: URL) -> None:
    oldest = schema.revisions()[0]
    await upgrade(url, to=oldest)
    if oldest == schema.head():
        pytest.skip("there is one revision only")
    if file_of(url):
        database = await open_store(_settings(url), create=False)
        await database.close()
        assert await on(url, schema.revision_of) == schema.head()
    else:
        with pytest.raises(StoreError, match="chatwright db upgrade"):
            await open_store(_settings(url), create=True)


async def test_opening_makes_a_database_only_where_it_shall(url: URL) -> None:
    with pytest.raises(StoreError, match="no database"):
        await open_store(_settings(url), create=False)
    database = await open_store(_settings(url), create=True)
    await database.close()
    assert await on(url, schema.revision_of) == schema.head()


def _settings(url: URL) -> Settings:
    path = file_of(url)
    if path is not None:
        return Settings(home=path.parent)
    return Settings(home=Path("/nonexistent"), database_url=url.render_as_string(hide_password=False))


@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000, b"{}"])
async def test_what_is_no_database_is_named_as_damaged(sqlite_file: Path, content: bytes) -> None:
    sqlite_file.parent.mkdir()
    sqlite_file.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"):
        await open_store(Settings(home=sqlite_file.parent), create=True)
    assert sqlite_file.read_bytes() == content


async def test_damaged_pages_are_named_before_an_upgrade_touches_them(sqlite_file: Path) -> None:
    oldest = schema.revisions()[0]
    if oldest == schema.head():
        pytest.skip("there is one revision only")
    sqlite_file.parent.mkdir()
    url = parse_url(f"sqlite:///{sqlite_file}")
    await upgrade(url, to=oldest)
    await on(url, fill(oldest))
    with sqlite3.connect(sqlite_file) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'users'").fetchone()[0] - 1
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(sqlite_file.read_bytes())
    content[page * 4096 + 8 : (page + 1) * 4096] = os.urandom(4096 - 8)
    sqlite_file.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"):
        await upgrade(url)
    assert sqlite_file.read_bytes()[page * 4096 :][:4096] == content[page * 4096 :][:4096]


@pytest.fixture
def unprivileged() -> Any:
    """Not root for a while: root may write to everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


async def test_a_read_only_database_is_named(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):  # one more where the tests run in several processes
        folder.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    url = parse_url(f"sqlite:///{home}/chatwright.db")
    await upgrade(url)
    for path in (home / "chatwright.db", home / "chatwright.db.lock"):
        path.chmod(0o444)
    home.chmod(0o555)
    request.getfixturevalue("unprivileged")
    for work in (upgrade(url), open_store(Settings(home=home), create=False)):
        with pytest.raises(StorageError, match="read-only"):
            await work


async def test_a_full_disk_is_named_and_nothing_is_half_done(sqlite_file: Path) -> None:
    from tests.store.test_database import count, user

    sqlite_file.parent.mkdir()
    url = parse_url(f"sqlite:///{sqlite_file}")
    await upgrade(url)
    database = Database(url)
    try:
        async with database.write() as session:
            pages = (await session.connection()).exec_driver_sql
            n = (await pages("PRAGMA page_count")).scalar()
            await pages(f"PRAGMA max_page_count = {n}")  # to SQLite that is a disk with so much room
        with pytest.raises(StorageError, match="disk is full"):
            async with database.write() as session:
                session.add_all(user(number, name="n" * 100) for number in range(500))
        assert await count(database) == 0
    finally:
        await database.close()
