"""Whatever is sent, the answer is an error object that says why, the server lives on, and its memory stays flat."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import httpx
import psutil
import pytest
from pydantic import BaseModel, Field, ValidationError

from chatwright.server.errors import describe_validation
from tests.server.harness import MODEL, RunningServer, assert_error

MIB = 2**20
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hi"}]


@pytest.fixture(autouse=True)
def lives_on(server: RunningServer) -> Iterator[None]:
    """After each test the server answers and has nothing left over."""
    yield
    assert server.complete(prompt="The", max_tokens=1)["choices"]
    assert server.is_idle()


def send(server: RunningServer, path: str, content: bytes, **headers: str) -> httpx.Response:
    """Exactly these bytes."""
    with server.http() as http:
        return http.post(path, content=content, headers={"Content-Type": "application/json", **headers})


HUGE = (10**8, 2**31, 2**53, 2**63, -(2**63), 2**64, 10**30)
NOT_NUMBERS = (True, False, "1", "x", [], [1], {}, {"a": 1})
BAD_FIELDS: dict[str, tuple[Any, ...]] = {
    "n": (*HUGE, *NOT_NUMBERS, 0, -1, 129, 1.5),
    "best_of": (*HUGE, *NOT_NUMBERS, 0, -1, 21, 1.5),
    "max_tokens": (2**31, 2**63, 2**64, -1, -(2**63), *NOT_NUMBERS, 1.5),
    "temperature": (-0.1, 2.1, 10**30, *NOT_NUMBERS),
    "top_p": (-0.1, 1.1, *NOT_NUMBERS),
    "top_k": (-2, 2**31, 2**63, 1.5, *NOT_NUMBERS),
    "min_p": (-0.1, 1.1, *NOT_NUMBERS),
    "presence_penalty": (-2.1, 2.1, *NOT_NUMBERS),
    "frequency_penalty": (-2.1, 2.1, *NOT_NUMBERS),
    "repetition_penalty": (0, 1e-300, -1, 11, *NOT_NUMBERS),
    "seed": (2**63, -(2**63) - 1, 1.5, *NOT_NUMBERS),
    "logprobs": (-1, 21, 10**8, 1.5, *NOT_NUMBERS),
    "echo": (1, 0, "true", []),
    "stream": (1, "true", []),
    "stop": (1, True, [1], [["x"]], ["x"] * 17, "", [""], "x" * 1001, {"a": "b"}),
    "logit_bias": (
        [],
        "x",
        {"x": 1},
        {"-1": 1},
        {"1.5": 1},
        {"²": 1},
        {"384": 1},
        {"99999999999999999999": 1},
        {"1": 101},
        {"1": -101},
        {"1": "x"},
        {"1": None},
        {"1": True},
        {str(i): 0 for i in range(1025)},
    ),
    "user": (1, [], {}),
    "prompt": (1, True, {}, [], [[]], [[], [1]], ["x", 1], [1, "x"], [[1], "x"], [1.5], [True], [-1], [384], [2**31]),
    "prompt ": ([2**63], [[384]], [[1], [-1]], [None], [{}], "", [""], ["x", ""], None, ["x"] * 129, [[1]] * 129),
    "model": (1, [], {}, "x" * 401),
}


@pytest.mark.parametrize("field", BAD_FIELDS)
def test_a_wrong_value_is_refused_with_the_fields_name(server: RunningServer, field: str) -> None:
    field, values = field.strip(), BAD_FIELDS[field]
    with server.http() as http:
        for value in values:
            response = http.post(COMPLETIONS, json={"model": MODEL, "prompt": "The", "max_tokens": 1, field: value})
            message = assert_error(response, 400, param=field)
            assert len(message) < 600, "the input is not repeated"


CHAT_MESSAGES: tuple[Any, ...] = (
    None,
    [],
    {},
    "Hi",
    [1],
    ["Hi"],
    [[]],
    [{}],
    [{"role": "user"}, 1],
    [{"role": "robot", "content": "x"}],
    [{"role": 1, "content": "x"}],
    [{"content": "x"}],
    [{"role": "user", "content": 1}],
    [{"role": "user", "content": {"type": "text", "text": "x"}}],
    [{"role": "user", "content": [{"type": "text"}]}],
    [{"role": "user", "content": [{"type": "text", "text": 1}]}],
    [{"role": "user", "content": [{"text": "x"}]}],
    [{"role": "user", "content": ["x"]}],
    HELLO * 4097,
)


def test_wrong_messages_are_refused(server: RunningServer) -> None:
    with server.http() as http:
        for messages in CHAT_MESSAGES:
            assert_error(http.post(CHAT, json={"model": MODEL, "messages": messages}), 400, param="messages")
        assert_error(http.post(CHAT, json={"model": MODEL}), 400, param="messages")
        for name, values in {
            "max_tokens": (0, -1, 2**31, True, "1"),
            "max_completion_tokens": (0, -1, 2**31),
            "top_logprobs": (-1, 21, True),
            "logprobs": (1, "true"),
            "n": (0, 129, 10**8),
        }.items():
            for value in values:
                body = {"model": MODEL, "messages": HELLO, "logprobs": True, name: value}
                assert_error(http.post(CHAT, json=body), 400, param=name)
        assert_error(
            http.post(CHAT, json={"model": MODEL, "messages": HELLO, "top_logprobs": 2}), 400, param="top_logprobs"
        )


def test_what_excludes_each_other_is_refused(server: RunningServer) -> None:
    for body, param in (
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"prompt": ["x"] * 128, "n": 9}, "n"),
        ({"prompt": ["x"] * 128, "best_of": 9}, "n"),
    ):
        assert_error(server.post(COMPLETIONS, {"model": MODEL, "prompt": "x", **body}), 400, param=param)


NOT_JSON = {
    "empty": b"",
    "blank": b" \r\n\t",
    "text": b"hello",
    "cut": b'{"model": "tiny", "prompt": "T',
    "two": b"{}{}",
    "single quotes": b"{'model': 'tiny'}",
    "trailing comma": b'{"model": "tiny",}',
    "comment": b'{"model": "tiny"} // x',
    "NaN": b'{"model": "tiny", "prompt": "x", "temperature": NaN}',
    "Infinity": b'{"model": "tiny", "prompt": "x", "temperature": Infinity}',
    "-Infinity": b'{"model": "tiny", "prompt": "x", "temperature": -Infinity}',
    "1e400": b'{"model": "tiny", "prompt": "x", "temperature": 1e400}',
    "-1e400": b'{"model": "tiny", "prompt": "x", "logit_bias": {"1": -1e400}}',
    "bad UTF-8": b'{"model": "tiny", "prompt": "\xff\xfe"}',
    "overlong UTF-8": b'{"model": "tiny", "prompt": "\xc0\xaf"}',
    "UTF-8 surrogate": b'{"model": "tiny", "prompt": "\xed\xa0\x80"}',
    "UTF-16": '{"model": "tiny", "prompt": "x"}'.encode("utf-16"),
    "BOM": b'\xef\xbb\xbf{"model": "tiny", "prompt": "x"}',
    "lone surrogate": b'{"model": "tiny", "prompt": "a\\ud800b"}',
    "lone low surrogate": b'{"model": "tiny", "prompt": "\\udc00"}',
    "surrogate in a key": b'{"model": "tiny", "prompt": "x", "\\ud800": 1}',
    "raw NUL": b'{"model": "tiny", "prompt": "\x00"}',
    "raw newline": b'{"model": "tiny", "prompt": "a\nb"}',
    "array": b'[{"model": "tiny"}]',
    "string": b'"hello"',
    "number": b"1",
    "null": b"null",
    "true": b"true",
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_no_json_object_is_a_400(server: RunningServer, name: str) -> None:
    for path in (COMPLETIONS, CHAT, f"/engines/{MODEL}/completions", "/v1/edits"):
        assert_error(send(server, path, NOT_JSON[name]), 400)


def test_odd_text_is_fine(server: RunningServer) -> None:
    for text in ("\0", "a\0b", "\u2028\u2029\x85", "🙂" * 20, "e\u0301\u202e\u200b", "\ufeff", "\uffff", "\r\n\t"):
        answer = server.complete(prompt=text, max_tokens=2, echo=True)
        assert answer["choices"][0]["text"].startswith(text)
        response = server.post(CHAT, {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 2})
        assert response.status_code == 200
    twice = b'{"model": "x", "model": "tiny", "prompt": "x", "max_tokens": 1}'
    assert send(server, COMPLETIONS, twice).status_code == 200


@pytest.mark.parametrize(
    "value", ["text/plain", "application/xml", "application/jsonx", "", "multipart/form-data", "json"]
)
def test_other_content_types_are_a_415(server: RunningServer, value: str) -> None:
    body = json.dumps({"model": MODEL, "prompt": "x"}).encode()
    assert_error(send(server, COMPLETIONS, body, **{"Content-Type": value}), 415)


def test_json_with_a_charset_is_json(server: RunningServer) -> None:
    body = json.dumps({"model": MODEL, "prompt": "x", "max_tokens": 1}).encode()
    for value in ("application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8;x=y"):
        assert send(server, COMPLETIONS, body, **{"Content-Type": value}).status_code == 200


def test_compressed_bodies_are_refused_unopened(server: RunningServer) -> None:
    bomb = gzip.compress(b'{"prompt": "' + b"a" * 50 * MIB + b'"}')
    for encoding in ("gzip", "deflate", "br", "zstd", "gzip, gzip"):
        assert_error(send(server, COMPLETIONS, bomb, **{"Content-Encoding": encoding}), 415)
    assert_error(send(server, COMPLETIONS, bomb), 400)


def nested(levels: int, opening: bytes, closing: bytes) -> bytes:
    """A body of valid JSON, `levels` deep in total."""
    return b'{"model":"tiny","prompt":"x","max_tokens":1,"x":' + opening * (levels - 1) + closing * (levels - 1) + b"}"


def test_json_may_be_64_levels_deep(server: RunningServer) -> None:
    assert send(server, COMPLETIONS, nested(64, b"[", b"]")).status_code == 200
    for levels in (65, 1_000, 1_100, 100_000):
        assert_error(send(server, COMPLETIONS, nested(levels, b"[", b"]")), 400, code="invalid_json")
        objects = nested(levels, b'{"a":', b"}").replace(b":}", b":1}")
        assert_error(send(server, COMPLETIONS, objects), 400, code="invalid_json")
    assert_error(send(server, COMPLETIONS, b"[" * 8 * MIB), 400)
    assert_error(send(server, COMPLETIONS, b'{"a":' * 3 * MIB), 400)
    brackets_in_text = json.dumps({"model": MODEL, "prompt": '[{"' * 50, "max_tokens": 1}).encode()
    assert send(server, COMPLETIONS, brackets_in_text).status_code == 200


class Memory:
    """How much larger the process is than it was."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.before = self.process.memory_info().rss

    def grown_mib(self) -> float:
        return (self.process.memory_info().rss - self.before) / MIB


