"""Files: what was sent comes back, to its owner only, and no kill, quota or full disk leaves half of one."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chatwright.errors import (
    ContentMissingError,
    DiskFullError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    NotSignedInError,
    TooLargeError,
)
from chatwright.settings import Settings
from chatwright.store.accounts import users
from chatwright.store.actor import NOBODY, OPEN, OPERATOR, SERVER_KEY, Actor, Role, Scope, Via, on_behalf_of_owner
from chatwright.store.database import Database
from chatwright.store.files import Description, Files, Uploads, rows
from chatwright.store.files.describe import clean_filename
from chatwright.store.files.uploads import LIFE_S, status_of
from chatwright.store.migrate import upgrade
from chatwright.store.tables import File, Upload
from chatwright.store.url import sqlite_url
from tests.store.people import make_user, quick_accounts, set_clock, signed_in

MIB = 2**20


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "files-home"


MakeFiles = Callable[..., Files]


@pytest.fixture
def make(database: Database, home: Path) -> MakeFiles:
    return lambda **settings: Files(database, Settings(home=home, **settings))


@pytest.fixture
def files(make: MakeFiles) -> Files:
    return make()


async def send(
    files: Files,
    actor: Actor,
    *pieces: bytes,
    purpose: str = "user_data",
    name: str = "a.txt",
    lives_s: int | None = None,
) -> File:
    async with files.receive(actor) as incoming:
        for piece in pieces:
            await incoming.write(piece)
        return await files.keep(actor, incoming, Description.of_upload(purpose, name, lives_s))


async def content(files: Files, actor: Actor, file_id: str) -> bytes:
    return (await files.content(actor, file_id))[1].read_bytes()


async def listed(files: Files, actor: Actor, **options: Any) -> list[str]:
    async with files.database.read() as session:
        return [file.id for file in (await rows.list_files(session, actor, **options)).files]


def on_disk(home: Path) -> list[Path]:
    """Every content, whole or not."""
    return sorted(
        path for path in (home / "files").rglob("*") if path.is_file() and path.name not in (".database", ".moment")
    )


async def actor(files: Files, name: str, role: Role = Role.MEMBER) -> Actor:
    return signed_in(await make_user(quick_accounts(files.database), f"{name}@example.org", role))


async def test_what_was_sent_comes_back(files: Files, home: Path) -> None:
    ann = await actor(files, "ann")
    pieces = [os.urandom(n) for n in (1, 700_000, MIB, 3 * MIB, 5)]
    file = await send(files, ann, *pieces, name="数据 🙂.bin")
    whole = b"".join(pieces)
    assert await content(files, ann, file.id) == whole
    found = await files.get(ann, file.id)
    assert (found.size_bytes, found.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert (found.filename, found.purpose, found.status, found.expires_at) == (
        "数据 🙂.bin",
        "user_data",
        "processed",
        None,
    )
    [path] = on_disk(home)
    assert path == home / "files" / file.id
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert await content(files, ann, (await send(files, ann)).id) == b""


async def test_a_file_is_its_owners_alone(files: Files) -> None:
    ann, bob = await actor(files, "ann"), await actor(files, "bob")
    owner = await actor(files, "owner", Role.OWNER)
    file, operators = await send(files, ann, b"secret"), await send(files, OPERATOR, b"of the machine")
    for thief in (bob, owner, OPERATOR):
        with pytest.raises(NotFoundError):
            await files.get(thief, file.id)
        with pytest.raises(NotFoundError):
            await files.content(thief, file.id)
        with pytest.raises(NotFoundError):
            await files.delete(thief, file.id)
        assert file.id not in await listed(files, thief)
        with pytest.raises(NotFoundError):
            await listed(files, thief, after=file.id)
    with pytest.raises(NotFoundError):
        await files.get(ann, operators.id)
    inference_key = Actor(Via.KEY, ann.user_id, Role.MEMBER, frozenset({Scope.INFERENCE}), "key-x")
    for stranger, refusal in (
        (inference_key, ForbiddenError),
        (OPEN, ForbiddenError),
        (SERVER_KEY, ForbiddenError),
        (NOBODY, NotSignedInError),
    ):
        with pytest.raises(refusal):
            await files.get(stranger, operators.id)
        with pytest.raises(refusal):
            await send(files, stranger, b"x")
        with pytest.raises(refusal):
            await listed(files, stranger)
    assert await listed(files, ann) == [file.id]
    assert await listed(files, OPERATOR) == [operators.id]
    assert await content(files, on_behalf_of_owner(ann.user_id), file.id) == b"secret"
    assert await content(files, on_behalf_of_owner(None), operators.id) == b"of the machine"


@pytest.mark.parametrize(
    "name", ["", "file-", "file-1", "../chatwright.db", "file-..%2f", "file-\x00", "x" * 5000, "file-é", "' OR 1=1 --"]
)
async def test_what_is_no_id_is_not_found(files: Files, name: str) -> None:
    with pytest.raises(NotFoundError):
        await files.content(OPERATOR, name)
    with pytest.raises(NotFoundError):
        await Uploads(files).check_pending(OPERATOR, name)


async def test_lists_come_in_pages(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    now = set_clock(monkeypatch)
    made = []
    for number in range(7):
        made.append((await send(files, OPERATOR, b"{}", purpose="batch" if number % 2 else "fine-tune")).id)
        now.now += number % 3  # some were made in the same second
    everything = await listed(files, OPERATOR)
    assert sorted(everything) == sorted(made)
    assert await listed(files, OPERATOR, oldest_first=True) == everything[::-1]
    for oldest_first in (False, True):
        seen: list[str] = []
        while True:
            async with files.database.read() as session:
                page = await rows.list_files(
                    session, OPERATOR, limit=2, after=seen[-1] if seen else None, oldest_first=oldest_first
                )
            seen += [file.id for file in page.files]
            if not page.has_more:
                break
        assert seen == (everything[::-1] if oldest_first else everything)
    assert sorted(await listed(files, OPERATOR, purpose="batch")) == sorted(made[1::2])
    assert await listed(files, OPERATOR, purpose="evals") == []


async def test_a_file_expires(files: Files, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = set_clock(monkeypatch)
    short = await send(files, OPERATOR, b"x", lives_s=3600)
    batch = await send(files, OPERATOR, b"{}", purpose="batch")
    assert batch.expires_at == now.now + 30 * 86_400
    now.now += 3600
    with pytest.raises(NotFoundError):
        await files.get(OPERATOR, short.id)
    assert await listed(files, OPERATOR) == [batch.id]
    await files.sweep(at_start=True)
    assert [path.name for path in on_disk(home)] == [batch.id]
    for lives_s in (0, -1, 3599, 30 * 86_400 + 1):
        with pytest.raises(InvalidRequestError):
            await send(files, OPERATOR, b"x", lives_s=lives_s)


@pytest.mark.parametrize("purpose", [None, "", "vision", "fine-tune-results", "batch_output", "Batch", "x" * 100])
async def test_purposes_are_those_of_the_api(files: Files, home: Path, purpose: Any) -> None:
    with pytest.raises(InvalidRequestError):
        await send(files, OPERATOR, b"x", purpose=purpose)
    assert on_disk(home) == []


async def test_lines_of_json_are_text(files: Files, home: Path) -> None:
    for data in (b"\xff\xfe", b"PK\x03\x04\x00\x00", b'{"a": "\x00"}', "é".encode()[:1]):
        with pytest.raises(InvalidRequestError, match="UTF-8"):
            await send(files, OPERATOR, data, purpose="fine-tune")
        assert (await send(files, OPERATOR, data)).size_bytes == len(data), "of other files nothing is known"
    cut = b"x" * (64 * 1024 - 1) + "é🙂".encode() * 10  # the part that is looked at ends inside a character
    assert (await send(files, OPERATOR, cut, purpose="evals")).size_bytes == len(cut)
    assert (await send(files, OPERATOR, b"not json", purpose="batch")).status == "processed", (
        "its job says so, by the line"
    )


async def test_a_file_too_large_is_refused_while_it_comes(make: MakeFiles, home: Path) -> None:
    files = make(file_limit=2 * MIB)
    async with files.receive(OPERATOR) as incoming:
        for _ in range(2):
            await incoming.write(b"x" * MIB)
        with pytest.raises(TooLargeError, match="2 MiB") as caught:
            await incoming.write(b"x")
    assert caught.value.code == "file_too_large"
    assert on_disk(home) == []
    assert (await send(files, OPERATOR, b"x" * 2 * MIB)).size_bytes == 2 * MIB


async def test_a_quota_is_kept_whatever_comes_at_once(make: MakeFiles, home: Path) -> None:
    files = make(file_quota=4 * MIB)
    ann, bob = await actor(files, "ann"), await actor(files, "bob")
    kept = await send(files, ann, b"x" * MIB)
    with pytest.raises(TooLargeError):
        async with files.receive(ann, announced_bytes=3 * MIB + 1):
            pytest.fail("known before anything comes")
    results = await asyncio.gather(*(send(files, ann, b"x" * MIB) for _ in range(10)), return_exceptions=True)
    good = [result for result in results if isinstance(result, File)]
    assert all(isinstance(result, TooLargeError) for result in results if result not in good)
    assert {result.code for result in results if isinstance(result, TooLargeError)} == {"storage_quota_exceeded"}
    assert len(on_disk(home)) == 1 + len(good) <= 4
    while len(await listed(files, ann)) < 4:
        await send(files, ann, b"x" * MIB)
    with pytest.raises(TooLargeError):
        await send(files, ann, b"x")
    assert (await send(files, bob, b"x" * MIB)).user_id == bob.user_id, "each has their own"
    result = await files.add(on_behalf_of_owner(ann.user_id), Description("batch_output", "out.jsonl"), b"y" * MIB)
    assert await content(files, ann, result.id) == b"y" * MIB, "what the server made is not lost"
    for file_id in (kept.id, result.id):
        await files.delete(ann, file_id)
    assert (await send(files, ann, b"x" * MIB)).size_bytes == MIB


async def test_there_are_so_many_files_and_no_more(files: Files, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_FILES", 3)
    for _ in range(3):
        await send(files, OPERATOR, b"x")
    with pytest.raises(TooLargeError, match="3 files"):
        await send(files, OPERATOR, b"x")
    assert len(on_disk(home)) == 3


async def test_a_full_disk_leaves_nothing(files: Files, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.disk_usage
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=70 * MIB))
        with pytest.raises(DiskFullError):
            async with files.receive(OPERATOR, announced_bytes=7 * MIB):
                pytest.fail("known before anything comes")
        patch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1 * MIB))
        with pytest.raises(DiskFullError):
            await send(files, OPERATOR, b"x" * MIB)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for broken in ([(os, "fsync")], [(os, "link"), (Path, "rename")]):
        with monkeypatch.context() as patch:
            for where, name in broken:
                patch.setattr(where, name, full)
            with pytest.raises(DiskFullError) as caught:
                await send(files, OPERATOR, b"x")
            assert str(home) not in str(caught.value)
    assert on_disk(home) == []
    assert await listed(files, OPERATOR) == []
    assert (await send(files, OPERATOR, b"x")).size_bytes == 1


async def test_who_goes_away_leaves_nothing(files: Files, home: Path) -> None:
    class GoneError(Exception):
        pass

    for error in (GoneError(), asyncio.CancelledError()):

        async def leave(error: BaseException) -> None:
            async with files.receive(OPERATOR) as incoming:
                await incoming.write(b"x" * 3 * MIB)
                assert len(on_disk(home)) == 1
                raise error

        with pytest.raises(type(error)):
            await leave(error)
    assert on_disk(home) == []
    assert await listed(files, OPERATOR) == []


async def test_a_removed_users_files_go_too(files: Files, home: Path) -> None:
    ann = await actor(files, "ann", Role.OWNER)
    await actor(files, "owner", Role.OWNER)
    kept, _ = await send(files, OPERATOR, b"x"), await send(files, ann, b"personal")
    await Uploads(files).begin(ann, Description("batch", "b"), 5, "text/jsonl")
    await files.sweep(at_start=True)
    async with files.receive(ann) as incoming:
        await incoming.write(b"on its way")
        async with files.database.write() as session:
            assert ann.user_id is not None
            await users.remove_user(session, OPERATOR, ann.user_id)
        with pytest.raises(NotFoundError):
            await files.keep(ann, incoming, Description("user_data", "late"))
    for path in on_disk(home):
        os.utime(path, (1, 1))
    assert await files.sweep() == 1, "by whatever process, at the latest with the next sweep"
    assert [path.name for path in on_disk(home)] == [kept.id]


async def test_a_removed_users_contents_go_at_once(files: Files, home: Path) -> None:
    ann = await actor(files, "ann", Role.OWNER)
    await actor(files, "owner", Role.OWNER)
    kept, gone = await send(files, OPERATOR, b"x"), await send(files, ann, b"personal")
    assert ann.user_id is not None
    upload = await begin(Uploads(files), ann, 3)
    part = await add(files, ann, upload, b"abc")
    with pytest.raises(NotFoundError):
        async with files.leaving_with(ann.user_id):
            raise NotFoundError("There is nothing of that id.")
    assert [path.name for path in on_disk(home)] == sorted([kept.id, gone.id, part.id])
    for nobody in ("user-none", "\x00", "../.."):
        async with files.leaving_with(nobody):
            pass
    async with files.leaving_with(ann.user_id), files.database.write() as session:
        await users.remove_user(session, OPERATOR, ann.user_id)
    assert [path.name for path in on_disk(home)] == [kept.id]


async def test_the_sweep_takes_what_has_no_row_and_spares_what_is_young(files: Files, home: Path) -> None:
    kept = await send(files, OPERATOR, b"x")
    await files.sweep(at_start=True)
    left = [
        home / "files" / "file-left",
        home / "files" / "incoming" / "in-left",
        home / "files" / "parts" / "part-left",
    ]
    for path in left:
        path.write_bytes(b"half")
    note = home / "files" / "README.txt"
    note.write_text("not ours")
    assert await files.sweep() == 0, "a row may be about to come"
    for path in left[1:]:
        os.utime(path, (1, 1))
    assert await files.sweep() == 2
    os.utime(left[0], (1, 1))
    assert await files.sweep() == 1
    assert on_disk(home) == sorted([note, home / "files" / kept.id])
    assert not (home / "backups").exists()


async def test_another_database_does_not_cost_the_files(files: Files, home: Path, tmp_path: Path) -> None:
    """A slip of the configuration: the server is started with an empty database, and nothing in the folder has a row."""
    kept = await send(files, OPERATOR, b"x")
    url = sqlite_url(tmp_path / "other.db")
    await upgrade(url)
    other = Database(url)
    try:
        assert await Files(other, Settings(home=home)).sweep(at_start=True) == 0
        assert [path.name for path in on_disk(home)] == [kept.id]
        # Not so where the rows have moved to another database: it is the folder's from now on.
        async with other.write() as session:
            session.add(File(**{column.name: getattr(kept, column.name) for column in File.__table__.columns}))
        (home / "files" / "file-left").write_bytes(b"half")
        assert await Files(other, Settings(home=home)).sweep(at_start=True) == 0
        assert [path.name for path in on_disk(home)] == [kept.id]
        [aside] = (home / "backups").glob("replaced-*/files/file-left")
        assert aside.read_bytes() == b"half", "it may have been the first database's"
        os.utime(home / "files" / kept.id, (1, 1))
        async with other.write() as session:
            await session.delete(await session.get_one(File, kept.id))
        assert await Files(other, Settings(home=home)).sweep(at_start=True) == 1
    finally:
        await other.close()


async def test_a_content_that_did_not_come_along_is_named(files: Files, home: Path) -> None:
    file = await send(files, OPERATOR, b"x")
    (home / "files" / file.id).unlink()
    with pytest.raises(ContentMissingError, match="not on this server"):
        await files.content(OPERATOR, file.id)
    await files.delete(OPERATOR, file.id)
    assert await listed(files, OPERATOR) == []


KILLED = """
import asyncio, os, sys
from pathlib import Path
from chatwright.settings import Settings
from chatwright.store.actor import OPERATOR
from chatwright.store.database import Database
from chatwright.store.files import Description, Files, folder, service
from chatwright.store.url import parse_url

