"""What every request leaves behind: its id, made here and never taken over, its figures in the metrics, and a line in the log.

Neither says what a request was about: no path but the route's template, no query, no body, no header of the client's.
"""

from __future__ import annotations

import logging
import time
import uuid
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatwright.server.access import ACTOR
from chatwright.server.errors import ERROR_CODE
from chatwright.server.metering import ARRIVED_AT, BILL, Bill
from chatwright.server.metrics import Metrics
from chatwright.store.actor import NOBODY, Actor, Via

log = logging.getLogger("chatwright.access")

REQUEST_ID = "chatwright.request_id"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Of paths that no route has, and of the files of the web app.
OTHER = "other"
# nginx' status for a client that hung up before there was an answer.
CLIENT_GONE = 499


class Observation:
    """ASGI middleware, the outermost. `level`: at which each request is logged."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, level: int) -> None:
        self.app = app
        self.metrics = metrics
        self.level = level

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope[REQUEST_ID] = f"req_{uuid.uuid4().hex}"
        scope[ARRIVED_AT] = time.monotonic()
        status = CLIENT_GONE

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting_send)
        finally:
            self._note(scope, status)

    def _note(self, scope: Scope, status: int) -> None:
        seconds = time.monotonic() - scope[ARRIVED_AT]
        method = scope["method"] if scope["method"] in METHODS else OTHER
        route = _template(scope)
        self.metrics.http_requests.labels(method, route, str(status)).inc()
        self.metrics.http_seconds.labels(route).observe(seconds)
        if (code := scope.get(ERROR_CODE)) is not None:
            self.metrics.errors.labels(code).inc()
        if log.isEnabledFor(self.level):
            fields = _fields(scope, method, route, status, seconds)
            log.log(self.level, "%s %s %d", method, route, status, extra={"fields": fields})


def _template(scope: Scope) -> str:
    """The route's path as it is declared, with the prefix under which it is included: that FastAPI keeps in a place of its own."""
    included = scope.get("fastapi", {}).get("effective_route_context")
    found: str | None = getattr(included or scope.get("route"), "path_format", None)
    return found or OTHER


def _fields(scope: Scope, method: str, route: str, status: int, seconds: float) -> dict[str, Any]:
    actor: Actor = scope.get(ACTOR, NOBODY)
    fields: dict[str, Any] = {
        "request_id": scope[REQUEST_ID],
        "method": method,
        "route": route,
        "status": status,
        "error": scope.get(ERROR_CODE),
        "duration_ms": round(1000 * seconds, 1),
        "via": actor.via.value,
        "user_id": actor.user_id,
        "key_id": actor.credential if actor.via is Via.KEY else None,
    }
    bill: Bill | None = scope.get(BILL)
    if bill is not None and bill.entries:
        fields["model"] = bill.entries[0].model
        fields["input_tokens"] = sum(entry.used.input for entry in bill.entries)
        fields["output_tokens"] = sum(entry.used.output for entry in bill.entries)
    return {name: value for name, value in fields.items() if value is not None}