def test_bodies_over_the_limit_are_a_413_and_are_not_kept(server: RunningServer) -> None:
    body = b'{"model": "tiny", "prompt": "' + b"a" * 20 * MIB + b'"}'

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), MIB):
            yield body[start : start + MIB]

    assert_error(send(server, COMPLETIONS, body), 413, code="request_too_large")
    memory = Memory()
    for _ in range(3):
        assert_error(send(server, COMPLETIONS, body), 413, code="request_too_large")
        with server.http() as http:
            headers = {"Content-Type": "application/json"}
            assert_error(http.post(COMPLETIONS, content=chunks(), headers=headers), 413, code="request_too_large")
    assert memory.grown_mib() < 60


COSTLY = {
    "a megabyte without a space": b'{"model":"tiny","prompt":"' + b"a" * MIB + b'"}',
    "15 MB without a space": b'{"model":"tiny","prompt":"' + "汉".encode() * 5 * MIB + b'"}',
    "a million messages": b'{"model":"tiny","messages":[' + b'{"role":"user"},' * 900_000 + b'{"role":"user"}]}',
    "a million wrong messages": b'{"model":"tiny","messages":[' + b"1," * 1_000_000 + b"1]}",
    "millions of empty objects": b'{"model":"tiny","prompt":[' + b"{}," * 5_000_000 + b"{}]}",
    "millions of token ids": b'{"model":"tiny","prompt":[' + b"1," * 7_000_000 + b"1]}",
    "millions of wrong token ids": b'{"model":"tiny","prompt":[' + b"1.5," * 3_500_000 + b"1]}",
    "millions of wrong token ids in one list": b'{"model":"tiny","prompt":[[' + b"-1," * 3_500_000 + b"1]]}",
    "millions of prompts": b'{"model":"tiny","prompt":[' + b'"a",' * 3_500_000 + b'"a"]}',
    "millions of stops": b'{"model":"tiny","prompt":"x","stop":[' + b"1," * 7_000_000 + b"1]}",
    "millions of parts": b'{"model":"tiny","messages":[{"role":"user","content":[' + b"1," * 7_000_000 + b"1]}]}",
    "a million biases": b'{"model":"tiny","prompt":"x","logit_bias":{'
    + b",".join(b'"%d":"x"' % i for i in range(1_000_000))
    + b"}}",
    "a million unknown fields": b'{"model":"tiny",' + b",".join(b'"x%d":1' % i for i in range(1_000_000)) + b"}",
    "quotes": b'{"model":"tiny","prompt":"' + b'\\"' * 7 * MIB,
    "64 levels, many times": b'{"model":"tiny","x":[' + (b"[" * 60 + b"]" * 60 + b",") * 100_000 + b"1]}",
}


