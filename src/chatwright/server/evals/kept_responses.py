"""Responses that were kept, as items of a run: chosen by what was asked for, read as messages, with what was answered then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from chatwright.server.evals.items import Collected
from chatwright.server.evals.sampling import read_response
from chatwright.server.evals.sources import StoredResponsesBody
from chatwright.store.actor import Actor
from chatwright.store.database import Database
from chatwright.store.responses import rows
from chatwright.store.responses.items import KeptItem

PAGE = 100


async def add_responses(
    into: Collected, database: Database, actor: Actor, source: StoredResponsesBody, config: Mapping[str, Any]
) -> None:
    """Those that are over, the oldest first. What the model read is `item.input`, the instructions before it. Raises
    InvalidRequestError, also where there are more than a run may have; ForbiddenError."""
    metadata = {name: str(value) for name, value in (config.get("metadata") or {}).items()} | (source.metadata or {})
    async with database.read() as session:
        ids = await rows.ids_of_ended(
            session, actor, created_after=source.created_after, created_before=source.created_before
        )
    for start in range(0, len(ids), PAGE):
        async with database.read() as session:
            for row in await rows.found(session, actor, ids[start : start + PAGE]):
                head = orjson.loads(row.head)
                if not _fits(head, source, metadata):
                    continue
                said = await rows.input_of(session, row)
                output = [orjson.loads(item.content) for item in await rows.items_of(session, row, is_output=True)]
                into.add(*_row(head, said, output))


def _fits(head: Mapping[str, Any], source: StoredResponsesBody, metadata: Mapping[str, str]) -> bool:
    """Whether it is one of those that are looked for."""
    names = {tool.get("name") for tool in head["tools"]}
    return (
        metadata.items() <= head["metadata"].items()
        and source.model in (None, head["model"])
        and source.temperature in (None, head["temperature"])
        and source.top_p in (None, head["top_p"])
        and (source.instructions_search is None or source.instructions_search in (head["instructions"] or ""))
        and (source.users is None or head.get("user") in source.users)
        and set(source.tools or ()) <= names
    )


def _row(
    head: Mapping[str, Any], said: Sequence[KeptItem], output: list[dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(item, sample) of a response."""
    asked = [_message(orjson.loads(item.content)) for item in said]
    if head["instructions"]:
        asked.insert(0, {"role": "system", "content": head["instructions"]})
    read = read_response({**head, "output": output})
    item = {
        "id": head["id"],
        "input": asked,
        "model": head["model"],
        "created": head["created_at"],
        "metadata": head["metadata"],
    }
    sample = {
        "model": head["model"],
        "input": asked,
        "output_text": read.text,
        "output_tools": read.calls,
        "finish_reason": read.finish_reason,
    }
    return item, sample


def _message(content: Mapping[str, Any]) -> dict[str, Any]:
    """A message with its text; a call or its result as /v1/responses takes them."""
    if content["type"] == "message":
        parts = content["content"]
        if isinstance(parts, list):
            parts = "".join(part.get("text") or part.get("refusal") or "" for part in parts)
        return {"role": content["role"], "content": parts}
    names = ("type", "call_id", "name", "arguments", "output")
    return {name: content[name] for name in names if content.get(name) is not None}
