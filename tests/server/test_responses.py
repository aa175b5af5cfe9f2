"""/v1/responses with the official client on real sockets: state, streams taken up again, tools, background, and who may."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from openai.types.conversations import Conversation, ConversationItemList
from openai.types.responses import Response, ResponseItemList, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter
from sqlalchemy import func, select

from chatwright.server.openai.responses import running as running_module
from chatwright.server.openai.responses.described import DescribedResponse
from chatwright.store.accounts.service import Accounts
from chatwright.store.database import Database
from chatwright.store.migrate import upgrade
from chatwright.store.tables import Base, ResponseRow
from chatwright.store.url import parse_url, sqlite_url
from tests.server.harness import MODEL, RunningServer, assert_error, start_server, wait_until
from tests.server.people import ADMIN_TOKEN, SERVER_KEY, People, bearer, browser, settle
from tests.server.tiny import make_model_folder
from tests.serving import free_port
from tests.store.people import quick_accounts

CONTEXT = 8192
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
# Keeps the tiny model from coming to an end by itself.
ENDLESS = {"logit_bias": {"0": -100, "2": -100}}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "北京"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
TABLES = ("responses", "response_items", "api_conversations", "api_conversation_items", "stored_completions")


@pytest.fixture(scope="module")
def roomy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a context in which tools have room, and long answers."""
    return make_model_folder(tmp_path_factory.mktemp("models") / "tiny", context=CONTEXT)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return settle(tmp_path_factory.mktemp("responses"))


@pytest.fixture(scope="module")
def server(roomy_folder: Path, people: People) -> Iterator[RunningServer]:
    """A server with accounts."""
    server = start_server(
        roomy_folder, accounts=quick_accounts(Database(people.url)), api_key=SERVER_KEY, admin_token=ADMIN_TOKEN
    )
    yield server
    server.stop()


@pytest.fixture(scope="module")
def slow(roomy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, People]]:
    """Slow enough to meet answers half-way."""
    people = settle(tmp_path_factory.mktemp("slow"))
    server = start_server(
        roomy_folder, accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN, slow_step_s=0.02
    )
    yield server, people
    server.stop()