@pytest.mark.parametrize("name", COSTLY)
def test_costly_bodies_are_refused_at_bounded_cost(server: RunningServer, name: str) -> None:
    path = CHAT if b'"messages"' in COSTLY[name][:40] else COMPLETIONS
    memory = Memory()
    start = time.monotonic()
    assert_error(send(server, path, COSTLY[name]), 400)
    # The bound is generous; what it rules out takes minutes (quadratic work) or gigabytes (one object per wrong item).
    assert time.monotonic() - start < 20
    assert memory.grown_mib() < 400


def test_methods_and_paths_that_do_not_exist_are_json_too(server: RunningServer) -> None:
    with server.http() as http:
        for path in (
            "/v1",
            "/v1/",
            "/v1/nothing",
            "/nothing",
            "/v1/completions/",
            "/v1/completions/x",
            "/api",
            "/%00",
        ):
            message = assert_error(http.get(path), 404)
            assert "/docs" in message
        assert_error(http.get("/" + "x" * 30_000), 404)
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"):
            response = http.request(method, COMPLETIONS)
            assert_error(response, 405)
            assert response.headers["allow"] == "POST"
        for method in ("POST", "DELETE"):
            assert_error(http.request(method, "/v1/models"), 405)
        head = http.head("/v1/models")
        assert head.status_code in (200, 405)
        assert not head.content
        assert http.head("/").status_code == 200


