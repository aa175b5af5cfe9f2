"""Pages of other origins, for those that the operator named (CHATWRIGHT_CORS_ORIGINS): what a browser has to be told."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

# What official clients read of an answer; without it a page sees neither the id of a request nor how long to wait.
EXPOSED = (
    "Retry-After",
    "X-Request-Id",
    "Request-Id",
    "X-Should-Retry",
    "OpenAI-Processing-Ms",
    *(f"X-RateLimit-{what}-{of}" for what in ("Limit", "Remaining", "Reset") for of in ("Requests", "Tokens")),
)


class CrossOrigin:
    """ASGI middleware around everything that may refuse, so that a page can read a 401 too. Other origins are not its business:
    they reach AccessControl as if this was not here.

    Any header may be asked for: OpenAI's and Anthropic's clients in a browser send a dozen of their own (`x-api-key`,
    `anthropic-version`, `X-Stainless-…`), other ones with every version. Cookies are not sent along.
    """

    def __init__(self, app: ASGIApp, *, origins: Iterable[str]) -> None:
        self.app = app
        self.origins = frozenset(origins)
        self.with_headers = CORSMiddleware(
            app,
            allow_origins=sorted(self.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_named = scope["type"] == "http" and Headers(scope=scope).get("origin") in self.origins
        await (self.with_headers if is_named else self.app)(scope, receive, send)
