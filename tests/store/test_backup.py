"""Backups restore to what was backed up, whichever database they come from and go to; what can not be trusted is refused."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import namedtuple
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select
from sqlalchemy.engine import URL

from chatwright.errors import NotFoundError, StorageError, StoreError, UsageError
from chatwright.settings import Settings
from chatwright.store import schema
from chatwright.store import sqlite_file as sqlite_files
from chatwright.store.actor import OPERATOR
from chatwright.store.backup import back_up, move, restore
from chatwright.store.database import Database
from chatwright.store.files import Description, Files
from chatwright.store.migrate import upgrade
from chatwright.store.tables import ApiKey, Base
from chatwright.store.url import file_of, parse_url, sqlite_url
from tests.store.history import rows_until
from tests.store.test_database import count, user
from tests.store.test_migrations import fill, on


async def contents(url: URL) -> dict[str, list[tuple[Any, ...]]]:
    database = Database(url)
    try:
        async with database.read() as session:
            return {
                table.name: sorted((tuple(row) for row in await session.execute(select(table))), key=repr)
                for table in Base.metadata.sorted_tables
            }
    finally:
        await database.close()


async def filled(url: URL) -> dict[str, list[tuple[Any, ...]]]:
    await upgrade(url)
    await on(url, fill(schema.head()))
    database = Database(url)
    async with database.write() as session:
        session.add_all(
            user(number, name=f"名{number} \U0001f642 ' \"; --") for number in range(1200)
        )  # several chunks
    await database.close()
    held = await contents(url)
    assert len(held["users"]) == 1200 + len(rows_until(schema.head())["users"])
    return held


async def test_a_backup_restores_to_what_was_there(url: URL, tmp_path: Path) -> None:
    held = await filled(url)
    backup = tmp_path / "backup.db"
    await back_up(url, backup)
    assert backup.stat().st_mode & 0o777 == 0o600
    assert [path for path in tmp_path.iterdir() if path.name.startswith((".", "backup.db-"))] == []
    database = Database(url)
    async with database.write() as session:
        session.add(user(5000))
    await database.close()

    with pytest.raises(UsageError, match="--replace"):
        await restore(backup, url, tmp_path / "home", replace=False)
    assert len((await contents(url))["users"]) == len(held["users"]) + 1
    done = await restore(backup, url, tmp_path / "home", replace=True)
    assert await contents(url) == held
    assert done.replaced is not None
    if file_of(url):
        replaced = await contents(sqlite_url(done.replaced / "chatwright.db"))
    else:
        replaced = await contents(sqlite_url(done.replaced))
        done.replaced.unlink()
    assert len(replaced["users"]) == len(held["users"]) + 1, "what was there is kept"


async def test_a_backup_moves_between_both_kinds(url: URL, tmp_path: Path, postgres_url: str) -> None:
    held = await filled(url)
    await back_up(url, tmp_path / "backup.db")
    if file_of(url):
        other = parse_url(postgres_url)
    else:
        (tmp_path / "other").mkdir()
        other = sqlite_url(tmp_path / "other" / "chatwright.db")
    await restore(tmp_path / "backup.db", other, tmp_path / "home", replace=False)
    assert await contents(other) == held


async def test_moving_house_takes_everything(url: URL, tmp_path: Path, postgres_url: str) -> None:
    held = await filled(url)
    target = parse_url(postgres_url) if file_of(url) else sqlite_url(tmp_path / "moved.db")
    counts = await move(url, target)
    assert counts["users"] == len(held["users"])
    assert await contents(target) == held == await contents(url)
    with pytest.raises(StoreError, match="is not empty"):
        await move(url, target)
    with pytest.raises(UsageError, match="the database in use"):
        await move(url, url)
    assert await contents(target) == held


async def test_a_move_that_fails_half_way_leaves_the_target_empty(
    url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chatwright.store import copying

    await filled(url)
    target = sqlite_url(tmp_path / "moved.db")
    monkeypatch.setattr(copying, "_fingerprint", lambda rows: id(rows))
    with pytest.raises(StoreError, match="changed on their way"):
        await move(url, target)
    assert all(rows == [] for rows in (await contents(target)).values())


async def test_a_backup_of_a_database_in_use_is_one_state(url: URL, tmp_path: Path) -> None:
    await upgrade(url)
    database = Database(url)
    stop = asyncio.Event()

    async def write_pairs() -> None:
        number = 0
        while not stop.is_set():
            async with database.write() as session:
                session.add_all([user(number), user(number + 1)])
            number += 2
            await asyncio.sleep(0)

    writer = asyncio.create_task(write_pairs())
    while await count(database) < 10:
        await asyncio.sleep(0.01)
    # In a thread of its own, as the command is a process of its own.
    await asyncio.to_thread(asyncio.run, back_up(url, tmp_path / "backup.db"))
    stop.set()
    await writer
    await database.close()
    with sqlite3.connect(tmp_path / "backup.db") as backup:
        n = backup.execute("SELECT count(*) FROM users").fetchone()[0]
    assert n >= 10
    assert n % 2 == 0


async def test_a_backup_of_an_older_version_is_upgraded_on_its_way_in(sqlite_file: Path, tmp_path: Path) -> None:
    sqlite_file.parent.mkdir()
    url = sqlite_url(sqlite_file)
    oldest = schema.revisions()[0]
    await upgrade(url, to=oldest)
    await on(url, fill(oldest))
    await back_up(url, tmp_path / "old.db")
    (tmp_path / "new").mkdir()
    new = sqlite_url(tmp_path / "new" / "chatwright.db")
    assert (await restore(tmp_path / "old.db", new, tmp_path / "home", replace=False)).revision == schema.head()
    assert len((await contents(new))["users"]) == len(rows_until(oldest)["users"])
    with sqlite3.connect(tmp_path / "old.db") as backup:
        assert backup.execute("SELECT version_num FROM alembic_version").fetchone()[0] == oldest, (
            "the backup stays as it is"
        )


async def test_what_is_no_backup_is_refused_and_nothing_changes(sqlite_file: Path, tmp_path: Path) -> None:
    sqlite_file.parent.mkdir()
    url = sqlite_url(sqlite_file)
    held = await filled(url)
    good = tmp_path / "good.db"
    await back_up(url, good)
    bad = tmp_path / "bad.db"

    def newer() -> None:
        bad.write_bytes(good.read_bytes())
        with sqlite3.connect(bad) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")

    def foreign() -> None:
        bad.unlink()
        with sqlite3.connect(bad) as connection:
            connection.execute("CREATE TABLE users (id text)")

    def torn() -> None:
        bad.write_bytes(good.read_bytes()[: good.stat().st_size // 2])

    def text() -> None:
        bad.write_text("users: ann")

    for spoil, said in (
        (newer, "newer Chatwright"),
        (foreign, "no backup"),
        (torn, "itself damaged"),
        (text, "itself damaged"),
    ):
        spoil()
        with pytest.raises(StoreError, match=said):
            await restore(bad, url, tmp_path / "home", replace=True)
        assert await contents(url) == held
    with pytest.raises(UsageError, match="no file"):
        await restore(tmp_path / "none.db", url, tmp_path / "home", replace=True)
    with pytest.raises(UsageError, match="exists already"):
        await back_up(url, good)
    assert sorted(path.name for path in sqlite_file.parent.iterdir() if path.name.startswith(".")) == []


async def test_a_damaged_database_is_put_aside_for_a_backup(sqlite_file: Path, tmp_path: Path) -> None:
    sqlite_file.parent.mkdir()
    url = sqlite_url(sqlite_file)
    held = await filled(url)
    await back_up(url, tmp_path / "backup.db")
    sqlite_file.write_bytes(b"x" * 10_000)
    with pytest.raises(StoreError, match="damaged"):
        await back_up(url, tmp_path / "second.db")
    assert not (tmp_path / "second.db").exists()
    await restore(tmp_path / "backup.db", url, tmp_path / "home", replace=True)
    assert await contents(url) == held


async def test_a_restore_that_is_undone_has_its_contents_again(
    url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that starts in between deletes what has no row."""
    monkeypatch.chdir(tmp_path)  # where the database of PostgreSQL is put aside
    home = tmp_path / "home"
    await upgrade(url)

    async def opened() -> Files:
        return Files(Database(url), Settings(home=home))

    async def sent(text: bytes) -> str:
        files = await opened()
        file = await files.add(OPERATOR, Description("user_data", "a.txt", None), text)
        await files.database.close()
        return file.id

    async def read(file_id: str) -> bytes:
        files = await opened()
        try:
            await files.sweep(at_start=True)
            return (await files.content(OPERATOR, file_id))[1].read_bytes()
        finally:
            await files.database.close()

    old = await sent(b"old")
    backup = tmp_path / "backup.db"
    await back_up(url, backup)
    new = await sent(b"new")
    batch = home / "batches" / "batch-1"
    batch.mkdir(parents=True)
    (batch / "input.jsonl").write_text("{}")

    done = await restore(backup, url, home, replace=True)
    assert (done.n_aside, done.n_back) == (2, 0), "the file, and a batch that no row knows"
    assert await read(old) == b"old"
    with pytest.raises(NotFoundError):
        await read(new)
    assert (done.aside / "files" / new).read_bytes() == b"new"
    assert (done.aside / "batches" / "batch-1" / "input.jsonl").exists()
    assert not batch.exists()

    assert done.replaced is not None
    undone = await restore(done.replaced / "chatwright.db" if file_of(url) else done.replaced, url, home, replace=True)
    assert (undone.n_aside, undone.n_back) == (0, 1)
    assert (await read(old), await read(new)) == (b"old", b"new")


