"""A small OpenID Connect provider that signs for real, on a loopback port: who is asked for is let through without a question.

A test turns one screw of it and sees what the server makes of that.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from chatwright.store import clock
from tests.server.harness import PATIENCE_S

CLIENT_ID, CLIENT_SECRET = "chatwright-test", "a client secret that must never be seen"


@dataclass
class Grant:
    """What was asked for at the authorization endpoint."""

    challenge: str
    nonce: str
    redirect_uri: str


@dataclass
class IdentityProvider:
    """`person`: the claims of who is signed in there. `change`: the last word on a token's claims. `headers`, `key`: what it is
    signed with. `asked`: names of the endpoints, in the order in which they were asked."""

    port: int = 0
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "subject-li", "email": "li@example.org"})
    verified: Any = True
    in_userinfo: bool = False
    userinfo_subject: str | None = None
    change: Callable[[dict[str, Any]], None] = lambda claims: None
    sign: Callable[[IdentityProvider, dict[str, Any]], Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, Any] | None = None
    answer: Response | None = None
    needs_secret: bool = True
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "first"}, auto_kid=False))
    asked: list[str] = field(default_factory=list)
    grants: dict[str, Grant] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}/realms/test"

    def app(self) -> Starlette:
        def noted(name: str, endpoint: Any) -> Route:
            async def answer(request: Request) -> Response:
                self.asked.append(name)
                if self.answer is not None and name != "authorize":
                    return self.answer
                return await endpoint(request)  # type: ignore[no-any-return]

            path = {"discovery": "/realms/test/.well-known/openid-configuration"}.get(name, f"/{name}")
            return Route(path, answer, methods=["GET", "POST"])

        return Starlette(
            routes=[
                noted("discovery", self._discovery),
                noted("keys", self._keys),
                noted("authorize", self._authorize),
                noted("token", self._token),
                noted("userinfo", self._userinfo),
            ]
        )

    async def _discovery(self, request: Request) -> Response:
        base = f"http://127.0.0.1:{self.port}"
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{base}/authorize",
                "token_endpoint": f"{base}/token",
                "jwks_uri": f"{base}/keys",
                "userinfo_endpoint": f"{base}/userinfo",
                # An honest list of what nobody should believe.
                "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
                **self.metadata,
            }
        )

    async def _keys(self, request: Request) -> Response:
        return JSONResponse(self.keys or {"keys": [self.key.as_dict(private=False)]})

    async def _authorize(self, request: Request) -> Response:
        asked = request.query_params
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert asked["code_challenge_method"] == "S256"
        assert set(asked["scope"].split()) == {"openid", "email", "profile"}
        code = secrets.token_urlsafe(16)
        self.grants[code] = Grant(asked["code_challenge"], asked["nonce"], asked["redirect_uri"])
        answer = {"code": code, "state": asked["state"], "iss": self.issuer}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 303)

    async def _token(self, request: Request) -> Response:
        form = await request.form()
        if self.needs_secret:
            expected = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET.replace(' ', '+')}".encode()).decode()
            plain = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
            in_body = form.get("client_secret") == CLIENT_SECRET and form.get("client_id") == CLIENT_ID
            if request.headers.get("authorization") not in (f"Basic {expected}", f"Basic {plain}") and not in_body:
                return JSONResponse({"error": "invalid_client"}, 401)
        elif form.get("client_id") != CLIENT_ID:
            return JSONResponse({"error": "invalid_client"}, 401)
        grant = self.grants.pop(str(form.get("code")), None)
        digest = hashlib.sha256(str(form.get("code_verifier")).encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if grant is None or challenge != grant.challenge or form.get("redirect_uri") != grant.redirect_uri:
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = clock.now()
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": grant.nonce,
            "sub": self.person["sub"],
        }
        if not self.in_userinfo:
            claims |= {**self.person, "email_verified": self.verified}
        self.change(claims)
        id_token = self.sign(self, claims) if self.sign is not None else self.signed(claims)
        return JSONResponse(
            {"access_token": "an access token", "token_type": "Bearer", "expires_in": 300}
            | ({"id_token": id_token} if id_token is not None else {})
        )

    async def _userinfo(self, request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer an access token":
            return JSONResponse({"error": "invalid_token"}, 401)
        subject = self.userinfo_subject or self.person["sub"]
        return JSONResponse({**self.person, "sub": subject, "email_verified": self.verified})

    def signed(self, claims: dict[str, Any]) -> str:
        """As it should be."""
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, claims, self.key)

    def start(self) -> None:
        """Answer from now on, in a thread."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self.port))
        self.port = sock.getsockname()[1]
        config = uvicorn.Config(self.app(), log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [sock]}, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + PATIENCE_S
        while not self._server.started:
            assert time.monotonic() < deadline, "the identity provider did not start"
            time.sleep(0.02)

    def stop(self) -> None:
        """Nothing listens there any more."""
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
