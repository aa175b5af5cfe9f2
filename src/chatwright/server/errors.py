"""Every failure as OpenAI's error object: `{"error": {message, type, param, code}}`, with the status clients act on.

400 for a bad request (never 422), 401, 403, 404, 410, 413, 415, 503 with Retry-After. Never 409 on generation routes of /v1: openai
0.28 would try again for ever.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Literal

import orjson
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatwright.errors import (
    ChatwrightError,
    ConflictError,
    ContentMissingError,
    DiskFullError,
    EngineError,
    ForbiddenError,
    InvalidRequestError,
    LimitReachedError,
    ModelNotFoundError,
    NotFoundError,
    NotSignedInError,
    OverloadedError,
    StorageError,
    StoreError,
    StoreUnavailableError,
    ThrottledError,
    TooLargeError,
)
from chatwright.i18n import Language, describe_error, translate
from chatwright.server.credentials import CSRF_HEADER

log = logging.getLogger(__name__)

UNION_MEMBER = re.compile(
    r"str|int|float|bool|literal\[.*\]|(tagged-)?union\[.*\]|constrained-\w+|(list|dict|function|nullable|lax|json)\b.*|[A-Z]\w*"
)

# What people meet in forms of the web app, by Pydantic's names, as `_reason` can translate it.
PYDANTIC = {
    "extra_forbidden": "Extra inputs are not permitted",
    "missing": "Field required",
    "string_type": "Input should be a valid string",
    "string_too_short": "String should have at least {min_length} characters",
    "string_too_long": "String should have at most {max_length} characters",
    "int_type": "Input should be a valid integer",
    "bool_type": "Input should be a valid boolean",
    "literal_error": "Input should be {expected}",
    "greater_than_equal": "Input should be greater than or equal to {ge}",
    "less_than_equal": "Input should be less than or equal to {le}",
}

ERROR_CODE = "chatwright.error_code"  # where a request's scope says which error it was answered with

TYPE_BY_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    410: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    503: "engine_overloaded",
}


# Paths whose clients are Anthropic's: they look for the kind of an error, and its sentence, in another place.
ANTHROPIC_PATH = "/v1/messages"
ANTHROPIC_TYPE_BY_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class ErrorDetail(BaseModel):
    """What went wrong, and where."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is not 2xx."""

    error: ErrorDetail


class AnthropicErrorDetail(BaseModel):
    """What went wrong."""

    type: str
    message: str


class AnthropicErrorBody(BaseModel):
    """The body of every answer that is not 2xx, to Anthropic's clients."""

    type: Literal["error"] = "error"
    error: AnthropicErrorDetail


class WireError(HTTPException):
    """An error with everything that goes on the wire. FastAPI lets it pass from wherever it is raised."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        kind: str | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.param = param
        self.code = code
        self.kind = kind


def no_such_file(param: str) -> WireError:
    """For a field of a body that names a file, beside whose name the sentence of an id in a path would not say which it is."""
    return WireError(404, f"There is no file of that id: {param}.", param=param, code="not_found")


def error_object(
    status: int, message: str, param: str | None = None, code: str | None = None, kind: str | None = None
) -> dict[str, Any]:
    """The body for an error of this status. `kind`: its type, where that is not the status' usual one."""
    kind = kind or TYPE_BY_STATUS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def anthropic_error_object(status: int, message: str) -> dict[str, Any]:
    """The same for Anthropic's clients."""
    kind = ANTHROPIC_TYPE_BY_STATUS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def speaks_anthropic(path: str) -> bool:
    """Whether who asks there is a client of Anthropic's API."""
    return path == ANTHROPIC_PATH or path.startswith(ANTHROPIC_PATH + "/")


