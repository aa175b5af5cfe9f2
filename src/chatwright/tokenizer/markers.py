"""Breaks the texts of control tokens in what users wrote, with a character that is taken out after rendering."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from chatwright.errors import InvalidRequestError
from chatwright.tokenizer.control import ControlTokens

# Private use: no letter, no blank, no case, not escaped by JSON or HTML.
_CANDIDATES = [chr(code) for code in range(0xE000, 0xF900)]


@dataclass(frozen=True)
class Marker:
    """One call's marker character and the tokens it breaks."""

    character: str
    control: ControlTokens

    @cached_property
    def _found(self) -> re.Pattern[str]:
        # A look-ahead finds overlapping tokens too. Case is ignored, in case a template changes it.
        return re.compile(f"(?=({self.control.pattern.pattern}))", re.IGNORECASE)

    def mark(self, value: Any) -> Any:
        """A copy of JSON-like `value` in which no text, and no key, holds a control token's text."""
        if isinstance(value, str):
            return self.break_tokens(value)
        if isinstance(value, Mapping):
            return {self.mark(key): self.mark(item) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self.mark(item) for item in value]
        return value

    def break_tokens(self, text: str) -> str:
        """`text` with the marker inside every control token."""
        cuts = sorted({match.start(1) + 1 for match in self._found.finditer(text)})
        if not cuts:
            return text
        return self.character.join(text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True))

    def remove(self, text: str) -> str:
        """`text` without markers, also those that a template has written as JSON escapes."""
        return text.replace(self.character, "").replace(f"\\u{ord(self.character):04x}", "")


def choose_marker(control: ControlTokens, texts: Iterable[str]) -> Marker:
    """A marker that occurs in none of `texts`, neither as itself nor escaped."""
    joined = "\n".join([*texts, *(token.text for token in control)])
    escaped = joined.lower()
    for character in _CANDIDATES:
        if character not in joined and f"\\u{ord(character):04x}" not in escaped:
            return Marker(character, control)
    raise InvalidRequestError("The messages use every private character of Unicode.", code="invalid_value")
