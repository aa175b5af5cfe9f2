"""Headers: how large a request's may be, what browsers may do with our pages, ids made here and never taken over, and what is left
of limits."""

from __future__ import annotations

import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatwright.server.errors import error_response
from chatwright.server.metering import ARRIVED_AT, HEADERS
from chatwright.server.observation import REQUEST_ID

MAX_HEADER_BYTES = 64 * 1024
# No inline script, no foreign origin: model output that slips through the sanitiser still can neither run nor phone home.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class ResponseHeaders:
    """ASGI middleware adding security headers, `x-request-id`, which Anthropic calls `request-id`, and OpenAI's `openai-…`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = scope[ARRIVED_AT]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                for name, value in scope.get(HEADERS, {}).items():
                    headers.setdefault(name, value)
                headers["x-request-id"] = headers["request-id"] = scope[REQUEST_ID]
                headers["openai-version"] = "2020-10-01"
                headers["openai-processing-ms"] = str(round(1000 * (time.monotonic() - start)))
                if scope["path"].startswith(("/v1", "/api/")):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        # The HTTP parser counts only what has not yet arrived whole; headers that came in one piece are counted here.
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            message = f"The request's headers are larger than {MAX_HEADER_BYTES // 1024} KiB, the limit of this server."
            response = error_response(431, message, headers={"Connection": "close"})
            await response(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)
