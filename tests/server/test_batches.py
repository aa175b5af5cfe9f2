"""Batches with the official client: answered as single requests are, refused by the line, stopped, and continued after a stop."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Batch as BatchObject

from chatwright.errors import DiskFullError
from chatwright.server.batches.folder import BatchFolder
from chatwright.server.batches.lines import MOST_LINES, check, read
from chatwright.server.batches.share import Share
from chatwright.server.permission import route_policies
from chatwright.store import batches as batch_rows
from chatwright.store.accounts import keys, users
from chatwright.store.actor import OPERATOR, Scope
from chatwright.store.database import Database
from chatwright.store.policy import Action
from chatwright.store.tables import Batch
from tests.server.conftest import StartServer
from tests.server.harness import MODEL, RunningServer, assert_error, wait_until
from tests.server.people import ADMIN_TOKEN, People, bearer, browser, settle
from tests.store.people import quick_accounts, signed_in

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
OVER = ("completed", "failed", "cancelled", "expired")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    people = settle(tmp_path_factory.mktemp("batches"))

    async def make_keys(accounts: Any) -> None:
        for name in ("member", "other"):
            async with accounts.database.write() as session:
                user = await users.get_user(session, OPERATOR, people.ids[name])
                scopes = [Scope.FILES, Scope.INFERENCE]
                row, key = await keys.make_own_key(session, signed_in(user), "batches", scopes, None)
                people.keys[f"batch key of {name}"], people.key_ids[f"batch key of {name}"] = key, row.id

    people.do(make_keys)
    return people


@pytest.fixture(scope="module")
def shared(start: StartServer, people: People) -> RunningServer:
    return start(accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN)


@pytest.fixture
def client(shared: RunningServer, people: People) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{shared.url}/v1", api_key=people.keys["batch key of member"], max_retries=0
    ) as client:
        yield client


@pytest.fixture
def home(shared: RunningServer) -> Path:
    return shared.app.state.server.settings.home


def line(number: int, url: str = CHAT, **body: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"prompt": f"{number} The"}
    if url == CHAT:
        asked = {"messages": [{"role": "user", "content": f"{number} 你好"}]}
    body = {"model": MODEL, "max_tokens": 4, "temperature": 0, **asked, **body}
    return {"custom_id": f"line-{number}", "method": "POST", "url": url, "body": body}


def upload(client: openai.OpenAI, *lines: Any) -> str:
    data = b"\n".join(item if isinstance(item, bytes) else json.dumps(item).encode() for item in lines)
    return client.files.create(file=("in.jsonl", data), purpose="batch").id


def begin(client: openai.OpenAI, *lines: Any, endpoint: str = CHAT, **options: Any) -> BatchObject:
    return client.batches.create(
        input_file_id=upload(client, *lines),
        endpoint=endpoint,  # type: ignore[arg-type]
        completion_window="24h",
        **options,
    )


def until_over(client: openai.OpenAI, batch_id: str) -> BatchObject:
    wait_until(lambda: client.batches.retrieve(batch_id).status in OVER, within_s=100)
    raw = client.batches.with_raw_response.retrieve(batch_id)
    BatchObject.model_validate(raw.http_response.json())
    return raw.parse()


def results(client: openai.OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    if file_id is None:
        return {}
    found = [json.loads(text) for text in client.files.content(file_id).text.splitlines()]
    assert len({item["custom_id"] for item in found}) == len(found), "each line is answered once"
    return {item["custom_id"]: item for item in found}


@pytest.mark.parametrize("endpoint", [CHAT, COMPLETIONS])
def test_lines_are_answered_as_single_requests_are(
    client: openai.OpenAI, shared: RunningServer, people: People, home: Path, endpoint: str
) -> None:
    lines = [line(number, endpoint, n=number % 2 + 1) for number in range(12)]
    made = begin(client, *lines, endpoint=endpoint, metadata={"for": "李雷"})
    assert (made.status, made.object, made.completion_window) == ("validating", "batch", "24h")
    assert made.expires_at == made.created_at + 86_400
    done = until_over(client, made.id)
    assert done.status == "completed", done
    assert done.request_counts is not None
    assert results(client, done.error_file_id) == {}
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (12, 12, 0)
    assert (done.error_file_id, done.errors, done.model, done.metadata) == (None, None, MODEL, {"for": "李雷"})
    assert done.in_progress_at
    assert done.finalizing_at
    assert done.completed_at
    answers = results(client, done.output_file_id)
    assert set(answers) == {item["custom_id"] for item in lines}
    n_output = 0
    with shared.http(headers=bearer(people.keys["batch key of member"])) as http:
        for item in lines:
            single = http.post(endpoint, json=item["body"]).json()
            answer = answers[item["custom_id"]]
            assert answer["error"] is None
            assert answer["id"].startswith("batch_req_")
            assert answer["response"]["status_code"] == 200
            assert answer["response"]["request_id"].startswith("req_")
            body = answer["response"]["body"]
            assert body["choices"] == single["choices"]
            assert body["usage"]["completion_tokens"] == single["usage"]["completion_tokens"]
            n_output += body["usage"]["completion_tokens"]
    assert done.usage is not None
    assert done.usage.output_tokens == n_output
    assert done.usage.total_tokens == done.usage.input_tokens + n_output
    assert done.output_file_id is not None
    output = client.files.retrieve(done.output_file_id)
    assert (output.purpose, output.filename) == ("batch_output", f"{done.id}_output.jsonl")
    wait_until(lambda: not (home / "batches" / done.id).exists())
    assert next(iter(client.batches.list(limit=1))).id == done.id
    assert len({batch.id for batch in client.batches.list(limit=1)}) == len(list(client.batches.list()))


def test_vectors_and_responses_come_in_batches_too(
    client: openai.OpenAI, shared: RunningServer, people: People
) -> None:
    def asked(number: int, url: str, **body: Any) -> dict[str, Any]:
        return {"custom_id": f"line-{number}", "method": "POST", "url": url, "body": {"model": MODEL, **body}}

    with shared.http(headers=bearer(people.keys["batch key of member"])) as http:
        vectors = [
            asked(1, "/v1/embeddings", input="猫", dimensions=3),
            asked(2, "/v1/embeddings", input=["a", "b"], encoding_format="base64"),
            asked(3, "/v1/embeddings", input=""),
        ]
        done = until_over(client, begin(client, *vectors, endpoint="/v1/embeddings").id)
        answers = results(client, done.output_file_id)
        for item in vectors[:2]:
            single = http.post("/v1/embeddings", json=item["body"]).json()
            assert answers[item["custom_id"]]["response"]["body"] == single
        assert results(client, done.error_file_id)["line-3"]["response"]["body"]["error"]["param"] == "input"
        assert done.usage is not None
        assert (done.usage.input_tokens > 0, done.usage.output_tokens) == (True, 0)

        said = [
            asked(1, "/v1/responses", input="Hello", temperature=0, max_output_tokens=4, user="Ann"),
            # Nobody would ever see its answer, which would be made beside the share that batches have.
            asked(2, "/v1/responses", input="Hello", background=True),
        ]
        done = until_over(client, begin(client, *said, endpoint="/v1/responses").id)
        body = results(client, done.output_file_id)["line-1"]["response"]["body"]
        assert body["user"] == "Ann"
        assert http.get(f"/v1/responses/{body['id']}").json() == body
        assert done.usage is not None
        assert done.usage.output_tokens == body["usage"]["output_tokens"] == 4
        refused = results(client, done.error_file_id)["line-2"]["response"]
        assert refused["status_code"] == 400
        assert refused["request_id"].startswith("req_")
        assert refused["body"]["error"]["param"] == "background"


def test_a_line_that_fails_costs_no_other(client: openai.OpenAI) -> None:
    lines = [
        line(1),
        line(2, max_tokens=-1),
        line(3, model="no-such-model"),
        line(4, stream=True),
        line(5, messages=[]),
        line(6, user=["x"]),
        line(7, max_tokens=100_000),
        line(8),
    ]
    done = until_over(client, begin(client, *lines, output_expires_after={"anchor": "created_at", "seconds": 3600}).id)
    assert done.status == "completed"
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (2, 6)
    assert set(results(client, done.output_file_id)) == {"line-1", "line-8"}
    errors = results(client, done.error_file_id)
    statuses = {name: item["response"]["status_code"] for name, item in errors.items()}
    assert statuses == {f"line-{n}": 404 if n == 3 else 400 for n in range(2, 8)}
    assert errors["line-2"]["response"]["body"]["error"]["param"] == "max_tokens"
    assert errors["line-7"]["response"]["body"]["error"]["code"] == "context_length_exceeded"
    assert done.error_file_id is not None
    file = client.files.retrieve(done.error_file_id)
    assert file.expires_at == file.created_at + 3600


GOOD = json.dumps(line(1)).encode()
BAD_FILES: dict[str, tuple[list[Any], list[tuple[str, int | None]]]] = {
    "nothing": ([b""], [("empty_batch", None)]),
    "only empty lines": ([b"\n\n  \n"], [("empty_batch", None)]),
    "no json": ([GOOD, b"", b"{broken", b"[]", b"NaN"], [("invalid_json_line", n) for n in (3, 4, 5)]),
    "bytes that are no text": ([line(1, user="x" * 70_000), b'{"custom_id": "\xff"}'], [("invalid_json_line", 2)]),
    "nested too deep": ([b'{"a":' * 70 + b"1" + b"}" * 70], [("invalid_json_line", 1)]),
    "the same id twice": ([line(1), line(2), line(1)], [("duplicate_custom_id", 3)]),
    "no id": (
        [{**line(1), "custom_id": ""}, {**line(2), "custom_id": 3}],
        [("invalid_request", 1), ("invalid_request", 2)],
    ),
    "another endpoint": ([line(1), line(2, COMPLETIONS)], [("url_mismatch", 2)]),
    "another host": ([{**line(1), "url": "https://evil.example/v1/chat/completions"}], [("url_mismatch", 1)]),
    "a path of the web app": ([{**line(1), "url": "/api/users"}], [("url_mismatch", 1)]),
    "another method": ([{**line(1), "method": "GET"}], [("invalid_request", 1)]),
    "no body": (
        [{**line(1), "body": None}, {**line(2), "body": "{}"}],
        [("invalid_request", 1), ("invalid_request", 2)],
    ),
    "two hundred mistakes": ([b"x"] * 200, [("invalid_json_line", n) for n in range(1, 101)]),
    "a line too many": ([b"{}"] * 99 + [GOOD], [("invalid_request", n) for n in range(1, 100)]),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_no_batch_fails_by_the_line(client: openai.OpenAI, home: Path, name: str) -> None:
    lines, wanted = BAD_FILES[name]
    done = until_over(client, begin(client, *lines).id)
    assert done.status == "failed"
    assert done.failed_at
    assert done.errors is not None
    assert done.errors.data is not None
    assert [(error.code, error.line) for error in done.errors.data] == wanted
    assert all(error.message for error in done.errors.data)
    assert (done.output_file_id, done.error_file_id) == (None, None)
    wait_until(lambda: not (home / "batches" / done.id).exists())


def test_one_line_more_than_allowed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    text = b"".join(b'{"custom_id":"%d","method":"POST","url":"/u","body":{}}\n' % n for n in range(MOST_LINES))
    path.write_bytes(b"\xef\xbb\xbf" + text)
    found = check(path, "/u", 2**20)
    assert (found.n_lines, found.mistakes) == (50_000, [])
    with path.open("ab") as stream:
        stream.write(text[:60].split(b"\n")[0])
    [mistake] = check(path, "/u", 2**20).mistakes
    assert (mistake.code, mistake.line) == ("too_many_tasks", 50_001)
    long = b'{"custom_id":"long","method":"POST","url":"/u","body":{"x":"' + b"x" * 5000 + b'"}}\n'
    path.write_bytes(text[:60].split(b"\n")[0] + b"\n" + long + long.replace(b"long", b"last")[:70] + b'"}}')
    found = check(path, "/u", 4096)
    assert [(mistake.code, mistake.line) for mistake in found.mistakes] == [("invalid_json_line", 2)]
    assert [item.number for item in read(path, "/u", 4096)] == [1, 3]


def test_what_cannot_be_a_batch_is_refused(client: openai.OpenAI, shared: RunningServer, people: People) -> None:
    good = {"input_file_id": upload(client, line(1)), "endpoint": CHAT, "completion_window": "24h"}
    other_purpose = client.files.create(file=("a.jsonl", GOOD), purpose="fine-tune").id
    with shared.http(headers=bearer(people.keys["batch key of member"])) as http:
        for wrong, status, param in (
            ({"endpoint": "/v1/files"}, 400, "endpoint"),
            ({"endpoint": "/v1/images/generations"}, 400, "endpoint"),
            ({"endpoint": "/api/users"}, 400, "endpoint"),
            ({"completion_window": "1h"}, 400, "completion_window"),
            ({"input_file_id": other_purpose}, 400, "input_file_id"),
            ({"input_file_id": "file-none"}, 404, "input_file_id"),
            ({"input_file_id": "../x"}, 404, "input_file_id"),
            ({"metadata": {str(n): "x" for n in range(17)}}, 400, "metadata"),
            ({"metadata": {"x" * 65: "x"}}, 400, "metadata"),
            ({"metadata": {"x": "x" * 513}}, 400, "metadata"),
            ({"metadata": {"x": "\0"}}, 400, "metadata"),
            ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, 400, "output_expires_after.seconds"),
        ):
            assert_error(http.post("/v1/batches", json={**good, **wrong}), status, param=param)
        for query in ({"limit": 0}, {"limit": 101}):
            assert_error(http.get("/v1/batches", params=query), 400)
        assert_error(http.get("/v1/batches", params={"after": "batch-none"}), 404)
    with shared.http(headers=bearer(people.keys["files key"])) as http:
        assert "inference" in assert_error(http.post("/v1/batches", json=good), 403)
    with shared.http(headers=bearer(people.keys["batch key of other"])) as http:
        assert_error(http.post("/v1/batches", json=good), 404)


def test_batches_of_others_do_not_exist(client: openai.OpenAI, shared: RunningServer, people: People) -> None:
    made = begin(client, line(1))
    seen = 0
    with (
        browser(shared, "owner") as owner,
        shared.http(headers=bearer(people.keys["batch key of other"])) as other,
        shared.http(headers=bearer(ADMIN_TOKEN)) as operator,
    ):
        for policy in route_policies(shared.app):
            if policy.action is not Action.USE_BATCHES or "{" not in policy.path:
                continue
            seen += 1
            for thief in (owner, other, operator):
                answer = thief.request(policy.method, policy.path.format(batch_id=made.id))
                assert_error(answer, 404)
                none = thief.request(policy.method, re.sub(r"\{.*?\}", "batch-none", policy.path))
                assert none.json() == answer.json()
        assert other.get("/v1/batches").json()["data"] == []
    assert seen >= 4
    assert until_over(client, made.id).status == "completed"


@pytest.fixture
def crawling(start: StartServer, tmp_path: Path) -> tuple[RunningServer, People]:
    """A server of its own in which a line takes about a second."""
    people = settle(tmp_path)
    server = start(
        accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN, slow_step_s=0.03, batch_lines=2
    )
    return server, people


def as_operator(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=ADMIN_TOKEN, max_retries=0)


SLOW = {"max_tokens": 30, "logit_bias": {"0": -100, "2": -100}}


def n_completed(client: openai.OpenAI, batch_id: str) -> int:
    counts = client.batches.retrieve(batch_id).request_counts
    return counts.completed if counts else 0


def test_a_cancelled_batch_keeps_what_it_has(crawling: tuple[RunningServer, People]) -> None:
    server, _ = crawling
    with as_operator(server) as client:
        made = begin(client, *(line(n, **SLOW) for n in range(40)))
        wait_until(lambda: n_completed(client, made.id) >= 2)
        assert client.batches.cancel(made.id).status == "cancelling"
        done = until_over(client, made.id)
        assert done.status == "cancelled"
        assert done.cancelling_at
        assert done.cancelled_at
        assert done.request_counts is not None
        assert done.request_counts.total == 40
        assert 2 <= done.request_counts.completed < 40
        assert len(results(client, done.output_file_id)) == done.request_counts.completed
        assert done.error_file_id is None
        wait_until(lambda: server.load() == (0, 0))
        with pytest.raises(openai.BadRequestError):
            client.batches.cancel(made.id)


def test_an_expired_batch_says_which_lines_it_did_not_come_to(crawling: tuple[RunningServer, People]) -> None:
    server, people = crawling
    with as_operator(server) as client:
        made = begin(client, *(line(n, **SLOW) for n in range(40)))
        wait_until(lambda: n_completed(client, made.id) >= 2)

        async def expire(accounts: Any) -> None:
            async with accounts.database.write() as session:
                (await session.get_one(Batch, made.id)).expires_at = 1

        people.do(expire)
        done = until_over(client, made.id)
        assert done.status == "expired"
        assert done.expired_at
        good, bad = results(client, done.output_file_id), results(client, done.error_file_id)
        assert set(good) | set(bad) == {f"line-{n}" for n in range(40)}
        assert {item["error"]["code"] for item in bad.values()} == {"batch_expired"}
        assert {item["response"] for item in bad.values()} == {None}
        assert done.request_counts is not None
        assert (done.request_counts.completed, done.request_counts.failed) == (len(good), len(bad))


@pytest.mark.parametrize("how", ["suspended", "removed"])
def test_a_batch_ends_with_its_user(crawling: tuple[RunningServer, People], how: str) -> None:
    server, people = crawling
    home = server.app.state.server.settings.home
    with browser(server, "member") as member:
        lines = "\n".join(json.dumps(line(n, **SLOW)) for n in range(40)).encode()
        file = member.post("/v1/files", files={"file": lines}, data={"purpose": "batch"}).json()
        made = member.post(
            "/v1/batches", json={"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
        ).json()
        wait_until(lambda: member.get(f"/v1/batches/{made['id']}").json()["request_counts"]["completed"] >= 1)

    async def end(accounts: Any) -> None:
        async with accounts.database.write() as session:
            await (users.suspend if how == "suspended" else users.remove_user)(session, OPERATOR, people.ids["member"])

    async def look(accounts: Any) -> Batch | None:
        async with accounts.database.read() as session:
            found: Batch | None = await session.get(Batch, made["id"])
            return found

    people.do(end)
    if how == "suspended":
        wait_until(lambda: people.do(look).status == "failed")
        batch = people.do(look)
        assert json.loads(batch.errors)[0]["code"] == "user_suspended"
        assert batch.output_file_id is not None
    else:
        assert people.do(look) is None
    wait_until(lambda: server.load() == (0, 0))
    if how == "suspended":
        wait_until(lambda: not (home / "batches" / made["id"]).exists())


def test_a_batch_goes_on_where_the_last_server_stopped(start: StartServer, tmp_path: Path) -> None:
    people = settle(tmp_path)

    def serve() -> RunningServer:
        return start(
            accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN, slow_step_s=0.02, batch_lines=3
        )

    server = serve()
    with as_operator(server) as client:
        made = begin(client, *(line(n, **SLOW) for n in range(14)))
        client.files.delete(made.input_file_id)  # what a batch reads is its own
        kept = tmp_path / "batches" / made.id / "results.jsonl"
        wait_until(lambda: kept.exists() and kept.read_bytes().count(b"\n") >= 3)
    server.stop()
    before = {item["custom_id"]: item for item in map(json.loads, kept.read_bytes().splitlines())}
    assert 3 <= len(before) < 14
    with kept.open("ab") as stream:
        stream.write(b'{"id": "batch_req_half", "custom_id": "line-13", "respo')  # as a kill leaves it
    with as_operator(serve()) as client:
        done = until_over(client, made.id)
        assert done.status == "completed"
        answers = results(client, done.output_file_id)
    assert set(answers) == {f"line-{n}" for n in range(14)}
    assert {name: answers[name] for name in before} == before, "what was answered is not answered again"
    assert answers["line-13"]["id"] != "batch_req_half"


def test_batches_wait_behind_a_name_of_their_own(client: openai.OpenAI, shared: RunningServer) -> None:
    """A batch never takes the turn of its owner's chats, and finds nothing that others left in the cache."""
    engine: Any = shared.model.engine
    generate, owners = engine.generate, []

    def noting(request: Any) -> Any:
        owners.append(request.owner)
        return generate(request)

    engine.generate = noting
    try:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}], max_tokens=1)
        until_over(client, begin(client, line(1), line(2, user="ann"), line(3, user="bob")).id)
        until_over(client, begin(client, line(1)).id)
    finally:
        engine.generate = generate
    assert len(owners) == 5
    assert len(set(owners)) == 5
    assert all(owners)


