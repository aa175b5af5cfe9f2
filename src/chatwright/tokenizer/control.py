"""Control tokens: which added tokens are control, and where they stand in a rendered prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Unicode White_Space, which is what the Rust library strips around a token; Python's \s also holds U+001C..U+001F.
_BLANKS = "\t\n\x0b\x0c\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
_BLANK_RUN = re.compile(f"[{_BLANKS}]*")
_WORD = re.compile(r"\w")

# Gemma keeps HTML elements as added tokens; they are text that people write, not control.
_HTML = re.compile(
    "a|b|blockquote|caption|code|em|h[1-6]|i|li|ol|p|pre|s|strong|sub|sup|table|tbody|td|tfoot|th|thead|tr|u|ul"
)
_BRACKETED = re.compile(r"<(/?)(.+)>|\[.+\]|\{\{.+\}\}|｜.+｜|<<.+>>", re.DOTALL)


def is_control_like(text: str, *, special: bool) -> bool:
    """Whether an added token steers the model (`<|im_end|>`, `<think>`, `[INST]`) or is text (blanks, HTML).

    Files mark some control tokens as not special so that they are shown; in a message they are still plain text.
    """
    if special:
        return True
    match = _BRACKETED.fullmatch(text)
    return match is not None and not (match[2] and _HTML.fullmatch(match[2]))


@dataclass(frozen=True)
class ControlToken:
    """A control token. `lstrip`, `rstrip`: swallows blanks before or behind. `single_word`: only between non-words."""

    text: str
    id: int
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    special: bool = True


class ControlTokens:
    """All control tokens of one tokenizer, and the patterns that find them."""

    def __init__(self, tokens: Iterable[ControlToken]) -> None:
        self._by_text = {token.text: token for token in tokens}
        hidden = [token.text for token in self if token.special]
        shown = [token.text for token in self if not token.special]
        self._pattern = _any_of(self._by_text)
        self.shown = _any_of(shown)
        # A look-ahead finds overlapping tokens too. Case is ignored, in case a template changes it.
        self.anywhere = re.compile(f"(?=({self._pattern.pattern}))", re.IGNORECASE)
        self.hidden_anywhere = re.compile(f"(?=({_any_of(hidden).pattern}))", re.IGNORECASE)
        cuts = [(text, cut) for text in self._by_text for cut in range(1, len(text))]
        self.beginnings = tuple({text[:cut] for text, cut in cuts})
        self.endings = tuple({text[cut:] for text, cut in cuts})

    def __iter__(self) -> Iterator[ControlToken]:
        return iter(self._by_text.values())

    def split(self, text: str) -> Iterator[str | int]:
        """`text` cut at control tokens as `tokenizers` cuts at added tokens: ordinary texts and control ids."""
        start = 0
        for match in self._pattern.finditer(text):
            token = self._by_text[match[0]]
            first, last = match.span()
            if first < start:  # begins inside the blanks that the token before has swallowed
                continue
            if token.single_word and (_WORD.match(text, last) or (first and _WORD.match(text, first - 1))):
                continue
            if token.lstrip:
                first = start + len(text[start:first].rstrip(_BLANKS))
            if token.rstrip:
                last = _BLANK_RUN.match(text, last).end()  # type: ignore[union-attr]  # also matches nothing
            if first > start:
                yield text[start:first]
            yield token.id
            start = last
        if start < len(text):
            yield text[start:]


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Any of `texts`, the longest first; matches nothing when there are none."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)")
