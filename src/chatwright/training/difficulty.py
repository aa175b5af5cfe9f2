"""How hard a text is to predict, measured in seconds: bits per byte of n-grams of tokens on the dataset's own held-out documents.

A tokenizer of the run's vocabulary and Kneser-Ney models of order 1 and 3 are made from two megabytes of the training text. A
language model begins where the first is (it knows which tokens are frequent and nothing else), soon passes the second, and how soon
depends on what it was given more than on the text. Bytes in place of tokens told less: high orders of them depend on how often
pages repeat.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chatwright.evaluation.documents import document_boundary, encode_documents
from chatwright.evaluation.ngram import KneserNey
from chatwright.text.dataset import Dataset
from chatwright.text.manifest import Kind, Split
from chatwright.text.rows import row_text
from chatwright.tokenizer.tokenizer import Tokenizer

TRAIN_BYTES, HELD_OUT_BYTES = 1 << 21, 400_000
ORDER = 3
# Of one training document at most, so that no long one stands for the whole.
_FROM_ONE = 1 << 15
# Rows after so much text are not looked at: a dataset may be many gigabytes.
_READ_BYTES = 1 << 28


@dataclass(frozen=True)
class Difficulty:
    """`unigram`, `trigram`: bits per byte; `sample_bytes`: of the training text that they were counted on."""

    unigram: float
    trigram: float
    sample_bytes: int

    @property
    def structure(self) -> float:
        """What the neighbours of a token say about it: ln(unigram / trigram), at least 0."""
        return max(0.0, math.log(self.unigram / self.trigram))


def measure_difficulty(dataset: Dataset, kinds: Sequence[Kind], tokenizer: Tokenizer) -> Difficulty | None:
    """None when there is no held-out text to measure on."""
    boundary = document_boundary(tokenizer)
    held_out, train = (
        encode_documents(tokenizer, texts, start_id=boundary, end_id=boundary)
        for texts in (held_out_sample(dataset, kinds), sample_texts(dataset, "train", kinds, TRAIN_BYTES))
    )
    if not held_out or not train:
        return None
    unigram, trigram = (
        KneserNey.fit(train, tokenizer.vocab_size, order).score(held_out).bits_per_byte for order in (1, ORDER)
    )
    return Difficulty(unigram, trigram, sum(document.n_bytes for document in train))


def held_out_sample(dataset: Dataset, kinds: Sequence[Kind]) -> list[str]:
    """Whole held-out documents, in the order in which training looks at them (see `pretraining.read_held_out`)."""
    texts = [row_text(kind, row) for kind in kinds for row in dataset.rows("held_out", kind)]
    random.Random(0).shuffle(texts)  # noqa: S311
    taken: list[str] = []
    n_bytes = 0
    for text in texts:
        if n_bytes >= HELD_OUT_BYTES:
            break
        taken.append(text)
        n_bytes += len(text.encode(errors="replace"))
    return taken


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
