"""Breaks the texts of control tokens in what users wrote, with a character that is taken out after rendering."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from chatwright.errors import InvalidRequestError
from chatwright.tokenizer.control import ControlTokens

# Private use: no letter, no blank, no case, not escaped by JSON or HTML.
_CANDIDATES = [chr(code) for code in range(0xE000, 0xF900)]
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})

Shown = Literal["break", "keep", "wrap"]


class Marker:
    """One call's marker: a character that occurs nowhere in what the user and the template wrote.

    Raises InvalidRequestError when there is none left.
    """

    def __init__(self, control: ControlTokens, template_source: str, texts: Iterable[str]) -> None:
        """texts: everything that the prompt is made of, the template excepted."""
        self._control = control
        self._source = template_source
        joined = "\n".join([template_source, *texts, *(token.text for token in control)])
        lowered = joined.lower()
        free = (c for c in _CANDIDATES if c not in joined and _escaped(c) not in lowered)
        character = next(free, None)
        if character is None:
            raise InvalidRequestError("The messages use every private character of Unicode.", code="invalid_value")
        self.character = character

    def mark(self, value: Any, *, shown: Shown = "break") -> Any:
        """A copy of JSON-like `value` whose texts and keys can not become control tokens, on their own or joined to others.

        shown: what happens to tokens that are control but shown, such as `<think>`: broken too, kept (unsafe: their ids
        must be told apart otherwise), or kept between two markers.
        """
        if isinstance(value, str):
            return self._guard_ends(self._break(value, shown))
        if isinstance(value, Mapping):
            return {
                self._break(key, shown): self._role(item)
                if key == "role" and isinstance(item, str)
                else self.mark(item, shown=shown)
                for key, item in value.items()
            }
        if isinstance(value, Sequence):
            return [self.mark(item, shown=shown) for item in value]
        return value

    def remove(self, text: str) -> str:
        """`text` without markers, also those that a template has written as JSON escapes."""
        return text.replace(self.character, "").replace(_escaped(self.character), "")

    def breaks_at(self, text: str, positions: Iterable[int]) -> str:
        """`text` with a marker at each of the ascending `positions`."""
        cuts = [0, *positions, len(text)]
        return self.character.join(text[a:b] for a, b in pairwise(cuts))

    def _break(self, text: str, shown: Shown) -> str:
        found = self._control.anywhere if shown == "break" else self._control.hidden_anywhere
        text = self.breaks_at(text, sorted({match.start(1) + 1 for match in found.finditer(text)}))
        if shown == "wrap":
            text = self._control.shown.sub(lambda match: f"{self.character}{match[0]}{self.character}", text)
        return text

    def _guard_ends(self, text: str) -> str:
        """A marker behind a token's beginning at the end of `text`, and before a token's ending at its start: what stands
        next to it in the prompt may be the rest. Next to a character that is no blank, so that stripping works as before.
        """
        body = text.strip()
        if body and body.endswith(self._control.beginnings):
            text = text[: len(text.rstrip())] + self.character + text[len(text.rstrip()) :]
        if body and body.startswith(self._control.endings):
            start = len(text) - len(text.lstrip())
            text = text[:start] + self.character + text[start:]
        return text

    def _role(self, role: str) -> str:
        """Some templates make control tokens out of roles (`'<|' + role + '|>'`): only of those that they can mean."""
        named = f"'{role}'" in self._source or f'"{role}"' in self._source
        if role in _ROLES or (named and self._control.anywhere.search(role) is None):
            return role
        return self.breaks_at(role, range(len(role) + 1))


def _escaped(character: str) -> str:
    """As JSON writes it in ASCII."""
    return f"\\u{ord(character):04x}"