def test_there_are_so_many_batches_and_no_more(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_rows, "MOST_OPEN", 0)
    with pytest.raises(openai.APIStatusError) as caught:
        begin(client, line(1))
    assert caught.value.status_code == 413


async def test_a_share_is_small_beside_others_and_comes_in_turn() -> None:
    others, most_seen, order = 0, 0, []
    share = Share(3, lambda own: others)

    async def one(number: int) -> None:
        nonlocal most_seen
        async with share.place(1):
            order.append(number)
            most_seen = max(most_seen, share.taken)
            await asyncio.sleep(0.02)

    await asyncio.gather(*(one(number) for number in range(9)))
    assert (most_seen, order) == (3, list(range(9)))
    others, most_seen = 1, 0
    await asyncio.gather(*(one(number) for number in range(4)))
    assert most_seen == 1
    assert (share.taken, share.n_choices) == (0, 0)


async def test_answers_survive_a_disk_that_was_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in"
    source.write_bytes(GOOD)
    folder = BatchFolder(tmp_path, "batch-1")
    folder.create(source)
    assert folder.open().done == set()
    answer = {
        "custom_id": "a",
        "response": {"status_code": 200, "body": {"usage": {"prompt_tokens": 3}}},
        "error": None,
    }
    await folder.append(answer)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFullError):
            await folder.append({**answer, "custom_id": "lost" * 1000})
    await folder.append({**answer, "custom_id": "b", "response": {"status_code": 400, "body": {}}})
    await folder.close()
    found = BatchFolder(tmp_path, "batch-1")
    results = found.open()
    assert results.done == {"a", "b"}
    assert (results.tally.n_completed, results.tally.n_failed, results.tally.input_tokens) == (1, 1, 3)
    assert [item["custom_id"] for item in found.results()] == ["a", "b"]
    found.remove()
    assert not found.exists
    assert source.read_bytes() == GOOD


async def test_an_answer_under_way_to_the_disk_arrives_whole(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(GOOD)
    folder = BatchFolder(tmp_path, "batch-1")
    folder.create(tmp_path / "in")
    folder.open()
    answer = {"custom_id": "a", "response": {"status_code": 200, "body": {"x": "x" * 100_000}}, "error": None}
    task = asyncio.create_task(folder.append(answer))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await folder.close()
    assert BatchFolder(tmp_path, "batch-1").open().done == {"a"}


def test_without_accounts_batches_want_the_admin_token(server: RunningServer) -> None:
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        assert http.get("/v1/batches").status_code in (401, 403)
        assert http.post("/v1/batches", json={}).status_code in (400, 401, 403)