@contextmanager
def official(server: RunningServer, key: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
        yield client


@pytest.fixture
def client(server: RunningServer, people: People) -> Iterator[openai.OpenAI]:
    """The official client with a member's key."""
    with official(server, people.keys["inference key"]) as client:
        yield client


@pytest.fixture
def http(server: RunningServer, people: People) -> Iterator[httpx.Client]:
    with server.http(headers=bearer(people.keys["inference key"])) as http:
        yield http


def strict(kind: Any, values: dict[str, Any]) -> Any:
    """The object, which has to be one of the client's type."""
    return TypeAdapter(kind).validate_python(values)


def respond(http: httpx.Client, **body: Any) -> dict[str, Any]:
    """One good response."""
    answer = http.post("/v1/responses", json={"model": MODEL, "temperature": 0, **body})
    assert answer.status_code == 200, answer.text
    values: dict[str, Any] = answer.json()
    strict(Response, values)
    DescribedResponse.model_validate(values)
    return values


def text_of(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


def stream(
    http: httpx.Client, method: str = "POST", path: str = "/v1/responses", **options: Any
) -> list[dict[str, Any]]:
    """All events of a stream, checked: names, types, and numbers that count."""
    if "json" in options:
        options["json"] = {"model": MODEL, "temperature": 0, "stream": True, **options["json"]}
    answer = http.request(method, path, **options)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return parsed(answer.text)


def parsed(text: str) -> list[dict[str, Any]]:
    events = []
    for block in text.split("\n\n"):
        if not block or block.startswith(":"):
            continue
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENTS.validate_python(event)
        event.pop("obfuscation", None)
        events.append(event)
    return events


def rows(server: RunningServer, people: People) -> dict[str, int]:
    """How many rows each table of programs has."""

    async def count(accounts: Accounts) -> dict[str, int]:
        async with accounts.database.read() as session:
            return {
                name: await session.scalar(select(func.count()).select_from(Base.metadata.tables[name])) or 0
                for name in TABLES
            }

    found: dict[str, int] = people.do(count)
    return found


# --- answers


def test_the_official_client_is_answered(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="Hello", max_output_tokens=8, temperature=0)
    assert response.status == "incomplete"
    assert response.incomplete_details
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output_text
    assert response.usage
    assert response.usage.output_tokens == 8
    assert response.usage.total_tokens == response.usage.input_tokens + 8
    again = client.responses.retrieve(response.id)
    assert again.to_dict() == response.to_dict()
    assert client.responses.input_items.list(response.id).data[0].to_dict()["content"] == [
        {"type": "input_text", "text": "Hello"}
    ]


def test_it_is_the_answer_of_chat(http: httpx.Client) -> None:
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "The capital"}]
    sampling = {"model": MODEL, "temperature": 0.8, "seed": 7, "top_p": 0.9}
    chat = http.post("/v1/chat/completions", json={**sampling, "messages": messages, "max_tokens": 30}).json()
    response = respond(http, **sampling, instructions="Be short.", input="The capital", max_output_tokens=30)
    assert text_of(response) == chat["choices"][0]["message"]["content"]
    assert response["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]
    assert response["usage"]["output_tokens"] == chat["usage"]["completion_tokens"]
    counted = http.post(
        "/v1/responses/input_tokens", json={"model": MODEL, "instructions": "Be short.", "input": "The capital"}
    ).json()
    assert counted == {"object": "response.input_tokens", "input_tokens": chat["usage"]["prompt_tokens"]}


def test_what_was_asked_for_is_told_in_full(http: httpx.Client) -> None:
    asked = {
        "instructions": "Answer.",
        "metadata": {"topic": "猫"},
        "max_output_tokens": 4,
        "top_p": 0.5,
        "parallel_tool_calls": False,
        "truncation": "auto",
        "tools": [WEATHER],
        "tool_choice": "none",
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
    }
    response = respond(http, input="Hi", **asked)
    for name, value in asked.items():
        assert response[name] == value | {"verbosity": "medium"} if name == "text" else response[name] == value, name
    assert response["store"] is True
    assert response["object"] == "response"


class Person(BaseModel):
    name: Literal["Ann", "李雷"]
    age: Literal[7, 11]


def test_structured_output_is_parsed_by_the_client(client: openai.OpenAI) -> None:
    response = client.responses.parse(model=MODEL, input="Who?", text_format=Person, temperature=0)
    assert isinstance(response.output_parsed, Person)
    with client.responses.stream(model=MODEL, input="Who?", text_format=Person, temperature=0) as events:
        for _ in events:
            pass
        assert events.get_final_response().output_parsed == response.output_parsed


def test_probabilities_are_of_the_text(http: httpx.Client) -> None:
    asked = {"input": "Hi", "max_output_tokens": 6, "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    part = respond(http, **asked)["output"][0]["content"][0]
    assert "".join(token["token"] for token in part["logprobs"]) == part["text"]
    assert all(len(token["top_logprobs"]) == 2 for token in part["logprobs"])
    events = stream(http, json=asked)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    told = [token for event in deltas for token in event["logprobs"]]
    assert [token["logprob"] for token in told] == [token["logprob"] for token in part["logprobs"]]
    assert respond(http, input="Hi", max_output_tokens=6)["output"][0]["content"][0]["logprobs"] == []


# --- streams


def test_a_stream_has_openais_order_and_comes_to_the_same(http: httpx.Client) -> None:
    whole = respond(http, input="Hello", max_output_tokens=20)
    events = stream(http, json={"input": "Hello", "max_output_tokens": 20})
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert "".join(event["delta"] for event in events if "delta" in event) == text_of(whole)
    final = events[-1]["response"]
    assert text_of(final) == text_of(whole)
    for other in ("id", "created_at", "completed_at", "output"):
        final.pop(other), whole.pop(other)
    final["usage"]["input_tokens_details"] = whole["usage"]["input_tokens_details"]
    assert final == whole


def test_the_clients_helper_reads_streams(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="Hello", max_output_tokens=600, temperature=0) as events:
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert events.get_final_response().output_text == text


def test_the_sizes_of_events_are_hidden(http: httpx.Client) -> None:
    def sizes(options: dict[str, Any]) -> set[int]:
        body = {"model": MODEL, "input": "Hello", "max_output_tokens": 40, "seed": 1, "stream": True, **options}
        text = http.post("/v1/responses", json=body).text
        lines = [line for line in text.split("\n") if line.startswith('data: {"content_index"') and '"delta"' in line]
        assert len(lines) > 20
        return {len(line.encode()) - len(str(json.loads(line[6:])["sequence_number"])) for line in lines}

    assert len(sizes({})) < 3
    assert len(sizes({"stream_options": {"include_obfuscation": False}})) > 3


def test_what_is_refused_before_the_first_event_has_a_status(
    http: httpx.Client, server: RunningServer, people: People
) -> None:
    before = rows(server, people)
    too_long = {"model": MODEL, "input": "a b c d " * 9000, "stream": True}
    assert_error(http.post("/v1/responses", json=too_long), 400, "context_length_exceeded", "input")
    impossible = {"type": "json_schema", "name": "x", "schema": {"not": {}}}
    body = {"model": MODEL, "input": "x", "stream": True, "text": {"format": impossible}}
    assert_error(http.post("/v1/responses", json=body), 400, param="text")
    assert rows(server, people) == before, "nothing is left of what never began"


def test_any_event_can_be_gone_on_from(http: httpx.Client) -> None:
    events = stream(http, json={"input": "Hello", "max_output_tokens": 12})
    path = f"/v1/responses/{events[0]['response']['id']}"
    assert stream(http, "GET", path, params={"stream": "true"}) == events
    for after in (0, 5, len(events) - 2, len(events) + 3):
        again = stream(http, "GET", path, params={"stream": "true", "starting_after": after})
        assert again == events[after + 1 :]
    assert_error(http.get(path, params={"starting_after": 1}), 400, param="starting_after")


# --- state


def test_previous_responses_are_remembered(http: httpx.Client) -> None:
    first = respond(http, input="My name is Ann.", instructions="Be kind.", max_output_tokens=10)
    second = respond(http, input="Who am I?", previous_response_id=first["id"], max_output_tokens=10)
    third = respond(http, input="And now?", previous_response_id=second["id"], max_output_tokens=10)
    messages = [
        {"role": "user", "content": "My name is Ann."},
        {"role": "assistant", "content": text_of(first)},
        {"role": "user", "content": "Who am I?"},
        {"role": "assistant", "content": text_of(second)},
        {"role": "user", "content": "And now?"},
    ]
    chat = {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 10}
    same = http.post("/v1/chat/completions", json=chat).json()
    assert text_of(third) == same["choices"][0]["message"]["content"]
    assert third["usage"]["input_tokens"] == same["usage"]["prompt_tokens"], "instructions are not carried over"
    listed = ResponseItemList.model_validate(http.get(f"/v1/responses/{third['id']}/input_items").json())
    assert [item.role for item in listed.data] == ["user", "assistant", "user", "assistant", "user"], "newest first"
    said = ["".join(part.text for part in item.content) for item in reversed(listed.data)]
    assert said == [message["content"] for message in messages]
    pages = http.get(f"/v1/responses/{third['id']}/input_items", params={"limit": 2, "after": listed.data[1].id}).json()
    assert [item["id"] for item in pages["data"]] == [item.id for item in listed.data[2:4]]
    assert pages["has_more"] is True
    by_hand = respond(http, input=messages, max_output_tokens=10, store=False)
    assert text_of(by_hand) == text_of(third)
    assert http.delete(f"/v1/responses/{second['id']}").json()["deleted"] is True
    gone = http.post("/v1/responses", json={"model": MODEL, "input": "x", "previous_response_id": third["id"]})
    assert_error(gone, 400, "previous_response_not_found", "previous_response_id")
    assert_error(http.get(f"/v1/responses/{second['id']}"), 404)
    left = http.get(f"/v1/responses/{third['id']}/input_items").json()["data"]
    assert [item["content"][0]["text"] for item in left] == ["And now?"], "what was deleted is in no list"


def test_items_can_be_referred_to(http: httpx.Client) -> None:
    first = respond(http, input="The cat", max_output_tokens=10)
    item = first["output"][0]
    by_id = respond(http, input=[{"type": "item_reference", "id": item["id"]}, {"role": "user", "content": "?"}])
    in_full = respond(http, input=[item, {"role": "user", "content": "?"}])
    assert text_of(by_id) == text_of(in_full)
    body = {"model": MODEL, "input": [{"type": "item_reference", "id": "msg_doesnotexist"}]}
    assert_error(http.post("/v1/responses", json=body), 400, "item_not_found", "input")


def test_store_false_leaves_nothing(http: httpx.Client, server: RunningServer, people: People) -> None:
    kept = respond(http, input="Hi", max_output_tokens=2)
    before = rows(server, people)
    alone = respond(http, input="Secret", max_output_tokens=4, store=False)
    assert alone["store"] is False
    respond(http, input="Secret", previous_response_id=kept["id"], max_output_tokens=4, store=False)
    events = stream(http, json={"input": "Secret", "max_output_tokens": 4, "store": False})
    assert rows(server, people) == before
    assert_error(http.get(f"/v1/responses/{alone['id']}"), 404)
    assert_error(http.get(f"/v1/responses/{events[0]['response']['id']}"), 404)
    for state in ({"background": True}, {"conversation": "conv_x"}):
        body = {"model": MODEL, "input": "x", "store": False, **state}
        assert_error(http.post("/v1/responses", json=body), 400, param=next(iter(state)))


def test_deleting_leaves_nothing(http: httpx.Client, server: RunningServer, people: People) -> None:
    before = rows(server, people)
    kept = respond(http, input="Hi", max_output_tokens=2)
    assert rows(server, people) != before
    http.delete(f"/v1/responses/{kept['id']}")
    assert rows(server, people) == before


def test_a_context_that_is_full_can_be_cut(http: httpx.Client) -> None:
    turns = [{"role": role, "content": "The cat sat. " * 80} for _ in range(30) for role in ("user", "assistant")]
    asked = {"model": MODEL, "input": [*turns, {"role": "user", "content": "Hi"}], "instructions": "Be short."}
    asked |= {"max_output_tokens": 4, "temperature": 0, "store": False}
    assert_error(http.post("/v1/responses", json=asked), 400, "context_length_exceeded", "input")
    cut = respond(http, **asked, truncation="auto")
    assert CONTEXT // 2 < cut["usage"]["input_tokens"] <= CONTEXT - 4
    assert cut["truncation"] == "auto"
    last = {**asked, "input": "The cat sat. " * 9000, "truncation": "auto"}
    assert_error(http.post("/v1/responses", json=last), 400, "context_length_exceeded", "input")


# --- tools


def test_a_function_is_called_and_its_result_read(client: openai.OpenAI) -> None:
    called = client.responses.create(
        model=MODEL, input="Weather?", tools=[WEATHER], tool_choice="required", temperature=0, parallel_tool_calls=False
    )
    [call] = called.output
    assert call.type == "function_call"
    assert json.loads(call.arguments)["city"] in ("Paris", "北京")
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "12 °C"}
    answer = client.responses.create(
        model=MODEL, input=[result], previous_response_id=called.id, temperature=0, max_output_tokens=8
    )
    assert answer.output_text
    history: Any = [{"role": "user", "content": "Weather?"}, call.to_dict(), result]
    by_hand = client.responses.create(model=MODEL, input=history, temperature=0, max_output_tokens=8, store=False)
    assert by_hand.output_text == answer.output_text
    items = client.responses.input_items.list(answer.id).data
    assert [item.type for item in items] == ["function_call_output", "function_call", "message"]


def test_calls_are_streamed(http: httpx.Client) -> None:
    asked = {"input": "Weather?", "tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}}
    events = stream(http, json=asked)
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[2] == "output_item.added"
    assert kinds[-3:] == ["function_call_arguments.done", "output_item.done", "completed"]
    assert set(kinds[3:-3]) == {"function_call_arguments.delta"}
    arguments = "".join(event["delta"] for event in events if "delta" in event)
    assert events[-3]["arguments"] == arguments == events[-1]["response"]["output"][0]["arguments"]
    path = f"/v1/responses/{events[0]['response']['id']}"
    assert stream(http, "GET", path, params={"stream": "true"}) == events


CALL = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
ASK = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("input", "said"),
    [
        ([ASK, OUTPUT], "No tool call found"),
        ([OUTPUT, CALL, ASK], "No tool call found"),
        ([CALL], "No tool output found"),
        ([ASK, CALL, ASK], "No tool output found"),
    ],
)
def test_results_and_calls_belong_together(http: httpx.Client, input: list[Any], said: str) -> None:
    response = http.post("/v1/responses", json={"model": MODEL, "input": input})
    assert said in assert_error(response, 400, "invalid_value", "input")


def test_a_call_that_stays_without_result_stops_the_conversation(http: httpx.Client) -> None:
    called = respond(http, input="Weather?", tools=[WEATHER], tool_choice="required")
    body = {"model": MODEL, "input": "Never mind", "previous_response_id": called["id"]}
    assert "No tool output found" in assert_error(http.post("/v1/responses", json=body), 400, param="input")


# --- conversations


def test_a_conversation_is_led(client: openai.OpenAI, http: httpx.Client) -> None:
    conversation = client.conversations.create(
        items=[{"type": "message", "role": "user", "content": "My name is 李雷."}], metadata={"topic": "names"}
    )
    strict(Conversation, conversation.to_dict())
    first = client.responses.create(
        model=MODEL, input="Who am I?", conversation=conversation.id, temperature=0, max_output_tokens=6
    )
    assert first.conversation
    assert first.conversation.id == conversation.id
    second = client.responses.create(
        model=MODEL, input="And?", conversation={"id": conversation.id}, temperature=0, max_output_tokens=6
    )
    raw = http.get(f"/v1/conversations/{conversation.id}/items", params={"order": "asc"}).json()
    items = ConversationItemList.model_validate(raw).data
    assert [item.role for item in items if item.type == "message"] == [
        "user",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert items[2].id == first.output[0].id
    messages = [
        {"role": item["role"], "content": "".join(part["text"] for part in item["content"])}
        for item in raw["data"][:-1]
    ]
    assert text_of(respond(http, input=messages, max_output_tokens=6, store=False)) == second.output_text
    assert client.conversations.items.retrieve(items[2].id, conversation_id=conversation.id).to_dict() == raw["data"][2]

    paged = [item.id for item in client.conversations.items.list(conversation.id, limit=2)]
    assert paged == [item.id for item in reversed(items)]
    added = client.conversations.items.create(conversation.id, items=[{"role": "user", "content": "More"}])
    assert client.conversations.items.list(conversation.id, limit=1).data[0].id == added.data[0].id
    assert client.conversations.items.delete(added.data[0].id, conversation_id=conversation.id).id == conversation.id
    assert client.conversations.items.list(conversation.id, limit=1).data[0].id == items[-1].id
    changed = client.conversations.update(conversation.id, metadata={"topic": "猫"})
    assert client.conversations.retrieve(conversation.id).metadata == changed.metadata == {"topic": "猫"}
    assert client.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(conversation.id)
    assert client.responses.retrieve(first.id).status == "incomplete", "responses stay"
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model=MODEL, input="x", conversation=conversation.id)


# --- in the background


def test_a_background_response_goes_on_alone(slow: tuple[RunningServer, People]) -> None:
    server, people = slow
    with server.http(headers=bearer(people.keys["inference key"])) as http:
        queued = respond(http, input="Hello", background=True, max_output_tokens=20)
        assert queued["status"] == "queued"
        assert queued["output"] == []
        path = f"/v1/responses/{queued['id']}"
        wait_until(lambda: http.get(path).json()["status"] == "incomplete")
        ended = http.get(path).json()
        assert strict(Response, ended).usage.output_tokens == 20
        assert text_of(ended) == text_of(respond(http, input="Hello", max_output_tokens=20))


def test_a_stream_is_taken_up_where_it_was_left(slow: tuple[RunningServer, People]) -> None:
    server, people = slow
    with official(server, people.keys["inference key"]) as client:
        events = client.responses.create(
            model=MODEL, input="Hello", background=True, stream=True, max_output_tokens=60, temperature=0
        )
        seen: list[Any] = []
        for event in events:
            seen.append(event.to_dict())
            if len(seen) == 12:
                break
        events.close()  # the connection is gone, the response is not
        assert server.load()[0] == 1
        response_id = seen[0]["response"]["id"]
        rest = [
            event.to_dict()
            for event in client.responses.retrieve(response_id, stream=True, starting_after=seen[-1]["sequence_number"])
        ]
        whole = [event.to_dict() for event in client.responses.retrieve(response_id, stream=True)]
    for event in [*seen, *rest, *whole]:
        event.pop("obfuscation", None)
    assert [*seen, *rest] == whole
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    assert [event["type"] for event in whole[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert whole[-1]["response"]["status"] == "incomplete"


def test_cancelling_stops_the_engine(slow: tuple[RunningServer, People]) -> None:
    server, people = slow
    with official(server, people.keys["inference key"]) as client:
        running = client.responses.create(model=MODEL, input="x", background=True, extra_body=ENDLESS)
        wait_until(lambda: server.load()[0] == 1)
        cancelled = client.responses.cancel(running.id)
        assert cancelled.status == "cancelled"
        wait_until(lambda: server.load() == (0, 0))
        assert client.responses.cancel(running.id).to_dict() == cancelled.to_dict()
        assert client.responses.retrieve(running.id).to_dict() == cancelled.to_dict()
        events = list(client.responses.retrieve(running.id, stream=True))
        assert events[-1].type == "response.incomplete"
        assert events[-1].response.status == "cancelled"
        done = client.responses.create(model=MODEL, input="x", max_output_tokens=1)
        with pytest.raises(openai.BadRequestError):
            client.responses.cancel(done.id)


def test_one_that_is_deleted_while_it_is_written_ends(slow: tuple[RunningServer, People]) -> None:
    server, people = slow
    with server.http(headers=bearer(people.keys["inference key"])) as http:
        body = {"model": MODEL, "input": "x", "stream": True, **ENDLESS}
        with http.stream("POST", "/v1/responses", json=body) as answer:
            lines = answer.iter_lines()
            response_id = next(json.loads(line[6:])["response"]["id"] for line in lines if line.startswith("data: "))
            with server.http(headers=bearer(people.keys["inference key"])) as other:
                assert other.delete(f"/v1/responses/{response_id}").status_code == 200
            last = [json.loads(line[6:]) for line in lines if line.startswith("data: ")][-1]
        assert (last["type"], last["code"]) == ("error", "response_deleted")
        wait_until(lambda: server.load() == (0, 0))
        assert_error(http.get(f"/v1/responses/{response_id}"), 404)


def test_one_in_front_ends_with_its_client(slow: tuple[RunningServer, People]) -> None:
    server, people = slow
    with server.http(headers=bearer(people.keys["inference key"])) as http:
        body = {"model": MODEL, "input": "x", "stream": True, **ENDLESS}
        with http.stream("POST", "/v1/responses", json=body) as answer:
            data = next(line for line in answer.iter_lines() if line.startswith("data: "))
        response_id = json.loads(data[6:])["response"]["id"]
        wait_until(lambda: server.load() == (0, 0))
        wait_until(lambda: http.get(f"/v1/responses/{response_id}").json()["status"] == "cancelled")


def test_a_queue_that_is_full_does_not_lose_what_is_in_the_background(roomy_folder: Path, tmp_path: Path) -> None:
    people = settle(tmp_path)
    server = start_server(
        roomy_folder,
        accounts=quick_accounts(Database(people.url)),
        slow_step_s=0.01,
        max_batch=1,
        max_queue=1,
    )
    try:
        with server.http(headers=bearer(people.keys["inference key"])) as http:
            ids = [respond(http, input="x", background=True, max_output_tokens=10)["id"] for _ in range(6)]
            wait_until(lambda: all(http.get(f"/v1/responses/{id}").json()["status"] == "incomplete" for id in ids))
    finally:
        server.stop()


def test_what_waits_in_the_background_is_bounded(
    slow: tuple[RunningServer, People], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_module, "MAX_BACKGROUND_OF_ONE", 2)
    server, people = slow
    with server.http(headers=bearer(people.keys["inference key"])) as http, browser(server, "other") as other:
        ids = [respond(http, input="x", background=True, **ENDLESS)["id"] for _ in range(2)]
        refused = http.post("/v1/responses", json={"model": MODEL, "input": "x", "background": True})
        assert_error(refused, 503, "engine_overloaded")
        assert "retry-after" in refused.headers
        assert respond(other, input="x", background=True, max_output_tokens=1)["status"] == "queued"
        for response_id in ids:
            assert http.post(f"/v1/responses/{response_id}/cancel").json()["status"] == "cancelled"
        wait_until(lambda: server.load() == (0, 0))


# --- who may


def test_what_belongs_to_others_does_not_exist(server: RunningServer, people: People, http: httpx.Client) -> None:
    mine = respond(http, input="Secret", max_output_tokens=2)
    conversation = http.post("/v1/conversations", json={"items": [ASK]}).json()["id"]
    item = http.get(f"/v1/conversations/{conversation}/items").json()["data"][0]["id"]
    thieves: list[httpx.Client] = [server.http(headers=bearer(ADMIN_TOKEN))]
    with browser(server, "other") as other, browser(server, "owner") as owner:
        thieves += [other, owner]
        for thief in thieves:
            for method, path in (
                ("GET", f"responses/{mine['id']}"),
                ("GET", f"responses/{mine['id']}?stream=true"),
                ("GET", f"responses/{mine['id']}/input_items"),
                ("POST", f"responses/{mine['id']}/cancel"),
                ("DELETE", f"responses/{mine['id']}"),
                ("GET", f"conversations/{conversation}"),
                ("POST", f"conversations/{conversation}"),
                ("DELETE", f"conversations/{conversation}"),
                ("GET", f"conversations/{conversation}/items"),
                ("POST", f"conversations/{conversation}/items"),
                ("GET", f"conversations/{conversation}/items/{item}"),
                ("DELETE", f"conversations/{conversation}/items/{item}"),
            ):
                body = {"items": [ASK]} if path.endswith("items") else {"metadata": {}}
                answer = thief.request(method, f"/v1/{path}", **({"json": body} if method == "POST" else {}))
                assert_error(answer, 404, "not_found")
            for state, status in (
                ({"previous_response_id": mine["id"]}, 400),
                ({"conversation": conversation}, 404),
                ({"input": [{"type": "item_reference", "id": mine["output"][0]["id"]}]}, 400),
            ):
                assert_error(thief.post("/v1/responses", json={"model": MODEL, "input": "x", **state}), status)
    thieves[0].close()
    with browser(server, "member") as member:
        assert member.get(f"/v1/responses/{mine['id']}").json() == mine, "it is the user's, not the key's"
    assert http.get(f"/v1/conversations/{conversation}/items").json()["data"][0]["id"] == item


def test_who_can_not_be_told_apart_leaves_nothing(roomy_folder: Path, tmp_path: Path) -> None:
    """An open server, and one whose key is everybody's."""
    url = sqlite_url(tmp_path / "chatwright.db")
    asyncio.run(upgrade(url))
    for settings, headers in (({}, {}), ({"api_key": SERVER_KEY}, bearer(SERVER_KEY))):
        server = start_server(roomy_folder, database=Database(url), admin_token=ADMIN_TOKEN, home=tmp_path, **settings)
        try:
            with server.http(headers=headers) as http, server.http(headers=bearer(ADMIN_TOKEN)) as operator:
                alone = respond(http, input="Hi", max_output_tokens=2)
                assert alone["store"] is False
                for state in (
                    {"store": True},
                    {"background": True},
                    {"previous_response_id": "resp_x"},
                    {"conversation": "conv_x"},
                    {"input": [{"type": "item_reference", "id": "msg_x"}]},
                ):
                    answer = http.post("/v1/responses", json={"model": MODEL, "input": "x", **state})
                    assert "--accounts" in assert_error(answer, 403)
                assert_error(http.get(f"/v1/responses/{alone['id']}"), 403)
                assert_error(http.post("/v1/conversations", json={}), 403)
                kept = respond(operator, input="Hi", max_output_tokens=2)
                assert kept["store"] is True
                assert operator.get(f"/v1/responses/{kept['id']}").json() == kept
                assert_error(http.get(f"/v1/responses/{kept['id']}"), 403)
        finally:
            server.stop()


def test_a_server_without_a_database_answers_and_keeps_nothing(roomy_folder: Path) -> None:
    server = start_server(roomy_folder, admin_token=ADMIN_TOKEN)
    try:
        with server.http(headers=bearer(ADMIN_TOKEN)) as operator:
            assert respond(operator, input="Hi", max_output_tokens=2)["store"] is False
            body = {"model": MODEL, "input": "Hi", "store": True}
            assert_error(operator.post("/v1/responses", json=body), 503, "database_unavailable")
            assert_error(operator.get("/v1/responses/resp_x"), 503)
    finally:
        server.stop()


# --- when the server ends


def test_a_server_that_leaves_in_good_order_says_so(roomy_folder: Path, tmp_path: Path) -> None:
    people = settle(tmp_path)
    server = start_server(
        roomy_folder, accounts=quick_accounts(Database(people.url)), slow_step_s=0.02, graceful_timeout_s=0.3
    )
    with server.http(headers=bearer(people.keys["inference key"])) as http:
        running, waiting = (
            respond(http, input="x", background=True, **ENDLESS),
            respond(http, input="x", background=True, **ENDLESS),
        )
        wait_until(lambda: server.load()[0] > 0)
    server.stop()

    async def read(accounts: Accounts) -> list[dict[str, Any]]:
        async with accounts.database.read() as session:
            found = [await session.get_one(ResponseRow, response["id"]) for response in (running, waiting)]
            return [json.loads(row.head) for row in found]

    for head in people.do(read):
        assert head["status"] == "failed"
        assert "shut down" in head["error"]["message"]


@pytest.mark.slow
def test_a_killed_server_lies_about_nothing(roomy_folder: Path, tmp_path: Path) -> None:
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("CHATWRIGHT_", "OPENAI_"))},
        "CHATWRIGHT_HOME": str(tmp_path / "home"),
        "CHATWRIGHT_ADMIN_TOKEN": ADMIN_TOKEN,
        "LANG": "C.UTF-8",
    }

    @contextmanager
    def running() -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "chatwright", "serve", str(roomy_folder), "--port", str(port)]
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            with httpx.Client(trust_env=False) as probe:
                deadline = time.monotonic() + 90
                while True:
                    assert process.poll() is None, (tmp_path / "log").read_text()
                    assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                    try:
                        if probe.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                            break
                    except httpx.TransportError:
                        pass
                    time.sleep(0.1)
            yield process
        finally:
            process.kill()
            process.wait(60)

    http = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=bearer(ADMIN_TOKEN), trust_env=False, timeout=30)
    with running() as process:
        name = http.get("/v1/models").json()["data"][0]["id"]
        finished = respond(http, model=name, input="Hi", max_output_tokens=4)
        body = {"model": name, "input": "x", "background": True, "stream": True, **ENDLESS}
        with http.stream("POST", "/v1/responses", json=body) as answer:
            seen = []
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    seen.append(json.loads(line[6:]))
                if len(seen) > 10:
                    break
            process.send_signal(signal.SIGKILL)
            process.wait(60)
    response_id, last = seen[0]["response"]["id"], seen[-1]["sequence_number"]
    with running():
        lost = http.get(f"/v1/responses/{response_id}").json()
        strict(Response, lost)
        assert lost["status"] == "failed"
        assert "server ended" in lost["error"]["message"]
        [end] = stream(http, "GET", f"/v1/responses/{response_id}", params={"stream": "true", "starting_after": last})
        assert (end["type"], end["sequence_number"]) == ("response.failed", last + 1)
        assert http.get(f"/v1/responses/{finished['id']}").json() == finished
        going_on = respond(http, model=name, input="?", previous_response_id=finished["id"], max_output_tokens=2)
        assert going_on["previous_response_id"] == finished["id"]
    http.close()


