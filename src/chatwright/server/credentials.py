"""What a request carries to say who it is from: a key in `Authorization`, or the cookie of a browser's session."""

from __future__ import annotations

import hashlib
import hmac
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.responses import Response

from chatwright.store.accounts.identities import LOGIN_LIFE_S
from chatwright.store.accounts.sessions import LIFE_S

# With __Host- no neighbouring host can set it; browsers take that name over HTTPS only.
SECURE_COOKIE, PLAIN_COOKIE = "__Host-chatwright_session", "chatwright_session"
# A browser that is on its way to an identity provider: who comes back has to be the one that was sent.
SECURE_LOGIN, PLAIN_LOGIN = "__Host-chatwright_login", "chatwright_login"
CSRF_HEADER = "x-csrf-token"


def bearer(headers: Headers) -> str | None:
    """The key, where there is exactly one; "" where there is something else than one good header."""
    values = headers.getlist("authorization")
    if not values:
        return None
    scheme, _, key = values[0].partition(" ")
    return key.strip() if len(values) == 1 and scheme.lower() == "bearer" else ""


def session_token(headers: Headers) -> str | None:
    """The token of the session cookie."""
    return _cookie(headers, SECURE_COOKIE, PLAIN_COOKIE)


def login_token(headers: Headers) -> str | None:
    """The token of a browser that comes back from an identity provider."""
    return _cookie(headers, SECURE_LOGIN, PLAIN_LOGIN)


def _cookie(headers: Headers, *names: str) -> str | None:
    """The first of these."""
    cookies = SimpleCookie()
    for header in headers.getlist("cookie"):
        try:
            cookies.load(header)
        except CookieError:
            return None
    return next((cookies[name].value for name in names if name in cookies), None)


def csrf_token(token: str) -> str:
    """What a page must send beside the cookie, which comes along by itself: only a page of ours can read it."""
    return hmac.new(token.encode("utf-8", "surrogatepass"), b"csrf", hashlib.sha256).hexdigest()


def has_csrf_token(headers: Headers, token: str) -> bool:
    """Whether the page that sends the cookie is ours."""
    return hmac.compare_digest(headers.get(CSRF_HEADER, "").encode("latin-1", "replace"), csrf_token(token).encode())


def set_session(response: Response, token: str, *, secure: bool) -> None:
    """Give the browser its session."""
    _set(response, SECURE_COOKIE if secure else PLAIN_COOKIE, token, LIFE_S, secure=secure)


def drop_session(response: Response) -> None:
    """Take it back, whichever it was."""
    _drop(response, SECURE_COOKIE, PLAIN_COOKIE)


def set_login(response: Response, token: str, *, secure: bool) -> None:
    """Mark the browser that is sent to an identity provider. Lax: it comes back from a page of somebody else."""
    _set(response, SECURE_LOGIN if secure else PLAIN_LOGIN, token, LOGIN_LIFE_S, secure=secure)


def drop_login(response: Response) -> None:
    """It is back."""
    _drop(response, SECURE_LOGIN, PLAIN_LOGIN)


def _set(response: Response, name: str, value: str, life_s: int, *, secure: bool) -> None:
    response.set_cookie(name, value, max_age=life_s, path="/", secure=secure, httponly=True, samesite="lax")


def _drop(response: Response, secure_name: str, plain_name: str) -> None:
    for name, secure in ((secure_name, True), (plain_name, False)):
        response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")