async def test_a_database_that_is_put_back_by_hand_finds_its_contents(sqlite_file: Path, tmp_path: Path) -> None:
    home = sqlite_file.parent
    home.mkdir()
    url = sqlite_url(sqlite_file)
    await upgrade(url)
    await back_up(url, tmp_path / "empty.db")
    files = Files(Database(url), Settings(home=home))
    file = await files.add(OPERATOR, Description("user_data", "a.txt", None), b"new")
    await files.database.close()
    done = await restore(tmp_path / "empty.db", url, home, replace=True)
    assert done.n_aside == 1
    assert done.replaced is not None
    sqlite_file.write_bytes((done.replaced / "chatwright.db").read_bytes())
    files = Files(Database(url), Settings(home=home))
    assert await files.sweep(at_start=True) == 0
    assert (await files.content(OPERATOR, file.id))[1].read_bytes() == b"new"
    await files.database.close()


async def test_contents_of_another_database_stay_where_they_are(sqlite_file: Path, tmp_path: Path) -> None:
    home = sqlite_file.parent
    home.mkdir()
    (home / "files").mkdir()
    (home / "files" / ".database").write_text("postgresql://elsewhere/x")
    (home / "files" / "file-1").write_bytes(b"x")
    url = sqlite_url(sqlite_file)
    await upgrade(url)
    await back_up(url, tmp_path / "backup.db")
    assert (await restore(tmp_path / "backup.db", url, home, replace=True)).n_aside == 0
    assert (home / "files" / "file-1").exists()


