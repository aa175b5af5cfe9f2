"""Conversations over the wire: begun, followed event by event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import httpx

from tests.server.harness import MODEL


@dataclass(frozen=True)
class SseEvent:
    """One event of a stream."""

    kind: str
    id: str | None
    data: dict[str, Any]


def begin(http: httpx.Client, **body: Any) -> str:
    """A new conversation's id."""
    answer = http.post("/api/conversations", json=body)
    assert answer.status_code == 200, answer.text
    id: str = answer.json()["id"]
    return id


def ask(http: httpx.Client, conversation: str, content: str | None = "Hello", **body: Any) -> dict[str, Any]:
    """Say something and have it answered, with as much variety as the model has: what is mixed up shall show."""
    said = {"model": MODEL, "temperature": 1.5, **body, **({} if content is None else {"content": content})}
    answer = http.post(f"/api/conversations/{conversation}/generations", json=said)
    assert answer.status_code == 200, answer.text
    generation: dict[str, Any] = answer.json()
    return generation


def look(http: httpx.Client, conversation: str) -> dict[str, Any]:
    """The conversation with its tree."""
    answer = http.get(f"/api/conversations/{conversation}")
    assert answer.status_code == 200, answer.text
    opened: dict[str, Any] = answer.json()
    return opened


def events_path(conversation: str, message: str) -> str:
    return f"/api/conversations/{conversation}/messages/{message}/events"


def stop(http: httpx.Client, conversation: str, message: str) -> dict[str, Any]:
    answer = http.post(f"/api/conversations/{conversation}/messages/{message}/stop", json={})
    assert answer.status_code == 200, answer.text
    stopped: dict[str, Any] = answer.json()
    return stopped


def follow(
    http: httpx.Client, conversation: str, message: str, after: int | None = None, last_event_id: str | None = None
) -> Iterator[SseEvent]:
    """The events of an answer, until the reader has enough or the stream ends."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id is not None else {})
    params = {} if after is None else {"after": after}
    path = events_path(conversation, message)
    with http.stream("GET", path, params=params, headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        fields: dict[str, str] = {}
        for line in response.iter_lines():
            if line.startswith(":"):
                continue
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                yield SseEvent(fields["event"], fields.get("id"), json.loads(fields["data"]))
                fields = {}


def follow_to_end(http: httpx.Client, conversation: str, message: str, **where: Any) -> tuple[str, dict[str, Any]]:
    """(the text of the deltas, the message at the end)."""
    with closing(follow(http, conversation, message, **where)) as events:
        seen = list(events)
    assert [event.kind for event in seen[:-1]] == ["delta"] * (len(seen) - 1)
    assert seen[-1].kind == "finished", seen[-1]
    positions = [int(event.id or "") for event in seen]
    assert positions == sorted(positions)
    return "".join(event.data["text"] for event in seen[:-1]), seen[-1].data["message"]
