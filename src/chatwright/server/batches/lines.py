"""The lines of a batch's input: read one by one, and checked as a whole before the first is answered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from chatwright.server.errors import WireError
from chatwright.server.json_body import parse_json

MOST_LINES = 50_000
MOST_BYTES = 200 * 2**20
# Mistakes that are listed; whoever has more will find the others when these are corrected.
MOST_MISTAKES = 100
LONGEST_ID = 512
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """A request. `number`: of the line, from 1."""

    number: int
    custom_id: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Mistake:
    """Why a file is no batch. `code`: as Azure's documentation names them, since OpenAI's names none."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass
class Checked:
    """What was found. `model`: where all lines name the same one."""

    n_lines: int = 0
    model: str | None = None
    mistakes: list[Mistake] = field(default_factory=list)


def check(path: Path, endpoint: str, most_line_bytes: int) -> Checked:
    """Read all of the file. Raises OSError."""
    found = Checked()
    seen: dict[str, int] = {}
    models: set[str | None] = set()
    with path.open("rb") as stream:
        for number, data in _lines(stream, most_line_bytes):
            found.n_lines += 1
            if found.n_lines > MOST_LINES:
                found.mistakes.append(Mistake("too_many_tasks", f"A batch has {MOST_LINES} requests at most.", number))
                break
            line = _read(number, data, endpoint, most_line_bytes)
            if isinstance(line, Mistake):
                found.mistakes.append(line)
            elif line.custom_id in seen:
                found.mistakes.append(
                    Mistake(
                        "duplicate_custom_id",
                        f"The custom_id is that of line {seen[line.custom_id]} too.",
                        number,
                        "custom_id",
                    )
                )
            else:
                seen[line.custom_id] = number
                model = line.body.get("model")
                models.add(model if isinstance(model, str) else None)
            if len(found.mistakes) >= MOST_MISTAKES:
                break
    if found.n_lines == 0:
        found.mistakes.append(Mistake("empty_batch", "The file holds no requests."))
    if len(models) == 1:
        model = models.pop()
        found.model = model if model is not None and len(model) <= 200 else None
    return found


def read(path: Path, endpoint: str, most_line_bytes: int) -> Iterator[Line]:
    """The lines of a file that was checked. Raises OSError."""
    with path.open("rb") as stream:
        for number, data in _lines(stream, most_line_bytes):
            line = _read(number, data, endpoint, most_line_bytes)
            if isinstance(line, Line):
                yield line


def _lines(stream: BinaryIO, most_line_bytes: int) -> Iterator[tuple[int, bytes]]:
    """(number, line); a line that is too long is cut one byte beyond what is allowed. Empty lines count, but are no requests."""
    number = 0
    while data := stream.readline(most_line_bytes + 2):
        number += 1
        if not data.endswith(b"\n"):
            rest = data
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(2**20)
        data = data.removeprefix(BOM) if number == 1 else data
        if stripped := data.strip():
            yield number, stripped


def _read(number: int, data: bytes, endpoint: str, most_line_bytes: int) -> Line | Mistake:
    if len(data) > most_line_bytes:
        return Mistake("invalid_json_line", f"The line is longer than {most_line_bytes / 2**20:g} MiB.", number)
    try:
        request = parse_json(data)
    except WireError as error:
        message = str(error.detail).replace("The request body", "The line").replace("The JSON body", "The line")
        return Mistake("invalid_json_line", message, number)
    custom_id, method, url, body = (request.get(name) for name in ("custom_id", "method", "url", "body"))
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= LONGEST_ID:
        return Mistake(
            "invalid_request", f"custom_id must be a text of 1 to {LONGEST_ID} characters.", number, "custom_id"
        )
    if method != "POST":
        return Mistake("invalid_request", "method must be POST.", number, "method")
    if url != endpoint:
        return Mistake("url_mismatch", f"url must be the batch's endpoint, {endpoint}.", number, "url")
    if not isinstance(body, dict):
        return Mistake("invalid_request", "body must be an object: the request.", number, "body")
    return Line(number, custom_id, body)


def mistakes_json(mistakes: list[Mistake]) -> str:
    """As they are kept in the store."""
    return orjson.dumps([vars(mistake) for mistake in mistakes]).decode()
