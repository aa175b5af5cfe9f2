"""What broke the neighbours of this server, tried on its platform: files, jobs, keys. docs/en/threats.md says which test is for
which threat; those here are the ones that no other file has."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from chatwright.store.database import Database
from chatwright.store.url import parse_url
from tests.jobs.making import CATS, lines
from tests.server.conftest import StartServer
from tests.server.harness import MODEL, RunningServer, assert_error
from tests.server.people import ADMIN_TOKEN, People, bearer, browser, email, settle
from tests.store.people import PASSWORD, quick_accounts

CANARY = "kanarienvogel7391"
HUGE = (2**31, 2**63 - 1, 2**63, 2**64, 10**400)
# As JSON has them, and as it should not.
NO_NUMBERS = ("-1", *map(str, HUGE), "1e400", "-1e400", "NaN", "Infinity", "1.5", '"1"', "true", "[]", "{}")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def people(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> People:
    if request.param == "sqlite":
        return settle(tmp_path_factory.mktemp("threats"))
    cluster, name = request.getfixturevalue("cluster"), f"threats_{secrets.token_hex(4)}"
    cluster.sql(f"CREATE DATABASE {name}")
    return settle(parse_url(cluster.url(name)))


@pytest.fixture(scope="module")
def shared(start: StartServer, people: People) -> RunningServer:
    return start(
        accounts=quick_accounts(Database(people.url)),
        admin_token=ADMIN_TOKEN,
        organization="acme",
        log_format="json",
    )


@pytest.fixture
def mine(shared: RunningServer, people: People) -> Iterator[httpx.Client]:
    with shared.http(headers=bearer(people.keys["full key"])) as http:
        yield http


def send(http: httpx.Client, content: bytes = b"x", purpose: str = "user_data", **fields: str) -> dict[str, Any]:
    answer = http.post("/v1/files", files={"file": ("a.jsonl", content)}, data={"purpose": purpose, **fields})
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_a_page_of_another_site_uploads_nothing(shared: RunningServer) -> None:
    """A form is what a page may send anywhere, with the cookie of whoever is signed in."""
    form: dict[str, Any] = {"files": {"file": ("a", b"x")}, "data": {"purpose": "user_data"}}
    with browser(shared, "member") as http:
        assert http.post("/v1/files", **form).status_code == 200
        n_files = len(http.get("/v1/files").json()["data"])
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"X-CSRF-Token": ""},
            {"X-CSRF-Token": "x"},
        ):
            assert_error(http.post("/v1/files", headers=headers, **form), 403)
        del http.headers["X-CSRF-Token"]
        assert_error(http.post("/v1/files", **form), 403, code="csrf")
        assert len(http.get("/v1/files").json()["data"]) == n_files


@pytest.mark.parametrize(
    "ranges",
    ["bytes=0-0", "bytes=-1", "bytes=5-1", "bytes=" + ",".join(f"{n}-" for n in range(5000)), "bytes=" + "0-0," * 9000],
)
def test_ranges_are_not_counted(mine: httpx.Client, ranges: str) -> None:
    """Neighbours computed for minutes what thousands of them come to: here a content is sent as a whole."""
    made = send(mine, b"0123456789")
    answer = mine.get(f"/v1/files/{made['id']}/content", headers={"Range": ranges})
    assert (answer.status_code, answer.content) == (200, b"0123456789")


@pytest.mark.parametrize(
    "kind",
    [
        'multipart/form-data; !="' + "\\" * 30_000,
        "multipart/form-data; " + "a=b; " * 6000 + "boundary=XX",
        'multipart/form-data; boundary="' + "\\\\" * 10_000 + '"',
        "multipart/form-data;" + " " * 30_000 + "x",
        "multipart/form-data; boundary*0*=utf-8''" + "%41" * 5000,
    ],
    ids=["backslashes", "parameters", "quoted", "spaces", "continued"],
)
def test_a_content_type_that_is_hard_to_read_is_refused(mine: httpx.Client, kind: str) -> None:
    for path in ("/v1/files", "/v1/uploads", "/v1/fine_tuning/jobs", "/v1/completions"):
        answer = mine.post(path, content=b"--XX--\r\n", headers={"Content-Type": kind})
        assert answer.status_code in (400, 415), (path, answer.text)
    assert mine.get("/v1/models").status_code == 200


def test_no_field_makes_anything_somebody_elses_or_something_else(
    mine: httpx.Client, shared: RunningServer, people: People
) -> None:
    """/v1 ignores fields that it does not know, as clients add some: so none of them may mean anything."""
    other = people.ids["other"]
    extra = {"user_id": other, "owner": other, "owner_id": other, "id": "file-mine", "status": "error", "bytes": "0"}
    made = send(mine, b"12345", created_at="0", sha256="0", **extra)
    assert (made["bytes"], made["status"]) == (5, "processed")
    assert made["id"] != "file-mine"
    assert made["created_at"] > 0
    training = send(mine, lines(*CATS), "fine-tune")["id"]
    wanted = {
        "user_id": other,
        "id": "ftjob-mine",
        "place": "place-x",
        "state": "succeeded",
        "status": "succeeded",
        "fine_tuned_model": "ft:mine",
        "model_name": "ft:mine",
        "base_path": "/etc",
        "organization_id": "evil",
        "kind": "shell",
    }
    answer = mine.post("/v1/fine_tuning/jobs", json={"model": MODEL, "training_file": training, **wanted})
    job = answer.json()
    assert answer.status_code == 200, answer.text
    assert mine.post(f"/v1/fine_tuning/jobs/{job['id']}/cancel").status_code == 200
    assert job["id"] != "ftjob-mine"
    assert (job["fine_tuned_model"], job["model"]) == (None, MODEL)
    assert job["status"] not in ("succeeded", "failed")
    assert job["organization_id"] != "evil"
    with shared.http(headers=bearer(people.keys["full key of other"])) as theirs:
        assert theirs.get("/v1/files").json()["data"] == []
        assert theirs.get("/v1/fine_tuning/jobs").json()["data"] == []


@pytest.mark.parametrize(
    "name",
    [
        "ft:../../chatwright.db",
        f"ft:{MODEL}:acme::..%2f..%2fx",
        "..%2f..%2fchatwright.db",
        "%2e%2e/%2e%2e/chatwright.db",
        "..\\..\\chatwright.db",
        "%2Fetc%2Fpasswd",
        "C:%5Cx",
        f"ft:{MODEL}:acme::x:ckpt-step-..%2f1",
        f"ft:{MODEL}:acme::x:ckpt-step--1",
        f"ft:{MODEL}:acme::x:ckpt-step-{10**400}",
        "ft:%00",
        "ft:" + "x" * 5000,
        "' OR 1=1 --",
        "é",
    ],
)
def test_a_model_is_found_and_deleted_by_its_name_only(
    mine: httpx.Client, shared: RunningServer, people: People, name: str
) -> None:
    home: Path = shared.app.state.server.settings.home
    before = sorted(path.name for path in home.iterdir())
    with shared.http(headers=bearer(ADMIN_TOKEN)) as operator:
        for http in (mine, operator):
            for method in ("GET", "DELETE"):
                assert_error(http.request(method, f"/v1/models/{name}"), 404)
    assert sorted(path.name for path in home.iterdir()) == before


@pytest.mark.parametrize(
    "name",
    [
        "hf:org/name",
        "modelscope:org/name",
        "https://127.0.0.1:1/model",
        "file:///etc/passwd",
        "//evil.example/share",
        "\\\\evil.example\\share",
        "/etc",
        "./x",
        "~/x",
        "x\x00y",
        "$(touch x)",
        "' OR 1=1 --",
    ],
)
def test_a_job_trains_what_is_served_and_fetches_nothing(mine: httpx.Client, name: str) -> None:
    training = send(mine, lines(*CATS), "fine-tune")["id"]
    body = {"model": name, "training_file": training}
    assert_error(mine.post("/v1/fine_tuning/jobs", json=body), 404, param="model")
    assert_error(mine.post("/v1/fine-tunes", json=body), 404, param="model")


@pytest.mark.parametrize("text", ["\x00", "ft:\x00", "\ud800", "ft:\ud800", "\x7f\x1b[2J\u202e"])
def test_texts_that_no_database_keeps_are_no_crash(
    shared: RunningServer, mine: httpx.Client, people: People, text: str
) -> None:
    """PostgreSQL takes no NUL, and nothing takes half a character: in whatever field, the answer is no 5xx."""
    training = send(mine, lines(*CATS), "fine-tune")["id"]
    asked = {"prompt": "x", "max_tokens": 1}
    job = {"model": MODEL, "training_file": training}
    upload = {"filename": "a", "purpose": "user_data", "mime_type": "text/plain", "bytes": 1}
    with browser(shared, "admin") as admin, browser(shared, "other") as other:
        for http, method, path, body in (
            (mine, "POST", "/v1/completions", {**asked, "model": text}),
            (mine, "POST", "/v1/completions", {**asked, "model": MODEL, "user": text, "prompt": text}),
            (mine, "POST", "/v1/fine_tuning/jobs", {**job, "model": text}),
            (mine, "POST", "/v1/fine_tuning/jobs", {**job, "training_file": text}),
            (mine, "POST", "/v1/fine_tuning/jobs", {**job, "metadata": {text: text}, "seed": -1}),
            (mine, "POST", "/v1/uploads", {**upload, "filename": text}),
            (mine, "POST", "/v1/uploads", {**upload, "mime_type": text}),
            (admin, "PUT", "/api/limits", {"model": text, "requests_per_minute": 10**9}),
            (admin, "PUT", "/api/limits", {"user_id": text, "requests_per_minute": 10**9}),
            (admin, "PUT", "/api/limits", {"key_id": text, "requests_per_minute": 10**9}),
            (admin, "POST", "/api/users", {"email": f"{text}@example.org"}),
            (other, "POST", "/api/keys", {"name": text}),
            (other, "PATCH", "/api/account", {"name": text}),
            (other, "POST", "/api/conversations", {"title": text}),
            (other, "POST", "/api/session", {"email": text, "password": text}),
            (other, "POST", "/api/welcome", {"token": text, "password": text}),
        ):
            content = json.dumps(body).encode()
            answer = http.request(method, path, content=content, headers={"Content-Type": "application/json"})
            assert answer.status_code < 500, (path, body, answer.text)
        quoted = quote(text, errors="surrogatepass")
        for http, path in (
            (mine, f"/v1/models/{quoted}"),
            (mine, f"/v1/files?purpose={quoted}"),
            (mine, f"/v1/files?after={quoted}"),
            (mine, f"/v1/fine_tuning/jobs?after={quoted}"),
            (mine, f"/v1/fine_tuning/jobs?metadata[{quoted}]={quoted}"),
            (admin, f"/v1/organization/usage/completions?start_time=1&models={quoted}"),
            (admin, f"/v1/organization/usage/completions?start_time=1&user_ids={quoted}"),
            (admin, f"/v1/organization/usage/completions?start_time=1&api_key_ids={quoted}"),
            (admin, f"/v1/organization/usage/completions?start_time=1&page={quoted}"),
            (admin, f"/api/users/{quoted}"),
            (admin, f"/api/users/{quoted}/keys"),
            (other, f"/api/conversations/{quoted}"),
            (other, f"/api/oidc/callback?state={quoted}&code={quoted}"),
        ):
            answer = http.get(path)
            assert answer.status_code < 500, (path, answer.text)
        assert admin.delete(f"/api/users/{quoted}").status_code in (400, 404)
    for job_ in mine.get("/v1/fine_tuning/jobs").json()["data"]:
        mine.post(f"/v1/fine_tuning/jobs/{job_['id']}/cancel")


def fields(file_id: str) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """What → (method, path, body) with N where the number stands."""
    job = {"model": MODEL, "training_file": file_id}
    upload = {"filename": "a", "purpose": "user_data", "mime_type": "text/plain", "bytes": 1}
    numbers = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "tokens_per_month")
    return {
        "bytes of an upload": ("POST", "/v1/uploads", {**upload, "bytes": "N"}),
        "seconds of an upload": (
            "POST",
            "/v1/uploads",
            {**upload, "expires_after": {"anchor": "created_at", "seconds": "N"}},
        ),
        "epochs": ("POST", "/v1/fine_tuning/jobs", {**job, "hyperparameters": {"n_epochs": "N"}}),
        "batch size": ("POST", "/v1/fine_tuning/jobs", {**job, "hyperparameters": {"batch_size": "N"}}),
        "seed": ("POST", "/v1/fine_tuning/jobs", {**job, "seed": "N"}),
        "epochs of old": ("POST", "/v1/fine-tunes", {**job, "n_epochs": "N"}),
        "expiry of a key": ("POST", "/api/keys", {"name": "x", "expires_at": "N"}),
        **{each: ("PUT", "/api/limits", {"model": MODEL, each: "N"}) for each in numbers},
    }


# A limit of two thousand million tokens is one, and a key may expire in that many seconds of Unix time.
POSSIBLE = {"expiry of a key": {str(2**31)}, "bytes of an upload": {str(2**31)}}


def test_numbers_out_of_range_are_400s(shared: RunningServer, mine: httpx.Client) -> None:
    """-1, 2^63, 1e400 and their kin, in every field that is a number: an error object, never a crash, and nothing is made."""
    training = send(mine, lines(*CATS), "fine-tune")["id"]
    with browser(shared, "admin") as admin, browser(shared, "member") as member:
        n_keys = len(member.get("/api/keys").json()["data"])
        n_jobs = len(mine.get("/v1/fine_tuning/jobs").json()["data"])
        limits = admin.get("/api/limits").json()
        for what, (method, path, body) in fields(training).items():
            http = mine if path.startswith("/v1") else admin if "limits" in path else member
            for number in NO_NUMBERS:
                if what == "epochs of old" and number in ('"1"', "true"):  # its clients were not strict
                    continue
                if number in POSSIBLE.get(what, ()) or (path == "/api/limits" and number == str(2**31)):
                    continue
                content = json.dumps(body).replace('"N"', number).encode()
                answer = http.request(method, path, content=content, headers={"Content-Type": "application/json"})
                assert answer.status_code in (400, 413), (what, number[:30], answer.text)
                assert_error(answer, answer.status_code)
        for path in (
            "/v1/files?limit=N",
            "/v1/fine_tuning/jobs?limit=N",
            "/v1/organization/usage/completions?start_time=N",
            "/v1/organization/usage/completions?start_time=1&limit=N",
        ):
            for number in ("-1", *map(str, HUGE[1:]), "1e400", "NaN", "x"):
                http = admin if "organization" in path else mine
                answer = http.get(path.replace("N", number))
                assert answer.status_code == 400, (path, number[:30], answer.text)
        assert len(member.get("/api/keys").json()["data"]) == n_keys
        assert len(mine.get("/v1/fine_tuning/jobs").json()["data"]) == n_jobs
        assert admin.get("/api/limits").json() == limits


def test_no_log_line_holds_what_people_keep_here(
    shared: RunningServer, people: People, mine: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Names and contents of files, examples, suffixes and metadata of jobs, names and secrets of people and keys, questions."""
    bad = lines(*CATS) + b'{"messages": [{"role": "%s"}]}\n' % CANARY.encode()
    with caplog.at_level(logging.INFO):
        name = f"{CANARY}.jsonl"
        answer = mine.post("/v1/files", files={"file": (name, bad)}, data={"purpose": "fine-tune"})
        file_id = answer.json()["id"]
        assert mine.post("/v1/files", files={"file": (name, b"x")}, data={"purpose": CANARY}).status_code == 400
        for path in (f"/v1/files/{CANARY}", f"/v1/files/{CANARY}/content", f"/v1/fine_tuning/jobs/{CANARY}"):
            assert mine.get(path).status_code == 404
        asked = {"suffix": CANARY, "metadata": {CANARY: CANARY}, "model": MODEL, "training_file": file_id}
        job = mine.post("/v1/fine_tuning/jobs", json=asked).json()
        with browser(shared, "member") as member:
            made = member.post("/api/keys", json={"name": CANARY}).json()
            member.patch("/api/account", json={"name": CANARY})
            member.post("/api/conversations", json={"title": CANARY})
        with shared.http() as http:
            for password in (CANARY, PASSWORD + CANARY):
                http.post("/api/session", json={"email": f"{CANARY}@example.org", "password": password})
            http.post("/api/session", json={"email": email("member"), "password": CANARY})
            http.get("/v1/models", headers=bearer(f"sk-cw-{CANARY}"))
            http.post("/api/welcome", json={"token": CANARY, "password": CANARY})
            http.get("/api/oidc/callback", params={"code": CANARY, "state": CANARY})
        assert mine.post(f"/v1/fine_tuning/jobs/{job['id']}/cancel").status_code == 200
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert len([record for record in ours if record.name == "chatwright.access"]) >= 10
    text = "\n".join(logging.Formatter("%(message)s").format(record) + str(record.__dict__) for record in ours)
    for secret in (CANARY, made["key"], people.keys["full key"], PASSWORD):
        assert secret not in text
