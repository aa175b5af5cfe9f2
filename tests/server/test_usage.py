"""Limits and usage of a running server: what answers say is counted, whatever becomes of them, and no budget is exceeded."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, select

from chatwright.server.permission import route_policies
from chatwright.store.accounts.service import Accounts
from chatwright.store.accounts.sessions import begin_session
from chatwright.store.actor import OPERATOR
from chatwright.store.database import Database
from chatwright.store.migrate import upgrade
from chatwright.store.policy import Action
from chatwright.store.tables import Reservation, Usage, User
from chatwright.store.url import parse_url, sqlite_url
from chatwright.store.usage.limits import Figure, Subject, set_limit
from tests.server.conftest import StartServer
from tests.server.harness import MODEL, RunningServer, assert_error, events_of, http_request, wait_until
from tests.server.people import ADMIN_TOKEN, People, bearer, browser, settle
from tests.server.talks import begin, look, stop
from tests.server.test_engine_failures import BAD_ID, FailingRunner
from tests.store.people import quick_accounts
from tests.store.postgres import Cluster

NO_END = {"2": -100}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Where is the cat?"}]}


class Server:
    """A server with accounts, and what its database says."""

    def __init__(self, running: RunningServer, people: People) -> None:
        self.running, self.people = running, people

    def limit(self, figures: Mapping[Figure, int | None], **subject: str) -> None:
        """As the command line does it, beside the running server."""

        async def work(accounts: Accounts) -> None:
            async with accounts.database.write() as session:
                await set_limit(
                    session, OPERATOR, Subject(**(subject or {"user_id": self.people.ids["member"]})), figures
                )

        self.people.do(work)

    def used(self) -> tuple[int, int, int]:
        """(requests, tokens of prompts, tokens of answers) of all rows."""

        async def work(accounts: Accounts) -> Any:
            sums = [func.coalesce(func.sum(c), 0) for c in (Usage.requests, Usage.input_tokens, Usage.output_tokens)]
            async with accounts.database.read() as session:
                return tuple(map(int, (await session.execute(select(*sums))).one()))

        return self.people.do(work)  # type: ignore[no-any-return]

    def is_settled(self) -> bool:
        """Nothing is reserved."""

        async def work(accounts: Accounts) -> Any:
            async with accounts.database.read() as session:
                return await session.scalar(select(func.count()).select_from(Reservation)) == 0

        return bool(self.people.do(work))

    def since(self, before: tuple[int, int, int]) -> tuple[int, int, int]:
        after = self.used()
        return after[0] - before[0], after[1] - before[1], after[2] - before[2]

    def program(self, key: str = "inference key") -> httpx.Client:
        return self.running.http(headers=bearer(self.people.keys[key]))

    def operator(self) -> httpx.Client:
        return self.running.http(headers=bearer(ADMIN_TOKEN))

    def client(self, key: str = "inference key") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.running.url}/v1", api_key=self.people.keys[key], max_retries=0)

    def metrics(self) -> dict[str, float]:
        """Sums of all series of a name."""
        with self.operator() as http:
            text = http.get("/metrics").text
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0) + sample.value
        return sums


def make(start: StartServer, place: Any, **settings: Any) -> Server:
    people = settle(place)
    accounts = quick_accounts(Database(people.url))
    return Server(start(accounts=accounts, admin_token=ADMIN_TOKEN, **settings), people)


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, start: StartServer, tmp_path: Path) -> Server:
    """On each kind of database."""
    place = parse_url(request.getfixturevalue("postgres_url")) if request.param == "postgresql" else tmp_path
    return make(start, place)


@pytest.fixture(scope="module")
def shared(start: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """For tests that limit nothing."""
    return make(start, tmp_path_factory.mktemp("usage"))


@pytest.fixture
def own(start: StartServer, tmp_path: Path) -> Server:
    return make(start, tmp_path)


@pytest.fixture
def slow_own(start: StartServer, tmp_path: Path) -> Server:
    return make(start, tmp_path, slow_step_s=0.02)


async def at_once(server: Server, bodies: list[tuple[str, dict[str, Any]]]) -> list[httpx.Response]:
    """All of them at the same time, as the member."""
    limits = httpx.Limits(max_connections=None)
    headers = bearer(server.people.keys["inference key"])
    async with httpx.AsyncClient(
        base_url=server.running.url, trust_env=False, timeout=120, headers=headers, limits=limits
    ) as http:
        return await asyncio.gather(*(http.post(path, json=body) for path, body in bodies))


async def test_fifty_requests_at_once_get_not_one_token_more_than_there_are(either: Server) -> None:
    budget = 700
    await asyncio.to_thread(either.limit, {"tokens_per_month": budget})
    prompt = {"model": MODEL, "prompt": "The capital", "logit_bias": NO_END}
    bodies: list[tuple[str, dict[str, Any]]] = []
    for number in range(50):
        body: dict[str, Any] = {**prompt, "max_tokens": 5 + number}
        if number % 3 == 1:
            body = {**prompt, "n": 2}
        if number % 3 == 2:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        bodies.append(("/v1/completions", body))
    spent = n_good = 0
    for _ in range(3):
        for answer in await at_once(either, bodies):
            if answer.status_code == 200:
                stream = answer.headers["content-type"].startswith("text/event-stream")
                usage = (events_of(answer.text)[-1] if stream else answer.json())["usage"]
                spent += usage["total_tokens"]
                n_good += 1
            else:
                assert_error(answer, 429, code="insufficient_quota")
                assert answer.json()["error"]["type"] == "insufficient_quota"
    requests, n_input, n_output = await asyncio.to_thread(either.used)
    assert (requests, n_input + n_output) == (n_good, spent)
    assert 0 <= budget - spent < 12, "not one token over, and no more left than is too little for anybody"
    assert await asyncio.to_thread(either.is_settled)


def test_without_max_tokens_an_answer_ends_where_nothing_is_left(own: Server) -> None:
    own.limit({"tokens_per_month": 60})
    with own.client() as client:
        answer = client.chat.completions.create(**CHAT, logit_bias=NO_END)  # type: ignore[call-overload]
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.total_tokens == 60
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(**CHAT)  # type: ignore[call-overload]
    assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
    assert int(refused.value.response.headers["retry-after"]) > 0
    assert refused.value.response.headers["x-should-retry"] == "false"
    own.limit({"tokens_per_month": 100})
    with own.program() as http:
        stream = http.post("/v1/chat/completions", json={**CHAT, "logit_bias": NO_END, "stream": True, "n": 2})
        reasons = [c["finish_reason"] for event in events_of(stream.text) for c in event["choices"]]
        assert [reason for reason in reasons if reason] == ["length", "length"]
    assert sum(own.used()[1:]) in (99, 100), "an odd token can not be shared by two"
    with own.program() as http:
        edit = http.post("/v1/edits", json={"model": MODEL, "input": "x", "instruction": "y"})
        assert_error(edit, 429, code="insufficient_quota")


def test_a_long_answer_that_was_asked_for_is_not_cut_but_refused(own: Server) -> None:
    own.limit({"tokens_per_month": 60})
    with own.program() as http:
        assert_error(http.post("/v1/completions", json={"model": MODEL, "prompt": "The", "max_tokens": 60}), 429)
        assert own.used() == (0, 0, 0)
        answer = http.post("/v1/completions", json={"model": MODEL, "prompt": [5], "max_tokens": 59})
        assert answer.status_code == 200


def test_headers_and_errors_of_limits_of_a_minute(own: Server) -> None:
    own.limit({"requests_per_minute": 3, "tokens_per_minute": 200})
    while time.time() % 60 > 50:  # the next minute opens them again
        time.sleep(1)
    body = {"model": MODEL, "prompt": [5, 6, 7], "max_tokens": 7}
    with own.program() as http:
        for left in (2, 1):
            answer = http.post("/v1/completions", json=body)
            assert answer.headers["x-ratelimit-limit-requests"] == "3"
            assert answer.headers["x-ratelimit-remaining-requests"] == str(left)
            assert answer.headers["x-ratelimit-limit-tokens"] == "200"
            assert 1 <= int(answer.headers["x-ratelimit-reset-tokens"].removesuffix("s")) <= 60
        left_tokens = int(answer.headers["x-ratelimit-remaining-tokens"])
        stream = http.post("/v1/completions", json={**body, "stream": True})
        assert stream.headers["x-ratelimit-remaining-requests"] == "0"
        assert int(stream.headers["x-ratelimit-remaining-tokens"]) <= left_tokens
        refused = http.post("/v1/completions", json={**body, "stream": True})
        assert_error(refused, 429, code="rate_limit_exceeded")
        assert refused.json()["error"]["type"] == "requests"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert "x-should-retry" not in refused.headers
    own.limit({"requests_per_minute": None})
    with own.client() as client, pytest.raises(openai.RateLimitError) as large:
        client.completions.create(model=MODEL, prompt=[5] * 100, max_tokens=101)
    assert (large.value.code, large.value.type) == ("rate_limit_exceeded", "tokens")
    with own.program("files key") as http:
        assert "x-ratelimit-limit-tokens" not in http.get("/v1/models").headers


def test_so_many_at_the_same_time(slow_own: Server) -> None:
    slow_own.limit({"concurrent_requests": 1}, key_id=slow_own.people.key_ids["inference key"])
    body = {"model": MODEL, "prompt": "The", "max_tokens": 50, "logit_bias": NO_END}
    with slow_own.program() as http:
        with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as stream:
            lines = stream.iter_lines()  # kept: without it the client hangs up
            next(lines)
            refused = http.post("/v1/completions", json=body)
            assert_error(refused, 429, code="rate_limit_exceeded")
            assert refused.headers["retry-after"] == "1"
            with browser(slow_own.running, "member") as signed_in:
                assert signed_in.post("/v1/completions", json={**body, "max_tokens": 1}).status_code == 200
        wait_until(slow_own.is_settled)
        assert http.post("/v1/completions", json={**body, "max_tokens": 1}).status_code == 200


def test_a_conversation_says_at_once_that_nothing_is_left(slow_own: Server) -> None:
    """No answer that failed, no question without one: a 429 as everywhere, and the question can be asked again."""
    slow_own.running.model._end_ids = frozenset()
    slow_own.limit({"concurrent_requests": 1, "tokens_per_minute": 10_000})
    with browser(slow_own.running, "member") as ann:
        conversation, other = begin(ann), begin(ann)
        body = {"model": MODEL, "content": "Where is the cat?", "max_tokens": 150}
        path = "/api/conversations/{}/generations"
        first = ann.post(path.format(conversation), json=body)
        assert first.status_code == 200
        assert first.headers["x-ratelimit-limit-tokens"] == "10000"
        refused = ann.post(path.format(other), json=body)
        assert "concurrent requests" in assert_error(refused, 429, code="rate_limit_exceeded")
        assert refused.headers["retry-after"] == "1"
        assert look(ann, other)["messages"] == []
        answer = stop(ann, conversation, first.json()["answer"]["id"])
        assert answer["finish_reason"] == "cancelled"
        wait_until(slow_own.is_settled)
        assert slow_own.used() == (1, answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])
        slow_own.limit({"concurrent_requests": None})
        # What does not go together with what is going on costs nothing.
        again = ann.post(path.format(other), json=body).json()["answer"]["id"]
        for wrong, status in ((conversation, 404), (other, 409)):
            parent = "msg-none" if wrong == conversation else None
            assert_error(ann.post(path.format(wrong), json={**body, "parent_id": parent}), status)
        stop(ann, other, again)
        wait_until(slow_own.is_settled)
        assert slow_own.used()[0] == 2
        slow_own.limit({"tokens_per_month": 1})
        assert_error(ann.post(path.format(other), json={**body, "parent_id": again}), 429, code="insufficient_quota")
        assert len(look(ann, other)["messages"]) == 2


def test_a_limit_of_a_model_is_of_all_its_names(own: Server) -> None:
    own.limit({"requests_per_minute": 1}, model=MODEL)
    while time.time() % 60 > 50:
        time.sleep(1)
    body = {"model": "text-davinci-002", "prompt": "The", "max_tokens": 1}
    with own.program() as http, browser(own.running, "other") as other:
        assert http.post("/v1/completions", json=body).status_code == 200
        assert_error(other.post("/v1/completions", json={**body, "model": MODEL}), 429, code="rate_limit_exceeded")
        assert_error(other.post(f"/v1/engines/{MODEL}/completions", json=body), 429)


# What each route that makes a model work takes; a route that is not here fails the test below.
LEAST = {
    "/chat/completions": {"messages": CHAT["messages"]},
    "/completions": {"prompt": "The"},
    "/generate": {"prompt": "The"},
    "/edits": {"instruction": "x"},
    "/embeddings": {"input": "x"},
    "/rerank": {"query": "x", "documents": ["y"]},
    "/messages": {"messages": CHAT["messages"], "max_tokens": 1},
    "/responses": {"input": "x"},
}
# They count or look, and make no model work; labels need a model of another kind.
UNCOUNTED = ("/tokenize", "/detokenize", "/count_tokens", "/input_tokens", "/explain", "/classify", "/moderations")


def test_no_route_generates_past_a_limit(own: Server) -> None:
    own.limit({"concurrent_requests": 0}, model=MODEL)
    seen = 0
    with own.program() as http:
        for policy in route_policies(own.running.app):
            if policy.action is not Action.GENERATE or policy.method != "POST":
                continue
            if policy.path.endswith(UNCOUNTED):
                continue
            path = re.sub(r"\{[^}]*\}", MODEL, policy.path)
            body = next(
                body for end, body in LEAST.items() if path.endswith(end)
            )  # StopIteration: give this test a body
            for more in ({}, {"stream": True}):
                response = http.post(path, json={"model": MODEL, **body, **more})
                if path.endswith("/messages"):  # Anthropic's shape
                    assert (response.status_code, response.json()["error"]["type"]) == (429, "rate_limit_error")
                else:
                    assert_error(response, 429, code="rate_limit_exceeded")
            seen += 1
    assert seen >= 16
    assert own.used() == (0, 0, 0)


def test_who_leaves_while_they_wait_to_be_let_in_holds_nothing(start: StartServer, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "chatwright.db")
    asyncio.run(_upgraded(url))
    server = start(database=Database(url))
    body = json.dumps({"model": MODEL, "prompt": "The", "max_tokens": 1}).encode()
    with closing(sqlite3.connect(tmp_path / "chatwright.db", isolation_level=None)) as other:
        other.execute(
            "INSERT INTO limits (id, model, concurrent_requests, created_at) VALUES ('limit-1', ?, 1, 0)", [MODEL]
        )
        for _ in range(5):
            other.execute("BEGIN IMMEDIATE")
            with server.connect() as sock:
                sock.sendall(http_request("POST", "/v1/completions", body))
                time.sleep(0.2)
            time.sleep(0.1)
            other.execute("COMMIT")
        wait_until(lambda: other.execute("SELECT count(*) FROM reservations").fetchone()[0] == 0)
        server.complete(prompt="The", max_tokens=1)


PROMPTS = ["The capital", "你好，世界", "def add"]
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("/v1/completions", {"prompt": "The", "max_tokens": 9}),
    "several": ("/v1/completions", {"prompt": PROMPTS, "n": 2, "max_tokens": 9}),
    "best of": ("/v1/completions", {"prompt": PROMPTS[:2], "n": 2, "best_of": 4, "max_tokens": 9}),
    "echo": ("/v1/completions", {"prompt": "The cat", "echo": True, "logprobs": 1, "max_tokens": 4}),
    "only echo": ("/v1/completions", {"prompt": "The cat", "echo": True, "logprobs": 1, "max_tokens": 0}),
    "stop": ("/v1/completions", {"prompt": "The", "stop": ["a", "猫"], "max_tokens": 40, "n": 3}),
    "more prompts than fit at once": ("/v1/completions", {"prompt": PROMPTS * 7, "max_tokens": 3}),
    "chat": ("/v1/chat/completions", {**CHAT, "n": 3, "max_tokens": 12}),
    "json": ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_object"}, "max_tokens": 12}),
    "by its old name": (f"/v1/engines/{MODEL}/completions", {"prompt": "The", "max_tokens": 5}),
    "edit": ("/v1/edits", {"input": "Teh cat", "instruction": "Correct it."}),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_what_an_answer_says_is_what_is_counted(shared: Server, name: str) -> None:
    path, body = REQUESTS[name]
    body = {"model": MODEL, "seed": 7, **body}
    counted = []
    with shared.program() as http:
        before = shared.used()
        whole = http.post(path, json=body)
        assert whole.status_code == 200, whole.text
        usage = whole.json()["usage"]
        assert shared.since(before) == (1, usage["prompt_tokens"], usage["completion_tokens"])
        if path == "/v1/edits" or body.get("best_of"):
            return
        for options in ({}, {"stream_options": {"include_usage": True}}):
            before = shared.used()
            stream = http.post(path, json={**body, "stream": True, **options})
            counted.append(shared.since(before))
            if options:
                usage = events_of(stream.text)[-1]["usage"]
                assert counted[-1] == (1, usage["prompt_tokens"], usage["completion_tokens"])
    assert counted[0] == counted[1], "the client need not ask for figures"


def test_what_was_refused_is_not_counted(shared: Server) -> None:
    before = shared.used()
    with shared.program() as http:
        for path, body in (
            ("/v1/completions", {"model": MODEL, "prompt": ""}),
            ("/v1/completions", {"model": MODEL, "prompt": "x" * 9000}),
            ("/v1/completions", {"model": "nothing", "prompt": "x"}),
            ("/v1/chat/completions", {**CHAT, "response_format": _HOPELESS}),
        ):
            assert http.post(path, json=body).status_code in (400, 404), body
    assert shared.since(before) == (0, 0, 0)
    assert shared.is_settled()


_HOPELESS = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string", "pattern": "(?=a)b"}}}


def test_preempted_answers_are_counted_once(start: StartServer, tmp_path: Path) -> None:
    server = make(start, tmp_path, kv_cache_tokens=256)
    body = {"model": MODEL, "prompt": "The capital of France", "max_tokens": 100, "n": 4, "logit_bias": NO_END}
    with server.program() as http:
        usage = http.post("/v1/completions", json=body).json()["usage"]
    assert server.running.model.engine.stats().preemptions > 0
    assert server.used() == (1, usage["prompt_tokens"], usage["completion_tokens"])
    assert usage["completion_tokens"] == 400


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_what_a_client_left_behind_is_counted(slow_own: Server, path: str) -> None:
    body = {"model": MODEL, "max_tokens": 200, "logit_bias": NO_END, "stream": True}
    body |= {"prompt": "The"} if path == "/v1/completions" else {"messages": CHAT["messages"]}
    with slow_own.program() as http:
        with http.stream("POST", path, json=body) as stream:
            lines = stream.iter_lines()
            received = [next(lines) for _ in range(40)]
        wait_until(lambda: slow_own.used()[0] == 1 and slow_own.is_settled())
        n_output = slow_own.used()[2]
        assert len([line for line in received if line]) - 1 <= n_output < 200, "what was written until then"
        # Without a stream too: there the client leaves before it has seen anything, while the engine works for this request
        # and no longer for the one before.
        wait_until(lambda: slow_own.running.load() == (0, 0))
        with slow_own.running.connect() as sock:
            headers = bearer(slow_own.people.keys["inference key"])
            sock.sendall(http_request("POST", path, json.dumps({**body, "stream": False}).encode(), headers))
            wait_until(lambda: slow_own.running.load()[0] > 0)
        wait_until(lambda: slow_own.used()[0] == 2 and slow_own.is_settled())
    assert slow_own.used()[2] < 400


def test_what_came_before_a_failure_is_counted(own: Server) -> None:
    runner: Any = own.running.model.engine._runner  # type: ignore[attr-defined]
    runner.step = FailingRunner(runner, RuntimeError).step
    body = {"model": MODEL, "prompt": [BAD_ID], "max_tokens": 40, "logit_bias": NO_END, "temperature": 0}
    with own.program() as http:
        assert_error(http.post("/v1/completions", json=body), 500, code="engine_error")
        wait_until(lambda: own.used()[0] == 1)
        first = own.used()
        assert first[1] == 1
        assert 1 <= first[2] <= 3
        stream = http.post("/v1/completions", json={**body, "stream": True})
        assert events_of(stream.text)[-1]["error"]["code"] == "engine_error"
    wait_until(lambda: own.used() == tuple(2 * number for number in first) and own.is_settled())
    assert own.metrics()["chatwright_errors_total"] == 2


def test_nothing_is_written_before_the_first_token_where_nothing_is_limited(start: StartServer, tmp_path: Path) -> None:
    """Somebody else holds SQLite's one place for writers; the answer comes all the same, but not its end."""
    url = sqlite_url(tmp_path / "chatwright.db")
    asyncio.run(_upgraded(url))
    server = start(database=Database(url))
    server.complete(prompt="The", max_tokens=1, logit_bias=NO_END)
    body = {"model": MODEL, "prompt": "The", "max_tokens": 3, "temperature": 0, "logit_bias": NO_END}
    with closing(sqlite3.connect(tmp_path / "chatwright.db", isolation_level=None)) as other, server.http() as http:
        wait_until(lambda: other.execute("SELECT count(*) FROM usage").fetchone()[0] == 1)
        other.execute("BEGIN IMMEDIATE")
        with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as stream:
            lines = (line for line in stream.iter_lines() if line)
            pieces = [next(lines) for _ in range(3)]
            assert all(json.loads(piece.removeprefix("data: "))["choices"][0]["text"] for piece in pieces)
            other.execute("COMMIT")
            assert list(lines)[-1] == "data: [DONE]"
        assert other.execute("SELECT sum(requests), sum(output_tokens) FROM usage").fetchone() == (2, 4)


