"""Server-sent events as OpenAI writes them, to readers that may leave at any time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from chatwright.errors import ChatwrightError
from chatwright.server.errors import ERROR_CODE, as_wire_error, error_object, log_crash
from chatwright.server.openai.generation import unless_client_leaves

DONE = "data: [DONE]\n\n"
# Valid in JSON strings, but line ends to readers that split text by Unicode's rules.
LINE_SEPARATORS = str.maketrans({"\u2028": "\\u2028", "\u2029": "\\u2029", "\u0085": "\\u0085"})


def sse(item: BaseModel) -> str:
    """One event with the fields that were set."""
    text = item.model_dump_json(exclude_unset=True)
    if not text.isascii():
        text = text.translate(LINE_SEPARATORS)
    return f"data: {text}\n\n"


def json_text(text: str) -> str:
    """A text as a JSON string that `sse` would write."""
    written = orjson.dumps(text).decode()
    return written if written.isascii() else written.translate(LINE_SEPARATORS)


class EventStream(StreamingResponse):
    """A stream that closes its events in every case, also when it was never begun: that is what stops the engine."""

    def __init__(self, events: AsyncGenerator[str, None], source: AsyncGenerator[str, None]) -> None:
        super().__init__(
            events,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self.events = events
        self.source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.events.aclose()
            await self.source.aclose()


async def start_stream(request: Request, events: AsyncGenerator[str, None]) -> EventStream:
    """The response for `events`. The first one is awaited here: what fails before it still gets a status of its own.
    What fails later becomes an error event, then [DONE]."""
    try:
        first = await unless_client_leaves(request, anext(events))
    except BaseException:
        await events.aclose()
        raise

    async def rest() -> AsyncGenerator[str, None]:
        try:
            yield first
            async for event in events:
                yield event
        except ChatwrightError as error:
            wire = as_wire_error(error)
            request.scope[ERROR_CODE] = wire.code
            yield _error_event(error_object(wire.status_code, str(wire.detail), wire.param, wire.code))
        except Exception as error:  # noqa: BLE001  an edge: the status is sent, so this is the only way left to tell the client
            log_crash("a stream failed", error)
            request.scope[ERROR_CODE] = "http_500"
            yield _error_event(error_object(500, "The server failed in the middle of this answer. Its log says where."))
        yield DONE

    return EventStream(rest(), events)


def _error_event(body: dict[str, Any]) -> str:
    return f"data: {orjson.dumps(body).decode()}\n\n"