def test_what_another_server_left_behind_is_found_out(people: People, http: httpx.Client) -> None:
    """A row of a server that was silent for long is called failed by whoever is asked for it."""
    kept = respond(http, input="Hi", max_output_tokens=2)

    async def turn_back(accounts: Accounts) -> None:
        async with accounts.database.write() as session:
            row = await session.get_one(ResponseRow, kept["id"])
            row.status, row.server, row.seen_at = "in_progress", "f" * 64, 0

    people.do(turn_back)
    assert http.get(f"/v1/responses/{kept['id']}").json()["status"] == "failed"


def test_servers_on_one_database_know_of_each_others_work(
    roomy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_module, "LOOK_EVERY_S", 0.1)
    people = settle(tmp_path)
    one, two = (
        start_server(
            roomy_folder, accounts=quick_accounts(Database(people.url)), slow_step_s=0.02, home=tmp_path / name
        )
        for name in ("one", "two")
    )
    try:
        key = people.keys["inference key"]
        with one.http(headers=bearer(key)) as here, two.http(headers=bearer(key)) as there:
            begun = respond(here, input="x", background=True, max_output_tokens=40)
            path = f"/v1/responses/{begun['id']}"
            wait_until(lambda: there.get(path).json()["status"] == "in_progress")
            followed = stream(there, "GET", path, params={"stream": "true"})
            assert followed == stream(here, "GET", path, params={"stream": "true"})
            assert followed[-1]["response"]["usage"]["output_tokens"] == 40

            begun = respond(here, input="x", background=True, **ENDLESS)
            cancelled = there.post(f"/v1/responses/{begun['id']}/cancel").json()
            assert cancelled["status"] == "cancelled"
            wait_until(lambda: one.load() == (0, 0))

            begun = respond(here, input="x", background=True, **ENDLESS)
            wait_until(lambda: one.load()[0] == 1)
            assert there.delete(f"/v1/responses/{begun['id']}").status_code == 200
            wait_until(lambda: one.load() == (0, 0))
    finally:
        one.stop()
        two.stop()


