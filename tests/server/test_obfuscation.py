"""Streaming privacy: the size of an event says nothing of the token in it, unless the client asks for that."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from chatwright.server.openai.streaming import EVENT_BLOCK, TEXT_BLOCK
from tests.server.harness import MODEL, RunningServer, events_of

MESSAGES = [{"role": "user", "content": "Hello 你好 🙂"}]
BODIES: dict[str, dict[str, Any]] = {
    "completions": {"prompt": "The 猫", "seed": 3, "max_tokens": 60},
    "chat/completions": {"messages": MESSAGES, "seed": 4, "max_tokens": 60},
}


def stream(server: RunningServer, path: str, **body: Any) -> tuple[list[dict[str, Any]], list[int]]:
    """(events, sizes in bytes) of a stream."""
    response = server.post(f"/v1/{path}", {"model": MODEL, "stream": True, **BODIES[path], **body})
    assert response.status_code == 200, response.text
    sizes = [len(line) for line in response.content.split(b"\n\n") if line and b"[DONE]" not in line]
    return events_of(response.text), sizes


def said(event: dict[str, Any]) -> str:
    """The text of an event with nothing else in it."""
    if not event["choices"] or event["choices"][0]["finish_reason"]:
        return ""
    choice = event["choices"][0]
    return choice.get("text") or choice.get("delta", {}).get("content") or ""


@pytest.mark.parametrize("path", BODIES)
def test_texts_of_all_lengths_come_in_events_of_one_size(server: RunningServer, path: str) -> None:
    events, sizes = stream(server, path)
    texts = {size: said(event) for event, size in zip(events, sizes, strict=True) if said(event)}
    lengths = {len(said(event).encode()) for event in events if said(event)}
    assert len(lengths) > 3, "the stream must have tokens of several lengths to show anything"
    assert max(lengths) < TEXT_BLOCK - 2
    assert len(texts) == 1, texts
    # Without it the sizes give the lengths away: that is what is hidden.
    open_events, open_sizes = stream(server, path, stream_options={"include_obfuscation": False})
    assert all("obfuscation" not in event for event in open_events)
    assert [said(event) for event in open_events] == [said(event) for event in events]
    assert len({size for event, size in zip(open_events, open_sizes, strict=True) if said(event)}) >= len(lengths)


@pytest.mark.parametrize("path", BODIES)
def test_it_is_on_unless_it_is_turned_off(server: RunningServer, path: str) -> None:
    for options in ({}, {"stream_options": {"include_usage": True}}, {"stream_options": {"include_obfuscation": None}}):
        events, _ = stream(server, path, **options)
        assert all("obfuscation" in event for event in events if event["choices"])
        assert all("obfuscation" not in event for event in events if not event["choices"])
    fillings = [event["obfuscation"] for event in events if said(event)]
    assert len(set(fillings)) > len(fillings) / 2, "the filling is random"


@pytest.mark.parametrize("path", BODIES)
def test_events_with_probabilities_come_in_blocks(server: RunningServer, path: str) -> None:
    events, sizes = stream(server, path, logprobs=True if path.startswith("chat") else 2)
    assert len({size % EVENT_BLOCK for event, size in zip(events, sizes, strict=True) if said(event)}) == 1


def test_the_official_client_knows_the_field(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, max_tokens=8)  # type: ignore[call-overload]
    )
    assert all(isinstance(chunk.obfuscation, str) for chunk in chunks)
