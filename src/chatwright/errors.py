"""Errors that a user can act on: one sentence saying what was wrong, where, and what to do.

The sentence is an English template; its parameters are kept apart, so that the command line can say the same sentence in
the user's language (`chatwright.i18n`). The core raises these types; HTTP statuses and exit codes are given at the edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self


class ChatwrightError(Exception):
    """Base of every error meant for a user. `str(error)` is the English sentence."""

    def __init__(self, template: str, **params: object) -> None:
        super().__init__(template, params)
        self.template = template
        self.params = params

    def __str__(self) -> str:
        return self.template.format(**self.params)

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors come back from worker processes; the default would call `__init__` with the parameters as positions."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[ChatwrightError], args: tuple[Any, ...], attributes: dict[str, Any]) -> ChatwrightError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class UsageError(ChatwrightError):
    """The command or the settings were wrong (exit code 2)."""


class ModelNotFoundError(ChatwrightError):
    """No model has that name or path."""


class InvalidModelError(ChatwrightError):
    """The files of a model are broken, lying, unsafe or of a kind that is not supported."""


class InvalidDatasetError(ChatwrightError):
    """A dataset, or a file that was to become one, is broken, empty or of a kind that does not fit what is asked."""


class TrainingError(ChatwrightError):
    """A run cannot start, go on or be resumed; whatever it had saved is still there."""


class NotARunError(TrainingError):
    """A folder is not that of a run, as opposed to a run whose files are damaged."""


class EvaluationError(ChatwrightError):
    """A task is broken, or an evaluation cannot start or go on; items that were finished are kept."""


class DivergenceError(TrainingError):
    """The loss or a gradient is not a number any more: training stopped before the weights were touched."""


class PullError(ChatwrightError):
    """A model could not be fetched; whatever was fetched so far is kept for the next try, nothing half-written is used."""


class StorageError(ChatwrightError):
    """The disk is full, or a folder cannot be written."""


class DiskFullError(StorageError):
    """There is no room left on the disk; what was half written is gone again."""


class StoreError(ChatwrightError):
    """The database is damaged, of another program, of another version, or refuses what is asked."""


class StoreUnavailableError(ChatwrightError):
    """The database can not be reached or is busy; trying again later helps."""


class NotSignedInError(ChatwrightError):
    """Nobody was named who could be allowed to do this."""


class ForbiddenError(ChatwrightError):
    """Somebody asks for what is not for them."""


class NotFoundError(ChatwrightError):
    """Nothing has that id, or what has it belongs to somebody else."""


class ContentMissingError(ChatwrightError):
    """A file is known, and what was in it is not here."""


class ConflictError(ChatwrightError):
    """What is asked does not go together with what is going on."""


class ThrottledError(ChatwrightError):
    """Tried too often. `params["seconds"]`: when to try again."""


class LimitReachedError(ChatwrightError):
    """A key, a user or a model has used what it may. `code` and `kind` are OpenAI's (`kind`: what there is too much of). `retry_s`:
    when to try again; `lasting`: there is no sense in trying before. `headers`: what else the answer's headers say."""

    def __init__(
        self, template: str, *, code: str, kind: str, retry_s: int, lasting: bool = False, **params: object
    ) -> None:
        super().__init__(template, **params)
        self.code = code
        self.kind = kind
        self.retry_s = retry_s
        self.lasting = lasting
        self.headers: Mapping[str, str] = {}


class InUseError(ChatwrightError):
    """Something is held by another process: a port, a model, a home folder."""


class ServerRefusedError(ChatwrightError):
    """A running server cannot be reached, or does not do what it was asked."""


class InvalidRequestError(ChatwrightError):
    """A request for text asks for something impossible. `param` names the field, `code` is OpenAI's error code."""

    def __init__(self, template: str, *, param: str | None = None, code: str | None = None, **params: object) -> None:
        super().__init__(template, **params)
        self.param = param
        self.code = code


class TooLargeError(InvalidRequestError):
    """What is sent is larger than is allowed, or than is left of what is allowed."""


class OverloadedError(ChatwrightError):
    """The engine's queue is full, or the server is draining; trying again later helps."""


class EngineError(ChatwrightError):
    """The engine failed in the middle of a request."""


class Detail(str):
    """A sentence with values in it: an English text like any other, that `shown` can say in the user's language.

    `Detail("the field {name} is {type}", name="text", type=Detail("a number"))`: values that are `Detail` are translated too.
    """

    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, **values: object) -> Self:
        self = super().__new__(cls, template.format(**values) if values else template)
        self.template, self.values = template, values
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Details come back from worker processes, inside errors."""
        return from_json, (to_json(self),)


def to_json(detail: str) -> Any:
    """A detail with its template and values, for a file between two processes."""
    if not isinstance(detail, Detail):
        return detail
    values = {
        name: to_json(value) if isinstance(value, Detail) else _plain(value) for name, value in detail.values.items()
    }
    return {"template": detail.template, "values": values}


def from_json(data: str | Mapping[str, Any]) -> str:
    """The inverse of `to_json`."""
    if isinstance(data, str):
        return data
    values = {name: from_json(value) if isinstance(value, dict) else value for name, value in data["values"].items()}
    return Detail(data["template"], **values)


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | str) else str(value)