class ErrorResponse(Response):
    """An error, whoever answers with it, in the shape that clients of the path look for. Leaves its code where it is counted."""

    media_type = "application/json"

    def __init__(self, error: WireError) -> None:
        message = str(error.detail)
        body = orjson.dumps(error_object(error.status_code, message, error.param, error.code, error.kind))
        super().__init__(body, error.status_code, dict(error.headers or {}))
        self._message, self._given_headers = message, dict(error.headers or {})
        self._code = error.code or f"http_{error.status_code}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[ERROR_CODE] = self._code
        if not speaks_anthropic(scope["path"]):
            await super().__call__(scope, receive, send)
            return
        body = orjson.dumps(anthropic_error_object(self.status_code, self._message))
        await Response(body, self.status_code, self._given_headers, self.media_type)(scope, receive, send)


def error_response(
    status: int,
    message: str,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    kind: str | None = None,
) -> Response:
    """The response for an error of this status."""
    return ErrorResponse(WireError(status, message, param=param, code=code, headers=headers, kind=kind))


def as_wire_error(error: ChatwrightError, language: Language = "en") -> WireError:
    """The wire's form of an error of the core."""
    message = describe_error(error, language)
    match error:
        case TooLargeError():
            return WireError(413, message, param=error.param, code=error.code)
        case InvalidRequestError():
            return WireError(400, message, param=error.param, code=error.code)
        case ModelNotFoundError():
            return WireError(404, message, param="model", code="model_not_found")
        case NotSignedInError():
            return WireError(401, message, code="not_signed_in", headers={"WWW-Authenticate": "Bearer"})
        case ForbiddenError():
            return WireError(403, message, code="forbidden")
        case NotFoundError():
            return WireError(404, message, code="not_found")
        case ContentMissingError():
            return WireError(410, message, code="file_content_missing")
        case ConflictError():
            return WireError(409, message, code="conflict")
        case ThrottledError():
            seconds = str(error.params["seconds"])
            return WireError(429, message, code="too_many_attempts", headers={"Retry-After": seconds})
        case LimitReachedError():
            headers = {"Retry-After": str(error.retry_s), **error.headers}
            if error.lasting:  # the client library would try twice more
                headers["x-should-retry"] = "false"
            return WireError(429, message, code=error.code, kind=error.kind, headers=headers)
        case OverloadedError():
            return WireError(503, message, code="engine_overloaded", headers={"Retry-After": "2"})
        case EngineError():
            return WireError(500, message, code="engine_error")
        case StoreUnavailableError():
            log.warning("%s", error)  # it names files and hosts, which are nobody else's business
            message = "The server's database is busy or cannot be reached. Try again in a moment."
            return WireError(503, message, code="database_unavailable", headers={"Retry-After": "2"})
        case DiskFullError():
            log.error("%s", error)
            return WireError(507, message, code="disk_full", headers={"x-should-retry": "false"})
        case StoreError() | StorageError():
            log.error("%s", error)
            return WireError(
                500, "The server cannot use its database or disk. Its log says why.", code="database_error"
            )
        case _:
            return WireError(500, message)


def language_of(request: Request) -> Language:
    """The language that the client asks for."""
    return "zh" if request.headers.get("accept-language", "").lower().startswith("zh") else "en"


