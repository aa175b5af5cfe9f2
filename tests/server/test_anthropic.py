"""/v1/messages: the chat of the other endpoint in Anthropic's form, by its official client and by wire."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent, TextBlock, ToolUseBlock
from pydantic import TypeAdapter

from tests.server.conftest import KEY, StartServer
from tests.server.harness import MODEL, RunningServer, start_server
from tests.server.tiny import make_model_folder

CONTEXT = 2048
HELLO: list[Any] = [{"role": "user", "content": "Hello 你好 🙂"}]
GREEDY = {"temperature": 0}  # the newest models have no temperature, and the newest client no field for it
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 10}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
    },
}
CLOCK: dict[str, Any] = {"name": "now", "input_schema": {"type": "object"}}
CALL: dict[str, Any] = {
    "type": "tool_use",
    "id": "toolu_1",
    "name": "get_weather",
    "input": {"city": "Paris", "unit": "C"},
}
RESULT: dict[str, Any] = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "18 degrees"}
EVENT = TypeAdapter(RawMessageStreamEvent)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One whose context has room for tools: without a vocabulary for them they take hundreds of tokens."""
    running = start_server(make_model_folder(tmp_path_factory.mktemp("models") / "tiny", context=CONTEXT))
    yield running
    running.stop()


@pytest.fixture
def claude(server: RunningServer) -> Iterator[anthropic.Anthropic]:
    """Anthropic's official client."""
    with official(server.url, api_key="whatever") as client:
        yield client


def official(url: str, **options: Any) -> anthropic.Anthropic:
    http = anthropic.DefaultHttpxClient(trust_env=False)
    return anthropic.Anthropic(base_url=url, max_retries=0, http_client=http, **options)


def send(server: RunningServer, path: str = "messages", **body: Any) -> httpx.Response:
    wanted = {"model": MODEL, "messages": HELLO, **({"max_tokens": 24} if path == "messages" else {}), **body}
    return server.post(f"/v1/{path}", wanted)


