"""Training files: JSON Lines in OpenAI's formats, strictly read. A wrong line is named by its number, and nothing is trained.

Conversations (`messages`, with `weight` and `tools`; or `prompt` and `completion`) for supervised tuning, pairs (`input`,
`preferred_output`, `non_preferred_output`) for DPO; besides, whatever `chatwright prepare` knows as one of both.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from chatwright.errors import ChatwrightError
from chatwright.jobs.folder import DATASET, TRAINING, VALIDATION, Checked, JobFolder, Method
from chatwright.text.dataset import write_dataset
from chatwright.text.manifest import Kind
from chatwright.text.readers.shapes import Shapes
from chatwright.text.readers.unit import Refused

KINDS: Mapping[Method, Kind] = {"supervised": "conversations", "dpo": "preferences"}
WANTED: Mapping[Method, str] = {
    "supervised": 'an object with "messages", or with "prompt" and "completion"',
    "dpo": 'an object with "input", "preferred_output" and "non_preferred_output"',
}
LONGEST_LINE_BYTES = 16 << 20
_PROMPT_COMPLETION = frozenset({"prompt", "completion"})


class InvalidFileError(ChatwrightError):
    """A training or validation file can not be used. `param`: which field of the request named it; `code`: as the API says it."""

    def __init__(self, template: str, *, param: str, **params: object) -> None:
        super().__init__(template, **params)
        self.param = param
        self.code = f"invalid_{param}"


@dataclass
class Found:
    """What the lines of a file were so far: see `folder.Checked`."""

    n_rows: int = 0
    texts: bool = True


def make_dataset(folder: JobFolder, method: Method) -> Checked:
    """The files of a job as a dataset in its folder. Raises InvalidFileError, StorageError."""
    shutil.rmtree(folder.path / DATASET, ignore_errors=True)  # of one who was killed before it was noted
    training = Found()
    rows = {"train": read_examples(folder.path / TRAINING, method, "training_file", training)}
    if (folder.path / VALIDATION).exists():
        rows["held_out"] = read_examples(folder.path / VALIDATION, method, "validation_file", Found())
    write_dataset(folder.path / DATASET, {KINDS[method]: rows})  # type: ignore[dict-item]
    checked = Checked(training.n_rows, training.texts)
    folder.note_checked(checked)
    return checked


def read_examples(path: Path, method: Method, param: str, found: Found) -> Iterator[dict[str, Any]]:
    """The rows of a file as a dataset has them. Raises InvalidFileError at the first line that is none, or where there is none."""
    shapes = Shapes()
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE_BYTES + 1):
            number += 1
            if len(line) > LONGEST_LINE_BYTES:
                raise InvalidFileError(
                    "Invalid file format. Line {line} is longer than {size} MiB.",
                    line=number,
                    size=LONGEST_LINE_BYTES >> 20,
                    param=param,
                )
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.isspace() or not line:
                continue
            value = _parsed(line, number, method, param)
            try:
                shaped = shapes.of(value)
            except Refused as refused:
                raise InvalidFileError(
                    "Invalid file format. Line {line}: {reason}. Expected {wanted}.",
                    line=number,
                    reason=f"{refused.reason} ({refused.detail})" if refused.detail else refused.reason,
                    wanted=WANTED[method],
                    param=param,
                ) from None
            if shaped.kind != KINDS[method]:
                raise InvalidFileError(
                    "Invalid file format. Line {line}: these are {kind}. Expected {wanted}.",
                    line=number,
                    kind=shaped.kind,
                    wanted=WANTED[method],
                    param=param,
                )
            found.n_rows += 1
            found.texts = found.texts and isinstance(value.get("prompt"), str) and value.keys() >= _PROMPT_COMPLETION
            yield {"id": f"line-{number}", "source": param, **shaped.payload}
    if not found.n_rows:
        raise InvalidFileError("The file has no examples: there is no line in it.", param=param)


def _parsed(line: bytes, number: int, method: Method, param: str) -> dict[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        # The parser's own sentence only: what stands around the mistake may be private.
        raise InvalidFileError(
            "Invalid file format. Line {line} is not valid JSON ({reason}, byte {position}): one object a line is expected.",
            line=number,
            reason=error.msg,
            position=error.pos + 1,
            param=param,
        ) from None
    if not isinstance(value, dict):
        raise InvalidFileError(
            "Invalid file format. Line {line} is not an object. Expected {wanted}.",
            line=number,
            wanted=WANTED[method],
            param=param,
        )
    return value
