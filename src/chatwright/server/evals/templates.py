"""Texts with holes that items and answers fill: `{{item.question}}`, `{{sample.output_text}}`, `{{item.turns[0].text}}`.

What fills a hole is not looked into again: an item that has braces in it stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from chatwright.errors import EvaluationError, InvalidRequestError

MAX_TEMPLATE = 64 * 1024
MAX_RENDERED = 2**20
_HOLE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_PATH = re.compile(r"(?:item|sample)(?:\.[\w-]+|\[[0-9]{1,6}\])*")
_STEP = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Path:
    """A place in an item or an answer."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Path | None:
        """None where it is no path."""
        return cls(text) if _PATH.fullmatch(text) else None

    @property
    def namespace(self) -> str:
        """item or sample."""
        return self.text.partition(".")[0].partition("[")[0]

    def value(self, scope: Mapping[str, Any]) -> Any:
        """What is there. Raises EvaluationError where nothing is."""
        found: Any = scope
        for step in _STEP.findall(self.text):
            if isinstance(found, Mapping) and step in found:
                found = found[step]
            elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                found = found[int(step)]
            else:
                raise EvaluationError("There is no {path}, which a template names.", path=self.text[:200])
        return found


@dataclass(frozen=True)
class Template:
    """Texts and holes in turn."""

    parts: tuple[str | Path, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises InvalidRequestError for a hole that nothing can fill."""
        parts: list[str | Path] = []
        for number, piece in enumerate(_HOLE.split(text)):
            if number % 2 == 0:
                parts.append(piece)
            elif (path := Path.parse(piece.strip())) is not None:
                parts.append(path)
            else:
                raise InvalidRequestError(
                    "'{hole}' is nothing that a template can name: write item.NAME or sample.output_text.",
                    hole=piece.strip()[:60],
                    code="invalid_template",
                )
        return cls(tuple(parts))

    @property
    def namespaces(self) -> set[str]:
        """Which of item and sample it names."""
        return {part.namespace for part in self.parts if isinstance(part, Path)}

    def render(self, scope: Mapping[str, Any], most: int = MAX_RENDERED) -> str:
        """The text with its holes filled: by texts as they are, by anything else as JSON. Raises EvaluationError."""
        pieces: list[str] = []
        room = most
        for part in self.parts:
            piece = part if isinstance(part, str) else text_of(part.value(scope))
            room -= len(piece)
            if room < 0:
                raise EvaluationError("A template becomes longer than {n} characters.", n=most)
            pieces.append(piece)
        return "".join(pieces)


def text_of(value: Any) -> str:
    """A text as it is, anything else as JSON. Raises EvaluationError for what a model nested too deep to be written."""
    try:
        return value if isinstance(value, str) else orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        raise EvaluationError("What a template names is nested too deep.") from None


def parses_in(param: str) -> Callable[[str], str]:
    """What looks at a text before it is taken for a template, and names the field in its InvalidRequestError."""

    def parses(text: str) -> str:
        try:
            Template.parse(text)
        except InvalidRequestError as error:
            error.param = param
            raise
        return text

    return parses