def message(server: RunningServer, **body: Any) -> dict[str, Any]:
    """One good message, checked against the client library's type."""
    response = send(server, **body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    Message.model_validate(answer, strict=True)
    return answer


def streamed(server: RunningServer, **body: Any) -> list[dict[str, Any]]:
    """The events of a good stream, checked: names, order, types."""
    response = send(server, stream=True, **body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in response.text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        EVENT.validate_python(event)
        events.append(event)
    kinds = [event["type"] for event in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    opened: int | None = None
    n_blocks = 0
    for event in events[1:-2]:
        match event["type"]:
            case "content_block_start":
                assert (opened, event["index"]) == (None, n_blocks)
                opened, n_blocks = n_blocks, n_blocks + 1
            case "content_block_delta":
                assert event["index"] == opened
            case "content_block_stop":
                assert event["index"] == opened
                opened = None
            case other:
                pytest.fail(f"{other} in the middle")
    assert opened is None
    return events


def refused(response: httpx.Response, status: int, kind: str) -> str:
    """The response is an error in Anthropic's shape; returns its sentence."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"type", "error"}
    assert body["type"] == "error"
    assert set(body["error"]) == {"type", "message"}
    assert body["error"]["type"] == kind
    sentence: str = body["error"]["message"]
    assert sentence
    return sentence


def as_openai(server: RunningServer, **body: Any) -> dict[str, Any]:
    response = server.post("/v1/chat/completions", {"model": MODEL, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def all_input(usage: dict[str, Any]) -> int:
    n: int = usage["input_tokens"] + usage["cache_read_input_tokens"]
    return n


def test_it_says_what_the_other_endpoint_says(server: RunningServer) -> None:
    ours = message(server, temperature=0, system="Be brief.")
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    theirs = as_openai(server, messages=messages, temperature=0, max_tokens=24)
    assert ours["content"] == [{"type": "text", "text": theirs["choices"][0]["message"]["content"]}]
    assert all_input(ours["usage"]) == theirs["usage"]["prompt_tokens"]
    assert ours["usage"]["output_tokens"] == theirs["usage"]["completion_tokens"]
    assert (ours["type"], ours["role"], ours["model"]) == ("message", "assistant", MODEL)
    assert ours["id"].startswith("msg_")


REQUESTS: dict[str, dict[str, Any]] = {
    "text": {},
    "a stop sequence": {"stop_sequences": ["，", "is"], "max_tokens": 200},
    "ends by itself": {"max_tokens": 400},
    "system in blocks": {"system": [{"type": "text", "text": "Be", "cache_control": {"type": "ephemeral"}}]},
    "any tool": {"tools": [WEATHER, CLOCK], "tool_choice": {"type": "any"}, "max_tokens": 400},
    "one tool": {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "get_weather"}, "max_tokens": 400},
    "a tool, cut": {"tools": [WEATHER], "tool_choice": {"type": "any"}, "max_tokens": 34},
    "no tool": {"tools": [WEATHER], "tool_choice": {"type": "none"}},
    "auto": {"tools": [WEATHER], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    "JSON": {
        "output_config": {"format": {"type": "json_schema", "schema": WEATHER["input_schema"]}},
        "max_tokens": 400,
    },
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_stream_says_what_the_whole_answer_says(server: RunningServer, name: str) -> None:
    whole = message(server, temperature=0, **REQUESTS[name])
    events = streamed(server, temperature=0, **REQUESTS[name])
    content: list[dict[str, Any]] = []
    for event in events:
        if event["type"] == "content_block_start":
            content.append(dict(event["content_block"]))
            assert content[-1].get("text", "") == ""
            assert content[-1].get("input", {}) == {}
        elif event["type"] == "content_block_delta" and event["delta"]["type"] == "text_delta":
            content[-1]["text"] += event["delta"]["text"]
        elif event["type"] == "content_block_delta":
            content[-1]["json"] = content[-1].get("json", "") + event["delta"]["partial_json"]
    start, delta = events[0]["message"], events[-2]
    assert (start["content"], start["stop_reason"], start["usage"]["output_tokens"]) == ([], None, 0)
    assert delta["delta"]["stop_reason"] == whole["stop_reason"]
    assert delta["delta"]["stop_sequence"] == whole["stop_sequence"]
    assert delta["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    assert all_input(delta["usage"]) == all_input(whole["usage"]) == start["usage"]["input_tokens"]
    assert [block["type"] for block in content] == [block["type"] for block in whole["content"]]
    for block, expected in zip(content, whole["content"], strict=True):
        if block["type"] == "text":
            assert block["text"] == expected["text"]
        else:
            assert block["id"].startswith("toolu_")
            assert block["name"] == expected["name"]
            if whole["stop_reason"] == "tool_use":
                assert json.loads(block["json"]) == expected["input"]


def test_calls_are_objects_that_match_their_schema(server: RunningServer) -> None:
    answer = message(server, **REQUESTS["one tool"])
    [call] = answer["content"]
    assert answer["stop_reason"] == "tool_use"
    assert call["name"] == "get_weather"
    assert set(call["input"]) == {"city", "unit"}
    assert call["input"]["unit"] in ("C", "F")
    cut = message(server, **REQUESTS["a tool, cut"])
    assert cut["stop_reason"] == "max_tokens"
    assert all(isinstance(block["input"], dict) for block in cut["content"] if block["type"] == "tool_use")


def test_why_it_ended(server: RunningServer) -> None:
    assert message(server, max_tokens=3, temperature=0)["stop_reason"] == "max_tokens"
    stopped = message(server, temperature=0, **REQUESTS["a stop sequence"])
    if stopped["stop_reason"] == "stop_sequence":
        assert stopped["stop_sequence"] in REQUESTS["a stop sequence"]["stop_sequences"]
    first = message(server, temperature=0)["content"][0]["text"][:3]
    at_once = message(server, temperature=0, stop_sequences=["never", first])
    assert (at_once["stop_reason"], at_once["stop_sequence"], at_once["content"]) == ("stop_sequence", first, [])


def test_max_tokens_may_be_more_than_fits(start: StartServer, server: RunningServer) -> None:
    """It is required, and clients fill in thousands: the context ends the answer, and that is told."""
    filling = [{"role": "user", "content": "The cat sat on the mat. " * 150}]
    answer = message(server, messages=filling, max_tokens=100_000, temperature=0)
    assert answer["stop_reason"] in ("end_turn", "model_context_window_exceeded")
    if answer["stop_reason"] == "model_context_window_exceeded":
        assert all_input(answer["usage"]) + answer["usage"]["output_tokens"] == CONTEXT


def test_the_official_client(claude: anthropic.Anthropic) -> None:
    whole = claude.messages.create(model=MODEL, max_tokens=24, extra_body=GREEDY, messages=HELLO)
    [block] = whole.content
    assert isinstance(block, TextBlock)
    assert whole._request_id is not None
    with claude.messages.stream(model=MODEL, max_tokens=24, extra_body=GREEDY, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == block.text
    assert final.content[0].text == block.text  # type: ignore[union-attr]
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    with claude.messages.stream(
        model=MODEL,
        max_tokens=200,
        messages=HELLO,
        tools=[WEATHER],
        tool_choice={"type": "any"},  # type: ignore[list-item]
    ) as stream:
        calls = [block for block in stream.get_final_message().content if isinstance(block, ToolUseBlock)]
    assert calls
    assert set(calls[0].input) == {"city", "unit"}  # type: ignore[call-overload]
    counted = claude.messages.count_tokens(model=MODEL, messages=HELLO)
    assert isinstance(counted, MessageTokensCount)
    assert counted.input_tokens == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)


async def test_the_asynchronous_client(server: RunningServer) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=server.url, api_key="x", max_retries=0, http_client=anthropic.DefaultAsyncHttpxClient(trust_env=False)
    ) as claude:
        answer = await claude.messages.create(model=MODEL, max_tokens=8, messages=HELLO)
    assert answer.usage.output_tokens <= 8


CONVERSATIONS: dict[str, dict[str, Any]] = {
    "text": {},
    "system": {"system": "Be brief."},
    "tools": {"tools": [WEATHER, CLOCK]},
    "tools that may not be used": {"tools": [WEATHER], "tool_choice": {"type": "none"}},
    "a call and its result": {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": [{"type": "text", "text": "I look."}, CALL]},
            {"role": "user", "content": [RESULT, {"type": "text", "text": "And?"}]},
        ]
    },
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_counted_is_what_is_read(server: RunningServer, name: str) -> None:
    response = send(server, "messages/count_tokens", **CONVERSATIONS[name])
    assert response.status_code == 200, response.text
    counted = MessageTokensCount.model_validate(response.json(), strict=True)
    assert counted.input_tokens == all_input(message(server, **CONVERSATIONS[name])["usage"])


def test_calls_and_results_are_those_of_the_other_endpoint(server: RunningServer) -> None:
    ours = send(server, "messages/count_tokens", **CONVERSATIONS["a call and its result"]).json()["input_tokens"]
    call = {
        "id": "toolu_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city":"Paris","unit":"C"}'},
    }
    theirs = as_openai(
        server,
        max_tokens=1,
        messages=[
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "I look.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "toolu_1", "content": "18 degrees"},
            {"role": "user", "content": "And?"},
        ],
    )
    assert ours == theirs["usage"]["prompt_tokens"]


def same_prompt(server: RunningServer, first: dict[str, Any], second: dict[str, Any]) -> bool:
    counts = [send(server, "messages/count_tokens", **body).json()["input_tokens"] for body in (first, second)]
    answers = [message(server, temperature=0, **body)["content"] for body in (first, second)]
    return counts[0] == counts[1] and answers[0] == answers[1]


def test_one_side_in_a_row_is_one_message_and_thoughts_are_not_said(server: RunningServer) -> None:
    joined = {"messages": [{"role": "user", "content": "One.\n\nTwo."}]}
    for messages in (
        [{"role": "user", "content": "One."}, {"role": "user", "content": "Two."}],
        [{"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]}],
    ):
        assert same_prompt(server, {"messages": messages}, joined)
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "x"}
    said = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "y"}]},
    ]
    plain = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    assert same_prompt(server, {"messages": [*said, *HELLO]}, {"messages": [*plain, *HELLO]})


def test_instructions_may_come_in_the_middle(server: RunningServer) -> None:
    """As the newest client knows them; at the beginning they are those of `system`."""
    first = {"role": "system", "content": [{"type": "text", "text": "Be short."}]}
    assert same_prompt(server, {"messages": [first, *HELLO]}, {"system": "Be short.", "messages": HELLO})
    messages = [*HELLO, {"role": "assistant", "content": "Yes?"}, {"role": "system", "content": "用中文"}, *HELLO]
    ours = message(server, temperature=0, max_tokens=8, messages=messages)
    body = {"model": MODEL, "temperature": 0, "max_tokens": 8, "messages": messages}
    theirs = server.post("/v1/chat/completions", body).json()
    assert ours["content"][0]["text"] == theirs["choices"][0]["message"]["content"]
    assert send(server, "messages/count_tokens", messages=messages).json() == {
        "input_tokens": theirs["usage"]["prompt_tokens"]
    }


def test_an_errors_result_says_so(server: RunningServer) -> None:
    def body(result: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [*HELLO, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": [result]}]}

    failed = body({**RESULT, "is_error": True, "content": [{"type": "text", "text": "no such city"}]})
    assert same_prompt(server, failed, body({**RESULT, "content": "Error: no such city"}))


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
BAD: dict[str, dict[str, Any]] = {
    "no messages": {"messages": []},
    "no max_tokens": {"max_tokens": None},
    "max_tokens of 0": {"max_tokens": 0},
    "a role": {"messages": [{"role": "tool", "content": "x"}]},
    "instructions with a result": {"messages": [*HELLO, {"role": "system", "content": [RESULT]}]},
    "empty instructions": {"messages": [*HELLO, {"role": "system", "content": ""}]},
    "no content": {"messages": [{"role": "user", "content": ""}]},
    "empty blocks": {"messages": [{"role": "user", "content": []}]},
    "an image": {"messages": [{"role": "user", "content": [IMAGE]}]},
    "a document": {"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]},
    "an image as a result": {
        "messages": [
            *HELLO,
            {"role": "assistant", "content": [CALL]},
            {"role": "user", "content": [{**RESULT, "content": [IMAGE]}]},
        ]
    },
    "a block without a type": {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
    "a block that is a number": {"messages": [{"role": "user", "content": [7]}]},
    "a result without its call": {"messages": [{"role": "user", "content": [RESULT]}]},
    "a result of another call": {
        "messages": [
            *HELLO,
            {"role": "assistant", "content": [CALL]},
            {"role": "user", "content": [{**RESULT, "tool_use_id": "toolu_2"}]},
        ]
    },
    "a call of the user": {"messages": [{"role": "user", "content": [CALL]}]},
    "a result of the assistant": {"messages": [{"role": "assistant", "content": [RESULT]}, *HELLO]},
    "prefill": {"messages": [*HELLO, {"role": "assistant", "content": "Well,"}]},
    "temperature 1.5": {"temperature": 1.5},
    "an empty stop": {"stop_sequences": [""]},
    "a tool of Anthropic's": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    "two tools of one name": {"tools": [CLOCK, CLOCK]},
    "a tool without a schema": {"tools": [{"name": "x"}]},
    "a tool's name": {"tools": [{**CLOCK, "name": "a b"}]},
    "a choice of nothing": {"tool_choice": {"type": "any"}},
    "a choice without a name": {"tools": [CLOCK], "tool_choice": {"type": "tool"}},
    "a choice of another": {"tools": [CLOCK], "tool_choice": {"type": "tool", "name": "then"}},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "thinking between tools": {"thinking": {"type": "between_tools"}},
    "MCP": {"mcp_servers": [{"type": "url", "url": "https://example.org", "name": "x"}]},
    "a schema that can not be kept to": {
        "output_config": {"format": {"type": "json_schema", "schema": {"not": {"type": "string"}}}}
    },
    "too long": {"messages": [{"role": "user", "content": "The " * 2600}]},
}
TELLS = {
    "an image": "text only",
    "a document": "text only",
    "an image as a result": "text only",
    "a result without its call": "answers no call",
    "a result of another call": "answers no call",
    "prefill": "prefill",
    "a tool of Anthropic's": "web_search_20250305",
    "thinking": "thinking",
    "thinking between tools": "between_tools",
    "MCP": "mcp_servers",
    "too long": "tokens",
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("stream", [False, True])
def test_nonsense_is_a_400_in_anthropics_shape(server: RunningServer, name: str, stream: bool) -> None:
    sentence = refused(send(server, stream=stream, **BAD[name]), 400, "invalid_request_error")
    assert TELLS.get(name, "") in sentence


OF_THE_ANSWER = (
    "no max_tokens",
    "max_tokens of 0",
    "temperature 1.5",
    "an empty stop",
    "a schema that can not be kept to",
    "too long",
)


@pytest.mark.parametrize("name", [name for name in BAD if name not in OF_THE_ANSWER])
def test_counting_refuses_what_answering_refuses(server: RunningServer, name: str) -> None:
    refused(send(server, "messages/count_tokens", **BAD[name]), 400, "invalid_request_error")


def test_other_errors_have_that_shape_too(server: RunningServer, claude: anthropic.Anthropic) -> None:
    refused(send(server, model="nobody"), 404, "not_found_error")
    refused(send(server, "messages/count_tokens", model="nobody"), 404, "not_found_error")
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(model="nobody", max_tokens=1, messages=HELLO)
    with server.http() as http:
        refused(http.get("/v1/messages"), 405, "invalid_request_error")
        refused(
            http.post("/v1/messages", content=b"{", headers={"Content-Type": "application/json"}),
            400,
            "invalid_request_error",
        )
        refused(http.post("/v1/messages", data={"x": "y"}), 415, "invalid_request_error")
        refused(http.get("/v1/messages/nothing"), 404, "not_found_error")
        refused(
            http.post("/v1/messages", content=b"x" * (17 * 2**20), headers={"Content-Type": "application/json"}),
            413,
            "request_too_large",
        )
        assert set(http.get("/v1/messagesx").json()) == {"error"}


def test_a_server_on_its_way_out_is_overloaded(start: StartServer) -> None:
    server = start()
    server.app.state.server.draining = True
    refused(send(server), 503, "overloaded_error")
    refused(send(server, stream=True), 503, "overloaded_error")
    server.app.state.server.draining = False


def test_what_fails_in_the_middle_is_an_event(start: StartServer) -> None:
    server = start(slow_step_s=0.02)
    runner: Any = server.model.engine._runner  # type: ignore[attr-defined]
    step, begun = runner.step, threading.Event()

    def failing(chunks: Any) -> Any:
        if begun.is_set():
            raise RuntimeError("out of memory")
        return step(chunks)

    runner.step = failing
    body = {"model": MODEL, "messages": HELLO, "stream": True, "max_tokens": 100}
    text = ""
    with server.http() as http, http.stream("POST", "/v1/messages", json=body) as response:
        for piece in response.iter_text():
            begun.set()  # not before the client has seen the beginning
            text += piece
    assert text.startswith("event: message_start\n")
    last = text.removesuffix("\n\n").split("\n\n")[-1]
    assert last.startswith("event: error\n")
    error = json.loads(last.partition("data: ")[2])
    assert error["error"]["type"] == "api_error"
    assert "[DONE]" not in text


def test_the_key_comes_in_its_clients_header(keyed: RunningServer) -> None:
    with keyed.http() as http:
        body = {"model": MODEL, "messages": HELLO, "max_tokens": 2}
        for headers in ({}, {"x-api-key": "wrong"}, {"X-Api-Key": f"Bearer {KEY}".encode()}):
            refused(http.post("/v1/messages", json=body, headers=headers), 401, "authentication_error")
        twice = [("x-api-key", KEY.encode()), ("x-api-key", KEY.encode())]
        refused(http.post("/v1/messages", json=body, headers=twice), 401, "authentication_error")
        for headers in ({"x-api-key": KEY.encode()}, {"Authorization": f"Bearer {KEY}".encode()}):
            assert http.post("/v1/messages", json=body, headers=headers).status_code == 200
        # Nowhere else: a header more that opens doors is one more to keep an eye on.
        assert http.get("/v1/models", headers={"x-api-key": KEY.encode()}).status_code == 401


def test_a_key_of_the_official_client(start: StartServer) -> None:
    server = start(api_key="sk-ascii-1234567890")
    with official(server.url, api_key="sk-ascii-1234567890") as good:
        assert good.messages.create(model=MODEL, max_tokens=2, messages=HELLO).role == "assistant"
    with official(server.url, api_key="sk-wrong") as wrong, pytest.raises(anthropic.AuthenticationError):
        wrong.messages.create(model=MODEL, max_tokens=2, messages=HELLO)


def test_a_prompt_that_fills_the_context_is_told_in_anthropics_words(tmp_path: Any) -> None:
    served = start_server(make_model_folder(tmp_path / "small", context=64))
    try:
        sentence = refused(
            send(served, messages=[{"role": "user", "content": "猫" * 20}]), 400, "invalid_request_error"
        )
        assert re.fullmatch(r"prompt is too long: \d+ tokens > 63 maximum", sentence)
    finally:
        served.stop()
