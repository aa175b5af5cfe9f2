"""How hard a text is to predict, measured in a second or two: bits per byte of n-grams of bytes on the dataset's own held-out part.

Two Kneser-Ney models (order 6), one of a little training text and one of eight times as much, scored on the same held-out text. The
second says how hard the text is; how much better it is than the first says how much more text helps with this corpus: scripts with
many characters, many topics, or many near-copies of few pages differ there most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from chatwright.evaluation.documents import EncodedDocument, encode_bytes
from chatwright.evaluation.ngram import KneserNey
from chatwright.text.dataset import Dataset
from chatwright.text.manifest import Kind, Split

ORDER = 6
SMALL_BYTES, LARGE_BYTES = 1 << 18, 1 << 21
HELD_OUT_BYTES = 1 << 18
# Of one document at most, so that no long one stands for the whole.
_FROM_ONE = 1 << 15
# Rows after so much text are not looked at: a dataset may be many gigabytes.
_READ_BYTES = 1 << 28


@dataclass(frozen=True)
class Difficulty:
    """`small`, `large`: bits per byte after `small_bytes` and `large_bytes` of training text."""

    small: float
    large: float
    small_bytes: int
    large_bytes: int

    @property
    def slope(self) -> float:
        """By what power of the text the n-grams get better: bits per byte go as bytes to the minus this."""
        if self.large_bytes <= self.small_bytes:
            return 0.0
        return math.log(self.small / self.large) / math.log(self.large_bytes / self.small_bytes)


def measure_difficulty(dataset: Dataset, kinds: Sequence[Kind]) -> Difficulty | None:
    """None when there is no held-out text to measure on."""
    held_out = encode_bytes(sample_texts(dataset, "held_out", kinds, HELD_OUT_BYTES))
    train = encode_bytes(sample_texts(dataset, "train", kinds, LARGE_BYTES))
    if not held_out or not train:
        return None
    small = list(_spread(train, SMALL_BYTES))
    scores = []
    for documents in (small, train):
        model = KneserNey.fit(documents, 257, ORDER)
        scores.append((model.score(held_out).bits_per_byte, sum(document.n_bytes for document in documents)))
    return Difficulty(scores[0][0], scores[1][0], scores[0][1], scores[1][1])


def sample_texts(dataset: Dataset, split: Split, kinds: Sequence[Kind], n_bytes: int) -> Iterator[str]:
    """About `n_bytes` of a split from all over it (of the beginning of a very large one): the same ones each time."""
    total = min(sum(dataset.n_bytes(split, kind) for kind in kinds), _READ_BYTES)
    share = n_bytes / max(total, 1)
    owed = 0.0  # bytes that the share of what was read so far still allows
    read = taken = 0
    for text in dataset.texts(split, kinds):
        size = len(text.encode(errors="replace"))
        read += size
        owed += share * size
        if owed > 0:
            piece = text.encode(errors="replace")[:_FROM_ONE].decode(errors="ignore")
            yield piece
            owed -= len(piece.encode())
            taken += len(piece.encode())
        if taken >= n_bytes or read >= _READ_BYTES:
            return


def _spread(documents: Sequence[EncodedDocument], n_bytes: int) -> Iterable[EncodedDocument]:
    """About `n_bytes` of the documents, every so-manieth of them."""
    total = sum(document.n_bytes for document in documents)
    share, owed = min(1.0, n_bytes / max(total, 1)), 0.0
    for document in documents:
        owed += share * document.n_bytes
        if owed > 0:
            owed -= document.n_bytes
            yield document
