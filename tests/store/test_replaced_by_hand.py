"""A database of earlier that somebody put in the place of the one that was there, without `db restore`: nothing of what it does
not know is lost."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from chatwright.settings import Settings
from chatwright.store.actor import OPERATOR
from chatwright.store.backup import back_up
from chatwright.store.copying import copy_rows
from chatwright.store.database import Database
from chatwright.store.files import Description, Files
from chatwright.store.migrate import upgrade
from chatwright.store.tables import Base
from chatwright.store.url import file_of, sqlite_url

OLD, NEW, NEWER = b"old", b"new", b"newer"


def names_in(folder: Path) -> list[str]:
    """The contents in a home folder, or in what was put aside."""
    return sorted(path.name for path in (folder / "files").glob("file-*"))


def aside(home: Path) -> list[Path]:
    return sorted((home / "backups").glob("replaced-*"))


async def sent(files: Files, data: bytes) -> str:
    return (await files.add(OPERATOR, Description("user_data", "a.txt", None), data)).id


async def server(url: URL, home: Path) -> Files:
    """As a server that starts."""
    files = Files(Database(url), Settings(home=home))
    await files.sweep(at_start=True)
    return files


async def dump(url: URL, target: Path) -> None:
    """A copy as people make it: of the file, or out of PostgreSQL."""
    path = file_of(url)
    if path is None:
        await back_up(url, target)
    else:
        shutil.copyfile(path, target)


async def put_in_place(source: Path, url: URL) -> None:
    """As `cp` does, or `pg_restore --clean`."""
    path = file_of(url)
    if path is not None:
        for ending in ("-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        shutil.copyfile(source, path)
        return
    database, held = Database(url), Database(sqlite_url(source))
    async with database.connect() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.exec_driver_sql("DROP TABLE alembic_version")
    await upgrade(url)
    await copy_rows(held, database)
    await database.close()
    await held.close()


async def test_contents_that_it_does_not_know_are_put_aside_and_come_back(
    url: URL, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    await upgrade(url)
    files = await server(url, home)
    old = await sent(files, OLD)
    await files.sweep()
    await files.database.close()
    await dump(url, tmp_path / "earlier.db")

    files = await server(url, home)
    new = await sent(files, NEW)
    part = home / "files" / "parts" / "part-new"
    part.write_bytes(b"part")
    for path in (home / "files" / new, part):
        os.utime(path, (1, 1))  # long ago
    batch, job = home / "batches" / "batch-new", home / "jobs" / "ftjob-new"
    for folder, name in ((batch, "results.jsonl"), (job / "run", "journal.jsonl")):
        folder.mkdir(parents=True)
        (folder / name).write_text("work of hours")
    never_began = home / "jobs" / "ftjob-waits"
    never_began.mkdir()
    (home / "files" / "incoming" / "in-left").write_bytes(b"half")
    await files.database.close()
    await dump(url, tmp_path / "later.db")

    await put_in_place(tmp_path / "earlier.db", url)
    with caplog.at_level(logging.WARNING):
        files = await server(url, home)
    assert "is not at the moment at which it was left" in caplog.text
    assert (await files.content(OPERATOR, old))[1].read_bytes() == OLD
    assert names_in(home) == [old]
    [place] = aside(home)
    assert str(place) in caplog.text
    assert (place / "files" / new).read_bytes() == NEW
    assert (place / "files" / "parts" / "part-new").exists()
    assert (place / "batches" / batch.name / "results.jsonl").exists()
    assert (place / "jobs" / job.name / "run" / "journal.jsonl").exists()
    assert never_began.exists(), "the supervisor's to take away"
    assert not (home / "files" / "incoming" / "in-left").exists(), "never was anybody's"
    await files.sweep()
    newer = await sent(files, NEWER)
    await files.database.close()

    await put_in_place(tmp_path / "later.db", url)
    files = await server(url, home)
    assert names_in(home) == sorted([old, new])
    assert (await files.content(OPERATOR, new))[1].read_bytes() == NEW
    assert [names_in(each) for each in aside(home)] == [[], [newer]]
    await files.database.close()


async def test_a_copy_of_just_now_does_not_cost_what_came_after_it(sqlite_file: Path, tmp_path: Path) -> None:
    """Between two sweeps all copies are of the same moment."""
    url, home = sqlite_url(sqlite_file), sqlite_file.parent
    home.mkdir()
    await upgrade(url)
    files = await server(url, home)
    old = await sent(files, OLD)
    await files.sweep()
    await files.database.close()
    await dump(url, tmp_path / "just-now.db")
    files = Files(Database(url), Settings(home=home))
    new = await sent(files, NEW)
    await files.database.close()
    await put_in_place(tmp_path / "just-now.db", url)
    files = await server(url, home)
    assert names_in(home) == [old]
    assert [names_in(each) for each in aside(home)] == [[new]]
    await files.database.close()


async def test_what_was_deleted_stays_deleted(url: URL, tmp_path: Path) -> None:
    """The same database, after a kill: nothing is kept that somebody wanted gone."""
    home = tmp_path / "home"
    await upgrade(url)
    files = await server(url, home)
    kept, gone = await sent(files, OLD), await sent(files, NEW)
    for name in (kept, gone):
        os.utime(home / "files" / name, (1, 1))
    await files.sweep()
    content = (home / "files" / gone).read_bytes()
    await files.delete(OPERATOR, gone)
    (home / "files" / gone).write_bytes(content)  # as if the server had been killed before this went
    os.utime(home / "files" / gone, (1, 1))
    await files.database.close()
    files = await server(url, home)
    assert names_in(home) == [kept]
    assert aside(home) == []
    await files.database.close()


async def test_a_home_that_an_earlier_version_left_keeps_everything(url: URL, tmp_path: Path) -> None:
    """Nobody wrote down at which moment it was left."""
    home = tmp_path / "home"
    await upgrade(url)
    files = await server(url, home)
    known = await sent(files, OLD)
    (home / "files" / "file-unknown").write_bytes(NEW)
    os.utime(home / "files" / "file-unknown", (1, 1))
    (home / "files" / ".moment").write_text("{torn")
    await files.database.close()
    files = await server(url, home)
    assert names_in(home) == [known]
    assert [names_in(each) for each in aside(home)] == [["file-unknown"]]
    await files.database.close()
