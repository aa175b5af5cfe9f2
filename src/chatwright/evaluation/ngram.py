"""The baseline that a neural model has to beat: interpolated modified Kneser-Ney (Chen & Goodman 1999) over ids of any kind.

As in KenLM (Heafield et al. 2013): adjusted counts are raw for the highest order and for n-grams that begin a document, else the
number of different tokens seen before; three discounts an order from its counts of counts; interpolation down to the uniform
distribution over the vocabulary, so every token has a probability and they sum to one. N-grams do not cross documents.

NumPy only. An n-gram is a row of a sorted table: its key is (row of its first n-1 tokens in the table below) x vocabulary + last
token, so that counting is one sort an order and looking up is one binary search an order, for all positions at once. An n-gram
takes 16 bytes; while it is built, 12 million tokens with 22 million n-grams took 17 s of one core and 1.4 GB at the peak.

Letters: T positions of a text, K rows of a table, C rows of the table below (the contexts), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatwright.evaluation.documents import DocumentScores, EncodedDocument

Ints = NDArray[np.int64]
# Positions scored at a time: bounds the memory of a long held-out text.
SCORED_AT_ONCE = 1 << 20
# Where the counts of counts are too few for an estimate; absolute discounts in the middle of what large corpora give.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


@dataclass(frozen=True)
class _Order:
    """The n-grams of one order: sorted keys (K,), discounted probability of each (K,), and what each context (C,) leaves over."""

    keys: Ints
    probability: NDArray[np.float32]
    backoff: NDArray[np.float32]


class KneserNey:
    """An n-gram model. Build it with `fit`."""

    def __init__(self, orders: Sequence[_Order], vocab_size: int) -> None:
        self._orders = orders
        self.vocab_size = vocab_size

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self._orders)

    @classmethod
    def fit(cls, documents: Iterable[EncodedDocument], vocab_size: int, order: int = 5) -> KneserNey:
        """Counts the documents; the first id of each is context only, and ids lie in 0..vocab_size-1.

        Where every document is shorter than `order`, the longest one is the order.
        """
        assert order >= 1
        ids_T, place_T = _concatenated(documents)
        order = min(order, int(place_T.max(initial=-1)) + 1)
        assert not len(ids_T) or 0 <= ids_T.min() <= ids_T.max() < vocab_size
        keys: list[Ints] = []
        counts: list[Ints] = []
        # rows of the n-gram that ends at each position: -1 where the document is younger than n
        rows_T = np.zeros(len(ids_T), dtype=np.int32)
        for n in range(1, order + 1):
            there_T = place_T >= n - 1
            # the one context of order 1 is the empty one; the start token is a context, but is itself never predicted
            key_T = (np.zeros_like(rows_T) if n == 1 else _previous(rows_T))[there_T].astype(np.int64)
            key_T *= vocab_size
            key_T += ids_T[there_T]
            key, inverse, count = _unique(key_T)
            del key_T
            shorter_T, rows_T = rows_T, np.full(len(ids_T), -1, dtype=np.int32)
            rows_T[there_T] = inverse
            if n > 1:
                counts[-1] = _adjusted(rows_T, shorter_T, place_T, n, len(keys[-1]))
            keys.append(key)
            counts.append(count)
        if order == 1:
            counts[0] = np.bincount(rows_T[place_T > 0], minlength=len(keys[0]))
        n_contexts = [1, *(len(key) for key in keys)]
        return cls(
            [_discounted(key, count, n, vocab_size) for key, count, n in zip(keys, counts, n_contexts, strict=False)],
            vocab_size,
        )

    def score(self, documents: Iterable[EncodedDocument]) -> DocumentScores:
        """Nats, bytes and tokens of each document, as `bits_per_byte` scores a neural model."""
        nats, n_bytes, n_tokens = [], [], []
        for document in documents:
            total = -float(
                np.log(self._probabilities(np.asarray(document.ids, dtype=np.int64), document.n_context)).sum()
            )
            nats.append(total)
            n_bytes.append(document.n_bytes)
            n_tokens.append(max(0, len(document.ids) - document.n_context))
        return DocumentScores(np.array(nats), np.array(n_bytes, dtype=np.int64), np.array(n_tokens, dtype=np.int64))

    def _probabilities(self, ids_T: Ints, n_context: int) -> NDArray[np.float64]:
        """Of each token from `n_context` on, given all before it in its document."""
        parts = []
        for first in range(n_context, len(ids_T), SCORED_AT_ONCE):
            start = max(0, first - self.order)
            p_T = self._window(ids_T[start : first + SCORED_AT_ONCE])
            parts.append(p_T[first - start :])
        return np.concatenate(parts) if parts else np.zeros(0)

    def _window(self, ids_T: Ints) -> NDArray[np.float64]:
        p_T = np.full(len(ids_T), 1 / self.vocab_size)
        rows_T = np.zeros(len(ids_T), dtype=np.int64)
        for n, order in enumerate(self._orders, 1):
            context_T = rows_T if n == 1 else _previous(rows_T)
            p_T, rows_T = _interpolate(order, context_T, ids_T, self.vocab_size, p_T)
        return p_T


def _interpolate(
    order: _Order, context_T: Ints, ids_T: Ints, vocab_size: int, lower_T: NDArray[np.float64]
) -> tuple[NDArray[np.float64], Ints]:
    """Probabilities one order up, and the rows of the n-grams; unknown contexts (-1) keep the lower order's."""
    known_T = context_T >= 0
    rows_T = np.where(known_T, _find(order.keys, context_T * vocab_size + ids_T), -1)
    direct_T = np.where(rows_T >= 0, order.probability[rows_T], 0.0)
    backoff_T = np.where(known_T, order.backoff[context_T], 1.0)
    return direct_T + backoff_T * lower_T, rows_T


