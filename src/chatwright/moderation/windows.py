"""A long text in pieces of the size that the classifier was trained with: each sentence, and each with the one before it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from chatwright.moderation.words import words_of

# Words of one window (of Chinese: characters). Longer sentences are cut into overlapping pieces.
MAX_WORDS = 60
# A sentence has an end, or no end yet.
SENTENCE = re.compile(r"[^.!?。！？；;\n]*(?:[.!?。！？；;\n]+|$)")


def windows(text: str) -> Iterator[list[str]]:
    """The words of each window; at least one, be it empty."""
    before: list[str] = []
    is_empty = True
    for match in SENTENCE.finditer(text):
        for words in _cut(words_of(match[0])):
            is_empty = False
            yield words
            if before and len(before) + len(words) <= MAX_WORDS:
                yield before + words
            before = words
    if is_empty:
        yield []


def _cut(words: list[str]) -> Iterator[list[str]]:
    if len(words) <= MAX_WORDS:
        if words:
            yield words
        return
    for start in range(0, len(words) - MAX_WORDS // 2, MAX_WORDS // 2):
        yield words[start : start + MAX_WORDS]
