"""Held-out documents as they are scored: token ids, and the bytes that the ids stand for. No torch here.

What is counted is the same for every model, so that their bits per byte can be compared:

- Numerator: the cost of every token after the start token, **including the token that ends the document**. A decoder that is
  given the code can then rebuild the documents and knows where each ends; without the end the probabilities of all texts would
  sum to more than one. For a long document it is a few bits; a model that never saw an end (end_id None) is spared it.
- Denominator: UTF-8 bytes of the text as it lies in the dataset, never of a token turned into a string (a token may hold part of
  a character; counting through `str` was wrong by 0.05 % for months in nanochat, 2ce972a). Where the tokenizer's normaliser
  changes a text (Qwen2 composes characters, NFC) the shorter of the two forms counts: no tokenizer wins by dropping bytes that
  it then need not predict, or by adding some.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chatwright.errors import InvalidModelError
from chatwright.tokenizer.special import END_OF_TEXT
from chatwright.tokenizer.tokenizer import Tokenizer


class EncodedDocument(NamedTuple):
    """`ids[:n_context]` are given (at least the start token), all others are scored; together they stand for `n_bytes`."""

    ids: Sequence[int]
    n_bytes: int
    n_context: int = 1


@dataclass(frozen=True)
class DocumentScores:
    """Per document: nats of its scored tokens, its bytes, and how many tokens were scored; in the order given."""

    nats: NDArray[np.float64]
    n_bytes: NDArray[np.int64]
    n_tokens: NDArray[np.int64]

    @property
    def bits_per_byte(self) -> float:
        """Total bits over total bytes."""
        return float(self.nats.sum() / math.log(2) / self.n_bytes.sum())

    @property
    def perplexity(self) -> float:
        """exp of the mean nats of a token; comparable only between models of the same tokenizer."""
        return float(np.exp(self.nats.sum() / self.n_tokens.sum()))


def document_boundary(tokenizer: Tokenizer) -> int:
    """The id that begins a document, and ends it in training: `<|endoftext|>`, else BOS, else the smallest EOS.

    Raises InvalidModelError when the tokenizer has none of them.
    """
    boundary = tokenizer.special_ids.get(END_OF_TEXT, tokenizer.bos_id)
    if boundary is None:
        boundary = min(tokenizer.eos_ids, default=None)
    if boundary is None:
        raise InvalidModelError(
            "The tokenizer has no token that separates documents: neither <|endoftext|> nor a beginning or end of sequence."
        )
    return boundary


def encode_documents(
    tokenizer: Tokenizer, texts: Iterable[str], *, start_id: int, end_id: int | None
) -> list[EncodedDocument]:
    """Each text as start, its tokens, end; texts of no bytes are left out."""
    documents = []
    for text in texts:
        body = tokenizer.encode(text, add_special_tokens=False)
        n_bytes = min(len(text.encode()), sum(len(tokenizer.token_bytes(i)) for i in body))
        if n_bytes:
            ids = (start_id, *body) if end_id is None else (start_id, *body, end_id)
            documents.append(EncodedDocument(ids, n_bytes))
    return documents


def encode_bytes(texts: Iterable[str]) -> list[EncodedDocument]:
    """Each text as its UTF-8 bytes between two 256: for models of bytes, whose vocabulary is 257."""
    return [EncodedDocument((256, *raw, 256), len(raw)) for raw in (text.encode() for text in texts) if raw]
