"""docs/*/endpoints.md says which fields are supported: each of them does something here, beside the same request without it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from chatwright.store.database import Database
from chatwright.store.migrate import upgrade
from chatwright.store.url import sqlite_url
from tests.server.harness import MODEL, start_server
from tests.server.people import ADMIN_TOKEN, bearer
from tests.server.tiny import make_model_folder

CONTEXT = 2048
ASK = {"role": "user", "content": "Hello 你好"}
# Fills more than one block of the cache.
LONG = {"role": "user", "content": "The capital of France is Paris. The capital of Japan is Tokyo."}
FUNCTION: dict[str, Any] = {
    "name": "now",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Paris", "北京"]}}, "required": ["city"]},
}
TOOL = {"type": "function", "function": FUNCTION}
FLAT_TOOL = {"type": "function", **FUNCTION}
CLAUDES_TOOL = {"name": "now", "input_schema": FUNCTION["parameters"]}
CITY = {"type": "object", "properties": {"city": {"enum": ["Paris"]}}, "required": ["city"]}
# What differs from answer to answer, and counts that depend on what was asked before.
CHANGING = frozenset(
    (
        "id",
        "created",
        "created_at",
        "completed_at",
        "call_id",
        "input_tokens",
        "cache_read_input_tokens",
        "prompt_tokens_details",
        "input_tokens_details",
    )
)
Shows = Callable[[httpx.Client, httpx.Response, httpx.Response], bool]


def essence(answer: httpx.Response) -> Any:
    """What the model said and read, without names made anew and without echoes of the request."""
    if "event-stream" in answer.headers["content-type"]:
        return answer.text
    values = answer.json()
    if values.get("object") == "response":
        values = {name: values[name] for name in ("output", "status", "usage")}
    usage = values.get("usage") or {}
    n_read = usage.get("input_tokens", 0) + usage.get("cache_read_input_tokens", 0)
    return n_read, _without(values)


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without(item) for name, item in value.items() if name not in CHANGING}
    return [_without(item) for item in value] if isinstance(value, list) else value


def differs(http: httpx.Client, plain: httpx.Response, with_it: httpx.Response) -> bool:
    return with_it.status_code == 200 and essence(plain) != essence(with_it)


def is_the_same(http: httpx.Client, plain: httpx.Response, with_it: httpx.Response) -> bool:
    return with_it.status_code == 200 and essence(plain) == essence(with_it)


def is_refused(http: httpx.Client, plain: httpx.Response, with_it: httpx.Response) -> bool:
    return (plain.status_code, with_it.status_code) == (200, 400)


def helps(http: httpx.Client, plain: httpx.Response, with_it: httpx.Response) -> bool:
    return (plain.status_code, with_it.status_code) == (400, 200)


def is_streamed(http: httpx.Client, plain: httpx.Response, with_it: httpx.Response) -> bool:
    kinds = [answer.headers["content-type"].partition(";")[0] for answer in (plain, with_it)]
    return kinds == ["application/json", "text/event-stream"]


def pads_no_more(http: httpx.Client, plain: httpx.Response, with_it: httpx.Response) -> bool:
    return ["obfuscation" in answer.text for answer in (plain, with_it)] == [True, False]


def echoes(name: str) -> Shows:
    """It is told in the answer."""
    return lambda http, plain, with_it: plain.json()[name] != with_it.json()[name] is not None


def is_kept(wanted: bool) -> Shows:
    """Whether the answer is there to come back to; without the field it is the other way."""

    def shows(http: httpx.Client, plain: httpx.Response, with_it: httpx.Response) -> bool:
        path = with_it.request.url.path
        found = [http.get(f"{path}/{answer.json()['id']}").status_code == 200 for answer in (plain, with_it)]
        return found == [not wanted, wanted]

    return shows


def is_labelled(http: httpx.Client, plain: httpx.Response, with_it: httpx.Response) -> bool:
    path = with_it.request.url.path
    return bool(http.get(f"{path}/{with_it.json()['id']}").json()["metadata"] == {"k": "猫"})


def shares_no_cache(http: httpx.Client, plain: httpx.Response, with_it: httpx.Response) -> bool:
    """What was computed for somebody else is not found, what was for oneself is."""
    again = http.post(with_it.request.url.path, content=with_it.request.content, headers=with_it.request.headers)
    return [_cached(answer) > 0 for answer in (with_it, again)] == [False, True]


def shares_no_cache_as_metrics_tell(http: httpx.Client, plain: httpx.Response, with_it: httpx.Response) -> bool:
    """The same where answers do not tell what was found."""

    def found(body: bytes) -> float:
        before = _cached_in_all(http)
        http.post(with_it.request.url.path, content=body, headers={"Content-Type": "application/json"})
        return _cached_in_all(http) - before

    body = with_it.request.content
    return found(body) > 0 and found(body.replace(b'"Ann"', b'"Eve"')) == 0


def _cached_in_all(http: httpx.Client) -> float:
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("chatwright_cached_prompt_tokens_total"))


def _cached(answer: httpx.Response) -> int:
    usage = answer.json()["usage"]
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    n: int = usage.get("cache_read_input_tokens", details.get("cached_tokens", 0))
    return n


@dataclass(frozen=True)
class Effect:
    """`value` of the field, put to the path's plain request and what stands `beside`."""

    value: Any
    beside: dict[str, Any] = field(default_factory=dict)
    shows: Shows = differs


