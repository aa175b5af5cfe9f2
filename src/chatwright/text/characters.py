"""Many texts as one array of code points, each with a class (space, digit, Latin vowel, common Han, …), counted at once.

Per-character loops in Python do 5 MB/s; the same counts over arrays do 100. Language, quality and shingles all start here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray


class Class(IntEnum):
    """What a character is. The order is part of nothing that is stored."""

    SPACE = 0
    PUNCTUATION = 1  # what prose uses
    SYMBOL = 2  # everything else that is no letter: brackets, operators, boxes, emoji
    DIGIT = 3
    VOWEL = 4  # Latin
    CONSONANT = 5  # Latin
    HAN = 6  # among the common ones of GB 2312 or Big5
    RARE_HAN = 7
    KANA = 8
    HANGUL = 9
    CYRILLIC = 10
    GREEK = 11
    ARABIC = 12
    HEBREW = 13
    THAI = 14
    DEVANAGARI = 15
    LETTER = 16  # of any other script
    BROKEN = 17  # U+FFFD, private use, unassigned


N_CLASSES = len(Class)
_PROSE = set(".,;:!?'\"()-…—–‘’“”«»¿¡·，。、；：？！「」『』（）《》〈〉【】～・")
_BLOCKS = (
    (0x0370, 0x0400, Class.GREEK),
    (0x0400, 0x0530, Class.CYRILLIC),
    (0x0590, 0x0600, Class.HEBREW),
    (0x0600, 0x0780, Class.ARABIC),
    (0x08A0, 0x0900, Class.ARABIC),
    (0x0900, 0x0980, Class.DEVANAGARI),
    (0x0E00, 0x0E80, Class.THAI),
    (0x1100, 0x1200, Class.HANGUL),
    (0x1F00, 0x2000, Class.GREEK),
    (0x3040, 0x3100, Class.KANA),
    (0x3130, 0x3190, Class.HANGUL),
    (0x31F0, 0x3200, Class.KANA),
    (0x3400, 0x4DC0, Class.RARE_HAN),
    (0x4E00, 0xA000, Class.RARE_HAN),
    (0xAC00, 0xD7B0, Class.HANGUL),
    (0xF900, 0xFB00, Class.RARE_HAN),
    (0xFB50, 0xFE00, Class.ARABIC),
    (0xFE70, 0xFF00, Class.ARABIC),
    (0xFF66, 0xFFA0, Class.KANA),
)
_END_OF_TABLE = 0x20000  # beyond: Han extensions, tags, private use


@dataclass(frozen=True)
class CharacterTexts:
    """Texts laid end to end. Build with `of`."""

    codes: NDArray[np.uint32]  # (characters,) code points
    ends: NDArray[np.int64]  # (texts,) where each text ends

    @classmethod
    def of(cls, texts: Sequence[str]) -> CharacterTexts:
        """The arrays of some texts; 13 bytes of memory a character, so give a few million characters at a time."""
        joined = "".join(texts).encode("utf-32-le", "surrogatepass")
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        return cls(np.frombuffer(joined, np.uint32), np.cumsum(lengths))

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(texts,) where each text starts."""
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]]) if len(self.ends) else self.ends

    @cached_property
    def classes(self) -> NDArray[np.uint8]:
        """(characters,) the class of each."""
        return class_table()[self._in_table]

    @cached_property
    def text_of(self) -> NDArray[np.int32]:
        """(characters,) the number of the text that each belongs to."""
        return np.repeat(np.arange(len(self.ends), dtype=np.int32), self.ends - self.starts)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(texts, N_CLASSES) how many characters of each class."""
        cells = np.bincount(self.text_of * N_CLASSES + self.classes, minlength=len(self.ends) * N_CLASSES)
        return cells.reshape(len(self.ends), N_CLASSES)

    @cached_property
    def lowered(self) -> NDArray[np.uint32]:
        """(characters,) code points with case removed, one for one."""
        lowered = lower_table()[self._in_table]
        beyond = self._in_table == _END_OF_TABLE
        if beyond.any():
            lowered[beyond] = self.codes[beyond]
        return lowered

    @cached_property
    def _in_table(self) -> NDArray[np.uint32]:
        return np.minimum(self.codes, np.uint32(_END_OF_TABLE))


@cache
def class_table() -> NDArray[np.uint8]:
    """(0x20001,) the class of each code point; the last entry stands for all beyond."""
    table = np.empty(_END_OF_TABLE + 1, np.uint8)
    for code in range(_END_OF_TABLE):
        table[code] = _class_by_category(code)
    for first, last, script in _BLOCKS:
        block = table[first:last]
        block[block == Class.LETTER] = script
    table[_END_OF_TABLE] = Class.RARE_HAN
    for code in _common_han():
        table[code] = Class.HAN
    for char in _PROSE:
        table[ord(char)] = Class.PUNCTUATION
    return table


@cache
def lower_table() -> NDArray[np.uint32]:
    """(0x20001,) the lower-case code point of each, where that is one code point."""
    table = np.arange(_END_OF_TABLE + 1, dtype=np.uint32)
    for code in range(_END_OF_TABLE):
        lower = chr(code).lower()
        if len(lower) == 1:
            table[code] = ord(lower)
    return table


def is_cjk(char: str) -> bool:
    """Whether a character is written without blanks around it: Chinese or Japanese, or full-width. Not so for ''."""
    return (
        "\u2e80" <= char <= "\u9fff"
        or "\uf900" <= char <= "\ufaff"
        or "\uff00" <= char <= "\uffef"
        or char >= "\U00020000"
    )


def _class_by_category(code: int) -> Class:
    char = chr(code)
    category = unicodedata.category(char)
    if category[0] == "L":
        if code < 0x250 or 0x1E00 <= code < 0x1F00:
            base = unicodedata.normalize("NFD", char)[0].lower()
            return Class.VOWEL if base in "aeiouyæøœıª°" else Class.CONSONANT
        return Class.LETTER
    if category[0] == "M":
        return Class.LETTER
    if category == "Nd":
        return Class.DIGIT
    if category[0] == "Z" or char in "\t\n\r":
        return Class.SPACE
    if code == 0xFFFD or category in ("Co", "Cn", "Cc", "Cs"):
        return Class.BROKEN
    return Class.SYMBOL


def _common_han() -> set[int]:
    """The everyday characters of both scripts: level 1 of GB 2312 (3,755) and of Big5 (5,401)."""
    common: set[int] = set()
    for high in range(0xB0, 0xD8):
        common.update(map(ord, bytes(b for low in range(0xA1, 0xFF) for b in (high, low)).decode("gb2312", "ignore")))
    for high in range(0xA4, 0xC7):
        lows = [*range(0x40, 0x7F), *range(0xA1, 0xFF)]
        common.update(map(ord, bytes(b for low in lows for b in (high, low)).decode("big5", "ignore")))
    return {code for code in common if 0x4E00 <= code < 0xA000}