where = sys.argv[3]
files = Files(Database(parse_url(sys.argv[1])), Settings(home=Path(sys.argv[2])))

async def die(*args, **kwargs):
    os.kill(os.getpid(), 9)

async def main():
    async with files.receive(OPERATOR) as incoming:
        await incoming.write(b"x" * 3_000_000)
        if where == "arriving":
            await die()
        if where == "placing":
            files.folder.take = die
        if where == "adding":
            service.rows.add_file = die
        file = await files.keep(OPERATOR, incoming, Description("user_data", "a"))
    if where == "deleting":
        files.folder.remove = die
        await files.delete(OPERATOR, file.id)

asyncio.run(main())
"""


@pytest.mark.parametrize("where", ["arriving", "placing", "adding", "deleting"])
async def test_a_kill_leaves_nothing_that_a_sweep_does_not_take(files: Files, home: Path, where: str) -> None:
    kept = await send(files, OPERATOR, b"x")
    url = files.database.url
    text = url.set(drivername=url.get_backend_name()).render_as_string(hide_password=False)
    done = subprocess.run([sys.executable, "-c", KILLED, text, str(home), where])
    assert done.returncode == -signal.SIGKILL
    assert len({path.stat().st_ino for path in on_disk(home)}) == 2
    assert await listed(files, OPERATOR) == [kept.id]
    assert await files.sweep(at_start=True) >= 1
    assert [path.name for path in on_disk(home)] == [kept.id]
    assert not (home / "backups").exists(), "left over, and no other moment's of the database"


class Part(NamedTuple):
    id: str
    data: bytes


async def begin(uploads: Uploads, actor: Actor, n_bytes: int, purpose: str = "user_data") -> Upload:
    return await uploads.begin(actor, Description.of_upload(purpose, "a.jsonl", None), n_bytes, "text/jsonl")


async def add(files: Files, actor: Actor, upload: Upload, data: bytes) -> Part:
    async with files.receive(actor) as incoming:
        await incoming.write(data)
        return Part((await Uploads(files).keep_part(actor, upload.id, incoming)).id, data)


async def test_parts_become_a_file_in_the_order_named(files: Files, home: Path) -> None:
    uploads, ann = Uploads(files), await actor(files, "ann")
    upload = await begin(uploads, ann, 3 * MIB)
    parts = await asyncio.gather(*(add(files, ann, upload, os.urandom(MIB)) for _ in range(4)))
    chosen = [parts[2], parts[0], parts[3]]
    whole = b"".join(part.data for part in chosen)
    md5 = hashlib.md5(whole).hexdigest()
    done, file = await uploads.complete(ann, upload.id, [part.id for part in chosen], md5.upper())
    assert (status_of(done), done.file_id) == ("completed", file.id)
    assert await content(files, ann, file.id) == whole
    assert [path.name for path in on_disk(home)] == [file.id], "no part stays"
    again, same = await uploads.complete(ann, upload.id, [part.id for part in chosen], md5)
    assert (again.id, same.id) == (upload.id, file.id), "a client that did not hear the answer asks again"
    for work in (uploads.cancel(ann, upload.id), add(files, ann, upload, b"x")):
        with pytest.raises(InvalidRequestError, match="completed"):
            await work
    assert len(await listed(files, ann)) == 1


async def test_an_upload_is_completed_as_announced_or_not_at_all(files: Files, home: Path) -> None:
    uploads = Uploads(files)
    upload, other = await begin(uploads, OPERATOR, 6), await begin(uploads, OPERATOR, 6)
    first, second = await add(files, OPERATOR, upload, b"abc"), await add(files, OPERATOR, upload, b"def")
    foreign = await add(files, OPERATOR, other, b"abc")
    for part_ids, md5, code in (
        ([first.id], None, "size_mismatch"),
        ([first.id, first.id], None, "invalid_value"),
        ([first.id, foreign.id], None, "invalid_value"),
        ([first.id, "part-none"], None, "invalid_value"),
        ([first.id, second.id], "0" * 32, "checksum_mismatch"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            await uploads.complete(OPERATOR, upload.id, part_ids, md5)
        assert caught.value.code == code
    assert await listed(files, OPERATOR) == []
    assert len(on_disk(home)) == 3
    results = await asyncio.gather(
        *(uploads.complete(OPERATOR, upload.id, [second.id, first.id], None) for _ in range(5)), return_exceptions=True
    )
    good = [result for result in results if not isinstance(result, BaseException)]
    assert good
    assert {file.id for _, file in good} == set(await listed(files, OPERATOR)), (
        "one file, however often it was asked for"
    )
    assert await content(files, OPERATOR, good[0][1].id) == b"defabc"


async def test_uploads_of_others_do_not_exist(files: Files) -> None:
    uploads, ann, bob = Uploads(files), await actor(files, "ann"), await actor(files, "bob")
    upload = await begin(uploads, ann, 3)
    part = await add(files, ann, upload, b"abc")
    for thief in (bob, OPERATOR):
        for work in (
            uploads.check_pending(thief, upload.id),
            add(files, thief, upload, b"x"),
            uploads.complete(thief, upload.id, [part.id], None),
            uploads.cancel(thief, upload.id),
        ):
            with pytest.raises(NotFoundError):
                await work
    assert (await uploads.complete(ann, upload.id, [part.id], None))[1].user_id == ann.user_id


async def test_a_cancelled_or_expired_upload_is_gone(files: Files, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, uploads = set_clock(monkeypatch), Uploads(files)
    cancelled, late = await begin(uploads, OPERATOR, 3), await begin(uploads, OPERATOR, 3)
    part = await add(files, OPERATOR, late, b"abc")
    await add(files, OPERATOR, cancelled, b"abc")
    assert status_of(await uploads.cancel(OPERATOR, cancelled.id)) == "cancelled"
    assert [path.name for path in on_disk(home)] == [part.id]
    now.now += LIFE_S
    for work in (
        uploads.cancel(OPERATOR, cancelled.id),
        add(files, OPERATOR, late, b"x"),
        uploads.complete(OPERATOR, late.id, [part.id], None),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            await work
        assert caught.value.code == "upload_not_pending"
    await files.sweep(at_start=True)
    assert on_disk(home) == []


async def test_uploads_count_towards_the_quota(make: MakeFiles) -> None:
    files = make(file_quota=4 * MIB, upload_limit=5 * MIB)
    uploads, ann = Uploads(files), await actor(files, "ann")
    with pytest.raises(TooLargeError) as caught:
        await begin(uploads, ann, 5 * MIB + 1)
    assert caught.value.code == "file_too_large"
    with pytest.raises(TooLargeError):
        await begin(uploads, ann, 4 * MIB + 1)
    upload = await begin(uploads, ann, 4 * MIB)
    parts = [await add(files, ann, upload, b"x" * MIB) for _ in range(4)]
    with pytest.raises(TooLargeError):
        await add(files, ann, upload, b"x")
    with pytest.raises(TooLargeError):
        await send(files, ann, b"x")
    _, file = await uploads.complete(ann, upload.id, [part.id for part in parts], None)
    assert file.size_bytes == 4 * MIB, "the parts make room for what they become"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a.jsonl", "a.jsonl"),
        ("对话 🙂.jsonl", "对话 🙂.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\windows\\win.ini", "win.ini"),
        ("C:\\Users\\a.txt", "a.txt"),
        ("a\r\nSet-Cookie: x=1", "aSet-Cookie: x=1"),
        ("a\x00.txt", "a.txt"),
        ("photo\u202egpj.exe", "photogpj.exe"),
        ("", "file"),
        ("..", "file"),
        ("a/", "file"),
        ("x" * 300, "x" * 255),
    ],
)
def test_names_are_only_names(given: str, kept: str) -> None:
    assert clean_filename(given) == kept
