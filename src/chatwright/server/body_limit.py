"""How much may be sent, and for how long: small bodies for most routes, large ones for those that take files."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatwright.server.errors import WireError, error_response

# A body too large, or of a request that is refused, is still read to its end, and thrown away, up to this many times the limit of
# most bodies: most clients look for the answer only when they have sent everything, and closing before that would reset the
# connection under them.
DRAINED_BODIES = 4
DRAINING_S = 10.0


@dataclass(frozen=True)
class Bounds:
    """`max_bytes`: of what is sent; `around_bytes`: of what may be around it. `pause_s`: how long nothing may come; `total_s`: how
    long all of it may take."""

    max_bytes: int
    pause_s: float
    total_s: float
    around_bytes: int = 0


class BodyLimit:
    """ASGI middleware: a body is as large as its route allows, and is sent in time (413, 408).

    A request that is answered before its body was read, as one that is refused, is read on for a while, and ends its connection.
    """

    def __init__(self, app: ASGIApp, bounds: Bounds, others: Sequence[tuple[re.Pattern[str], Bounds]] = ()) -> None:
        self.app = app
        self.bounds = bounds
        self.others = tuple(others)
        self.drained_bytes = DRAINED_BODIES * bounds.max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        bounds = self._bounds_of(scope["path"])
        most_bytes = bounds.max_bytes + bounds.around_bytes
        headers = dict(scope["headers"])
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > most_bytes:
            if int(announced) <= self.drained_bytes and b"expect" not in headers:
                await self._discard(receive)
            response = error_response(
                413, _too_large(bounds), code="request_too_large", headers={"Connection": "close"}
            )
            await response(scope, receive, send)
            return
        n_bytes = 0
        complete = announced == b"0" and b"transfer-encoding" not in headers
        deadline = time.monotonic() + bounds.total_s

        async def limited_receive() -> Message:
            nonlocal n_bytes, complete
            if complete:
                return await receive()  # waiting for the client to hang up: that may take as long as the answer
            left_s = deadline - time.monotonic()
            try:
                async with asyncio.timeout(min(bounds.pause_s, left_s)):
                    message = await receive()
            except TimeoutError:
                complete = True  # there is nothing to be read on
                if left_s <= bounds.pause_s:
                    sentence = f"The request body did not arrive within {bounds.total_s:g} seconds."
                else:
                    sentence = f"Nothing of the request body arrived for {bounds.pause_s:g} seconds."
                raise WireError(408, sentence, headers={"Connection": "close"}) from None
            n_bytes += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if n_bytes > most_bytes:
                raise WireError(413, _too_large(bounds), code="request_too_large", headers={"Connection": "close"})
            return message

        async def draining_send(message: Message) -> None:
            nonlocal complete
            if message["type"] == "http.response.start" and not complete:
                complete = True
                if n_bytes or b"expect" not in headers:
                    await self._discard(receive)
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self.app(scope, limited_receive, draining_send)

    def _bounds_of(self, path: str) -> Bounds:
        return next((bounds for pattern, bounds in self.others if pattern.fullmatch(path)), self.bounds)

    async def _discard(self, receive: Receive) -> None:
        """Read on, keeping nothing."""
        n_bytes, more = 0, True
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAINING_S):
                while more and n_bytes < self.drained_bytes:
                    message = await receive()
                    n_bytes += len(message.get("body", b""))
                    more = message.get("more_body", False)


def _too_large(bounds: Bounds) -> str:
    return f"The request body is larger than {bounds.max_bytes / 2**20:g} MiB, the limit of this server."
