"""Answers in the form that was asked for: JSON, JSON of a schema, calls of tools; whole and streamed, by wire and by the client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Literal

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, Field

import chatwright.tokenizer
from tests.server.harness import MODEL, RunningServer, assert_error, events_of, start_server
from tests.server.tiny import TEMPLATE, make_model_folder

ASK = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 10}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "now"}}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
NAMED_SCHEMA = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}

REQUESTS: dict[str, dict[str, Any]] = {
    "object": {"response_format": {"type": "json_object"}, "max_tokens": 40},
    "schema": {"response_format": NAMED_SCHEMA, "n": 3},
    "schema with logprobs": {"response_format": NAMED_SCHEMA, "logprobs": True, "top_logprobs": 2},
    "auto": {"tools": [WEATHER, CLOCK], "n": 2, "max_tokens": 40},
    "required": {"tools": [WEATHER, CLOCK], "tool_choice": "required", "n": 3, "max_tokens": 200},
    "required with logprobs": {
        "tools": [WEATHER],
        "tool_choice": "required",
        "logprobs": True,
        "parallel_tool_calls": False,
    },
    "named": {"tools": [WEATHER, CLOCK], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
    "cut": {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 30},
    "function": {"functions": [WEATHER["function"]], "function_call": {"name": "get_weather"}},
    "call or schema": {"tools": [CLOCK], "response_format": NAMED_SCHEMA, "n": 4},
}


# As Qwen's models are told of tools.
HERMES = """\
{%- if tools %}{{ '<|im_start|>system\\n# Tools' }}
{%- for tool in tools %}{{ '\\n' + (tool | tojson) }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}{{ '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- else %}{{ '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '\\n' if not loop.first or message.content }}{{ '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- (call.function.arguments if call.function.arguments is string else call.function.arguments | tojson) + '}\\n</tool_call>' }}
{%- endfor %}{{ '<|im_end|>\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
TEMPLATES = {
    "our fallback": TEMPLATE,
    "hermes": HERMES,
    "our template": files(chatwright.tokenizer).joinpath("chatml.jinja").read_text(),
}


@pytest.fixture(scope="module", params=TEMPLATES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A model with room for tools in its context, and a chat template that knows them in one way or the other."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    server = start_server(make_model_folder(folder, context=2048, template=TEMPLATES[request.param]))
    yield server
    server.stop()


def chat(server: RunningServer, **body: Any) -> dict[str, Any]:
    """One good chat completion."""
    response = server.post("/v1/chat/completions", {"model": MODEL, "messages": ASK, "seed": 1, **body})
    assert response.status_code == 200, response.text
    answer = response.json()
    ChatCompletion.model_validate(answer, strict=True)
    return answer


def message_of(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """What the deltas of one choice come to."""
    message: dict[str, Any] = {}
    for choice in choices:
        delta = choice["delta"]
        for key in ("role", "refusal"):
            if key in delta:
                assert key not in message
                message[key] = delta[key]
        if "content" in delta:
            message["content"] = (
                delta["content"] if delta["content"] is None else (message.get("content") or "") + delta["content"]
            )
        if call := delta.get("function_call"):
            known = message.setdefault("function_call", {"name": call.get("name"), "arguments": ""})
            known["arguments"] += call["arguments"]
        for call in delta.get("tool_calls", ()):
            calls = message.setdefault("tool_calls", [])
            if call["index"] == len(calls):
                assert call["type"] == "function"
                assert call["function"]["arguments"] == ""
                calls.append({"id": call["id"], "type": "function", "function": dict(call["function"])})
            else:
                assert "name" not in call["function"]
                assert "id" not in call
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    return message


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    """Ids of calls are made anew for each answer."""
    calls = [{**call, "id": "…"} for call in message.get("tool_calls", ())]
    return {**message, "tool_calls": calls}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_stream_comes_to_the_same_message(server: RunningServer, name: str) -> None:
    whole = chat(server, **REQUESTS[name])
    body = {"model": MODEL, "messages": ASK, "seed": 1, **REQUESTS[name], "stream": True}
    response = server.post("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})
    events = events_of(response.text)
    for event in events:
        ChatCompletionChunk.model_validate(event, strict=True)
    assert {key: events[-1]["usage"][key] for key in ("prompt_tokens", "completion_tokens")} == {
        key: whole["usage"][key] for key in ("prompt_tokens", "completion_tokens")
    }
    for choice in whole["choices"]:
        mine = [event["choices"][0] for event in events[:-1] if event["choices"][0]["index"] == choice["index"]]
        assert without_ids(message_of(mine)) == without_ids(choice["message"])
        assert [part["finish_reason"] for part in mine] == [None] * (len(mine) - 1) + [choice["finish_reason"]]
        if "logprobs" in body:
            streamed = [token for part in mine if part["logprobs"] for token in part["logprobs"]["content"]]
            assert [token["token"] for token in streamed] == [token["token"] for token in choice["logprobs"]["content"]]
        ids = [call["id"] for call in choice["message"].get("tool_calls", ())]
        assert len(set(ids)) == len(ids)


def test_json_is_json_of_the_schema(server: RunningServer) -> None:
    for temperature in (0, 1, 2):
        answer = chat(server, response_format=NAMED_SCHEMA, n=4, temperature=temperature)
        for choice in answer["choices"]:
            assert choice["finish_reason"] == "stop"
            person = json.loads(choice["message"]["content"])
            assert list(person) == ["name", "age"]
            assert 0 <= person["age"] <= 150


def test_the_model_is_told_the_schema_and_its_description(server: RunningServer) -> None:
    plain = chat(server, max_tokens=1)["usage"]["prompt_tokens"]
    bare = chat(server, max_tokens=1, response_format={"type": "json_object"})["usage"]["prompt_tokens"]
    with_schema = chat(server, max_tokens=1, response_format=NAMED_SCHEMA)["usage"]["prompt_tokens"]
    described = json.loads(json.dumps(NAMED_SCHEMA))
    described["json_schema"]["description"] = "The person that was talked about."
    with_description = chat(server, max_tokens=1, response_format=described)["usage"]["prompt_tokens"]
    assert plain == bare < with_schema < with_description


@pytest.mark.parametrize("temperature", [0, 1, 2])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_required_call_is_always_one(server: RunningServer, choice: Any, temperature: float) -> None:
    answer = chat(
        server, tools=[WEATHER, CLOCK], tool_choice=choice, n=4, temperature=temperature, parallel_tool_calls=False
    )
    for picked in answer["choices"]:
        assert picked["finish_reason"] == "tool_calls"
        assert picked["message"]["content"] is None
        (call,) = picked["message"]["tool_calls"]
        assert call["id"].startswith("call_")
        arguments = json.loads(call["function"]["arguments"])
        if call["function"]["name"] == "get_weather":
            assert len(arguments["city"]) <= 10
            assert arguments["unit"] in ("C", "F")
        else:
            assert choice == "required"
            assert call["function"]["name"] == "now"
            assert arguments == {}


def test_none_calls_nothing_and_costs_nothing(server: RunningServer) -> None:
    plain = chat(server, max_tokens=8)
    none = chat(server, max_tokens=8, tools=[WEATHER], tool_choice="none")
    assert none["usage"] == plain["usage"]
    assert none["choices"][0]["message"] == plain["choices"][0]["message"]


def test_allowed_tools_narrow_the_choice_but_not_what_the_model_knows(server: RunningServer) -> None:
    narrow = {"mode": "required", "tools": [{"type": "function", "function": {"name": "now"}}]}
    answer = chat(server, tools=[WEATHER, CLOCK], tool_choice={"type": "allowed_tools", "allowed_tools": narrow}, n=3)
    names = {call["function"]["name"] for choice in answer["choices"] for call in choice["message"]["tool_calls"]}
    assert names == {"now"}
    free = chat(server, tools=[WEATHER, CLOCK], max_tokens=1)
    assert answer["usage"]["prompt_tokens"] == free["usage"]["prompt_tokens"]


def test_calls_and_results_go_back_into_the_conversation(server: RunningServer) -> None:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris", "unit": "C"}'},
    }
    broken = {"id": "c2", "type": "function", "function": {"name": "now", "arguments": '{"cut of'}}
    told = [
        *ASK,
        {"role": "assistant", "content": None, "tool_calls": [call, broken]},
        {"role": "tool", "tool_call_id": "c1", "content": "12 °C"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "noon"}]},
    ]
    with_tools = chat(server, messages=told, tools=[WEATHER, CLOCK], max_tokens=4)["usage"]["prompt_tokens"]
    without = chat(server, messages=told, max_tokens=4)["usage"]["prompt_tokens"]
    assert with_tools > without > chat(server, messages=ASK, max_tokens=4)["usage"]["prompt_tokens"]

    old = [
        *ASK,
        {"role": "assistant", "content": None, "function_call": call["function"]},
        {"role": "function", "name": "get_weather", "content": "12 °C"},
    ]
    chat(server, messages=old, functions=[WEATHER["function"]], max_tokens=4)


def test_what_the_assistant_refused_is_part_of_the_conversation(server: RunningServer) -> None:
    def answer(**said: Any) -> Any:
        messages = [*ASK, {"role": "assistant", **said}, *ASK]
        answer = chat(server, messages=messages, max_tokens=8, temperature=0)
        return answer["choices"][0]["message"]["content"], answer["usage"]["prompt_tokens"]

    said = answer(content="I will not, 不行.")
    assert answer(content=None, refusal="I will not, 不行.") == said
    assert answer(content=[{"type": "refusal", "refusal": "I will not, 不行."}]) == said
    assert answer(content=[{"type": "text", "text": "I will"}, {"type": "refusal", "refusal": " not, 不行."}]) == said
    assert answer(content=None) != said


def test_a_result_without_its_call_is_refused(server: RunningServer) -> None:
    for message in (
        {"role": "tool", "tool_call_id": "c1", "content": "12 °C"},
        {"role": "tool", "content": "12 °C"},
        {"role": "function", "name": "f", "content": "12 °C"},
    ):
        body = {"model": MODEL, "messages": [*ASK, message]}
        assert_error(server.post("/v1/chat/completions", body), 400, "invalid_value", "messages")


DEEP: dict[str, Any] = {"type": "string"}
for _ in range(20):
    DEEP = {"type": "object", "properties": {"a": DEEP}}

REFUSED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "no type": ("response_format.type", "type", {"response_format": {}}),
    "another type": ("response_format.type", "json_object", {"response_format": {"type": "xml"}}),
    "no schema": ("response_format", "missing", {"response_format": {"type": "json_schema"}}),
    "a name with blanks": (
        "response_format.json_schema.name",
        "name",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
    ),
    "an unknown keyword": (
        "response_format",
        "uniqueItems",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"uniqueItems": True}}}},
    ),
    "no schema at all": (
        "response_format.json_schema.schema",
        "dictionary",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": "object"}}},
    ),
    "a deep schema": (
        "response_format.json_schema.schema",
        "deep",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": DEEP}}},
    ),
    "a large schema": (
        "response_format.json_schema.schema",
        "KiB",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": ["x" * 70000]}}}},
    ),
    "a broken pattern": (
        "tools",
        "regex",
        {
            "tools": [
                {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"pattern": "("}}}}}
            ]
        },
    ),
    "a strict tool with an unknown keyword": (
        "tools",
        "not",
        {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"not": {}}}}]},
    ),
    "parameters that are no object": (
        "tools",
        "object",
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]},
    ),
    "two of one name": ("tools", "same name", {"tools": [CLOCK, CLOCK]}),
    "a name with blanks in tools": ("tools", "name", {"tools": [{"type": "function", "function": {"name": "a b"}}]}),
    "many tools": (
        "tools",
        "128",
        {"tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(129)]},
    ),
    "an unknown choice": ("tool_choice", "none", {"tools": [CLOCK], "tool_choice": "always"}),
    "a choice that is not there": (
        "tool_choice",
        "missing",
        {"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "missing"}}},
    ),
    "required without tools": ("tool_choice", "among", {"tool_choice": "required"}),
    "both forms": ("functions", "together", {"tools": [CLOCK], "functions": [WEATHER["function"]]}),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_by_name(server: RunningServer, name: str, stream: bool) -> None:
    param, word, extra = REFUSED[name]
    response = server.post("/v1/chat/completions", {"model": MODEL, "messages": ASK, "stream": stream, **extra})
    assert word in assert_error(response, 400, param=param)


def test_custom_tools_are_refused_as_not_supported(server: RunningServer) -> None:
    for extra in (
        {"tools": [{"type": "custom", "custom": {"name": "f"}}]},
        {"tools": [CLOCK], "tool_choice": {"type": "custom", "custom": {"name": "f"}}},
    ):
        response = server.post("/v1/chat/completions", {"model": MODEL, "messages": ASK, **extra})
        assert_error(response, 400, "unsupported_parameter", "tools")


def test_tools_that_are_not_strict_may_have_keywords_that_nobody_knows(server: RunningServer) -> None:
    """They come from everywhere; OpenAI's API does its best with them."""
    parameters = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True, "maxItems": 2}},
        "required": ["a"],
    }
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    answer = chat(server, tools=[tool], tool_choice="required", parallel_tool_calls=False)
    arguments = json.loads(answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"])
    assert list(arguments) == ["a"]


def test_the_official_client_parses_and_streams(client: openai.OpenAI) -> None:
    class Person(BaseModel):
        name: str = Field(max_length=8)
        pet: Literal["cat", "dog"]

    messages: Any = ASK
    completion = client.chat.completions.parse(model=MODEL, messages=messages, response_format=Person, seed=1)
    assert completion.choices[0].message.parsed is not None
    assert completion.choices[0].message.parsed.pet in ("cat", "dog")

    with client.chat.completions.stream(model=MODEL, messages=messages, response_format=Person, seed=1) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == completion.choices[0].message.parsed

    class GetWeather(BaseModel):
        city: str = Field(max_length=10)

    tools: Any = [openai.pydantic_function_tool(GetWeather)]
    parsed = client.chat.completions.parse(
        model=MODEL, messages=messages, tools=tools, tool_choice="required", parallel_tool_calls=False, seed=1
    )
    (call,) = parsed.choices[0].message.tool_calls or ()
    assert isinstance(call.function.parsed_arguments, GetWeather)
    with client.chat.completions.stream(
        model=MODEL, messages=messages, tools=tools, tool_choice="required", parallel_tool_calls=False, seed=1
    ) as stream:
        seen = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in seen
    assert "tool_calls.function.arguments.done" in seen
    (streamed,) = final.choices[0].message.tool_calls or ()
    assert streamed.function.arguments == call.function.arguments
    assert final.choices[0].finish_reason == "tool_calls"
