"""A long text in pieces of the size that the classifier was trained with: each sentence, and each with the one before it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from chatwright.moderation.words import words_of

# Words of one window (of Chinese: characters). Longer sentences are cut into overlapping pieces.
MAX_WORDS = 60
# A sentence has an end, or no end yet.
SENTENCE = re.compile(r"[^.!?。！？；;\n]*(?:[.!?。！？；;\n]+|$)")
# What never ends is read in parts, lest one step take seconds. They overlap by more than a window, and lose words that were cut.
LONGEST_PART = 8000
OVERLAP = 1000


def windows(text: str) -> Iterator[list[str]]:
    """The words of each window; at least one, be it empty."""
    before: list[str] = []
    is_empty = True
    for match in SENTENCE.finditer(text):
        for part in _parts(match[0]):
            for words in _cut(part):
                is_empty = False
                yield words
                if before and len(before) + len(words) <= MAX_WORDS:
                    yield before + words
                before = words
    if is_empty:
        yield []


def _parts(sentence: str) -> Iterator[list[str]]:
    """The words of a sentence, those of a very long one in several parts."""
    start = 0
    while True:
        words = words_of(sentence[start : start + LONGEST_PART])
        is_last = start + LONGEST_PART >= len(sentence)
        yield words[start > 0 : None if is_last else -1]
        if is_last:
            return
        start += LONGEST_PART - OVERLAP


def _cut(words: list[str]) -> Iterator[list[str]]:
    if len(words) <= MAX_WORDS:
        if words:
            yield words
        return
    for start in range(0, len(words) - MAX_WORDS // 2, MAX_WORDS // 2):
        yield words[start : start + MAX_WORDS]
