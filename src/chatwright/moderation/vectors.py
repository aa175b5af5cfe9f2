"""Vectors of words: what a word is near to in meaning, so that one learned sentence speaks for words that it does not hold.

English words and Chinese ones (of up to five characters) lie in one space: a sentence in one language teaches the other. Made by
`scripts/make_moderation_vectors.py` from a sentence encoder, which is not needed any more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

VECTORS_FILE = "vectors.safetensors"
WORDS_FILE = "vectors.txt"
# Characters of the longest Chinese word.
LONGEST = 5
# Of the vector of a text of many words.
LENGTH = 3
_FIRST_HAN, _LAST_HAN = "\u3400", "\u9fff"


class WordVectors:
    """A row of `vectors_VD` for each word. What is no word of it counts for nothing."""

    def __init__(self, words: Sequence[str], vectors_VD: NDArray[np.float32]) -> None:
        self._rows = {word: row for row, word in enumerate(words)}
        self.vectors_VD = vectors_VD

    @property
    def n_dimensions(self) -> int:
        return int(self.vectors_VD.shape[1])

    def of(self, words: Sequence[str]) -> NDArray[np.float32]:
        """(D,): the direction of a text's words together. Its length hardly grows with theirs, or long texts were suspicious."""
        rows = list(self._found(words))
        if not rows:
            return np.zeros(self.n_dimensions, dtype=np.float32)
        total_D: NDArray[np.float32] = self.vectors_VD[rows].sum(axis=0)
        return total_D * np.float32(LENGTH / (1 + math.sqrt(float(total_D @ total_D))))

    def _found(self, words: Sequence[str]) -> Iterator[int]:
        """Rows of the words; Chinese characters joined to the longest words there are, from left to right."""
        rows = self._rows
        place, end = 0, len(words)
        while place < end:
            length = 1
            if _FIRST_HAN <= words[place][0] <= _LAST_HAN:
                for length in range(min(LONGEST, end - place), 0, -1):
                    if (row := rows.get("".join(words[place : place + length]))) is not None:
                        yield row
                        break
            elif (row := rows.get(words[place])) is not None:
                yield row
            place += length

    @classmethod
    def load(cls, folder: Path) -> Self:
        """They are kept as bytes, with one scale for each dimension."""
        tensors = load_file(folder / VECTORS_FILE)
        words = (folder / WORDS_FILE).read_text(encoding="utf-8").split("\n")[:-1]
        return cls(words, tensors["vectors"].astype(np.float32) * tensors["scale"])


@cache
def word_vectors() -> WordVectors:
    """The ones that are shipped."""
    with as_file(files("chatwright.moderation") / "data") as folder:
        return WordVectors.load(folder)
