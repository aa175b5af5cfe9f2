"""The shapes in which Open WebUI asks an OpenAI connection, written down from a copy of its sources; it is too large to install.

`backend/open_webui/routers/openai.py` (models, chat, embeddings), `routers/tasks.py` (titles, tags, follow-ups, queries),
`retrieval/models/external.py` (rerank). Its own fields (chat_id, session_id, features, …) are mostly taken out before it asks, but
what filters and parameters of models leave in goes along.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.server.conftest import KEY, StartServer
from tests.server.harness import MODEL, RunningServer, assert_error, events_of

HEADERS = {
    "Authorization": b"Bearer " + KEY.encode(),
    "X-OpenWebUI-User-Name": "Ann%20%E6%9D%8E",
    "X-OpenWebUI-User-Id": "2f1a6f0e-9d0a-4a53-8c8b-0d2c1c0e6f11",
    "X-OpenWebUI-User-Email": "ann@example.org",
    "X-OpenWebUI-User-Role": "user",
    "X-OpenWebUI-Chat-Id": "5b1d",
}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "You are helpful."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello, how can I help?"},
    {"role": "user", "content": [{"type": "text", "text": "Tell me of cats."}]},
]
# What the settings of a chat or a model put in, and fields that are nobody's.
PARAMETERS: dict[str, Any] = {
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "max_tokens": 8,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.0,
    "repeat_penalty": 1.1,
    "seed": 7,
    "stop": ["###"],
    "logit_bias": {"5": -5},
    "keep_alive": "5m",
    "num_ctx": 2048,
    "chat_id": "5b1d",
    "session_id": "x",
    "id": "message",
    "features": {"web_search": False},
    "variables": {"{{USER_NAME}}": "Ann"},
    "background_tasks": {"title_generation": True},
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "",
        "parameters": {"type": "object", "properties": {}, "required": []},
    },
}
TASK = (
    '### Task:\nGenerate 1-3 broad tags.\n### Output:\nJSON format: { "tags": ["tag1", "tag2"] }\n'
    "### Chat History:\n<chat_history>\nUSER: Hello\nASSISTANT: Hi\n</chat_history>"
)


@pytest.fixture(scope="module")
def keyed(start: StartServer) -> RunningServer:
    """Open WebUI stands on a server that has a key."""
    return start(api_key=KEY)


def ask(server: RunningServer, path: str, body: dict[str, Any]) -> Any:
    return server.post(path, {"model": MODEL, **body}, headers=HEADERS)


def test_a_connection_is_verified_and_lists_its_models(keyed: RunningServer) -> None:
    with keyed.http(headers=HEADERS) as http:
        told = http.get("/v1/models").json()
    assert [model["id"] for model in told["data"]] == [MODEL]
    assert "error" not in told, "it takes an error in the body for a broken connection"
    with keyed.http() as http:
        assert_error(http.get("/v1/models"), 401)


def test_a_chat_is_streamed_with_its_usage(keyed: RunningServer) -> None:
    body = {"stream": True, "messages": TALK, "stream_options": {"include_usage": True}, **PARAMETERS}
    answer = ask(keyed, "/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    assert "text/event-stream" in answer.headers["content-type"], "else it takes the stream for one object"
    events = events_of(answer.text)
    for event in events:
        ChatCompletionChunk.model_validate_json(json.dumps(event), strict=True)
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] <= 8
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events[:-1])
    assert text


@pytest.mark.parametrize("limit", [{"max_tokens": 6}, {"max_completion_tokens": 6}, {}])
def test_titles_and_tags_are_asked_for_whole(keyed: RunningServer, limit: dict[str, int]) -> None:
    asked = {"messages": [{"role": "user", "content": TASK[:60]}], "stream": False, **limit}
    answer = ask(keyed, "/v1/chat/completions", asked)
    assert answer.status_code == 200, answer.text
    assert ChatCompletion.model_validate_json(answer.text, strict=True).choices[0].message.content is not None


def test_native_tools_are_called_and_answered(keyed: RunningServer) -> None:
    called = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    history = [
        {"role": "user", "content": "Time?"},
        {"role": "assistant", "content": "", "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "call_1", "content": "12:00"},
    ]
    asked = {"messages": history, "tools": [TOOL], "tool_choice": "none", "stream": True, "max_tokens": 2}
    answer = ask(keyed, "/v1/chat/completions", asked)
    assert answer.status_code == 200, answer.text
    assert events_of(answer.text)


def test_knowledge_is_embedded_and_ranked(keyed: RunningServer) -> None:
    told = ask(keyed, "/v1/embeddings", {"input": ["A cat", "猫"]}).json()
    assert all(isinstance(item["embedding"], list) for item in told["data"]), "it decodes no base64"
    ranked = ask(keyed, "/v1/rerank", {"query": "cats", "documents": ["A cat", "A dog"], "top_n": 2}).json()
    assert {item["index"] for item in ranked["results"]} == {0, 1}
    assert all(isinstance(item["relevance_score"], float) for item in ranked["results"])


def test_an_error_is_an_object_with_a_sentence(keyed: RunningServer) -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]
    assert_error(ask(keyed, "/v1/chat/completions", {"messages": image, "stream": True}), 400)
