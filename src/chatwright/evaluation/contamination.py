"""Whether a task's items stand in the training data: n-grams of 13 tokens in common (Brown et al. 2020), words or Chinese
characters.

The items are indexed, the training texts stream past once: memory is that of the items and of one piece of a text. An item
with fewer than 13 tokens is looked for whole, if it has at least 5; shorter ones say nothing. An n-gram that more than ten
items of a task share, such as the words of a template, does not count either; items of one group are one, as they may well be
questions about one text. An item that has no other n-grams is looked for by its shorter texts, and where these are shared too it
cannot be judged.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

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
    """Which items of a task (their places) have an n-gram in common with the training texts, and which could not be judged:
    `too_short`, or `shared`, as all their words are those of more than ten others.
    """

    items: tuple[int, ...]
    n_items: int
    too_short: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()

    @property
    def n_judged(self) -> int:
        """Items that were looked for."""
        return self.n_items - len(self.too_short) - len(self.shared)


def find_overlaps(
    tasks: Sequence[tuple[Sequence[Fields], Sequence[Hashable] | None]],
    corpus: Iterable[str],
    advance: Callable[[int], None] = lambda _characters: None,
) -> list[Overlap]:
    """Of the items of each task, with the groups that they belong to, in one reading. A task's answer does not depend on the
    others. `advance` is told how many characters of the corpus have been read.
    """
    overlaps = []
    wanted: dict[int, dict[int, list[tuple[int, int]]]] = {}  # n → hash → (task, item)
    for number, (items, groups) in enumerate(tasks):
        owned, overlap = _looked_for(items, groups)
        overlaps.append(overlap)
        for n, places in owned.items():
            for key, owners in places.items():
                wanted.setdefault(n, {}).setdefault(key, []).extend((number, item) for item in owners)
    index = {n: (np.array(sorted(by_hash), dtype=np.uint64), by_hash) for n, by_hash in wanted.items()}
    found: set[tuple[int, int]] = set()
    done = 0
    for text in corpus:
        for start in range(0, max(1, len(text)), PIECE):
            tokens_T = _hashed(text_tokens(text[start : start + PIECE + _OVERLAP]))
            for n, (keys, by_hash) in index.items():
                here = _grams(tokens_T, n)
                at = np.searchsorted(keys, here).clip(max=len(keys) - 1)
                for key in set(here[keys[at] == here].tolist()):
                    found.update(by_hash.pop(key, ()))  # once is enough, however often a text is there
        done += len(text)
        advance(done)
    return [
        replace(overlap, items=tuple(sorted(item for task, item in found if task == number)))
        for number, overlap in enumerate(overlaps)
    ]


def _looked_for(
    items: Sequence[Fields], groups: Sequence[Hashable] | None
) -> tuple[Mapping[int, Mapping[int, list[int]]], Overlap]:
    """n → hash → the items of one task that are known by it, and which of them cannot be judged."""
    alternatives = [_item_grams(item) for item in items]
    having: dict[int, dict[int, list[int]]] = {}
    for number, grams in enumerate(alternatives):
        for n, keys in grams.items():
            for key in keys:
                having.setdefault(n, {}).setdefault(key, []).append(number)
    kept = {
        n: {key: owners for key, owners in places.items() if not _is_shared(owners, groups)}
        for n, places in having.items()
    }
    known_by: dict[int, int] = {}
    too_short: list[int] = []
    shared: list[int] = []
    for number, grams in enumerate(alternatives):
        known = next((n for n, keys in grams.items() if any(key in kept[n] for key in keys)), None)
        if known is not None:
            known_by[number] = known
        else:
            (shared if grams else too_short).append(number)
    owned = {
        n: {key: [each for each in owners if known_by.get(each) == n] for key, owners in places.items()}
        for n, places in kept.items()
    }
    looked_for = {n: {key: owners for key, owners in places.items() if owners} for n, places in owned.items()}
    return looked_for, Overlap((), len(items), tuple(too_short), tuple(shared))


def _is_shared(owners: Sequence[int], groups: Sequence[Hashable] | None) -> bool:
    if len(owners) <= SHARED_BY:
        return False
    return groups is None or len({groups[each] for each in owners}) > SHARED_BY


def _item_grams(item: Fields) -> dict[int, set[int]]:
    """n → hashes of what an item could be known by, the best first: the n-grams of its long texts, then each shorter text whole,
    the longest first.
    """
    texts = sorted((text_tokens(text) for text in _texts(item)), key=len, reverse=True)
    found: dict[int, set[int]] = {}
    for tokens in texts:
        n = min(len(tokens), N)
        if n >= SHORTEST:
            found.setdefault(n, set()).update(_grams(_hashed(tokens), n).tolist())
    return found


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