async def _upgraded(url: Any) -> None:
    await upgrade(url)


def test_an_open_server_counts_too_and_without_a_database_it_answers(start: StartServer, tmp_path: Path) -> None:
    bare = start(admin_token=ADMIN_TOKEN)
    bare.complete(prompt="The", max_tokens=2)
    with bare.http() as http:
        assert "chatwright_generation_tokens_total" in http.get("/metrics").text, "open, as all of this server is"
        assert_error(http.get("/api/limits"), 401)
        headers = bearer(ADMIN_TOKEN)
        for path in ("/api/limits", "/v1/organization/usage/completions?start_time=0"):
            assert_error(http.get(path, headers=headers), 503, code="database_unavailable")
    url = sqlite_url(tmp_path / "chatwright.db")
    asyncio.run(_upgraded(url))
    server = start(admin_token=ADMIN_TOKEN, database=Database(url))
    usage = server.complete(prompt="The", max_tokens=2)["usage"]
    with server.http(headers=headers) as http:
        page = http.get("/v1/organization/usage/completions", params={"start_time": int(time.time())}).json()
        [result] = page["data"][0]["results"]
        assert (result["num_model_requests"], result["output_tokens"]) == (1, usage["completion_tokens"])
        assert result["user_id"] is None
        limit = http.put("/api/limits", json={"model": MODEL, "tokens_per_month": 5}).json()
        assert_error(server.post("/v1/completions", {"model": MODEL, "prompt": "The", "max_tokens": 5}), 429)
        assert http.delete(f"/api/limits/{limit['id']}").status_code == 200
    server.complete(prompt="The", max_tokens=5)