def test_ids_are_made_here(server: RunningServer) -> None:
    """An id that a client could choose would mix up answers, or end another client's request."""
    mine = {"X-Request-Id": "mine", "Request-Id": "mine"}
    seen = set()
    for _ in range(2):
        response = server.post(
            COMPLETIONS, {"model": MODEL, "prompt": "x", "max_tokens": 1, "id": "mine"}, headers=mine
        )
        assert "mine" not in response.text
        assert response.headers["x-request-id"] != "mine"
        seen |= {response.headers["x-request-id"], response.json()["id"]}
    assert len(seen) == 4


def test_a_message_must_say_something_and_only_the_assistant_calls(server: RunningServer) -> None:
    for message in ({"role": "user"}, {"role": "system", "content": None}):
        assert_error(
            server.post("/v1/chat/completions", {"model": MODEL, "messages": [message]}),
            400,
            "invalid_value",
            "messages",
        )
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    history = [{"role": "user", "content": "x", "tool_calls": [call]}]
    assert_error(
        server.post("/v1/chat/completions", {"model": MODEL, "messages": history}), 400, "invalid_value", "messages"
    )


def test_what_was_wrong_is_said_in_the_words_of_the_request(server: RunningServer) -> None:
    """No names of Pydantic's types in the place of a mistake."""
    bodies = [{"stop": 5}, {"stop": ["a", 5]}, {"logit_bias": {"5": "x"}}, {"n": "3"}, {"temperature": []}]
    for body in bodies:
        message = assert_error(server.post("/v1/completions", {"model": MODEL, "prompt": "x", **body}), 400)
        place = message.split("'")[1]
        assert place.split(".")[0] == next(iter(body)), message
        assert not any(name in place for name in ("constrained", "str", "list[", "function")), message


TREE = {
    "$defs": {
        "node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "additionalProperties": False}
    },
    "$ref": "#/$defs/node",
}
# As JSON text: Python's own parser and writer know no such depths.
SCHEMAS: dict[str, tuple[str, str]] = {
    "1,000 deep": ('{"properties":{"a":' * 500 + "{}" + "}}" * 500, "nested deeper than 64 levels"),
    "1,000 deep in lists": ('{"anyOf":[' * 500 + "{}" + "]}" * 500, "nested deeper than 64 levels"),
    "40 deep": ('{"properties":{"a":' * 20 + "{}" + "}}" * 20, "deep"),
    "1 MB": (json.dumps({"enum": ["x" * 2**20]}), "KiB"),
    "1 MB of properties": (json.dumps({"properties": {f"property {i}": {"title": "x"} for i in range(2**15)}}), "KiB"),
    "itself": ('{"$ref":"#"}', ""),
    "each the other": ('{"$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}', ""),
}