GREEDY = {"temperature": 0}
# The end is the last that the model comes to: where another call may follow, it does.
ENDLESS = {"logit_bias": {"0": -100, "2": -100}, "max_tokens": 400, "max_output_tokens": 400}
SAMPLING: dict[str, Effect] = {
    "frequency_penalty": Effect(2),
    "logit_bias": Effect({"70": 100}),
    "min_p": Effect(1),
    "model": Effect("gpt-4o", {}, echoes("model")),
    "presence_penalty": Effect(2),
    "repetition_penalty": Effect(10),
    "seed": Effect(2),
    "stop": Effect("\n", GREEDY),
    "stream": Effect(True, {}, is_streamed),
    "stream_options": Effect({"include_obfuscation": False}, {"stream": True}, pads_no_more),
    "temperature": Effect(0),
    "top_k": Effect(1),
    "top_p": Effect(0.001),
}
STATE = ("conversation", "previous_response_id")
EFFECTS: dict[str, tuple[dict[str, Any], dict[str, Effect]]] = {
    "POST /v1/chat/completions": (
        {"model": MODEL, "messages": [ASK], "seed": 1, "max_tokens": 40},
        {
            **SAMPLING,
            "function_call": Effect("none", {"functions": [FUNCTION]}),
            "functions": Effect([FUNCTION]),
            "logprobs": Effect(True),
            "max_completion_tokens": Effect(2),
            "max_tokens": Effect(2),
            "messages": Effect([ASK, {"role": "assistant", "content": "Yes?"}, ASK]),
            "metadata": Effect({"k": "猫"}, {"store": True}, is_labelled),
            "n": Effect(2),
            "parallel_tool_calls": Effect(True, {"tools": [TOOL], "tool_choice": "required", **ENDLESS}),
            "response_format": Effect({"type": "json_object"}),
            "store": Effect(True, {}, is_kept(True)),
            "tool_choice": Effect("required", {"tools": [TOOL], "max_tokens": 100}),
            "tools": Effect([TOOL]),
            "top_logprobs": Effect(2, {"logprobs": True}),
            "user": Effect("李雷", {"messages": [LONG]}, shares_no_cache),
        },
    ),
    "POST /v1/completions": (
        {"model": MODEL, "prompt": "The capital of", "seed": 1, "max_tokens": 40},
        {
            **SAMPLING,
            "best_of": Effect(3),
            "echo": Effect(True),
            "logprobs": Effect(2),
            "max_tokens": Effect(2),
            "n": Effect(2),
            "prompt": Effect("The cat"),
            "stop": Effect(" ", GREEDY),
            "suffix": Effect("x", {}, is_refused),  # by a model that was not trained for it
            "user": Effect("Ann", {"prompt": LONG["content"]}, shares_no_cache_as_metrics_tell),
        },
    ),
    "POST /v1/responses": (
        {"model": MODEL, "input": "Hello 你好", "seed": 1, "max_output_tokens": 40},
        {
            **SAMPLING,
            "background": Effect(True, {}, echoes("status")),
            "conversation": Effect("conversation"),
            "include": Effect(["message.output_text.logprobs"]),
            "input": Effect([ASK, {"role": "assistant", "content": "Yes?"}, ASK]),
            "instructions": Effect("Be short."),
            "max_output_tokens": Effect(2),
            "metadata": Effect({"k": "猫"}, {}, is_labelled),
            "parallel_tool_calls": Effect(True, {"tools": [FLAT_TOOL], "tool_choice": "required", **ENDLESS}),
            "previous_response_id": Effect("previous_response_id"),
            "prompt_cache_key": Effect("x", {}, echoes("prompt_cache_key")),
            "reasoning": Effect({"effort": "high"}, {}, is_refused),
            "safety_identifier": Effect("Bob", {"input": [LONG]}, shares_no_cache),
            "store": Effect(False, {}, is_kept(False)),
            "text": Effect({"format": {"type": "json_object"}}),
            "tool_choice": Effect("required", {"tools": [FLAT_TOOL], "max_output_tokens": 100}),
            "tools": Effect([FLAT_TOOL]),
            "top_logprobs": Effect(2),
            "truncation": Effect("auto", {"input": [LONG] * 80}, helps),
            "user": Effect("Cy", {"input": [LONG]}, shares_no_cache),
        },
    ),
    "POST /v1/embeddings": (
        {"model": MODEL, "input": "猫坐在垫子上"},
        {
            "dimensions": Effect(3),
            "encoding_format": Effect("base64"),
            "input": Effect(["a", "b"]),
            "model": Effect("text-embedding-3-small", {}, echoes("model")),
            "user": Effect("Ann", {}, is_the_same),
        },
    ),
    "POST /v1/messages": (
        {"model": MODEL, "messages": [ASK], "max_tokens": 40, "temperature": 0},
        {
            "max_tokens": Effect(2),
            "messages": Effect([ASK, {"role": "assistant", "content": "Yes?"}, ASK]),
            "metadata": Effect({"user_id": "王芳"}, {"messages": [LONG]}, shares_no_cache),
            "model": Effect("gpt-4o", {}, echoes("model")),
            "output_config": Effect({"format": {"type": "json_schema", "schema": CITY}}),
            "stop_sequences": Effect(["\n"]),
            "stream": Effect(True, {}, is_streamed),
            "system": Effect("Be short."),
            "temperature": Effect(1),
            "thinking": Effect({"type": "enabled", "budget_tokens": 1024}, {}, is_refused),
            "tool_choice": Effect({"type": "any"}, {"tools": [CLAUDES_TOOL], "max_tokens": 100}),
            "tools": Effect([CLAUDES_TOOL]),
            # Requests of this form have no seed, but the likeliest token alone is what is greedy.
            "top_k": Effect(1, {"temperature": 1}),
            "top_p": Effect(0, {"temperature": 1}),
        },
    ),
}


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The operator of a server that keeps what it is told to."""
    home = tmp_path_factory.mktemp("fields")
    url = sqlite_url(home / "chatwright.db")
    asyncio.run(upgrade(url))
    folder = make_model_folder(tmp_path_factory.mktemp("models") / "tiny", context=CONTEXT)
    server = start_server(folder, database=Database(url), admin_token=ADMIN_TOKEN, home=home)
    with server.http(headers=bearer(ADMIN_TOKEN)) as http:
        yield http
    server.stop()


@pytest.fixture(scope="module")
def state(http: httpx.Client) -> dict[str, str]:
    """Something that was said before."""
    first = {"model": MODEL, "input": "My name is Ann.", "max_output_tokens": 2}
    return {
        "conversation": http.post("/v1/conversations", json={"items": [ASK]}).json()["id"],
        "previous_response_id": http.post("/v1/responses", json=first).json()["id"],
    }


@pytest.mark.parametrize("path", EFFECTS)
def test_every_supported_field_has_its_effect(surface: Any, path: str) -> None:
    supported = {name for name, fate in surface.fates_of_fields(path).items() if fate in ("yes", "partly", "own")}
    assert set(EFFECTS[path][1]) == supported


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, (_, effects) in EFFECTS.items() for name in effects])
def test_it_does_something(http: httpx.Client, state: dict[str, str], path: str, name: str) -> None:
    plain, effects = EFFECTS[path]
    effect = effects[name]
    value = state[name] if name in STATE else effect.value
    place = path.partition(" ")[2]
    bodies = [{**plain, **effect.beside}, {**plain, **effect.beside, name: value}]
    answers = [http.post(place, json=body) for body in bodies]
    assert effect.shows(http, *answers), [answer.text[:2000] for answer in answers]
