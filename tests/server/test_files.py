"""/v1/files and /v1/uploads with the official clients, and with those who send too much, nonsense, or half."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from chatwright.server.form import MAX_FIELD_BYTES, MAX_PARTS
from chatwright.server.permission import route_policies
from chatwright.store import sqlite_file
from chatwright.store.database import Database
from chatwright.store.migrate import upgrade
from chatwright.store.policy import Action
from chatwright.store.url import sqlite_url
from tests.server.conftest import KEY, StartServer
from tests.server.harness import RunningServer, assert_error, http_request, read_response, wait_until
from tests.server.people import ADMIN_TOKEN, SERVER_KEY, People, bearer, browser, settle
from tests.store.people import quick_accounts

OLD_CLIENT = Path(__file__).parents[2] / ".venv" / "openai-0.28"
MIB = 2**20
LINES = (
    b'{"messages": [{"role": "user", "content": "\xe4\xbd\xa0\xe5\xa5\xbd"}, {"role": "assistant", "content": "hi"}]}\n'
)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return settle(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def shared(start: StartServer, people: People) -> RunningServer:
    """A server with accounts, small files and a small quota."""
    return start(
        accounts=quick_accounts(Database(people.url)),
        api_key=SERVER_KEY,
        admin_token=ADMIN_TOKEN,
        file_limit=2 * MIB,
        upload_limit=4 * MIB,
        file_quota=64 * MIB,
        read_timeout_s=2.0,
    )


@pytest.fixture
def home(shared: RunningServer) -> Path:
    return shared.app.state.server.settings.home


@pytest.fixture
def files(shared: RunningServer, people: People) -> Iterator[openai.OpenAI]:
    """The official client with a key that is good for files."""
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key=people.keys["files key"], max_retries=0) as client:
        yield client
        for file in client.files.list():
            client.files.delete(file.id)


@pytest.fixture
def http(shared: RunningServer, people: People) -> Iterator[httpx.Client]:
    with shared.http(headers=bearer(people.keys["files key"])) as http:
        yield http


def on_disk(home: Path) -> list[str]:
    return sorted(
        path.name
        for path in (home / "files").rglob("*")
        if path.is_file() and path.name not in (".database", ".moment")
    )


def test_the_official_client_sends_lists_reads_and_deletes(files: openai.OpenAI, home: Path, tmp_path: Path) -> None:
    path = tmp_path / '对话 "1".jsonl'
    path.write_bytes(LINES * 1000)
    with path.open("rb") as stream:
        raw = files.files.with_raw_response.create(file=stream, purpose="fine-tune")
    made = raw.parse()
    openai.types.FileObject.model_validate(raw.http_response.json())
    assert (made.bytes, made.purpose, made.status, made.object) == (len(LINES) * 1000, "fine-tune", "processed", "file")
    assert made.filename == path.name.replace('"', "%22") or made.filename == path.name
    assert files.files.retrieve(made.id) == made
    assert files.files.wait_for_processing(made.id) == made
    assert files.files.content(made.id).read() == LINES * 1000
    other = files.files.create(
        file=("x.bin", b"\x00\xff"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert other.expires_at == other.created_at + 3600
    assert {file.id for file in files.files.list()} == {made.id, other.id}
    assert [file.id for file in files.files.list(purpose="user_data")] == [other.id]
    assert {file.id for file in files.files.list(limit=1)} == {made.id, other.id}, "it turns the pages by itself"
    assert {file.id for file in files.files.list(limit=1, order="asc")} == {made.id, other.id}
    deleted = files.files.delete(made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "file")
    for work in (files.files.retrieve, files.files.content, files.files.delete):
        with pytest.raises(openai.NotFoundError):
            work(made.id)
    assert on_disk(home) == [other.id]
    evals = files.files.create(file=("e.jsonl", LINES), purpose="evals")
    assert evals.purpose == "evals"


def test_the_official_client_sends_in_parts(files: openai.OpenAI, home: Path, tmp_path: Path) -> None:
    whole = os.urandom(3 * MIB + 5)
    path = tmp_path / "big.bin"
    path.write_bytes(whole)
    upload = files.uploads.upload_file_chunked(
        file=path,
        mime_type="application/octet-stream",
        purpose="user_data",
        part_size=MIB,
        md5=hashlib.md5(whole).hexdigest(),
    )
    assert upload.status == "completed"
    assert upload.file is not None
    assert files.files.content(upload.file.id).read() == whole
    assert on_disk(home) == [upload.file.id]
    begun = files.uploads.create(bytes=3, filename="a.jsonl", mime_type="text/jsonl", purpose="batch")
    part = files.uploads.parts.create(begun.id, data=b"ab")
    assert (part.upload_id, part.object) == (begun.id, "upload.part")
    with pytest.raises(openai.BadRequestError) as caught:
        files.uploads.complete(begun.id, part_ids=[part.id])
    assert caught.value.code == "size_mismatch"
    assert files.uploads.cancel(begun.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        files.uploads.parts.create(begun.id, data=b"c")
    with pytest.raises(openai.APIStatusError) as too_large:
        files.uploads.create(bytes=4 * MIB + 1, filename="a", mime_type="text/plain", purpose="user_data")
    assert too_large.value.status_code == 413


OLD_SCRIPT = """
import io, json, openai
made = openai.File.create(file=open("old.jsonl", "rb"), purpose="fine-tune", user_provided_filename="训练.jsonl")
assert made["filename"] == "训练.jsonl", made
listed = openai.File.list()
assert [item["id"] for item in listed["data"]] == [made["id"]], listed
assert openai.File.retrieve(made["id"])["bytes"] == made["bytes"]
assert openai.File.download(made["id"]) == open("old.jsonl", "rb").read()
assert openai.File.find_matching_files("训练.jsonl", made["bytes"], "fine-tune")
assert openai.File.delete(made["id"])["deleted"] is True
try:
    openai.File.retrieve(made["id"])
