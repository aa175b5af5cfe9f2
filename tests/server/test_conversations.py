"""Conversations of the web app: answers are written whether anybody listens or not, can be followed from anywhere, and stopped."""

from __future__ import annotations

import itertools
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, not_a_server_error

from chatwright.engine.protocol import EngineEvent, GenerateRequest
from chatwright.errors import EngineError, OverloadedError
from chatwright.store.accounts import users
from chatwright.store.actor import OPERATOR
from chatwright.store.conversations import messages as said
from chatwright.store.conversations.texts import MAX_CONTENT
from chatwright.store.database import Database
from chatwright.store.url import parse_url
from tests.server.conftest import StartServer
from tests.server.harness import MODEL, PATIENCE_S, RunningServer, assert_error, wait_until
from tests.server.people import People, browser, settle
from tests.server.talks import ask, begin, events_path, follow, follow_to_end, look, stop
from tests.server.tiny import CONTEXT
from tests.store.people import quick_accounts
from tests.store.postgres import Cluster

# What must be free two seconds after somebody said stop.
FREED_WITHIN_S = 2.0


def never_ends(server: RunningServer) -> RunningServer:
    """The model goes on until its limit: a test that needs an answer half-way gets one."""
    server.model._end_ids = frozenset()
    return server


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return settle(tmp_path_factory.mktemp("conversations"))


@pytest.fixture(scope="module")
def talking(start: StartServer, people: People) -> RunningServer:
    """A slow server with accounts whose model never ends by itself."""
    return never_ends(start(accounts=quick_accounts(Database(people.url)), slow_step_s=0.02))


@pytest.fixture
def ann(talking: RunningServer) -> Iterator[httpx.Client]:
    with browser(talking, "member") as http:
        yield http


def is_free(server: RunningServer) -> bool:
    """No sequence runs or waits, and no block of the cache is held."""
    return server.load() == (0, 0) and server.model.engine.stats().blocks_used == 0


def reference(http: httpx.Client, *texts: str, max_tokens: int) -> str:
    """What the API answers to this conversation."""
    roles = itertools.cycle(["user", "assistant"])
    body = {
        "model": MODEL,
        "messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)],
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    content: str = answer.json()["choices"][0]["message"]["content"]
    return content


def test_an_answer_is_written_though_nobody_listens(ann: httpx.Client) -> None:
    conversation = begin(ann)
    begun = ask(ann, conversation, "What is the capital of France?", temperature=0, max_tokens=30)
    assert begun["title"] == "What is the capital of France?"
    assert begun["question"]["content"] == "What is the capital of France?"
    assert begun["answer"]["parent_id"] == begun["question"]["id"]
    assert (begun["answer"]["content"], begun["answer"]["finish_reason"]) == ("", None)
    assert look(ann, conversation)["generating"] is True
    assert ann.get("/api/conversations").json()["data"][0]["generating"] is True
    wait_until(lambda: not look(ann, conversation)["generating"])
    opened = look(ann, conversation)
    question, answer = opened["messages"]
    assert opened["active_message_id"] == answer["id"]
    assert answer["content"] == reference(ann, question["content"], max_tokens=30)
    assert answer["finish_reason"] == "length"
    assert answer["error"] is None
    assert answer["model"] == MODEL
    usage = answer["usage"]
    assert usage["completion_tokens"] == 30
    assert usage["total_tokens"] == usage["prompt_tokens"] + 30


def test_a_reader_can_begin_again_anywhere_while_it_is_written_and_after(ann: httpx.Client) -> None:
    conversation = begin(ann)
    answer = ask(ann, conversation, "你好 🙂", max_tokens=80)["answer"]["id"]
    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(follow_to_end, ann, conversation, answer, after=0) for _ in range(3)]
        with closing(follow(ann, conversation, answer)) as events:
            first = [next(events) for _ in range(4)]
        seen = "".join(event.data["text"] for event in first)
        assert len(seen) == int(first[-1].id or ""), "a position counts characters"
        # A reload: the conversation as it is kept, and on from there.
        opened = look(ann, conversation)
        partial = opened["messages"][1]
        assert opened["generating"] is True
        rest, message = follow_to_end(ann, conversation, answer, after=partial["position"])
        whole = message["content"]
        assert partial["content"] + rest == whole
        assert [reader.result() for reader in readers] == [(whole, message)] * 3
    assert message["usage"]["completion_tokens"] == 80
    assert whole.startswith(seen)
    for position in (0, 1, len(seen), len(whole) - 1, len(whole), len(whole) + 1000):
        assert follow_to_end(ann, conversation, answer, after=position) == (whole[position:], message)
        last = str(position)
        assert follow_to_end(ann, conversation, answer, last_event_id=last) == (whole[position:], message)
    # A browser that comes back by itself asks for the same address, with the id of the last event.
    assert follow_to_end(ann, conversation, answer, after=3, last_event_id="9") == (whole[9:], message)