async def test_a_restore_can_end_all_keys_sessions_and_links(url: URL, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    held = await filled(url)
    await back_up(url, tmp_path / "backup.db")
    assert all(held[table] for table in ("sessions", "links", "api_keys"))
    await restore(tmp_path / "backup.db", url, tmp_path / "home", replace=True, revoke=True)
    now = await contents(url)
    assert now["sessions"] == now["links"] == []
    assert now["users"] == held["users"], "passwords too"
    revoked = list(ApiKey.__table__.columns.keys()).index("revoked_at")
    assert len(now["api_keys"]) == len(held["api_keys"])
    assert all(row[revoked] is not None for row in now["api_keys"])


async def test_a_backup_that_finds_no_room_leaves_no_half_file(sqlite_file: Path, tmp_path: Path) -> None:
    import resource

    sqlite_file.parent.mkdir()
    await filled(sqlite_url(sqlite_file))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(StorageError):
            await back_up(sqlite_url(sqlite_file), tmp_path / "backup.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_network_file_systems_are_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mount = namedtuple("mount", "mountpoint fstype")
    mounts = [mount("/", "ext4"), mount("/mnt/share", "nfs4"), mount("/mnt/share/local", "xfs"), mount("/win", "cifs")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    for path, kind in (
        ("/home/me/chatwright.db", None),
        ("/mnt/share/x/chatwright.db", "nfs4"),
        ("/mnt/share/local/chatwright.db", None),
        ("/mnt/sharewood/chatwright.db", None),
        ("/win/chatwright.db", "cifs"),
    ):
        assert sqlite_files.network_file_system(Path(path)) == kind
    # Through a link, and where an automounter has put the share over its own entry.
    share = tmp_path / "share"
    share.mkdir()
    (tmp_path / "home").symlink_to(share)
    mounts += [mount(str(share), "autofs"), mount(str(share), "nfs4")]
    for folder in ("share", "home"):
        assert sqlite_files.network_file_system(tmp_path / folder / "chatwright.db") == "nfs4"
