"""Who may come in: deny by default, decided on the routed path, before anything else looks at the request.

With an API key every path but the public ones wants `Authorization: Bearer KEY` (or Azure's `api-key: KEY`). Without one the
server is open to this machine alone: it ignores whatever key is sent and refuses foreign Host or Origin headers (DNS rebinding,
pages of other sites) and everything that came through a proxy, since a proxy in front makes it public.

Changing what is served wants the admin token, with a key and without: those who may ask a model are many, and so are the programs
on a machine. It opens everything else too.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from urllib.parse import urlsplit

from fastapi import Request
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from chatwright.server.errors import WireError, error_response

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
PROXY_HEADERS = frozenset({"forwarded", "x-real-ip", "via"})  # and X-Forwarded-*
# Probes must work without a key, and the page that asks for the key must load. None of these says anything private.
PUBLIC_PATHS = frozenset({"/", "/health", "/ready", "/docs", "/favicon.svg", "/favicon.ico", "/licenses.txt"})
PUBLIC_FOLDER = "/assets/"


def is_public(path: str) -> bool:
    """Whether a path needs no key."""
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_FOLDER)


def sends(headers: Headers, secret: SecretStr | None) -> bool:
    """Whether a request carries this secret as its key. Nothing carries None."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        key = headers.get("api-key", "")  # how Azure's clients send it
    # Starlette reads header bytes as Latin-1; a key is whatever bytes the client sent. Compared as digests: equal lengths, so that
    # the time taken tells nothing of the key.
    digest = hashlib.sha256(key.strip().encode("latin-1")).digest()
    wanted = secret.get_secret_value() if secret is not None else ""
    return hmac.compare_digest(digest, hashlib.sha256(wanted.encode()).digest()) and secret is not None


def require_admin(request: Request) -> None:
    """A dependency of the routes that change what is served. Raises WireError (401, 403)."""
    settings = request.app.state.server.settings
    if settings.admin_token is None:
        raise WireError(
            403,
            "What this server serves cannot be changed: it was started without an admin token.",
            code="no_admin_token",
        )
    if sends(request.headers, settings.admin_token):
        return
    advice = "the one that the server printed when it started, or CHATWRIGHT_ADMIN_TOKEN"
    if sends(request.headers, settings.api_key):
        raise WireError(403, f"The API key does not open this. It needs the admin token: {advice}.", code="not_admin")
    raise WireError(
        401,
        f"This needs the admin token as 'Authorization: Bearer TOKEN': {advice}.",
        code="invalid_admin_token",
        headers={"WWW-Authenticate": "Bearer"},
    )


class AccessControl:
    """ASGI middleware that lets a request pass or answers 401 or 403."""

    def __init__(
        self, app: ASGIApp, *, api_key: SecretStr | None, admin_token: SecretStr | None, allowed_origins: Iterable[str]
    ) -> None:
        self.app = app
        self.api_key = api_key
        self.admin_token = admin_token
        self.allowed_origins = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        # A browser's preflight carries no key; it reaches the CORS middleware, or nothing.
        preflight = scope["method"] == "OPTIONS" and headers.get("origin") in self.allowed_origins
        if self.api_key is None:
            refusal = self._refuse_foreign(headers)
            if refusal:
                await error_response(403, refusal, code="foreign_request")(scope, receive, send)
                return
        elif not preflight and not is_public(scope["path"]) and not self._has_key(headers):
            message = (
                "The API key is wrong."
                if "authorization" in headers or "api-key" in headers
                else "An API key is needed. Send it as 'Authorization: Bearer KEY'."
            )
            response = error_response(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
            await response(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _has_key(self, headers: Headers) -> bool:
        return any([sends(headers, self.api_key), sends(headers, self.admin_token)])

    def _refuse_foreign(self, headers: Headers) -> str | None:
        """Why an open server does not answer this request, or None."""
        advice = "Start it with --api-key to reach it from elsewhere."
        for header in headers:
            if header in PROXY_HEADERS or header.startswith("x-forwarded-"):
                return f"The request came through a proxy ({header}), and this server has no API key. {advice}"
        if len(headers.getlist("host")) != 1 or not _is_loopback(headers["host"]):
            return f"This server answers on this machine's own names only (localhost, 127.0.0.1), not as the given Host. {advice}"
        origin = headers.get("origin")
        if origin is not None and origin not in self.allowed_origins and not _same_origin(origin, headers["host"]):
            return "Requests of pages from other origins are refused. CHATWRIGHT_CORS_ORIGINS names those that are allowed."
        return None


def _is_loopback(host: str) -> bool:
    """Whether a Host header names this machine, with any port and nothing else in it."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return False
    return parts.netloc == host and "@" not in host and (parts.hostname or "") in LOOPBACK_HOSTS


def _same_origin(origin: str, host: str) -> bool:
    """Whether an Origin is the page that this very server delivered."""
    return origin in (f"http://{host}", f"https://{host}")