def _find(keys: Ints, wanted: Ints) -> Ints:
    """Index of each wanted key, -1 where it is not there."""
    places: Ints = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[places] == wanted, places, -1)


def _unique(key_T: Ints) -> tuple[Ints, NDArray[np.int32], Ints]:
    """Sorted different keys, each position's place among them, and how often each stands there: np.unique in half the memory."""
    order_T = key_T.argsort()
    sorted_T = key_T[order_T]
    is_new_T = np.empty(len(key_T), dtype=bool)
    is_new_T[:1] = True
    np.not_equal(sorted_T[1:], sorted_T[:-1], out=is_new_T[1:])
    keys_K = sorted_T[is_new_T]
    del sorted_T
    inverse_T = np.empty(len(key_T), dtype=np.int32)
    inverse_T[order_T] = np.cumsum(is_new_T, dtype=np.int32) - 1
    return keys_K, inverse_T, np.diff(np.flatnonzero(is_new_T), append=len(key_T))


def _previous(rows_T: NDArray[Any]) -> NDArray[Any]:
    """What stood one position before; nothing (-1) before the first."""
    return np.concatenate([np.full(1, -1, dtype=rows_T.dtype), rows_T[:-1]])


def _concatenated(documents: Iterable[EncodedDocument]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """All ids one after the other, and each one's place in its document."""
    parts = [np.asarray(document.ids, dtype=np.int32) for document in documents]
    if not parts:
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32)
    place_T = np.fromiter(chain.from_iterable(range(len(part)) for part in parts), dtype=np.int32)
    return np.concatenate(parts), place_T


def _adjusted(
    rows_T: NDArray[np.int32], shorter_T: NDArray[np.int32], place_T: NDArray[np.int32], n: int, n_shorter: int
) -> Ints:
    """Counts of the (n-1)-grams: how many different n-grams end with each; raw where nothing can come before."""
    here_T = rows_T >= 0
    suffix_K = np.zeros(int(rows_T.max(initial=-1)) + 1, dtype=np.int32)
    suffix_K[rows_T[here_T]] = shorter_T[here_T]  # the same value from every occurrence
    counts = np.bincount(suffix_K, minlength=n_shorter)
    if n > 2:  # the start token alone is no n-gram that is ever predicted
        counts += np.bincount(shorter_T[place_T == n - 2], minlength=n_shorter)
    return counts


def _discounted(keys: Ints, counts: Ints, n_contexts: int, vocab_size: int) -> _Order:
    discounts = np.array([0.0, *_discounts(counts)])
    context_K = keys // vocab_size
    discount_K = discounts[np.minimum(counts, 3)]
    total_C = np.bincount(context_K, weights=counts, minlength=n_contexts)
    left_C = np.bincount(context_K, weights=discount_K, minlength=n_contexts)
    seen_C = total_C > 0
    backoff_C = np.divide(left_C, total_C, out=np.ones(n_contexts), where=seen_C)
    probability_K = np.divide(counts - discount_K, total_C[context_K], out=np.zeros(len(keys)), where=seen_C[context_K])
    return _Order(keys, probability_K.astype(np.float32), backoff_C.astype(np.float32))


def _discounts(counts: Ints) -> tuple[float, float, float]:
    """What is taken from n-grams seen once, twice, and more often (Chen & Goodman 1999, eq. 26)."""
    t1, t2, t3, t4 = (int((counts == k).sum()) for k in (1, 2, 3, 4))
    if not (t1 and t2 and t3):
        return FALLBACK_DISCOUNTS
    y = t1 / (t1 + 2 * t2)
    estimated = (1 - 2 * y * t2 / t1, 2 - 3 * y * t3 / t2, 3 - 4 * y * t4 / t3)
    in_range = all(0 <= discount <= k for k, discount in enumerate(estimated, 1))
    return estimated if in_range else FALLBACK_DISCOUNTS
