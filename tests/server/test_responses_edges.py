"""/v1/responses at its edges: what is full, what is told of times and names, and sizes that hide more than the text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatwright.server.openai.streaming import EVENT_BLOCK
from chatwright.store.database import Database
from chatwright.store.responses import conversations
from tests.server.harness import MODEL, RunningServer, assert_error, start_server
from tests.server.people import People, bearer, settle
from tests.store.people import quick_accounts

ASK = {"role": "user", "content": "x"}


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return settle(tmp_path_factory.mktemp("edges"))


@pytest.fixture(scope="module")
def server(model_folder: Path, people: People) -> Iterator[RunningServer]:
    server = start_server(model_folder, accounts=quick_accounts(Database(people.url)))
    yield server
    server.stop()


@pytest.fixture
def http(server: RunningServer, people: People) -> Iterator[httpx.Client]:
    with server.http(headers=bearer(people.keys["inference key"])) as http:
        yield http


def ask(http: httpx.Client, **body: Any) -> httpx.Response:
    return http.post("/v1/responses", json={"model": MODEL, "temperature": 0, "max_output_tokens": 4, **body})


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.split("\n") if line.startswith("data: ")]


def test_a_conversation_without_room_is_refused_before_it_costs_anything(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "MAX_ITEMS", 4)
    conversation = http.post("/v1/conversations", json={"items": [ASK, ASK]}).json()["id"]
    items = f"/v1/conversations/{conversation}/items"
    assert ask(http, input="one", conversation=conversation).status_code == 200
    assert len(http.get(items).json()["data"]) == 4
    for stream in (False, True):
        refused = ask(http, input="two", conversation=conversation, stream=stream)
        assert "4 items" in assert_error(refused, 400, "invalid_value", "conversation")
    assert len(http.get(items).json()["data"]) == 4
    assert_error(http.post(items, json={"items": [ASK]}), 400, "invalid_value", "items")
    assert_error(http.post("/v1/conversations", json={"items": [ASK] * 5}), 400, "invalid_value", "items")


def test_more_messages_than_one_request_may_have_are_a_400(http: httpx.Client) -> None:
    """Instructions, and what was said before, are messages too."""
    message = assert_error(ask(http, input=[ASK] * 4096, instructions="Be short."), 400, "invalid_value", "input")
    assert "4096 messages" in message


def test_times_are_whole_seconds(http: httpx.Client) -> None:
    """As on OpenAI's wire: its Python client's type says float, but other clients read integers only."""
    finished = ask(http, input="x", text={"format": {"type": "json_schema", "name": "x", "schema": {"const": 1}}})
    assert finished.json()["status"] == "completed"
    queued = ask(http, input="x", background=True).json()
    told = [
        finished.json(),
        queued,
        http.get(f"/v1/responses/{finished.json()['id']}").json(),
        *(event["response"] for event in events(ask(http, input="x", stream=True).text) if "response" in event),
        http.post("/v1/conversations", json={}).json(),
    ]
    assert len(told) > 6
    assert all(type(item["created_at"]) is int for item in told), told
    assert type(told[0]["completed_at"]) is int
    assert type(told[2]["completed_at"]) is int


def test_events_with_probabilities_come_in_blocks(http: httpx.Client) -> None:
    """A probability names its token, and others: sizes would give their lengths away, as those of the text would."""
    asked: dict[str, Any] = {"input": "Hello", "top_logprobs": 2, "seed": 1, "temperature": 1.0, "stream": True}

    def sizes(**options: Any) -> list[int]:
        blocks = ask(http, **asked, max_output_tokens=40, **options).text.split("\n\n")
        return [len(f"{block}\n\n".encode()) for block in blocks if "event: response.output_text.delta" in block]

    hidden = sizes()
    assert len(hidden) > 20
    filling = len(',"obfuscation":""')
    assert {(size - filling) % EVENT_BLOCK for size in hidden} == {0}
    assert len({size % EVENT_BLOCK for size in sizes(stream_options={"include_obfuscation": False})}) > 3


def test_users_are_named_as_the_client_named_them(http: httpx.Client) -> None:
    assert ask(http, input="x", user="Ann").json()["user"] == "Ann"
    named = ask(http, input="x", safety_identifier="李雷").json()
    assert (named["user"], named["safety_identifier"]) == (None, "李雷")


@pytest.mark.parametrize("field", ["tools", "tool_choice"])
def test_tools_of_others_are_refused_under_the_name_of_their_field(http: httpx.Client, field: str) -> None:
    value: Any = {"type": "web_search_preview"}
    refused = ask(http, input="x", **{field: [value] if field == "tools" else value})
    assert_error(refused, 400, "unsupported_parameter", field)
