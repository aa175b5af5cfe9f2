"""What a request carries to say who it is from: a key in `Authorization`, or the cookie of a browser's session."""

from __future__ import annotations

import hashlib
import hmac
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.responses import Response

from chatwright.store.accounts.sessions import LIFE_S

# With __Host- no neighbouring host can set it; browsers take that name over HTTPS only.
SECURE_COOKIE, PLAIN_COOKIE = "__Host-chatwright_session", "chatwright_session"
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
    cookies = SimpleCookie()
    for header in headers.getlist("cookie"):
        try:
            cookies.load(header)
        except CookieError:
            return None
    for name in (SECURE_COOKIE, PLAIN_COOKIE):
        if name in cookies:
            return cookies[name].value
    return None


def csrf_token(token: str) -> str:
    """What a page must send beside the cookie, which comes along by itself: only a page of ours can read it."""
    return hmac.new(token.encode("utf-8", "surrogatepass"), b"csrf", hashlib.sha256).hexdigest()


def has_csrf_token(headers: Headers, token: str) -> bool:
    """Whether the page that sends the cookie is ours."""
    return hmac.compare_digest(headers.get(CSRF_HEADER, "").encode("latin-1", "replace"), csrf_token(token).encode())


def set_session(response: Response, token: str, *, secure: bool) -> None:
    """Give the browser its session."""
    response.set_cookie(
        SECURE_COOKIE if secure else PLAIN_COOKIE,
        token,
        max_age=LIFE_S,
        path="/",
        secure=secure,
        httponly=True,
        samesite="lax",
    )


def drop_session(response: Response) -> None:
    """Take it back, whichever it was."""
    for name, secure in ((SECURE_COOKIE, True), (PLAIN_COOKIE, False)):
        response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")
