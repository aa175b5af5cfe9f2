"""Whether a model recites: the longest run of characters that a sample has in common with the training text, verbatim.

The samples are indexed, not the corpus, which streams past once: memory is that of the samples and of one piece of the corpus.
Hashes of all runs of `shortest` characters of the samples are looked for in the corpus (vectorised, about 30 million characters a
second); where one is found, characters themselves are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Characters of a document hashed at a time.
PIECE = 1 << 20
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, bits well mixed: 2^64 over the golden ratio
_FILTER_BITS = 20


@dataclass(frozen=True)
class CopiedRun:
    """`length` characters from `start` of the sample stand in document number `document` of the corpus. Length 0 and document None
    when no run of at least `shortest` characters does."""

    length: int
    start: int
    document: int | None


def longest_copied_runs(samples: Sequence[str], corpus: Iterable[str], *, shortest: int = 16) -> list[CopiedRun]:
    """The longest run of each sample (the first found of equally long ones). Pass what the model wrote, without its prompt."""
    assert shortest >= 1
    best = [CopiedRun(0, 0, None) for _ in samples]
    places: dict[int, list[tuple[int, int]]] = {}
    for number, sample in enumerate(samples):
        for start, key in enumerate(_hashes(sample, shortest).tolist()):
            places.setdefault(key, []).append((number, start))
    if not places:
        return best
    keys = np.array(list(places), dtype=np.uint64)
    wanted = np.zeros(1 << _FILTER_BITS, dtype=bool)
    wanted[_short(keys)] = True
    for document, text in enumerate(corpus):
        for first in range(0, len(text), PIECE):
            hashes = _hashes(text[first : first + PIECE + shortest - 1], shortest)
            for offset in np.flatnonzero(wanted[_short(hashes)]).tolist():
                for number, start in places.get(int(hashes[offset]), ()):
                    run = _extend(samples[number], start, text, first + offset, best[number].length)
                    if run > max(best[number].length, shortest - 1):
                        best[number] = CopiedRun(run, start, document)
    return best


def _extend(sample: str, i: int, text: str, j: int, beaten: int) -> int:
    """Characters that `sample[i:]` and `text[j:]` have in common at their beginning; 0 unless more than `beaten`."""
    if sample[i : i + beaten + 1] != text[j : j + beaten + 1]:
        return 0
    most = min(len(sample) - i, len(text) - j)
    n = min(beaten + 1, most)
    while n < most and sample[i + n] == text[j + n]:
        n += 1
    return n


def _hashes(text: str, length: int) -> NDArray[np.uint64]:
    """A 64-bit polynomial hash of every run of `length` characters."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    n = len(codes) - length + 1
    if n <= 0:
        return np.zeros(0, dtype=np.uint64)
    hashes = np.zeros(n, dtype=np.uint64)
    for k in range(length):
        hashes *= _MULTIPLIER
        hashes += codes[k : k + n]
    return hashes


def _short(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The upper bits, in which every character has left its mark."""
    return hashes >> np.uint64(64 - _FILTER_BITS)