def test_stop_stops_the_engine_and_keeps_what_was_said(talking: RunningServer, ann: httpx.Client) -> None:
    conversation = begin(ann)
    answer = ask(ann, conversation)["answer"]["id"]
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(follow_to_end, ann, conversation, answer)
        wait_until(lambda: len(look(ann, conversation)["messages"][1]["content"]) > 10)
        stopped_at = time.monotonic()
        stopped = stop(ann, conversation, answer)
        wait_until(lambda: is_free(talking), FREED_WITHIN_S)
        assert time.monotonic() - stopped_at < FREED_WITHIN_S
        assert stopped["finish_reason"] == "cancelled"
        assert stopped["error"] is None
        assert len(stopped["content"]) > 10
        assert stopped["usage"]["completion_tokens"] > 3
        assert reader.result() == (stopped["content"], stopped), "who reads along is told"
    opened = look(ann, conversation)
    assert opened["messages"][1] == stopped
    assert opened["generating"] is False
    assert stop(ann, conversation, answer) == stopped, "a second time changes nothing"
    assert stop(ann, conversation, opened["messages"][0]["id"]) == opened["messages"][0]


def test_an_answer_that_waits_in_the_queue_can_be_stopped(start: StartServer, tmp_path: Path) -> None:
    people = settle(tmp_path)
    server = never_ends(start(accounts=quick_accounts(Database(people.url)), slow_step_s=0.02, max_batch=1))
    with browser(server, "member") as ann:
        running, waiting = begin(ann), begin(ann)
        first = ask(ann, running)["answer"]["id"]
        wait_until(lambda: server.load() == (1, 0))
        second = ask(ann, waiting)["answer"]["id"]
        wait_until(lambda: server.load() == (1, 1))
        assert stop(ann, waiting, second)["content"] == ""
        wait_until(lambda: server.load() == (1, 0), FREED_WITHIN_S)
        stop(ann, running, first)
        wait_until(lambda: is_free(server), FREED_WITHIN_S)


def test_one_answer_a_conversation_at_a_time(ann: httpx.Client) -> None:
    conversation, other = begin(ann), begin(ann)
    begun = ask(ann, conversation)
    body = {"model": MODEL, "content": "Again"}
    for wrong in (
        body,
        {**body, "parent_id": begun["answer"]["id"]},
        {"model": MODEL, "parent_id": begun["question"]["id"]},
    ):
        refused = ann.post(f"/api/conversations/{conversation}/generations", json=wrong)
        assert_error(refused, 409, code="conflict")
    assert_error(
        ann.post(
            f"/api/conversations/{conversation}/messages", json={"content": "x", "parent_id": begun["answer"]["id"]}
        ),
        409,
    )
    assert len(look(ann, conversation)["messages"]) == 2, "what was refused left nothing"
    stop(ann, other, ask(ann, other)["answer"]["id"])
    stop(ann, conversation, begun["answer"]["id"])
    stop(ann, conversation, ask(ann, conversation, None, parent_id=begun["question"]["id"])["answer"]["id"])