def test_a_budget_that_nobody_can_read_is_none(start: StartServer, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "chatwright.db")
    asyncio.run(_upgraded(url))
    server = start(database=Database(url, wait_s=0.5))
    # In place: connections that are open already read it too. Not the -shm beside it: it is mapped into this process, which a
    # shorter file would end (SIGBUS).
    for name in ("chatwright.db", "chatwright.db-wal"):
        (tmp_path / name).write_bytes(b"x" * 8192)
    answer = server.post("/v1/completions", {"model": MODEL, "prompt": "The", "max_tokens": 1})
    assert answer.status_code in (500, 503)


def test_usage_that_can_not_be_written_is_written_later(start: StartServer, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "chatwright.db")
    asyncio.run(_upgraded(url))
    server = start(database=Database(url, wait_s=0.2))
    with closing(sqlite3.connect(tmp_path / "chatwright.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        usage = server.complete(prompt="The", max_tokens=3)["usage"]
        assert other.execute("SELECT count(*) FROM usage").fetchone()[0] == 0
        other.execute("COMMIT")
        wait_until(lambda: other.execute("SELECT count(*) FROM usage").fetchone()[0] == 1)
        counted = other.execute("SELECT requests, input_tokens, output_tokens FROM usage").fetchone()
    assert counted == (1, usage["prompt_tokens"], usage["completion_tokens"])


PROGRAM = """
import socket, sys
from pathlib import Path
from chatwright.engine.load import load_text_model
from chatwright.server.app import create_app
from chatwright.server.run import run_server
from chatwright.settings import Settings
from chatwright.store.database import Database
from chatwright.store.url import sqlite_url
from tests.server.harness import MODEL, slow_down

folder, file = sys.argv[1:]
settings = Settings(threads=1, device="cpu")
model = load_text_model(Path(folder), MODEL, settings)
slow_down(model, 0.02)
sock = socket.socket()
sock.bind(("127.0.0.1", 0))
app = create_app(settings, [model], database=Database(sqlite_url(Path(file))))
run_server(app, settings, sock, lambda: print(sock.getsockname()[1], flush=True))
"""


@contextmanager
def server_process(folder: Path, file: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """(process, URL) of a server that can be killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), str(file)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    try:
        yield process, f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("limited", [False, True])
def test_postgresql_lost_in_the_middle_of_a_streamed_answer(
    start: StartServer, postgres_url: str, cluster: Cluster, limited: bool
) -> None:
    """The answer goes on to its end, the next request is told, and what was used is written when the database is back."""
    server = make(start, parse_url(postgres_url), slow_step_s=0.02)
    if limited:
        server.limit({"tokens_per_month": 100_000})
    before = server.used()
    body = {**CHAT, "max_tokens": 100, "logit_bias": NO_END, "stream": True, "stream_options": {"include_usage": True}}
    with server.program() as http:
        try:
            with http.stream("POST", "/v1/chat/completions", json=body, timeout=120) as response:
                assert response.status_code == 200
                text, lines = "", response.iter_lines()
                while text.count("data: {") < 3:
                    text += next(lines) + "\n"
                cluster.stop(signal.SIGQUIT)
                text += "\n".join(lines)
            assert text.rstrip().endswith("data: [DONE]")
            usage = next(event["usage"] for event in events_of(text) if event.get("usage"))
            assert usage["completion_tokens"] == 100
            refused = http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 1}, timeout=120)
            assert_error(refused, 503, code="database_unavailable")
            assert http.get("/health").status_code == 200
        finally:
            if not cluster.is_running:
                cluster.start()
        wait_until(lambda: server.since(before) == (1, usage["prompt_tokens"], 100), 120)
        wait_until(server.is_settled, 120)
        assert http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 1}, timeout=120).status_code == 200
    server.running.stop()


@pytest.mark.slow
def test_a_killed_server_loses_no_answer_that_ended_and_finds_what_ran(model_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "chatwright.db"
    asyncio.run(_upgraded(sqlite_url(file)))
    body = {"model": MODEL, "prompt": "The capital", "logit_bias": NO_END}
    with closing(sqlite3.connect(file, isolation_level=None)) as store:

        def look(what: str) -> Any:
            return store.execute(what).fetchone()

        counts = (
            "SELECT coalesce(sum(requests), 0), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0) FROM "
        )
        with server_process(model_folder, file) as (process, url):
            answer = httpx.post(f"{url}/v1/completions", json={**body, "max_tokens": 5}, trust_env=False, timeout=60)
            process.send_signal(signal.SIGKILL)
            usage = answer.json()["usage"]
        ended = (1, usage["prompt_tokens"], usage["completion_tokens"])
        assert look(counts + "usage") == ended
        assert look("SELECT count(*) FROM reservations") == (0,)

        store.execute(
            "INSERT INTO limits (id, model, tokens_per_month, created_at) VALUES ('limit-1', ?, 400, 0)", [MODEL]
        )
        running = "SELECT 1, input_tokens, output_tokens FROM reservations"
        with server_process(model_folder, file) as (process, url), httpx.Client(trust_env=False, timeout=60) as http:
            request = {**body, "max_tokens": 300, "stream": True}
            with http.stream("POST", f"{url}/v1/completions", json=request) as stream:
                lines = stream.iter_lines()  # kept: without it the client hangs up
                next(lines)
                assert look("SELECT tokens FROM reservations") == (300 + usage["prompt_tokens"],)
                wait_until(lambda: look(running)[2] > 0)
                process.send_signal(signal.SIGKILL)
                process.wait()
        noted = look(running)
        assert 0 < noted[2] < 300
        assert look(counts + "usage") == ended, "nothing yet: the reservation holds it all"

        with server_process(model_folder, file) as (process, url):
            wait_until(lambda: look("SELECT count(*) FROM reservations") == (0,))
            assert look(counts + "usage") == tuple(map(sum, zip(ended, noted, strict=True)))
            left = 400 - sum(ended[1:]) - sum(noted[1:])
            answer = httpx.post(f"{url}/v1/completions", json={**body, "max_tokens": left}, trust_env=False, timeout=60)
            assert answer.status_code == 429
            fits = {**body, "max_tokens": left - usage["prompt_tokens"]}
            assert httpx.post(f"{url}/v1/completions", json=fits, trust_env=False, timeout=60).status_code == 200
        assert look("SELECT sum(input_tokens + output_tokens) FROM usage") == (400,)


def test_a_server_that_leaves_writes_everything_down(start: StartServer, tmp_path: Path) -> None:
    server = make(start, tmp_path, slow_step_s=0.02, graceful_timeout_s=0.2)
    body = {"model": MODEL, "prompt": "The", "max_tokens": 400, "logit_bias": NO_END, "stream": True}
    with server.program() as http, http.stream("POST", "/v1/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        server.running.stop()
        assert "[DONE]" in "".join(lines)
    requests, _, n_output = server.used()
    assert requests == 1
    assert 0 < n_output < 400
    assert server.is_settled()


def test_a_removed_user_is_still_in_the_books(slow_own: Server) -> None:
    body = {"model": MODEL, "prompt": "The", "max_tokens": 30, "logit_bias": NO_END, "stream": True}
    with slow_own.program() as http, http.stream("POST", "/v1/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        with slow_own.operator() as operator:
            assert operator.delete(f"/api/users/{slow_own.people.ids['member']}").status_code == 200
        assert "[DONE]" in "".join(lines)
    assert slow_own.used()[2] == 30
    with slow_own.operator() as operator:
        params = {"start_time": int(time.time()) - 86_400, "group_by": ["user_id", "api_key_id"]}
        page = operator.get("/v1/organization/usage/completions", params=params).json()
    [result] = [result for bucket in page["data"] for result in bucket["results"]]
    assert result["user_id"] == slow_own.people.ids["member"]
    assert result["api_key_id"] == slow_own.people.key_ids["inference key"]


def test_the_official_client_reads_usage(own: Server) -> None:
    with own.program() as http:
        for _ in range(2):
            assert http.post("/v1/completions", json={"model": MODEL, "prompt": "The", "max_tokens": 4}).is_success
    with browser(own.running, "other") as other:
        assert other.post("/v1/completions", json={"model": MODEL, "prompt": "The", "max_tokens": 4}).is_success
    now = int(time.time())
    with openai.OpenAI(
        base_url=f"{own.running.url}/v1", api_key="unused", admin_api_key=own.people.keys["admin key"], max_retries=0
    ) as client:
        usage = client.admin.organization.usage
        day = usage.completions(start_time=now - 2 * 86_400)
        assert day.object == "page"
        assert [len(bucket.results) for bucket in day.data] == [0, 0, 1]
        assert not day.has_more
        [result] = day.data[-1].results
        assert result.object == "organization.usage.completions.result"
        assert (result.num_model_requests, result.user_id, result.model) == (3, None, None)
        assert result.input_tokens + result.output_tokens == sum(own.used()[1:])
        by_user = usage.completions(
            start_time=now - 600, bucket_width="1d", group_by=["user_id", "api_key_id", "model"]
        )
        found = {r.user_id: r.num_model_requests for bucket in by_user.data for r in bucket.results}  # type: ignore[union-attr]
        assert found == {own.people.ids["member"]: 2, own.people.ids["other"]: 1}
        only = usage.completions(start_time=now - 600, user_ids=[own.people.ids["other"]], models=[MODEL])
        assert sum(r.num_model_requests for bucket in only.data for r in bucket.results) == 1  # type: ignore[union-attr]
        assert all(not bucket.results for bucket in usage.completions(start_time=now - 600, models=["x"]).data)
        assert all(not bucket.results for bucket in usage.completions(start_time=now - 600, project_ids=["p"]).data)
        assert all(not bucket.results for bucket in usage.embeddings(start_time=now - 600).data)
        [cost] = usage.costs(start_time=now).data[0].results
        assert cost.amount.value == 0  # type: ignore[union-attr]

        starts: list[int] = []
        total = 0
        page = usage.completions(start_time=now - 600, bucket_width="1m", limit=4)
        while True:
            assert len(page.data) <= 4
            starts += [bucket.start_time for bucket in page.data]
            total += sum(r.num_model_requests for bucket in page.data for r in bucket.results)  # type: ignore[union-attr]
            if not page.has_more:
                break
            assert page.next_page is not None
            page = usage.completions(start_time=now - 600, bucket_width="1m", limit=4, page=page.next_page)
        assert total == 3
        assert starts == list(range(starts[0], starts[-1] + 60, 60)), "every minute once"
        assert starts[0] == now - 600 - (now - 600) % 60


@pytest.mark.parametrize(
    "query",
    [
        "",
        "start_time=x",
        "start_time=-1",
        "start_time=99999999999999999999",
        "start_time=0&bucket_width=1y",
        "start_time=0&limit=0",
        "start_time=0&limit=32",
        "start_time=0&bucket_width=1m&limit=1441",
        "start_time=0&page=x",
        "start_time=0&page=page_1",
        "start_time=0&page=page_²",
        "start_time=5&end_time=5",
        "start_time=0&group_by=password_hash",
        "start_time=0&group_by[]=1;DROP TABLE usage",
    ],
)
def test_nonsense_in_questions_is_a_400(shared: Server, query: str) -> None:
    with shared.operator() as http:
        assert_error(http.get(f"/v1/organization/usage/completions?{query}"), 400)
        odd = http.get("/v1/organization/usage/completions?start_time=0&models[]=' OR 1=1&page=page_" + "86400" * 6)
        assert odd.status_code in (200, 400)


def test_everybody_sees_their_own_usage_and_limits(own: Server) -> None:
    with browser(own.running, "admin") as admin:
        limit = admin.put("/api/limits", json={"user_id": own.people.ids["member"], "tokens_per_month": 1000})
        assert limit.status_code == 200, limit.text
        admin.put("/api/limits", json={"model": MODEL, "requests_per_minute": 1000})
        assert len(admin.get("/api/limits").json()["data"]) == 2
        for body in (
            {},
            {"user_id": own.people.ids["member"]},
            {"user_id": own.people.ids["member"], "tokens_per_month": None},
            {"user_id": own.people.ids["member"], "tokens_per_month": -1},
            {"user_id": own.people.ids["member"], "tokens_per_month": 1.5},
            {"user_id": own.people.ids["member"], "model": MODEL, "tokens_per_month": 1},
            {"user_id": own.people.ids["member"], "tokens_per_month": 1, "id": "mine"},
        ):
            assert_error(admin.put("/api/limits", json=body), 400)
        assert_error(admin.put("/api/limits", json={"key_id": "none", "tokens_per_month": 1}), 404)
        assert_error(admin.put("/api/limits", json={"user_id": own.people.ids["owner"], "tokens_per_month": 1}), 403)
    with own.program() as http:
        usage = http.post("/v1/completions", json={"model": MODEL, "prompt": "The", "max_tokens": 4}).json()["usage"]
    with browser(own.running, "member") as member, browser(own.running, "other") as other:
        mine = member.get("/api/usage", params={"days": 2}).json()
        [day] = mine["data"]
        assert (day["key_id"], day["model"], day["requests"]) == (own.people.key_ids["inference key"], MODEL, 1)
        assert day["output_tokens"] == usage["completion_tokens"]
        [of_me] = mine["limits"]
        assert (of_me["tokens_per_month"], of_me["tokens_of_month"]) == (1000, usage["total_tokens"])
        assert of_me["user_id"] == own.people.ids["member"]
        theirs = other.get("/api/usage").json()
        assert (theirs["data"], theirs["limits"]) == ([], [])
        assert_error(other.get("/api/usage?days=0"), 400)


def test_administrators_see_everybodys_usage_by_users_keys_and_models_with_their_names(own: Server) -> None:
    ids, key_ids = own.people.ids, own.people.key_ids
    completion = {"model": MODEL, "prompt": "The", "max_tokens": 4}
    with own.program() as member, own.program("full key of other") as other, own.operator() as operator:
        spent = [http.post("/v1/completions", json=completion).json()["usage"] for http in (member, member, other)]
        assert operator.post("/v1/completions", json=completion).status_code == 200
        wait_until(lambda: own.used()[0] == 4)  # where nothing is limited it is written after the answer
        figures = {"user_id": ids["member"], "tokens_per_month": 1000}
        assert operator.put("/api/limits", json=figures).status_code == 200
        assert operator.put("/api/limits", json={"model": MODEL, "concurrent_requests": 5}).status_code == 200
        by_user = operator.get("/api/usage/all?by=user&days=1").json()
        rows = {row["user_id"]: row for row in by_user["data"]}
        assert {user: row["requests"] for user, row in rows.items()} == {ids["member"]: 2, ids["other"]: 1, None: 1}
        assert rows[ids["member"]]["output_tokens"] == sum(usage["completion_tokens"] for usage in spent[:2])
        assert [(row["key_id"], row["model"]) for row in by_user["data"]] == [(None, None)] * 3
        names = {name["id"]: (name["name"], name["owner"]) for name in by_user["names"]}
        with browser(own.running, "admin") as admin:
            known = {user["id"]: user["name"] for user in admin.get("/api/users").json()["data"]}
            assert admin.get("/api/usage/all?by=user&days=1").json() == by_user
        assert names == {user: (known[user], None) for user in (ids["member"], ids["other"])}
        by_key = operator.get("/api/usage/all?by=key").json()
        assert {row["key_id"] for row in by_key["data"]} == {
            key_ids["inference key"],
            key_ids["full key of other"],
            None,
        }
        owners = {name["id"]: name["owner"] for name in by_key["names"]}
        assert owners[key_ids["inference key"]] == known[ids["member"]]
        [day] = operator.get("/api/usage/all").json()["data"]
        assert (day["model"], day["requests"]) == (MODEL, 4)
        counted = {limit["model"]: limit for limit in by_user["limits"]}
        assert counted[None]["tokens_of_month"] == sum(usage["total_tokens"] for usage in spent[:2])
        assert counted[MODEL]["tokens_of_month"] > counted[None]["tokens_of_month"]
        assert operator.delete(f"/api/users/{ids['other']}").status_code == 200
        left = operator.get("/api/usage/all?by=user").json()
        assert len(left["data"]) == 3
        assert {name["id"] for name in left["names"]} == {ids["member"]}
        for query in ("by=kind", "days=0", "days=367"):
            assert_error(operator.get(f"/api/usage/all?{query}"), 400)
    with browser(own.running, "member") as member:
        assert_error(member.get("/api/usage/all"), 403)


@pytest.mark.slow
async def test_a_hundred_users_at_once_and_the_metrics_say_what_the_tables_say(own: Server) -> None:
    """Mixed requests on SQLite, most of them limited: no error of locks, no token lost."""
    people = own.people

    async def begin(accounts: Accounts) -> list[tuple[str, str]]:
        async with accounts.database.write() as session:
            found = []
            for number in range(100):
                user = User(
                    id=f"user-{number}",
                    email=f"u{number}@example.org",
                    name="U",
                    role="member",
                    status="active",
                    password_hash=None,
                    created_at=1,
                )
                session.add(user)
                await session.flush()
                found.append((user.id, await begin_session(session, user)))
                if number % 4:
                    await set_limit(
                        session,
                        OPERATOR,
                        Subject(user_id=user.id),
                        {"tokens_per_month": 10_000, "concurrent_requests": 9},
                    )
            await set_limit(session, OPERATOR, Subject(model=MODEL), {"tokens_per_minute": 10**9})
            return found

    known = await asyncio.to_thread(people.do, begin)
    say: list[Callable[[httpx.AsyncClient], Any]] = [
        lambda http: http.post("/v1/completions", json={"model": MODEL, "prompt": "The", "max_tokens": 5, "n": 2}),
        lambda http: http.post("/v1/chat/completions", json={**CHAT, "max_tokens": 5}),
        lambda http: http.post(
            "/v1/chat/completions",
            json={**CHAT, "max_tokens": 5, "stream": True, "stream_options": {"include_usage": True}},
        ),
        lambda http: http.post("/v1/edits", json={"model": MODEL, "input": "x", "instruction": "y"}),
        lambda http: http.get("/api/usage"),
        lambda http: http.post("/api/keys", json={"name": "k"}),
        lambda http: http.post("/v1/completions", json={"model": "nothing", "prompt": "x"}),
    ]

    async def one(number: int) -> tuple[int, int, list[int]]:
        requests = tokens = 0
        statuses = []
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(base_url=own.running.url, trust_env=False, timeout=300, limits=limits) as http:
            http.headers["Origin"] = own.running.url
            http.headers["Cookie"] = f"chatwright_session={known[number][1]}"
            signed = await http.get("/api/session")
            http.headers["X-CSRF-Token"] = signed.json()["csrf_token"]
            for turn in range(len(say)):
                answer = await say[(number + turn) % len(say)](http)
                while answer.status_code == 503 and answer.json()["error"]["code"] == "engine_overloaded":
                    await asyncio.sleep(0.2)
                    answer = await say[(number + turn) % len(say)](http)
                statuses.append(answer.status_code)
                if answer.status_code == 200 and answer.request.url.path.startswith("/v1/"):
                    stream = answer.headers["content-type"].startswith("text/event-stream")
                    usage = (events_of(answer.text)[-1] if stream else answer.json())["usage"]
                    requests, tokens = requests + 1, tokens + usage["total_tokens"]
        return requests, tokens, statuses

    results = await asyncio.gather(*(one(number) for number in range(100)))
    assert [sorted(statuses) for _, _, statuses in results] == [[200] * 6 + [404]] * 100
    requests = sum(requests for requests, _, _ in results)
    tokens = sum(tokens for _, tokens, _ in results)
    used = await asyncio.to_thread(own.used)
    assert (used[0], used[1] + used[2]) == (requests, tokens) == (400, tokens)
    assert await asyncio.to_thread(own.is_settled)
    metrics = await asyncio.to_thread(own.metrics)
    assert metrics["chatwright_model_requests_total"] == used[0]
    assert metrics["chatwright_prompt_tokens_total"] == used[1]
    assert metrics["chatwright_generation_tokens_total"] == used[2]
    assert metrics["chatwright_time_to_first_token_seconds_count"] <= used[0]
    assert metrics["chatwright_errors_total"] >= 100
