"""Whether a task's items stand in the training data: n-grams of 13 tokens in common (Brown et al. 2020), words or Chinese
characters.

The items are indexed, the training texts stream past once: memory is that of the items and of one piece of a text. An item
with fewer than 13 tokens is looked for whole, if it has at least 5; shorter ones say nothing. An n-gram that more than ten
items share, such as the words of a template, does not count either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chatwright.evaluation.task import Fields
from chatwright.evaluation.text_metrics import text_tokens

N = 13
SHORTEST = 5
SHARED_BY = 10
# Characters of a training text looked at together; pieces overlap by more than the longest n-gram of ordinary words.
PIECE = 1 << 18
_OVERLAP = 1 << 10
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Overlap:
    """Which items (places in the list given) have an n-gram in common with the training texts, and how many could not be
    judged.
    """

    items: tuple[int, ...]
    n_items: int
    too_short: tuple[int, ...] = ()

    @property
    def n_too_short(self) -> int:
        """Items that say too little to be looked for."""
        return len(self.too_short)

    def part(self, first: int, n: int) -> Overlap:
        """Of `n` items from `first` on, as if they had been looked for alone."""
        items, short = (
            tuple(i - first for i in each if first <= i < first + n) for each in (self.items, self.too_short)
        )
        return Overlap(items, n, short)


def find_overlap(
    items: Sequence[Fields], corpus: Iterable[str], advance: Callable[[int], None] = lambda _characters: None
) -> Overlap:
    """`advance` is told how many characters of the corpus have been read."""
    wanted: dict[int, dict[int, set[int]]] = {}  # n → hash → items
    too_short = []
    for number, item in enumerate(items):
        grams = _item_grams(item)
        if not grams:
            too_short.append(number)
        for n, hashes in grams:
            places = wanted.setdefault(n, {})
            for key in set(hashes.tolist()):
                places.setdefault(key, set()).add(number)
    index = {}
    for n, places in wanted.items():
        kept = {key: owners for key, owners in places.items() if len(owners) <= SHARED_BY}
        index[n] = (np.array(sorted(kept), dtype=np.uint64), kept)
    found: Counter[int] = Counter()
    done = 0
    for text in corpus:
        for start in range(0, max(1, len(text)), PIECE):
            tokens_T = _hashed(text_tokens(text[start : start + PIECE + _OVERLAP]))
            for n, (keys, owners) in index.items():
                if not len(keys):
                    continue
                here = _grams(tokens_T, n)
                at = np.searchsorted(keys, here).clip(max=len(keys) - 1)
                for key in set(here[keys[at] == here].tolist()):
                    found.update(owners[key])
        done += len(text)
        advance(done)
    return Overlap(tuple(sorted(found)), len(items), tuple(too_short))


def _item_grams(item: Fields) -> list[tuple[int, Hashes]]:
    """(n, hashes) of each text of an item. Its longest text speaks for it where all are short."""
    texts = [text_tokens(text) for text in _texts(item)]
    whole = [tokens for tokens in texts if len(tokens) >= N]
    if whole:
        return [(N, _grams(_hashed(tokens), N)) for tokens in whole]
    longest = max(texts, key=len, default=[])
    return [(len(longest), _grams(_hashed(longest), len(longest)))] if len(longest) >= SHORTEST else []


def _texts(item: Fields) -> list[str]:
    """What an item could be known by: its texts; lists of choices or checks are the same in many items."""
    return [value for value in item.values() if isinstance(value, str)]


def _hashed(tokens: Sequence[str]) -> Hashes:
    return np.fromiter((hash(token) & 0xFFFFFFFFFFFFFFFF for token in tokens), dtype=np.uint64, count=len(tokens))


def _grams(tokens_T: Hashes, n: int) -> Hashes:
    """A hash of every run of n tokens."""
    length = len(tokens_T) - n + 1
    if length <= 0:
        return np.zeros(0, dtype=np.uint64)
    hashes = np.zeros(length, dtype=np.uint64)
    for k in range(n):
        hashes *= _MULTIPLIER
        hashes += tokens_T[k : k + length]
        hashes ^= hashes >> np.uint64(29)
    return hashes
