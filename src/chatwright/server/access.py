"""Who may come in: deny by default, decided on the routed path, before anything else looks at the request.

What they may do is decided by the routes' policies (`permission`). With accounts every path but the public ones wants a key of a
user (`Authorization: Bearer KEY`) or the session of a browser; the server's own API key and the admin token go on working. With an
API key alone every path but the public ones wants `Authorization: Bearer KEY` (or Azure's `api-key: KEY`). Without one the
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

from chatwright.errors import ChatwrightError
from chatwright.server.credentials import CSRF_HEADER, bearer, has_csrf_token, session_token
from chatwright.server.errors import WireError, as_wire_error, error_response, speaks_anthropic
from chatwright.store.accounts.service import Accounts
from chatwright.store.actor import NOBODY, OPEN, OPERATOR, SERVER_KEY, Actor

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
PROXY_HEADERS = frozenset({"forwarded", "x-real-ip", "via"})  # and X-Forwarded-*
ACTOR = "chatwright.actor"  # where a request's scope says who asks
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Probes must work without a key, and the page that asks for the key must load. None of these says anything private.
PUBLIC_PATHS = frozenset({"/", "/health", "/ready", "/docs", "/favicon.svg", "/favicon.ico", "/licenses.txt"})
PUBLIC_FOLDER = "/assets/"
# How one comes in, where there are accounts.
ENTRANCES = frozenset({"/api/session", "/api/welcome", "/api/welcome/look", "/api/oidc/start", "/api/oidc/callback"})


def is_public(path: str, *, accounts: bool) -> bool:
    """Whether a path needs no key."""
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_FOLDER) or (accounts and path in ENTRANCES)


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


def with_bearer(headers: Headers) -> Headers:
    """The headers, with the key where everybody has it: Anthropic's clients send theirs as `x-api-key`."""
    keys = headers.getlist("x-api-key")
    if len(keys) != 1 or "authorization" in headers:
        return headers
    return Headers(raw=[*headers.raw, (b"authorization", b"Bearer " + keys[0].encode("latin-1"))])


def require_admin(request: Request) -> None:
    """A dependency of the routes that change what is served or stored, where there are no accounts. Raises WireError (401, 403)."""
    settings = request.app.state.server.settings
    if settings.admin_token is None:
        raise WireError(
            403,
            "This needs the admin token, and the server was started without one.",
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
        self,
        app: ASGIApp,
        *,
        api_key: SecretStr | None,
        admin_token: SecretStr | None,
        allowed_origins: Iterable[str],
        accounts: Accounts | None = None,
        public_url: str | None = None,
    ) -> None:
        self.app = app
        self.api_key = api_key
        self.admin_token = admin_token
        self.allowed_origins = frozenset(allowed_origins)
        self.accounts = accounts
        self.public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if speaks_anthropic(scope["path"]):
            headers = with_bearer(headers)
        try:
            scope[ACTOR] = await self._actor(scope["method"], scope["path"], headers)
        except WireError as error:
            await error_response(error.status_code, error.detail, code=error.code, headers=error.headers)(
                scope, receive, send
            )
            return
        await self.app(scope, receive, send)

    async def _actor(self, method: str, path: str, headers: Headers) -> Actor:
        """Who asks; NOBODY only where everybody may. Raises WireError."""
        if self.accounts is None and self.api_key is None:
            refusal = self._refuse_foreign(headers)
            if refusal:
                raise WireError(403, refusal, code="foreign_request")
            return OPERATOR if sends(headers, self.admin_token) else OPEN
        if path.startswith("/api/") and method not in SAFE_METHODS:
            self._refuse_foreign_page(headers)
        is_open = is_public(path, accounts=self.accounts is not None)
        actor = self._actor_of_server(headers)
        if actor is NOBODY and self.accounts is not None and (path in ENTRANCES or not is_open):
            actor = await self._actor_of_account(self.accounts, method, path, headers)
        if actor is NOBODY and not is_open:
            raise WireError(
                401, self._how_to_come_in(headers), code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
            )
        return actor

    def _actor_of_server(self, headers: Headers) -> Actor:
        """By the secrets that the server was started with, both compared in any case."""
        is_key, is_token = sends(headers, self.api_key), sends(headers, self.admin_token)
        return OPERATOR if is_token else SERVER_KEY if is_key else NOBODY

    async def _actor_of_account(self, accounts: Accounts, method: str, path: str, headers: Headers) -> Actor:
        """By a key, in its own header only; without one by the session of a browser. Fails closed: 503 without the database."""
        try:
            key = bearer(headers)
            if key is not None:  # also a wrong one: who sends a key means it
                return await accounts.actor_of_key(key)
            token = session_token(headers)
            if token is None:
                return NOBODY
            actor = await accounts.actor_of_session(token)
        except ChatwrightError as error:
            raise as_wire_error(error) from error
        if actor is not NOBODY and method not in SAFE_METHODS and path not in ENTRANCES:
            # The cookie comes along whichever page asks.
            self._refuse_foreign_page(headers)
            if not has_csrf_token(headers, token):
                raise WireError(
                    403,
                    f"A request of a session must carry its token in the header {CSRF_HEADER}; GET /api/session tells it.",
                    code="csrf",
                )
        return actor

    def _refuse_foreign_page(self, headers: Headers) -> None:
        """Raise WireError (403) where a browser says that a page of somebody else sent this."""
        origins = headers.getlist("origin")
        own = {self.public_url} if self.public_url else set()
        for origin in origins:
            if origin not in own and not _same_origin(origin, headers.get("host", "")):
                raise WireError(403, "Requests of pages from other origins are refused.", code="foreign_request")
        if len(origins) > 1 or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise WireError(403, "Requests of pages from other origins are refused.", code="foreign_request")

    def _how_to_come_in(self, headers: Headers) -> str:
        if self.accounts is None:
            if "authorization" in headers or "api-key" in headers:
                return "The API key is wrong."
            return "An API key is needed. Send it as 'Authorization: Bearer KEY'."
        if "authorization" in headers:
            return "The API key is wrong, expired or revoked."
        return "Sign in, or send an API key as 'Authorization: Bearer KEY'; no other header counts."

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