def test_each_branch_is_told_to_the_model_as_it_is(ann: httpx.Client) -> None:
    conversation = begin(ann)

    def turn(content: str | None, parent: str | None = None, **body: Any) -> dict[str, Any]:
        begun = ask(ann, conversation, content, parent_id=parent, max_tokens=8, **{"temperature": 0, **body})
        _, answer = follow_to_end(ann, conversation, begun["answer"]["id"])
        return {**answer, "question": begun["question"]}

    first = turn("One")
    second = turn("Two", first["id"])
    assert second["content"] == reference(ann, "One", first["content"], "Two", max_tokens=8)
    again = turn(None, first["question"]["id"], temperature=1.5)
    edited = turn("Drei", first["id"])
    assert edited["content"] == reference(ann, "One", first["content"], "Drei", max_tokens=8)
    fresh = turn("Eins")
    assert fresh["content"] == reference(ann, "Eins", max_tokens=8)
    rows = {row["id"]: row for row in look(ann, conversation)["messages"]}
    children = {parent: [id for id, row in rows.items() if row["parent_id"] == parent] for parent in [None, *rows]}
    assert children[None] == [first["question"]["id"], fresh["question"]["id"]]
    assert children[first["question"]["id"]] == [first["id"], again["id"]]
    assert children[first["id"]] == [second["question"]["id"], edited["question"]["id"]]
    assert look(ann, conversation)["active_message_id"] == fresh["id"]
    path = f"/api/conversations/{conversation}"
    assert ann.patch(path, json={"active_message_id": second["id"]}).json()["active_message_id"] == second["id"]
    assert look(ann, conversation)["active_message_id"] == second["id"]
    assert_error(ann.patch(path, json={"active_message_id": "msg-none"}), 404, code="not_found")


def test_a_list_to_page_through_rename_and_delete(start: StartServer, tmp_path: Path) -> None:
    people = settle(tmp_path)
    server = start(accounts=quick_accounts(Database(people.url)))
    with browser(server, "member") as ann, browser(server, "other") as li:
        made = [begin(ann, title=f"Nr. {number}") for number in range(5)]
        begin(li)
        seen: list[str] = []
        page: dict[str, Any] = {"has_more": True, "last_id": None}
        while page["has_more"]:
            after = {"after": page["last_id"]} if page["last_id"] else {}
            page = ann.get("/api/conversations", params={"limit": 2, **after}).json()
            seen += [row["id"] for row in page["data"]]
            assert (page["first_id"], page["last_id"]) == (seen[-len(page["data"])], seen[-1])
        assert sorted(seen) == sorted(made)
        for wrong in ({"limit": 0}, {"limit": 101}, {"limit": "x"}, {"after": "x" * 101}):
            assert_error(ann.get("/api/conversations", params=wrong), 400)
        assert_error(ann.get("/api/conversations", params={"after": "\0"}), 404)
        path = f"/api/conversations/{made[0]}"
        assert ann.patch(path, json={"title": "  Über\nKatzen 🐈 "}).json()["title"] == "Über Katzen 🐈"
        for title in ("", " ", "\u202e", "x" * 101):
            assert_error(ann.patch(path, json={"title": title}), 400, param="title")
        for body in ({}, {"title": None}, {"title": 1}, {"id": "x", "title": "y"}, {"user_id": "x", "title": "y"}):
            assert_error(ann.patch(path, json=body), 400)
        assert look(ann, made[0])["title"] == "Über Katzen 🐈"
        assert ann.delete(path).json() == {"id": made[0], "deleted": True}
        for answer in (ann.get(path), ann.delete(path), ann.patch(path, json={"title": "x"})):
            assert_error(answer, 404, code="not_found")
        assert made[0] not in [row["id"] for row in ann.get("/api/conversations").json()["data"]]
        assert ann.get("/api/conversations").headers["cache-control"] == "no-store"


def test_conversations_of_others_do_not_exist(talking: RunningServer, ann: httpx.Client, people: People) -> None:
    conversation = begin(ann, title="secret plans")
    begun = ask(ann, conversation, "tell nobody", max_tokens=200)
    answer = begun["answer"]["id"]
    own = {"model": MODEL, "content": "x"}
    with browser(talking, "other") as li, browser(talking, "owner") as owner:
        theirs = begin(li)
        for thief in (li, owner):
            path = f"/api/conversations/{conversation}"
            answers = [
                thief.get(path),
                thief.patch(path, json={"title": "x"}),
                thief.delete(path),
                thief.get("/api/conversations", params={"after": conversation}),
                thief.post(f"{path}/messages", json={"content": "x"}),
                thief.post(f"{path}/generations", json=own),
                thief.get(events_path(conversation, answer)),
                thief.post(f"{path}/messages/{answer}/stop", json={}),
            ]
            for refused in answers:
                assert_error(refused, 404, code="not_found")
                assert "secret" not in refused.text
        # One's own conversation opens nothing of another's.
        path = f"/api/conversations/{theirs}"
        for refused in (
            li.post(f"{path}/generations", json={**own, "parent_id": answer}),
            li.post(f"{path}/messages", json={"content": "x", "parent_id": answer}),
            li.patch(path, json={"active_message_id": answer}),
            li.get(events_path(theirs, answer)),
            li.post(f"{path}/messages/{answer}/stop", json={}),
        ):
            assert_error(refused, 404, code="not_found")
        assert [row["id"] for row in li.get("/api/conversations").json()["data"]] == [theirs]
    assert look(ann, conversation)["title"] == "secret plans"
    assert stop(ann, conversation, answer)["finish_reason"] == "cancelled"


