"""Reading JSON request bodies: only JSON, of bounded depth, strictly parsed. `body_limit` bounds their size and duration."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from chatwright.server.errors import WireError

MAX_DEPTH = 64
# Objects and arrays in one body. Parsed, an empty one takes 30 times its two bytes; honest requests have thousands at most.
MAX_CONTAINERS = 100_000
# From this size on a body is parsed in a thread: the event loop turns between the steps.
LARGE_BODY_BYTES = 64 * 1024
EMPTY_PAIR = re.compile(rb"\[\]|\{\}")
NEITHER_BRACKETS_NOR_QUOTES = bytes(set(range(256)) - set(b'[]{}"'))


class JsonRequest(Request):
    """A request whose `json()` is strict: UTF-8, no NaN, no lone surrogates, nested at most 64 deep."""

    async def json(self) -> Any:
        """The parsed body. Raises WireError (400)."""
        if not hasattr(self, "_json"):
            body = await self.body()
            large = len(body) > LARGE_BODY_BYTES
            self._json = await asyncio.to_thread(parse_json, body) if large else parse_json(body)
        return self._json


class JsonRoute(APIRoute):
    """A route whose body must be JSON (415 otherwise: a form posted by a foreign page is no JSON, so this also stops CSRF)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's hook for custom request classes."""
        handler = super().get_route_handler()
        optional = self.body_field is not None and not self.body_field.field_info.is_required()

        async def handle(request: Request) -> Response:
            if request.method in ("POST", "PUT", "PATCH"):
                body = await request.body()
                if optional and not body and "content-type" not in request.headers:
                    return await handler(request)
                require_json(request)
                if not body.strip():
                    raise WireError(400, "The request body is empty. Send a JSON object.")
                strict = JsonRequest(request.scope, request.receive)
                strict._body = body
                return await handler(strict)
            return await handler(request)

        return handle


def require_json(request: Request) -> None:
    """Raise WireError (415) unless the body is announced as plain JSON."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise WireError(415, f"Content-Type must be application/json, not {content_type or 'missing'!r}.")
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise WireError(415, f"Content-Encoding {encoding!r} is not supported. Send the body uncompressed.")


def parse_json(body: bytes) -> Any:
    """A JSON object from bytes. Raises WireError (400) with the place of the mistake."""
    brackets = brackets_of(body)
    if len(brackets) > 2 * MAX_CONTAINERS:
        raise WireError(400, f"The JSON body has more than {MAX_CONTAINERS} objects and arrays.", code="invalid_json")
    try:
        value = orjson.loads(body)  # refuses by itself: bad UTF-8, lone surrogates, NaN, more than 1,024 levels
    except orjson.JSONDecodeError as error:
        # Only the parser's own sentence, without the text around the mistake, which may be private.
        raise WireError(
            400, f"The request body is not valid JSON: {error.msg} (byte {error.pos}).", code="invalid_json"
        ) from None
    if not isinstance(value, dict):
        raise WireError(400, "The request body must be a JSON object.", code="invalid_json")
    if deeper_than(brackets, MAX_DEPTH):
        raise WireError(400, f"The JSON body is nested deeper than {MAX_DEPTH} levels.", code="invalid_json")
    return value


def brackets_of(body: bytes) -> bytes:
    """The brackets of valid JSON that stand outside of strings, in a few passes at the speed of memory: a regular expression
    for strings takes seconds for some bodies."""
    # Without its escapes a string ends at the next quote. Neighbouring strings merge: there is no bracket between them.
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, delete=NEITHER_BRACKETS_NOR_QUOTES)
    return b"".join(bare.replace(b'""', b"").split(b'"')[::2])


def deeper_than(brackets: bytes, levels: int) -> bool:
    """Whether the brackets of valid JSON nest deeper than `levels`. Each pass peels the innermost level, at the speed of the
    regex engine."""
    for _ in range(levels):
        if not brackets:
            return False
        brackets = EMPTY_PAIR.sub(b"", brackets)
    return bool(brackets)