@pytest.mark.parametrize("place", ["response_format", "tools"])
@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_beyond_the_limits_is_a_400_with_the_reason(server: RunningServer, name: str, place: str) -> None:
    schema, reason = SCHEMAS[name]
    form = '"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":SCHEMA}}'
    if place == "tools":
        form = '"tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":SCHEMA}}]'
    messages = json.dumps(HELLO)
    body = f'{{"model":"{MODEL}","messages":{messages},"max_tokens":9,{form.replace("SCHEMA", schema)}}}'
    with server.http() as http:
        headers = {"Content-Type": "application/json"}
        response = http.post("/v1/chat/completions", content=body.encode(), headers=headers)
    assert reason in assert_error(response, 400)
    assert server.complete(prompt="The", max_tokens=1)


def test_a_recursive_schema_is_kept_to(server: RunningServer) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "tree", "schema": TREE}}
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 200, "seed": 1, "response_format": wanted}
    choice = server.post("/v1/chat/completions", body).json()["choices"][0]
    text = choice["message"]["content"]
    assert text.startswith("{")
    if choice["finish_reason"] == "stop":
        node = json.loads(text)
        while node:
            (node,) = node.values()


@pytest.mark.timeout(300)
def test_hostile_schemas_end_as_that_requests_400_while_others_are_answered(server: RunningServer) -> None:
    """Grammars are tried out one after the other, at a lower priority: on a busy machine that takes its time, and only theirs."""
    hostile: list[Any] = [
        {"type": "string", "pattern": "^(a+)+b$"},
        {"type": "integer", "multipleOf": 1_000_003},
        {"$ref": "#"},
        {"type": "string", "pattern": "^((a{1000}){1000})$"},
    ]
    statuses = []

    def attack(value: Any) -> None:
        wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": value}}
        body = {"model": MODEL, "messages": HELLO, "max_tokens": 20, "response_format": wanted}
        response = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=250, trust_env=False)
        statuses.append(response.status_code)

    threads = [threading.Thread(target=attack, args=(value,)) for value in hostile]
    for thread in threads:
        thread.start()
    waits = []
    while any(thread.is_alive() for thread in threads):
        begun = time.monotonic()
        assert (
            server.post("/v1/chat/completions", {"model": MODEL, "messages": HELLO, "max_tokens": 4}).status_code == 200
        )
        waits.append(time.monotonic() - begun)
        time.sleep(0.05)
    assert sorted(statuses) == [200, 400, 400, 400]
    assert sorted(waits)[len(waits) // 2] < 2


def _choices() -> type[BaseModel]:
    class Tuning(BaseModel):
        n_epochs: Literal["auto"] | Annotated[int, Field(ge=1, le=50)] = "auto"
        beta: Annotated[float, Field(gt=0)] | Literal["auto"] | None = None

    class Part(BaseModel):
        text: str

    class Body(BaseModel):
        tuning: Tuning | None = None
        content: str | list[Part] = ""
        messages: Annotated[list[str], Field(min_length=1)] = ["x"]

    return Body


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (
            {"tuning": {"n_epochs": -1, "beta": "x"}},
            "Invalid value for 'tuning.n_epochs': Input should be 'auto'; or: Input should be greater than or equal to 1.",
            "tuning.n_epochs",
        ),
        (
            {"tuning": {"beta": -1}},
            "Invalid value for 'tuning.beta': Input should be greater than 0; or: Input should be 'auto'.",
            "tuning.beta",
        ),
        (
            {"content": [{"text": 1}]},
            "Invalid value for 'content': Input should be a valid string.",
            "content",
        ),
        (
            {"messages": []},
            "Invalid value for 'messages': List should have at least 1 item, not 0.",
            "messages",
        ),
    ],
)
def test_of_a_union_one_sentence_says_what_would_be_right(body: object, message: str, param: str) -> None:
    """No name that Pydantic gives a member, and nothing about other fields."""
    with pytest.raises(ValidationError) as caught:
        _choices().model_validate(body)
    assert describe_validation(caught.value.errors()) == (message, param)