def test_no_key_opens_what_was_said(talking: RunningServer, people: People) -> None:
    for name in ("inference key", "admin key"):
        with talking.http(headers={"Authorization": f"Bearer {people.keys[name]}"}) as program:
            assert_error(program.get("/api/conversations"), 403)


def test_pages_of_others_can_not_make_it_talk(talking: RunningServer, ann: httpx.Client) -> None:
    conversation = begin(ann)
    path = f"/api/conversations/{conversation}/generations"
    body = {"model": MODEL, "content": "x"}
    assert_error(ann.post(path, json=body, headers={"X-CSRF-Token": "x"}), 403, code="csrf")
    assert_error(ann.post(path, json=body, headers={"Origin": "https://evil.example"}), 403, code="foreign_request")
    assert_error(ann.post(path, content=json.dumps(body), headers={"Content-Type": "text/plain"}), 415)
    assert look(ann, conversation)["messages"] == []


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, None),
        ({"model": MODEL}, 400, "parent_id"),
        ({"content": "x"}, 400, "model"),
        ({"model": MODEL, "content": ""}, 400, "content"),
        ({"model": MODEL, "content": " \n"}, 400, "content"),
        ({"model": MODEL, "content": "a\0b"}, 400, "content"),
        ({"model": MODEL, "content": "x" * (MAX_CONTENT + 1)}, 400, "content"),
        ({"model": MODEL, "content": "x" * (MAX_CONTENT + 2)}, 400, "content"),
        ({"model": MODEL, "content": 5}, 400, "content"),
        ({"model": MODEL, "content": "猫" * 2000}, 400, "content"),
        ({"model": MODEL, "content": "x", "max_tokens": 100_000}, 400, "content"),
        ({"model": MODEL, "content": "x", "max_tokens": 0}, 400, "max_tokens"),
        ({"model": MODEL, "content": "x", "temperature": 3}, 400, "temperature"),
        ({"model": MODEL, "content": "x", "repetition_penalty": 0}, 400, "repetition_penalty"),
        ({"model": MODEL, "content": "x", "instructions": "x" * 20_001}, 400, "instructions"),
        ({"model": MODEL, "content": "x", "user_id": "user-1"}, 400, "user_id"),
        ({"model": MODEL, "content": "x", "parent_id": "msg-none"}, 404, None),
        ({"model": MODEL, "content": "x", "parent_id": "' OR 1=1 --"}, 404, None),
        ({"model": MODEL, "content": "x", "parent_id": "\0"}, 404, None),
        ({"model": "no-such-model", "content": "x"}, 404, "model"),
    ],
)
def test_what_can_not_be_asked_is_refused_and_leaves_nothing(
    ann: httpx.Client, body: dict[str, Any], status: int, param: str | None
) -> None:
    conversation = begin(ann)
    answer = ann.post(f"/api/conversations/{conversation}/generations", json=body)
    assert_error(answer, status)
    if param is not None:
        assert answer.json()["error"]["param"] == param, answer.text
    opened = look(ann, conversation)
    assert (opened["messages"], opened["title"], opened["generating"]) == ([], "", False)
    assert len(answer.content) < 2000, "nothing that was sent is sent back"


def test_too_long_a_conversation_says_so_by_its_code(ann: httpx.Client) -> None:
    body = {"model": MODEL, "content": "猫" * CONTEXT}
    answer = ann.post(f"/api/conversations/{begin(ann)}/generations", json=body)
    assert_error(answer, 400, code="context_length_exceeded")
    assert_error(ann.get(events_path(begin(ann), "msg-x")), 404)


def test_wrong_places_to_go_on_from_are_refused(ann: httpx.Client) -> None:
    conversation = begin(ann)
    answer = ask(ann, conversation, max_tokens=1)["answer"]["id"]
    path = events_path(conversation, answer)
    for after in (-1, "x", 2**40, "1e3"):
        assert_error(ann.get(path, params={"after": after}), 400)
    for last in ("x", "-1", "9" * 50, "", "٣"):
        assert_error(ann.get(path, headers={"Last-Event-ID": last.encode()}), 400, param="Last-Event-ID")