def _language_of_reader(request: Request) -> Language:
    """The web app shows these sentences to people; programs on /v1 read English, whatever their user's browser asks for."""
    of_the_app = request.scope["path"].startswith("/api/") or CSRF_HEADER in request.headers
    return language_of(request) if of_the_app else "en"


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of the app an error object."""

    async def on_wire_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, WireError)
        return error_response(error.status_code, str(error.detail), error.param, error.code, error.headers, error.kind)

    async def on_core_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ChatwrightError)
        return await on_wire_error(request, as_wire_error(error, _language_of_reader(request)))

    async def on_invalid_request(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        message, param = describe_validation(error.errors(), _language_of_reader(request), error.body)
        return error_response(400, message, param, "invalid_value")

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        message = str(error.detail)
        if error.status_code == 404:
            message = f"Nothing is served at {_shown_path(request)}. The API lives under /v1; /docs lists it."
        if error.status_code == 405:
            message = f"{request.method} is not allowed at {_shown_path(request)}."
        return error_response(error.status_code, message, headers=error.headers)

    app.add_exception_handler(WireError, on_wire_error)
    app.add_exception_handler(ChatwrightError, on_core_error)
    app.add_exception_handler(RequestValidationError, on_invalid_request)
    app.add_exception_handler(StarletteHTTPException, on_http_error)


class CrashGuard:
    """ASGI middleware, the edge behind which no exception passes: a bug becomes a 500 and a trace in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noting_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, noting_send)
        except Exception as error:
            if scope["type"] != "http":
                raise
            log_crash("a request failed", error)
            if started:
                raise ConnectionAbortedError("the answer can not be finished") from None
            message = "The server failed while it answered this request. Its log says where."
            await error_response(500, message)(scope, receive, send)


def log_crash(what: str, error: BaseException) -> None:
    """Where a bug showed itself, without the error's own text: that could repeat what a user wrote."""
    log.error("%s: %s\n%s", what, type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))


def _shown_path(request: Request) -> str:
    path: str = request.scope["path"]
    return repr(path if len(path) <= 200 else path[:200] + "…")


def describe_validation(errors: Any, language: Language = "en", body: Any = None) -> tuple[str, str | None]:
    """One sentence for what Pydantic found, and the field it names. The input is not repeated: it may be private or huge.
    `body`: what was validated; without it the tags of unions stand among the names."""
    path = _field_path(errors[0]["loc"])
    # A union reports one error for each of its members; the reader wants to know what would have been right.
    reasons = list(dict.fromkeys(_reason(e, language) for e in errors if _on_one_way(path, _field_path(e["loc"]))))
    path = _without_tags(path, body)
    place = ".".join(path) or translate("the request body", language)
    between = translate("; or: ", language)
    message = translate(
        "Invalid value for '{place}': {reasons}.", language, place=place, reasons=between.join(reasons[:4])
    )
    return message, _param(path)


def _reason(error: Mapping[str, Any], language: Language) -> str:
    """What Pydantic says of one member, in the language as far as there is a translation."""
    said: str = error["msg"].removeprefix("Value error, ").replace(" after validation", "")
    template = PYDANTIC.get(error["type"])
    return translate(template, language, **error.get("ctx", {})) if template and language != "en" else said


def _on_one_way(path: list[str], other: list[str]) -> bool:
    """Whether one of two places lies in the other, or they are the same."""
    n_shared = min(len(path), len(other))
    return path[:n_shared] == other[:n_shared]


def _without_tags(path: list[str], body: Any) -> list[str]:
    """A place without what Pydantic puts in for a union whose members a field tells apart: no such name is in the body there."""
    names, inner = [], body
    for number, part in enumerate(path):
        if isinstance(inner, Mapping):
            if part not in inner and number < len(path) - 1:
                continue
            inner = inner.get(part)
        elif isinstance(inner, Sequence) and not isinstance(inner, str) and part.isdigit() and int(part) < len(inner):
            inner = inner[int(part)]
        else:
            inner = None
        names.append(part)
    return names


def _param(path: list[str]) -> str | None:
    """The field as a client names it: with the objects around it, and without what lies in a list."""
    names = list(takewhile(lambda part: not part.isdigit(), path))
    return ".".join(names) or None


def _field_path(loc: Sequence[str | int]) -> list[str]:
    """Names and positions of a place in the body, without the names that Pydantic gives the members of a union, and without the
    keys of metadata, which are the client's own."""
    parts = [str(part) for part in (loc[1:] if loc[:1] and loc[0] in ("body", "query", "path") else loc)]
    if "metadata" in parts:
        parts = parts[: parts.index("metadata") + 1]
    return [part for part in parts if not UNION_MEMBER.fullmatch(part)]
