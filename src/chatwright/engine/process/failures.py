"""Errors on their way from the engine's process to the server: the same class, sentence and fields come out as went in."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from msgspec import Struct

from chatwright import errors
from chatwright.errors import ChatwrightError, EngineError, InvalidRequestError, LimitReachedError, StorageError

log = logging.getLogger(__name__)

# Limits are the server's: no engine knows who asks.
KINDS: dict[str, type[ChatwrightError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, ChatwrightError) and kind not in (ChatwrightError, LimitReachedError)
}


class Failure(Struct, frozen=True, array_like=True):
    """A ChatwrightError, so that the user's language can still be chosen. `param` and `code` are InvalidRequestError's."""

    kind: str
    template: str
    params: dict[str, str | int | float | bool | None]
    param: str | None = None
    code: str | None = None


def failure_of(error: Exception) -> Failure:
    """The error for the wire. One that no user can act on becomes an EngineError; its trace goes to the log, its text nowhere:
    that could repeat what a user wrote."""
    if not isinstance(error, ChatwrightError):
        error = _as_ours(error)
    params = {name: _plain(value) for name, value in error.params.items()}
    kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in KINDS)
    if isinstance(error, InvalidRequestError):
        return Failure(kind, error.template, params, error.param, error.code)
    return Failure(kind, error.template, params)


def error_of(failure: Failure) -> ChatwrightError:
    """The error that the other side raised."""
    kind = KINDS.get(failure.kind, EngineError)
    own: dict[str, Any] = {}
    if issubclass(kind, InvalidRequestError):
        own = {"param": failure.param, "code": failure.code}
    return kind(failure.template, **own, **failure.params)


def _as_ours(error: Exception) -> ChatwrightError:
    # PyTorch's allocator says it with a RuntimeError.
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
        return StorageError("There is not enough memory for this model. Free memory, or take a smaller model.")
    log.error(
        "the engine failed: %s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)).rstrip()
    )
    return EngineError("The engine failed ({kind}). The server's log says where.", kind=type(error).__name__)


def _plain(value: object) -> str | int | float | bool | None:
    if value is None or type(value) in (str, int, float, bool):
        return value  # type: ignore[return-value]
    return str(value)
