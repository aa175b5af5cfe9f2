"""The items of a run that is to be made: read, bounded, and held against the eval's schema before anything is begun."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from chatwright.errors import InvalidRequestError
from chatwright.server.errors import WireError
from chatwright.server.evals.sources import MOST_ITEMS, FileContentBody, StoredCompletionsBody
from chatwright.server.json_body import parse_json
from chatwright.store.actor import Actor
from chatwright.store.database import Database
from chatwright.store.evals.runs import NewItem
from chatwright.store.responses import completions
from chatwright.store.responses.completions import Kept

MOST_LINE_BYTES = 256 * 1024
MOST_BYTES = 64 * 2**20
PAGE = 100
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


class Collected:
    """Items as they come, up to what a run may have. `schema`: what each has to fit; None: anything."""

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        self._schema = schema
        self._room = MOST_BYTES
        self.items: list[NewItem] = []

    def add(self, item: dict[str, Any], sample: dict[str, Any] | None) -> None:
        """One more. Raises InvalidRequestError."""
        number = len(self.items) + 1
        if number > MOST_ITEMS:
            raise InvalidRequestError(
                "A run has {n} items at most: choose some, or set a limit.",
                n=MOST_ITEMS,
                param="data_source",
                code="invalid_item",
            )
        if self._schema is not None:
            _check(self._schema, item, "item", number)
        new = NewItem(orjson.dumps(item).decode(), None if sample is None else orjson.dumps(sample).decode())
        size = len(new.content.encode()) + len((new.given or "").encode())
        if size > MOST_LINE_BYTES:
            raise InvalidRequestError(
                "Item {number} is larger than {size} KiB.",
                number=number,
                size=MOST_LINE_BYTES // 1024,
                param="data_source",
                code="invalid_item",
            )
        self._room -= size
        if self._room < 0:
            raise InvalidRequestError(
                "The items of a run have {size} MiB together at most.",
                size=MOST_BYTES // 2**20,
                param="data_source",
                code="invalid_item",
            )
        self.items.append(new)


def add_rows(into: Collected, source: FileContentBody) -> None:
    """Those of a request. Raises InvalidRequestError."""
    for row in source.content:
        into.add(row.item, row.sample)


def add_lines(into: Collected, path: Path) -> None:
    """Those of a file. Raises InvalidRequestError, which names the line; OSError."""
    for number, data in _lines(path):
        if len(data) > MOST_LINE_BYTES:
            raise InvalidRequestError(
                "Line {number} is larger than {size} KiB.",
                number=number,
                size=MOST_LINE_BYTES // 1024,
                param="data_source",
                code="invalid_item",
            )
        try:
            row = parse_json(data)
        except WireError as error:
            what = str(error.detail).replace("The request body", "The line").replace("The JSON body", "The line")
            raise InvalidRequestError(
                "Line {number} of the file is no item. {what}",
                number=number,
                what=what,
                param="data_source",
                code="invalid_item",
            ) from None
        item, sample = row.get("item"), row.get("sample")
        if not isinstance(item, dict) or not isinstance(sample, dict | None):
            raise InvalidRequestError(
                'Line {number} of the file is no item: {{"item": {{…}}}}, or {{"item": {{…}}, "sample": {{…}}}} with an answer.',
                number=number,
                param="data_source",
                code="invalid_item",
            )
        into.add(item, sample)


async def add_completions(
    into: Collected,
    database: Database,
    actor: Actor,
    source: StoredCompletionsBody,
    config: Mapping[str, Any],
) -> None:
    """Chat completions that were kept, the oldest first: those with the metadata of both the eval and the run. What was said to
    the model is `item.input`. Raises InvalidRequestError, also where there are more than a run may have and no limit was set;
    ForbiddenError."""
    metadata = {name: str(value) for name, value in (config.get("metadata") or {}).items()} | (source.metadata or {})
    most = source.limit or MOST_ITEMS + 1
    after = None
    while True:
        async with database.read() as session:
            page = await completions.list_completions(
                session, actor, model=source.model, metadata=metadata, after=after, limit=PAGE, newest_first=False
            )
            for kept in page.completions:
                body = orjson.loads(kept.body)
                if not (source.created_after or 0) <= body["created"] <= (source.created_before or 2**53):
                    continue
                messages = await completions.messages_of(session, actor, kept.id)
                into.add(*_row(kept, body, messages))
                if len(into.items) >= most:
                    return
        if not page.has_more:
            return
        after = page.completions[-1].id


def _row(kept: Kept, body: Mapping[str, Any], messages: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(item, sample) of a completion."""
    asked = []
    for text in messages:
        message = orjson.loads(text)
        said = {name: value for name, value in message.items() if value is not None and name != "content_parts"}
        asked.append({"content": None, **said})
    choice = body["choices"][0]
    item = {
        "id": kept.id,
        "input": asked,
        "model": body["model"],
        "created": body["created"],
        "metadata": dict(kept.metadata),
    }
    sample = {
        "model": body["model"],
        "input": asked,
        "output_text": choice["message"].get("content") or "",
        "output_tools": choice["message"].get("tool_calls") or [],
        "finish_reason": choice["finish_reason"],
    }
    return item, sample


def _check(schema: Mapping[str, Any], value: Any, where: str, number: int) -> None:
    """What an eval says of its items most often: types, enum, required, properties, items, additionalProperties. The schema is
    nested 32 deep at most, so this ends."""
    kinds = schema.get("type")
    names = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    known = [name for name in names if isinstance(name, str) and name in _TYPES]
    allowed = schema.get("enum")
    if (known and not any(_is(value, name) for name in known)) or (isinstance(allowed, list) and value not in allowed):
        raise InvalidRequestError(
            "Item {number} does not fit the eval's item_schema: {where} is something else.",
            number=number,
            where=where,
            param="data_source",
            code="invalid_item",
        )
    if isinstance(value, dict):
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        for name in required if isinstance(required, list) else []:
            if isinstance(name, str) and name not in value:
                raise InvalidRequestError(
                    "Item {number} does not fit the eval's item_schema: {where} lacks {name}.",
                    number=number,
                    where=where,
                    name=name[:60],
                    param="data_source",
                    code="invalid_item",
                )
        for name, inner in value.items():
            if isinstance(properties.get(name), dict):
                _check(properties[name], inner, f"{where}.{name[:60]}", number)
            elif schema.get("additionalProperties") is False and name not in properties:
                raise InvalidRequestError(
                    "Item {number} does not fit the eval's item_schema: {where} may not have {name}.",
                    number=number,
                    where=where,
                    name=name[:60],
                    param="data_source",
                    code="invalid_item",
                )
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for place, inner in enumerate(value):
            _check(schema["items"], inner, f"{where}[{place}]", number)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind]) or (kind == "integer" and isinstance(value, float) and value.is_integer())


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line) of those that are not empty; too long ones cut one byte beyond what is allowed."""
    with path.open("rb") as stream:
        number = 0
        while data := stream.readline(MOST_LINE_BYTES + 2):
            number += 1
            rest = data
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(2**20)
            data = data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data
            if stripped := data.strip():
                yield number, stripped
