"""Server-sent events as OpenAI writes them, to readers that may leave at any time."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from chatwright.errors import ChatwrightError
from chatwright.server.errors import ERROR_CODE, as_wire_error, error_object, log_crash
from chatwright.server.openai.generation import unless_client_leaves

DONE = "data: [DONE]\n\n"
# Nearly all tokens are shorter; longer ones, and several at once, take the next multiple.
TEXT_BLOCK = 32
# Events with calls or probabilities are some hundred bytes long, in much that differs.
EVENT_BLOCK = 256
# Valid in JSON strings, but line ends to readers that split text by Unicode's rules.
LINE_SEPARATORS = str.maketrans({"\u2028": "\\u2028", "\u2029": "\\u2029", "\u0085": "\\u0085"})


def sse(item: BaseModel) -> str:
    """One event with the fields that were set."""
    return f"data: {_one_line(item.model_dump_json(exclude_unset=True))}\n\n"


def named_sse(name: str, item: BaseModel) -> str:
    """One event with a name and all fields, as Anthropic writes them."""
    return f"event: {name}\ndata: {_one_line(item.model_dump_json())}\n\n"


def numbered_sse(name: str, item_json: str) -> str:
    """One event of a response, with a name."""
    return f"event: {name}\ndata: {_one_line(item_json)}\n\n"


def json_text(text: str) -> str:
    """A text as a JSON string that `sse` would write."""
    return _one_line(orjson.dumps(text).decode())


def _one_line(text: str) -> str:
    return text if text.isascii() else text.translate(LINE_SEPARATORS)


def obfuscated(event: str, n_bytes: int | None = None) -> str:
    """The event with OpenAI's field `obfuscation`: random characters which make its size tell nothing of the token in it, that a
    listener to an encrypted line could read off packets (Weiss et al. 2024; "Whisper Leak", 2025).

    n_bytes: how many of its bytes differ from those of other events of its kind; they are filled up to a multiple of TEXT_BLOCK.
    Where that is not known, the whole is filled up to one of EVENT_BLOCK.
    """
    size, block = (len(event.encode()), EVENT_BLOCK) if n_bytes is None else (n_bytes, TEXT_BLOCK)
    n_fill = -size % block
    return f'{event[:-3]},"obfuscation":"{secrets.token_urlsafe(n_fill)[:n_fill]}"}}\n\n'


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


@dataclass(frozen=True)
class Dialect:
    """How a stream says that it failed, by (status, sentence, param, code), and that it is over."""

    failed: Callable[[int, str, str | None, str | None], str]
    end: str


def _failed(status: int, message: str, param: str | None, code: str | None) -> str:
    return f"data: {orjson.dumps(error_object(status, message, param, code)).decode()}\n\n"


OPENAI = Dialect(_failed, DONE)


async def start_stream(request: Request, events: AsyncGenerator[str, None], dialect: Dialect = OPENAI) -> EventStream:
    """The response for `events`. The first one is awaited here: what fails before it still gets a status of its own.
    What fails later becomes an error event; then comes the end, [DONE] at OpenAI."""
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
            yield dialect.failed(wire.status_code, str(wire.detail), wire.param, wire.code)
        except Exception as error:  # noqa: BLE001  an edge: the status is sent, so this is the only way left to tell the client
            log_crash("a stream failed", error)
            request.scope[ERROR_CODE] = "http_500"
            message = "The server failed in the middle of this answer. Its log says where."
            yield dialect.failed(500, message, None, None)
        if dialect.end:
            yield dialect.end

    return EventStream(rest(), events)