@pytest.mark.parametrize(
    ("error", "code", "chinese"),
    [
        (EngineError("The engine failed in the middle of an answer: {reason}.", reason="boom"), "engine_error", "引擎"),
        (
            OverloadedError("The server is shutting down. Send the request again in a moment."),
            "engine_overloaded",
            "请",
        ),
        (ZeroDivisionError("canary"), "engine_error", "服务器"),
    ],
)
def test_an_answer_that_fails_keeps_what_there_is_and_says_why(
    talking: RunningServer,
    ann: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: str,
    chinese: str,
) -> None:
    engine: Any = talking.model.engine
    original = engine.generate

    async def failing(request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        n = 0
        async for event in original(request):
            yield event
            n += 1
            if n == 6:
                raise error

    monkeypatch.setattr(engine, "generate", failing)
    conversation = begin(ann)
    answer = ask(ann, conversation)["answer"]["id"]
    text, message = follow_to_end(ann, conversation, answer)
    assert message["finish_reason"] == "error"
    assert message["content"] == text
    assert text
    assert message["error"]["code"] == code
    assert "canary" not in message["error"]["message"]
    ann.headers["Accept-Language"] = "zh-CN"
    assert chinese in look(ann, conversation)["messages"][1]["error"]["message"]
    monkeypatch.undo()
    again = ask(ann, conversation, None, parent_id=look(ann, conversation)["messages"][0]["id"], max_tokens=2)
    assert follow_to_end(ann, conversation, again["answer"]["id"])[1]["finish_reason"] == "length"
    wait_until(lambda: is_free(talking))


def test_a_model_may_say_what_postgresql_can_not_keep(
    start: StartServer, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = settle(parse_url(postgres_url))
    server = never_ends(start(accounts=quick_accounts(Database(people.url))))
    from chatwright.tokenizer.stream import StreamDecoder

    push = StreamDecoder.push
    monkeypatch.setattr(StreamDecoder, "push", lambda self, id: push(self, id).replace(" ", "\0"))
    with browser(server, "member") as ann:
        conversation = begin(ann)
        text, message = follow_to_end(
            ann, conversation, ask(ann, conversation, "The cat sat", max_tokens=60)["answer"]["id"]
        )
    assert message["finish_reason"] == "length"
    assert message["content"] == text
    assert "\0" not in text
    assert "\ufffd" in text


@pytest.mark.parametrize("how", ["delete the conversation", "suspend", "remove", "suspend from outside"])
def test_nobody_is_written_for_who_is_gone(start: StartServer, tmp_path: Path, how: str) -> None:
    people = settle(tmp_path)
    server = never_ends(start(accounts=quick_accounts(Database(people.url)), slow_step_s=0.05))
    user = people.ids["member"]

    async def suspend(accounts: Any) -> None:
        async with accounts.database.write() as session:
            await users.suspend(session, OPERATOR, user)

    with browser(server, "member") as ann, browser(server, "owner") as owner:
        conversation = begin(ann)
        answer = ask(ann, conversation)["answer"]["id"]
        events = follow(ann, conversation, answer)
        next(events)
        with ThreadPoolExecutor(1) as pool:
            reader = pool.submit(list, events)
            if how == "delete the conversation":
                assert ann.delete(f"/api/conversations/{conversation}").status_code == 200
            elif how == "suspend":
                assert owner.patch(f"/api/users/{user}", json={"status": "suspended"}).status_code == 200
            elif how == "remove":
                assert owner.delete(f"/api/users/{user}").status_code == 200
            else:
                people.do(suspend)
            wait_until(lambda: is_free(server), 2 * FREED_WITHIN_S)
            last = reader.result()[-1]
        if how.startswith("suspend"):
            assert last.data["message"]["finish_reason"] == "cancelled"
            owner.patch(f"/api/users/{user}", json={"status": "active"})
        else:
            assert last.kind == "error"
            assert last.data["error"]["code"] == "not_found"
    if how.startswith("suspend"):
        with browser(server, "member") as back:
            kept = look(back, conversation)["messages"][1]
            assert (kept["finish_reason"], len(kept["content"]) > 0) == ("cancelled", True)


def test_signing_out_stops_no_answer(start: StartServer, tmp_path: Path) -> None:
    people = settle(tmp_path)
    server = never_ends(start(accounts=quick_accounts(Database(people.url)), slow_step_s=0.01))
    with browser(server, "member") as ann:
        conversation = begin(ann)
        answer = ask(ann, conversation, max_tokens=60)["answer"]["id"]
        assert ann.delete("/api/session").status_code == 200
        assert_error(ann.get(events_path(conversation, answer)), 401)
    with browser(server, "member") as ann:
        assert follow_to_end(ann, conversation, answer)[1]["finish_reason"] == "length"


def test_many_conversations_at_once_lose_nothing(start: StartServer, tmp_path: Path) -> None:
    """SQLite has one writer for all that grows, is begun, renamed and read."""
    people = settle(tmp_path)
    server = never_ends(start(accounts=quick_accounts(Database(people.url))))
    with browser(server, "member") as ann:

        def one(number: int) -> tuple[str, str]:
            conversation = begin(ann)
            begun = ask(ann, conversation, f"Nr. {number}", max_tokens=40)
            text, message = follow_to_end(ann, conversation, begun["answer"]["id"])
            assert message["finish_reason"] == "length", message
            assert message["usage"]["completion_tokens"] == 40
            assert ann.patch(f"/api/conversations/{conversation}", json={"title": f"T {number}"}).status_code == 200
            opened = look(ann, conversation)
            assert opened["messages"][1]["content"] == text
            return opened["title"], text

        with ThreadPoolExecutor(25) as pool:
            results = list(pool.map(one, range(50)))
        assert [title for title, _ in results] == [f"T {number}" for number in range(50)]
        page = ann.get("/api/conversations", params={"limit": 100}).json()
        assert len(page["data"]) == 50
        assert not any(row["generating"] for row in page["data"])


def test_two_servers_on_one_database_follow_and_stop_each_others_answers(
    start: StartServer, postgres_url: str, tmp_path: Path
) -> None:
    people = settle(parse_url(postgres_url))
    one, other = (
        never_ends(start(accounts=quick_accounts(Database(people.url)), slow_step_s=0.02, home=tmp_path / name))
        for name in ("one", "other")
    )
    with browser(one, "member") as here, browser(other, "member") as there:
        conversation = begin(here)
        begun = ask(here, conversation, max_tokens=120)
        assert look(there, conversation)["generating"] is True
        assert_error(
            there.post(f"/api/conversations/{conversation}/generations", json={"model": MODEL, "content": "x"}), 409
        )
        text, message = follow_to_end(there, conversation, begun["answer"]["id"])
        assert (message["finish_reason"], message["content"]) == ("length", text)
        assert len(text) > 20
        again = ask(here, conversation, None, parent_id=begun["question"]["id"])["answer"]["id"]
        wait_until(lambda: one.load() == (1, 0))
        assert stop(there, conversation, again)["finish_reason"] == "cancelled"
        wait_until(lambda: is_free(one), FREED_WITHIN_S)


def test_a_database_that_goes_away_for_a_while_costs_no_word(
    start: StartServer, postgres_url: str, cluster: Cluster
) -> None:
    people = settle(parse_url(postgres_url))
    server = never_ends(start(accounts=quick_accounts(Database(people.url, wait_s=2)), slow_step_s=0.02))
    with browser(server, "member") as ann:
        conversation = begin(ann)
        answer = ask(ann, conversation, max_tokens=100)["answer"]["id"]
        events = follow(ann, conversation, answer)
        seen = [next(events)]
        with ThreadPoolExecutor(1) as pool:
            reader = pool.submit(seen.extend, events)
            cluster.stop()
            try:
                assert_error(ann.get(f"/api/conversations/{conversation}"), 503, code="database_unavailable")
                wait_until(lambda: is_free(server))
            finally:
                cluster.start()
            reader.result()
        text, message = "".join(event.data["text"] for event in seen[:-1]), seen[-1].data["message"]
        assert (message["finish_reason"], message["content"]) == ("length", text)
        assert message["usage"]["completion_tokens"] == 100
        assert look(ann, conversation)["messages"][1] == message


PROGRAM = """
import logging, socket, sys
from pathlib import Path
from chatwright.engine.load import load_text_model
from chatwright.server.app import create_app
from chatwright.server.run import run_server
from chatwright.settings import Settings
from chatwright.store.database import Database
from chatwright.store.url import sqlite_url
from tests.server.harness import MODEL, slow_down
from tests.server.tiny import CONTEXT
from tests.store.people import quick_accounts

logging.basicConfig(level=logging.DEBUG)
folder, home, step_s, grace_s = sys.argv[1:]
settings = Settings(threads=1, device="cpu", log_level="debug", graceful_timeout_s=float(grace_s), home=Path(home))
model = load_text_model(Path(folder), MODEL, settings)
model._end_ids = frozenset()
slow_down(model, float(step_s))
sock = socket.socket()
sock.bind(("127.0.0.1", 0))
accounts = quick_accounts(Database(sqlite_url(Path(home) / "chatwright.db")))
app = create_app(settings, [model], accounts=accounts)
run_server(app, settings, sock, lambda: print(sock.getsockname()[1], flush=True))
"""


class ServerProgram:
    """A server with accounts as a program of its own, which can be killed."""

    def __init__(self, folder: Path, home: Path, *, step_s: float = 0.05, grace_s: float = 20) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(home), str(step_s), str(grace_s)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self._log: list[str] = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline() or "0")
        assert self.port, self.log

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def http(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, trust_env=False, timeout=PATIENCE_S, **options)

    @property
    def log(self) -> str:
        return "".join(self._log)

    def end(self, how: signal.Signals) -> int:
        self.process.send_signal(how)
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        self._log.extend(self.process.stderr)


@pytest.fixture
def program(model_folder: Path, tmp_path: Path) -> Iterator[Any]:
    settle(tmp_path)
    started: list[ServerProgram] = []

    def run(**options: Any) -> ServerProgram:
        started.append(ServerProgram(model_folder, tmp_path, **options))
        return started[-1]

    yield run
    for server in started:
        server.process.kill()
        server.process.wait()


@pytest.mark.slow
def test_a_server_that_is_killed_leaves_no_row_that_lies(program: Any) -> None:
    server = program()
    with browser(server, "member") as ann:
        conversation, other = begin(ann), begin(ann)
        begun, whole = ask(ann, conversation, "Kanarienvogel"), ask(ann, other, max_tokens=5)
        _, finished = follow_to_end(ann, other, whole["answer"]["id"])
        events = follow(ann, conversation, begun["answer"]["id"])
        wait_until(lambda: len(look(ann, conversation)["messages"][1]["content"]) > 5)
        saved = look(ann, conversation)["messages"][1]["content"]
        next(events)
        server.end(signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            list(events)
    assert "Kanarienvogel" not in server.log
    again = program()
    with browser(again, "member") as ann:
        listed = ann.get("/api/conversations").json()["data"]
        assert [row["generating"] for row in listed] == [False, False]
        opened = look(ann, conversation)
        question, answer = opened["messages"]
        assert question["content"] == "Kanarienvogel"
        assert answer["finish_reason"] == "interrupted"
        assert answer["content"].startswith(saved)
        assert answer["error"]["code"] == "interrupted"
        assert "ask again" in answer["error"]["message"]
        assert follow_to_end(ann, conversation, answer["id"], after=3) == (answer["content"][3:], answer)
        assert stop(ann, conversation, answer["id"]) == answer
        assert look(ann, other)["messages"][1] == finished
        retried = ask(ann, conversation, None, parent_id=question["id"], max_tokens=3)["answer"]["id"]
        assert follow_to_end(ann, conversation, retried)[1]["finish_reason"] == "length"
    assert again.end(signal.SIGTERM) == 0


@pytest.mark.slow
def test_a_server_that_leaves_in_good_order_finishes_what_nobody_waits_for(program: Any, tmp_path: Path) -> None:
    server = program(step_s=0.03, grace_s=30)
    with browser(server, "member") as ann:
        conversation = begin(ann)
        ask(ann, conversation, max_tokens=60)
    assert server.end(signal.SIGTERM) == 0
    assert "Traceback" not in server.log
    again = program(grace_s=0.3)
    with browser(again, "member") as ann:
        answer = look(ann, conversation)["messages"][1]
        assert (answer["finish_reason"], answer["usage"]["completion_tokens"]) == ("length", 60)
        # And what takes longer than the grace period is ended, with a sentence, also to who reads along.
        begun = ask(ann, conversation, "More", parent_id=answer["id"])
        with ThreadPoolExecutor(1) as pool:
            reader = pool.submit(follow_to_end, ann, conversation, begun["answer"]["id"])
            wait_until(lambda: len(look(ann, conversation)["messages"][3]["content"]) > 3)
            assert again.end(signal.SIGTERM) == 0
            text, message = reader.result()
    assert message["finish_reason"] == "interrupted"
    assert message["content"] == text
    assert "shut down" in message["error"]["message"]
    assert "Traceback" not in again.log
    with closing(sqlite3.connect(tmp_path / "chatwright.db")) as kept:
        row = kept.execute("SELECT content, finish_reason FROM messages WHERE id = ?", [message["id"]]).fetchone()
        assert row == (text, "interrupted")
        assert kept.execute("SELECT count(*) FROM generations").fetchone() == (0,)


def test_a_draining_server_begins_no_answer(talking: RunningServer, ann: httpx.Client) -> None:
    conversation = begin(ann)
    state = talking.app.state.server
    state.draining = True
    try:
        body = {"model": MODEL, "content": "x"}
        answer = ann.post(f"/api/conversations/{conversation}/generations", json=body)
        assert_error(answer, 503, code="engine_overloaded")
    finally:
        state.draining = False
    assert look(ann, conversation)["messages"] == []


def test_a_conversation_can_be_as_long_as_it_may(
    talking: RunningServer, ann: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(said, "MOST_MESSAGES", 2)
    conversation = begin(ann)
    answer = ask(ann, conversation, max_tokens=1)["answer"]["id"]
    follow_to_end(ann, conversation, answer)
    body = {"model": MODEL, "content": "x", "parent_id": answer}
    refused = ann.post(f"/api/conversations/{conversation}/generations", json=body)
    assert_error(refused, 400, code="conversation_too_long")
    assert_error(
        ann.post(f"/api/conversations/{conversation}/messages", json={"content": "x"}),
        400,
        code="conversation_too_long",
    )


def test_what_the_user_says_can_be_kept_without_an_answer(ann: httpx.Client) -> None:
    conversation = begin(ann, title="Notes")
    path = f"/api/conversations/{conversation}/messages"
    message = ann.post(path, json={"content": "Remember the milk"}).json()
    assert (message["role"], message["parent_id"], message["position"]) == ("user", None, 17)
    version = ann.post(path, json={"content": "Remember the tea"}).json()
    opened = look(ann, conversation)
    assert [row["id"] for row in opened["messages"]] == [message["id"], version["id"]]
    assert (opened["title"], opened["active_message_id"]) == ("Notes", version["id"])
    text, last = follow_to_end(ann, conversation, message["id"])
    assert (text, last["id"]) == ("Remember the milk", message["id"])


def test_nothing_that_the_description_allows_or_forbids_is_a_server_error(
    talking: RunningServer, ann: httpx.Client
) -> None:
    """Good and bad requests of somebody who is signed in; every answer must be one that the description has."""
    schema = schemathesis.openapi.from_dict(talking.app.openapi())
    checks = [
        not_a_server_error,
        *CHECKS.get_by_names(["status_code_conformance", "content_type_conformance", "response_schema_conformance"]),
    ]
    conversation = begin(ann)
    answer = ask(ann, conversation, max_tokens=1)["answer"]["id"]
    headers = {"Cookie": f"chatwright_session={ann.cookies['chatwright_session']}", "Origin": talking.url}
    headers["X-CSRF-Token"] = ann.headers["X-CSRF-Token"]
    statuses: Counter[int] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()
        if not operation.path.startswith("/api/conversations"):
            continue
        for mode in GenerationMode:

            @settings(
                max_examples=6,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: schemathesis.Case) -> None:
                # Most random ids are nobody's; what is deleted would be missed.
                if case.path_parameters and case.method != "DELETE":
                    case.path_parameters = {"conversation_id": conversation, "message_id": answer}
                if isinstance(case.body, dict) and case.path.endswith("/generations"):
                    case.body["model"] = MODEL
                    if isinstance(case.body.get("max_tokens", 1), int):
                        case.body["max_tokens"] = min(case.body.get("max_tokens", 1), 2)
                response = case.call(base_url=talking.url, headers=headers)
                statuses[response.status_code] += 1
                case.validate_response(response, checks=checks)

            check()
    assert statuses[200] > 10
    assert statuses[400] > 5
    assert look(ann, conversation)["id"] == conversation
