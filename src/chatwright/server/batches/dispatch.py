"""A request answered inside the server: by the same routes, checks and policies as one from outside, without a connection."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import Message, Scope

from chatwright.server.access import ACTOR
from chatwright.server.errors import error_object, log_crash
from chatwright.server.openai.generation import IN_BACKGROUND
from chatwright.store.actor import Actor


@dataclass(frozen=True)
class Answer:
    """What a client would have got. `request_id`: made here, as for every request."""

    status: int
    request_id: str
    body: Any
    retry_after_s: float | None = None


def new_request_id() -> str:
    """As every request has one."""
    return f"req_{uuid.uuid4().hex}"


class Dispatcher:
    """The app below its middlewares: those are about connections, and about who comes in, which is known here."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        handlers = {key: handler for key, handler in app.exception_handlers.items() if key not in (500, Exception)}
        # As FastAPI stacks them: what a route opens is closed before its error is answered.
        self._inner = ExceptionMiddleware(AsyncExitStackMiddleware(app.router), handlers=handlers)

    async def post(self, actor: Actor, path: str, body: dict[str, Any], queue: str) -> Answer:
        """The answer to a JSON request by this actor. Cancelling it ends the work, as hanging up does. `queue`: in which it waits
        for its turn, so that it never takes that of its owner's chats."""
        request_id = new_request_id()
        data = orjson.dumps(body)
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())],
            "client": None,
            "server": None,
            "state": {},
            "app": self._app,
            ACTOR: actor,
            IN_BACKGROUND: queue,
        }
        sent = False
        status, headers, received = 500, {}, bytearray()

        async def receive() -> Message:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()  # nobody hangs up
            sent = True
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], dict(message["headers"])
            elif message["type"] == "http.response.body":
                received.extend(message.get("body", b""))

        try:
            await self._inner(scope, receive, send)
        except Exception as error:  # noqa: BLE001  the edge behind which no exception passes, as CrashGuard is one
            log_crash("a line of a batch failed", error)
            message = "The server failed while it answered this request. Its log says where."
            return Answer(500, request_id, error_object(500, message))
        wait = headers.get(b"retry-after", b"")
        return Answer(status, request_id, orjson.loads(received), float(wait) if wait.isdigit() else None)
