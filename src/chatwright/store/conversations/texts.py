"""Texts of conversations as they are kept: what people write, titles made of it, and sentences about answers that failed."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass

from chatwright.errors import ChatwrightError, Detail, InvalidRequestError, from_json, to_json
from chatwright.i18n import Language, shown

MAX_CONTENT = 100_000
MAX_TITLE = 100
# How wide a title is that is made of a message, in columns: a Chinese character takes two.
TITLE_COLUMNS = 48
# Where a title that was cut may end.
SHORTEST_TITLE_COLUMNS = 32
ZERO_WIDTH_JOINER = "\u200d"
# PostgreSQL keeps no text with this character in it.
NUL, REPLACEMENT = "\0", "\ufffd"


def clean_content(text: str) -> str:
    """What somebody says. Raises InvalidRequestError."""
    if not text.strip() or len(text) > MAX_CONTENT or NUL in text:
        raise InvalidRequestError(
            "A message has 1 to {n} characters, none of them NUL, and not only spaces.",
            n=MAX_CONTENT,
            param="content",
            code="invalid_value",
        )
    return text


def storable(text: str) -> str:
    """What a model says, which may be anything."""
    return text.replace(NUL, REPLACEMENT)


def clean_title(text: str) -> str:
    """One line that prints as what it is. Raises InvalidRequestError."""
    title = _one_line(text)
    if not 1 <= len(title) <= MAX_TITLE:
        raise InvalidRequestError("A title has 1 to {n} characters.", n=MAX_TITLE, param="title", code="invalid_value")
    return title


def title_of(content: str) -> str:
    """The first words of a message, cut between words where there are spaces."""
    line = _one_line(content[: 8 * TITLE_COLUMNS])
    columns, end, space = 0, 0, 0
    for end, char in enumerate(line):
        columns += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if columns > TITLE_COLUMNS:
            return line[: space or end].rstrip(" ,;:，；：、") + "…"
        if char == " " and columns >= SHORTEST_TITLE_COLUMNS:
            space = end
    return line if len(content) <= 8 * TITLE_COLUMNS else line + "…"


def _one_line(text: str) -> str:
    """Without control characters and what turns the direction of writing; the joiner of emoji stays."""
    text = unicodedata.normalize("NFC", text)
    kept = (" " if c in "\n\r\t\v\f" or c.isspace() else c for c in text)
    return " ".join(
        "".join(c for c in kept if c == ZERO_WIDTH_JOINER or not unicodedata.category(c).startswith("C")).split()
    )


@dataclass(frozen=True)
class Failure:
    """Why an answer was not finished: a sentence, and the code that the error object would have."""

    sentence: str
    code: str

    @classmethod
    def of(cls, error: ChatwrightError, code: str) -> Failure:
        """From an error of the core."""
        values = {
            name: value if isinstance(value, str | int | float) else str(value) for name, value in error.params.items()
        }
        return cls(Detail(error.template, **values), code)

    def to_text(self) -> str:
        """As it is kept: a row is read in whichever language somebody reads."""
        return json.dumps({"sentence": to_json(self.sentence), "code": self.code}, ensure_ascii=False)

    @classmethod
    def from_text(cls, text: str) -> Failure:
        """The inverse."""
        kept = json.loads(text)
        return cls(from_json(kept["sentence"]), kept["code"])

    def shown(self, language: Language) -> str:
        """The sentence for a reader."""
        return shown(self.sentence, language)
