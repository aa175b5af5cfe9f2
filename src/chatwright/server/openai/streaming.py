"""Server-sent events as OpenAI writes them, to readers that may stall or leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from chatwright.errors import ChatwrightError
from chatwright.server.errors import as_wire_error, error_object
from chatwright.server.openai.generation import unless_client_leaves

log = logging.getLogger(__name__)

DONE = "data: [DONE]\n\n"
# Valid in JSON strings, but line ends to readers that split text by Unicode's rules.
LINE_SEPARATORS = str.maketrans({"\u2028": "\\u2028", "\u2029": "\\u2029", "\u0085": "\\u0085"})


def sse(item: BaseModel) -> str:
    """One event with the fields that were set."""
    return f"data: {item.model_dump_json(exclude_unset=True).translate(LINE_SEPARATORS)}\n\n"


class EventStream(StreamingResponse):
    """A stream whose reader must take each piece within `write_timeout_s`; the events' iterator is closed in every case."""

    def __init__(self, events: AsyncGenerator[str, None], write_timeout_s: float) -> None:
        super().__init__(
            events,
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self.events = events
        self.write_timeout_s = write_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self.write_timeout_s):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            log.warning("a client stopped reading its stream for %g s; it was cut off", self.write_timeout_s)
        finally:
            # A cancelled send leaves the iterator suspended at its yield: close it, so that the engine stops now.
            await self.events.aclose()


async def start_stream(request: Request, events: AsyncGenerator[str, None], write_timeout_s: float) -> EventStream:
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
            yield _error_event(error_object(wire.status_code, str(wire.detail), wire.param, wire.code))
        except Exception:  # an edge: the status is sent, so this is the only way left to tell the client
            log.exception("a stream failed")
            yield _error_event(error_object(500, "The server failed in the middle of this answer. Its log says where."))
        finally:
            await events.aclose()
        yield DONE

    return EventStream(rest(), write_timeout_s)


def _error_event(body: dict[str, Any]) -> str:
    return f"data: {orjson.dumps(body).decode()}\n\n"