def test_suspension_ends_what_is_written(slow: tuple[RunningServer, People], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_module, "LOOK_EVERY_S", 0.1)
    server, people = slow
    with server.http(headers=bearer(people.keys["inference key"])) as http, browser(server, "admin") as admin:
        respond(http, input="x", background=True, **ENDLESS)
        wait_until(lambda: server.load()[0] == 1)
        user = people.ids["member"]
        assert admin.patch(f"/api/users/{user}", json={"status": "suspended"}).status_code == 200
        wait_until(lambda: server.load() == (0, 0))
        assert admin.patch(f"/api/users/{user}", json={"status": "active"}).status_code == 200


# --- bad input

UNSUPPORTED: list[dict[str, Any]] = [
    {"tools": [{"type": "web_search"}]},
    {"tools": [{"type": "mcp", "server_label": "x"}]},
    {"tools": [{"type": "custom", "name": "x"}]},
    {"tool_choice": {"type": "file_search"}},
    {"prompt": {"id": "pmpt_1"}},
    {"max_tool_calls": 3},
    {"n": 2},
    {"reasoning": {"effort": "high"}},
    {"text": {"verbosity": "low"}},
    {"context_management": [{"type": "compaction"}]},
    {"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]},
    {"input": [{"type": "computer_call_output", "call_id": "x", "output": {}}]},
]
INVALID: list[dict[str, Any]] = [
    {},
    {"input": ""},
    {"input": []},
    {"input": 3},
    {"input": [3]},
    {"input": [{}]},
    {"input": [{"role": "robot", "content": "x"}]},
    {"input": [{"role": "user"}]},
    {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
    {"input": [{"type": "function_call", "name": "x"}]},
    {"input": "x", "temperature": 3},
    {"input": "x", "max_output_tokens": 0},
    {"input": "x", "top_logprobs": 21},
    {"input": "x", "include": ["everything"]},
    {"input": "x", "metadata": {str(n): "x" for n in range(17)}},
    {"input": "x", "metadata": {"k": "x" * 513}},
    {"input": "x", "metadata": {"k": 3}},
    {"input": "x", "metadata": {"k": "\0"}},
    {"input": "x", "previous_response_id": "resp_x", "conversation": "conv_x"},
    {"input": "x", "previous_response_id": "\0"},
    {"input": "x", "text": {"format": {"type": "json_schema"}}},
    {"input": "x", "tools": [WEATHER, WEATHER]},
    {"input": "x", "tool_choice": {"type": "function", "name": "get_weather"}},
    {"input": "x", "stream_options": {"include_obfuscation": False}},
    {"input": [ASK] * 4097},
]


@pytest.mark.parametrize("body", [*UNSUPPORTED, *INVALID], ids=lambda body: json.dumps(body)[:60])
def test_what_can_not_be_done_is_refused_by_name(http: httpx.Client, body: dict[str, Any]) -> None:
    answer = http.post("/v1/responses", json={"model": MODEL, "input": "x", **body} if body else {"model": MODEL})
    assert_error(answer, 400, "unsupported_parameter" if body in UNSUPPORTED else None)


@pytest.mark.parametrize("id", ["resp_x", "resp-x", "%00", "resp_%00", "..%2f..", "a" * 500, "'; DROP TABLE responses"])
def test_ids_that_are_none_are_not_found(http: httpx.Client, id: str) -> None:
    assert http.get(f"/v1/responses/{id}").status_code == 404
    assert http.delete(f"/v1/conversations/{id}").status_code == 404


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up", "after=msg_x"])
def test_bad_pages_are_refused(http: httpx.Client, query: str) -> None:
    kept = respond(http, input="Hi", max_output_tokens=2)
    assert_error(http.get(f"/v1/responses/{kept['id']}/input_items?{query}"), 400)
    conversation = http.post("/v1/conversations", json={}).json()["id"]
    assert_error(http.get(f"/v1/conversations/{conversation}/items?{query}"), 400)


def test_on_postgresql(roomy_folder: Path, postgres_url: str) -> None:
    people = settle(parse_url(postgres_url))
    server = start_server(roomy_folder, accounts=quick_accounts(Database(people.url)))
    try:
        with official(server, people.keys["inference key"]) as client:
            first = client.responses.create(model=MODEL, input="Hello\u0000 猫", max_output_tokens=4)
            second = client.responses.create(
                model=MODEL, input="?", previous_response_id=first.id, background=True, max_output_tokens=4
            )
            wait_until(lambda: client.responses.retrieve(second.id).status in ("incomplete", "completed"))
            conversation = client.conversations.create(metadata={"k": "v"})
            client.responses.create(model=MODEL, input="x", conversation=conversation.id, max_output_tokens=2)
            assert len(client.conversations.items.list(conversation.id).data) == 2
            client.responses.delete(first.id)
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve("resp_\0")
    finally:
        server.stop()