except openai.error.InvalidRequestError as error:
    print("gone", error.http_status)
"""


@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_the_old_client_does_too(
    files: openai.OpenAI, shared: RunningServer, people: People, tmp_path: Path, prefix: str
) -> None:
    assert OLD_CLIENT.is_dir(), "openai 0.28.1 is not installed: run `make install-dev`"
    (tmp_path / "old.jsonl").write_bytes(LINES * 10)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(OLD_CLIENT),
        "PYTHONIOENCODING": "utf-8",
        "OPENAI_API_BASE": f"{shared.url}{prefix}",
        "OPENAI_API_KEY": people.keys["files key"],
    }
    done = subprocess.run(
        [sys.executable, "-c", OLD_SCRIPT],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "gone 404\n"


def test_a_download_is_saved_and_never_shown(http: httpx.Client) -> None:
    for name, kept in (
        ("x.html", "x.html"),
        ('a\\"; filename=\\"b.html', "b.html"),
        ("网页.html", "网页.html"),
        ("a%0d%0aX-Evil: 1", "a%0d%0aX-Evil: 1"),
        ("a\tb\u202etxt.html", "abtxt.html"),
    ):
        made = http.post("/v1/files", **form(GOOD, part("file", b"<script>alert(1)</script>", name))).json()
        assert made["filename"].endswith(kept)
        answer = http.get(f"/v1/files/{made['id']}/content")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment; ")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-length"] == "25"
        assert "no-store" in answer.headers["cache-control"]
        assert "x-evil" not in answer.headers
        assert http.delete(f"/v1/files/{made['id']}").status_code == 200


def test_files_of_others_do_not_exist(files: openai.OpenAI, shared: RunningServer, people: People) -> None:
    """Every route of files with an id × everybody who is not the owner, as if there were nothing."""
    made = files.files.create(file=("a", b"secret"), purpose="user_data")
    upload = files.uploads.create(bytes=6, filename="a", mime_type="text/plain", purpose="user_data")
    part = files.uploads.parts.create(upload.id, data=b"secret")
    ids = {"file_id": made.id, "upload_id": upload.id}
    seen = 0
    with (
        browser(shared, "other") as other,
        browser(shared, "admin") as admin,
        browser(shared, "owner") as owner,
        shared.http(headers=bearer(ADMIN_TOKEN)) as operator,
        shared.http(headers=bearer(people.keys["inference key"])) as narrow,
        shared.http() as nobody,
    ):
        for policy in route_policies(shared.app):
            if policy.action is not Action.USE_FILES or "{" not in policy.path:
                continue
            seen += 1
            for thief, wanted in (
                (other, 404),
                (admin, 404),
                (owner, 404),
                (operator, 404),
                (narrow, 403),
                (nobody, 401),
            ):
                path = policy.path.format(**ids)
                options: dict[str, Any] = {}
                if policy.path.endswith("/parts"):
                    options = {"files": {"data": b"x"}}
                elif policy.path.endswith("/complete"):
                    options = {"json": {"part_ids": [part.id]}}
                answer = thief.request(policy.method, path, **options)
                assert_error(answer, wanted)
                if wanted == 404:
                    assert_error(
                        thief.request(policy.method, re.sub(r"\{.*?\}", "file-none", policy.path), **options), 404
                    )
                    none = thief.request(policy.method, re.sub(r"\{.*?\}", "file-none", policy.path), **options)
                    assert none.json() == answer.json(), "what is there can not be told from what is not"
        assert [item["id"] for item in other.get("/v1/files").json()["data"]] == []
        assert_error(other.get("/v1/files", params={"after": made.id}), 404)
    assert seen >= 12
    with browser(shared, "member") as member:  # the key's user, signed in
        assert member.get(f"/v1/files/{made.id}/content").content == b"secret"
    assert files.uploads.complete(upload.id, part_ids=[part.id]).status == "completed"


def form(*parts: bytes, boundary: str = "XX", end: bool = True) -> dict[str, Any]:
    body = b"".join(b"--XX\r\n" + part + b"\r\n" for part in parts) + (b"--XX--\r\n" if end else b"")
    return {"content": body, "headers": {"Content-Type": f"multipart/form-data; boundary={boundary}"}}


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    extra = f'; filename="{filename}"' if filename is not None else ""
    return f'Content-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + data


GOOD = part("purpose", b"user_data")
FILE = part("file", b"x", "a")
BAD_FORMS = {
    "no file": form(GOOD),
    "no purpose": form(FILE),
    "a wrong purpose": form(part("purpose", b"anything"), FILE),
    "pictures": form(part("purpose", b"vision"), FILE),
    "a purpose of the server's own": form(part("purpose", b"fine-tune-results"), FILE),
    "two files": form(GOOD, FILE, FILE),
    "no end": form(GOOD, FILE, end=False),
    "another boundary": form(GOOD, FILE, boundary="YY"),
    "a boundary of 300 letters": form(GOOD, FILE, boundary="X" * 300),
    "a boundary with tails": form(GOOD, FILE, boundary="XX-" + "-" * 200),
    "many parts": form(*[part(f"f{n}", b"") for n in range(MAX_PARTS)], GOOD, FILE),
    "a large field": form(part("purpose", b"x" * (MAX_FIELD_BYTES + 1)), FILE),
    "large headers": form(b"X-A: " + b"y" * 100_000 + b"\r\n" + GOOD, FILE),
    "a name of 5000 letters": form(GOOD, part("file", b"x", "x" * 5000)),
    "many headers": form(b"X-A: y\r\n" * 1000 + GOOD, FILE),
    "no name": form(b"Content-Disposition: form-data\r\n\r\nx", GOOD, FILE),
    "no disposition": form(b"Content-Type: text/plain\r\n\r\nx", GOOD, FILE),
    "bytes that are no text": form(part("purpose", b"\xff"), FILE),
    "a lifetime without an anchor": form(GOOD, part("expires_after[seconds]", b"3600"), FILE),
    "a lifetime of a minute": form(
        GOOD, part("expires_after[seconds]", b"60"), part("expires_after[anchor]", b"created_at"), FILE
    ),
    "a lifetime of words": form(
        GOOD, part("expires_after[seconds]", b"1e9"), part("expires_after[anchor]", b"created_at"), FILE
    ),
    "lines that are none": form(part("purpose", b"fine-tune"), part("file", b"\x00\x01", "a")),
    "empty": form(),
    "nothing": {"content": b"", "headers": {"Content-Type": "multipart/form-data; boundary=XX"}},
    "noise": {"content": os.urandom(100_000), "headers": {"Content-Type": "multipart/form-data; boundary=XX"}},
}


def test_a_content_that_is_missing_is_an_error_that_no_client_tries_again(
    shared: RunningServer, files: openai.OpenAI, home: Path
) -> None:
    """Its database was restored without it. A 500 would be asked for twice more, and said that the disk is broken."""
    made = files.files.create(file=("a.jsonl", b"{}"), purpose="batch")
    (home / "files" / made.id).unlink()
    with pytest.raises(openai.APIStatusError) as caught:
        files.files.content(made.id)
    assert (caught.value.status_code, caught.value.code) == (410, "file_content_missing")
    assert made.id in caught.value.message
    body = {"input_file_id": made.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    with browser(shared, "member") as member:  # the key's user: the key is for files alone
        answer = member.post("/v1/batches", json=body)
    assert_error(answer, 410)
    assert answer.json()["error"]["code"] == "file_content_missing"
    assert files.files.retrieve(made.id).id == made.id
    assert files.files.delete(made.id).deleted


@pytest.mark.parametrize("name", BAD_FORMS)
def test_a_bad_form_is_a_400_and_leaves_nothing(http: httpx.Client, home: Path, name: str) -> None:
    assert_error(http.post("/v1/files", **BAD_FORMS[name]), 400)
    assert on_disk(home) == []
    assert http.get("/v1/files").json()["data"] == []


@pytest.mark.parametrize(
    "kind", ["application/json", "text/plain", "multipart/form-data", "multipart/mixed; boundary=XX", ""]
)
def test_what_is_no_form_is_a_415(http: httpx.Client, home: Path, kind: str) -> None:
    options = form(GOOD, FILE)
    assert_error(http.post("/v1/files", content=options["content"], headers={"Content-Type": kind}), 415)
    options["headers"]["Content-Encoding"] = "gzip"
    assert_error(http.post("/v1/files", **options), 415)
    assert on_disk(home) == []


@pytest.mark.parametrize(
    "filename", ["../../etc/passwd", "..\\..\\x", "/etc/passwd", "%2e%2e%2fx", "x" * 2000, ".database", ""]
)
def test_a_name_is_never_a_path(http: httpx.Client, home: Path, filename: str) -> None:
    made = http.post("/v1/files", **form(GOOD, part("file", b"x", filename))).json()
    assert on_disk(home) == [made["id"]]
    assert "/" not in made["filename"]
    assert "\\" not in made["filename"]
    assert http.delete(f"/v1/files/{made['id']}").json()["deleted"] is True


@pytest.mark.parametrize(
    "path",
    ["%2e%2e/chatwright.db", "..%2fchatwright.db", "%00", "file-%00", "incoming", ".database", "'%20OR%201=1", "é"],
)
def test_an_id_is_never_a_path_either(http: httpx.Client, path: str) -> None:
    for method, tail in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        assert_error(http.request(method, f"/v1/files/{path}{tail}"), 404)
    assert_error(http.post(f"/v1/uploads/{path}/cancel"), 404)


def test_ten_gigabytes_are_refused_before_they_are_sent(shared: RunningServer, people: People, home: Path) -> None:
    headers = {
        **bearer(people.keys["files key"]),
        "Content-Type": "multipart/form-data; boundary=XX",
        "Content-Length": str(10 * 10**9),
    }
    with shared.connect() as sock:
        sock.sendall(http_request("POST", "/v1/files", b"", headers))
        status, _, body = read_response(sock)
    assert status == 413
    assert b"request_too_large" in body
    assert on_disk(home) == []


def test_a_file_too_large_is_refused_while_it_is_sent(
    files: openai.OpenAI, http: httpx.Client, shared: RunningServer, home: Path
) -> None:
    for size in (2 * MIB + 1, 3 * MIB, 40 * MIB):
        with pytest.raises(openai.APIStatusError) as caught:
            files.files.create(file=("a", b"x" * size), purpose="user_data")
        assert caught.value.status_code == 413
        assert on_disk(home) == []

    def chunks(size: int) -> Iterator[bytes]:
        yield b"--XX\r\n" + part("file", b"", "a")
        for _ in range(size // 65_536):
            yield b"y" * 65_536
        yield b"\r\n--XX\r\n" + GOOD + b"\r\n--XX--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=XX"}
    assert http.post("/v1/files", content=chunks(MIB), headers=headers).status_code == 200
    for size in (3 * MIB, 30 * MIB):
        assert_error(http.post("/v1/files", content=chunks(size), headers=headers), 413)
    assert len(on_disk(home)) == 1


def test_other_routes_take_no_large_bodies(shared: RunningServer, people: People) -> None:
    with shared.http(headers=bearer(people.keys["inference key"])) as http:
        for path in ("/v1/files/x", "/v1/completions", "/v1/uploads"):
            body = b"x" * 17 * MIB
            assert_error(http.post(path, content=body, headers={"Content-Type": "application/json"}), 413)


def test_the_quota_holds_and_says_so(files: openai.OpenAI, shared: RunningServer, home: Path) -> None:
    shared.app.state.server.files.quota_bytes = 3 * MIB
    try:
        made = files.files.create(file=("a", b"x" * 2 * MIB), purpose="user_data")
        with pytest.raises(openai.APIStatusError) as caught:
            files.files.create(file=("b", b"x" * (MIB + 1)), purpose="user_data")
        assert (caught.value.status_code, caught.value.body["code"]) == (413, "storage_quota_exceeded")  # type: ignore[index]
        assert on_disk(home) == [made.id]
        assert files.files.create(file=("b", b"x" * MIB), purpose="user_data").bytes == MIB
    finally:
        shared.app.state.server.files.quota_bytes = 64 * MIB


def test_a_full_disk_is_a_507_that_no_client_repeats(
    files: openai.OpenAI, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage
    asked = []

    def full(path: Path) -> Any:
        asked.append(path)
        return real(path)._replace(free=0)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", full)
        with pytest.raises(openai.APIStatusError) as caught:
            files.with_options(max_retries=2).files.create(file=("a", b"x" * MIB), purpose="user_data")
    assert caught.value.status_code == 507
    assert caught.value.body["code"] == "disk_full"  # type: ignore[index]
    assert str(home) not in str(caught.value)
    assert len(asked) == 1
    assert on_disk(home) == []
    assert files.files.create(file=("a", b"x" * MIB), purpose="user_data").bytes == MIB


def test_who_hangs_up_or_falls_asleep_leaves_nothing(shared: RunningServer, people: People, home: Path) -> None:
    headers = {
        **bearer(people.keys["files key"]),
        "Content-Type": "multipart/form-data; boundary=XX",
        "Content-Length": str(2 * MIB),
    }
    beginning = b"--XX\r\n" + part("file", b"x" * 1_500_000, "a")
    for hangs_up in (True, False):
        with shared.connect() as sock:
            sock.sendall(http_request("POST", "/v1/files", beginning, headers))
            wait_until(lambda: len(on_disk(home)) == 1)
            if not hangs_up:
                assert read_response(sock)[0] == 408
        wait_until(lambda: on_disk(home) == [])
    with shared.http(headers=bearer(people.keys["files key"])) as http:
        assert http.get("/v1/files").json()["data"] == []


def test_a_slow_upload_is_none_that_sleeps(shared: RunningServer, people: People, home: Path) -> None:
    """The whole may take longer than the time in which a pause is one."""
    body = b"--XX\r\n" + GOOD + b"\r\n--XX\r\n" + part("file", b"x" * 6, "a") + b"\r\n--XX--\r\n"
    headers = {
        **bearer(people.keys["files key"]),
        "Content-Type": "multipart/form-data; boundary=XX",
        "Content-Length": str(len(body)),
    }
    with shared.connect() as sock:
        sock.sendall(http_request("POST", "/v1/files", b"", headers))
        for start in range(0, len(body), len(body) // 5):
            sock.sendall(body[start : start + len(body) // 5])
            time.sleep(0.6)  # five of them are longer than read_timeout_s
        status, _, answer = read_response(sock)
    assert status == 200, answer


def test_a_file_that_is_deleted_while_it_is_read_is_read_to_its_end(files: openai.OpenAI, http: httpx.Client) -> None:
    made = files.files.create(file=("a", os.urandom(2 * MIB)), purpose="user_data")
    with http.stream("GET", f"/v1/files/{made.id}/content") as answer:
        pieces = answer.iter_bytes(1000)
        n_bytes = len(next(pieces))
        files.files.delete(made.id)
        n_bytes += sum(map(len, pieces))
    assert n_bytes == 2 * MIB


def test_queries_that_make_no_sense_are_400s(http: httpx.Client) -> None:
    for query in (
        {"limit": 0},
        {"limit": 10_001},
        {"limit": "x"},
        {"order": "up"},
        {"purpose": "\x00"},
        {"after": "x" * 100},
    ):
        assert_error(http.get("/v1/files", params=query), 400)  # type: ignore[arg-type]
    assert_error(http.get("/v1/files", params={"after": "file-none"}), 404)
    good = {"filename": "a", "purpose": "batch", "bytes": 3, "mime_type": "text/jsonl"}
    for wrong in (
        {"bytes": 0},
        {"bytes": -1},
        {"bytes": "3"},
        {"bytes": 2**60},
        {"purpose": "vision"},
        {"mime_type": "a\r\nb"},
        {"expires_after": {"anchor": "now", "seconds": 3600}},
        {"expires_after": {"anchor": "created_at", "seconds": 1}},
    ):
        assert_error(http.post("/v1/uploads", json={**good, **wrong}), 400)
    upload = http.post("/v1/uploads", json=good).json()
    for body in ({}, {"part_ids": []}, {"part_ids": "x"}, {"part_ids": ["part-x"]}, {"part_ids": ["x"], "md5": "x"}):
        assert_error(http.post(f"/v1/uploads/{upload['id']}/complete", json=body), 400)
    assert http.post(f"/v1/uploads/{upload['id']}/cancel").json()["status"] == "cancelled"


@pytest.fixture
async def database(tmp_path: Path) -> Database:
    url = sqlite_url(tmp_path / "chatwright.db")
    await upgrade(url)
    return Database(url)


async def test_without_accounts_files_want_the_admin_token(start: StartServer, database: Database) -> None:
    opened = start(database=database, admin_token=ADMIN_TOKEN)
    with opened.http() as http:
        assert "admin token" in assert_error(http.get("/v1/files"), 401, code="invalid_admin_token")
        assert_error(http.post("/v1/files", **form(GOOD, FILE)), 401)
        made = http.post("/v1/files", **{**form(GOOD, FILE), "headers": form()["headers"] | bearer(ADMIN_TOKEN)}).json()
        assert http.get(f"/v1/files/{made['id']}/content", headers=bearer(ADMIN_TOKEN)).content == b"x"
        assert_error(http.get(f"/v1/files/{made['id']}/content"), 401)
        foreign = {
            "headers": form()["headers"] | {"Origin": "https://evil.example"},
            "content": form(GOOD, FILE)["content"],
        }
        assert_error(http.post("/v1/files", **foreign), 403, code="foreign_request")


def test_the_key_of_a_server_opens_no_files(keyed: RunningServer) -> None:
    with keyed.http(headers={"api-key": KEY.encode()}) as http:
        assert_error(http.get("/v1/files"), 403)


def test_a_database_of_earlier_in_its_place_costs_no_content(start: StartServer, tmp_path: Path) -> None:
    """Copied over by hand, without `db restore`. Put back the same way, it has everything again."""
    people = settle(tmp_path / "home")
    here, earlier, later = (tmp_path / each for each in ("home/chatwright.db", "earlier.db", "later.db"))

    def serve() -> tuple[RunningServer, openai.OpenAI]:
        server = start(accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN)
        return server, openai.OpenAI(base_url=f"{server.url}/v1", api_key=people.keys["files key"], max_retries=0)

    def put(source: Path) -> None:
        for ending in ("-wal", "-shm"):
            here.with_name(here.name + ending).unlink(missing_ok=True)
        shutil.copyfile(source, here)

    server, client = serve()
    old = client.files.create(file=("old.jsonl", LINES), purpose="fine-tune")
    sqlite_file.copy(here, earlier)
    new = client.files.create(file=("new.jsonl", LINES * 2), purpose="fine-tune")
    server.stop()
    shutil.copyfile(here, later)

    put(earlier)
    server, client = serve()
    assert [file.id for file in client.files.list()] == [old.id]
    assert client.files.content(old.id).read() == LINES
    with pytest.raises(openai.NotFoundError):
        client.files.content(new.id)
    [kept] = (tmp_path / "home" / "backups").glob(f"replaced-*/files/{new.id}")
    assert kept.read_bytes() == LINES * 2
    server.stop()

    put(later)
    server, client = serve()
    assert client.files.content(new.id).read() == LINES * 2
    server.stop()


def test_a_server_without_a_database_says_so(start: StartServer) -> None:
    with start(admin_token=ADMIN_TOKEN).http(headers=bearer(ADMIN_TOKEN)) as http:
        assert_error(http.get("/v1/files"), 503, code="database_unavailable")
        assert_error(http.post("/v1/files", **form(GOOD, FILE)), 503)
