"""Bits per byte: what a language model needs to say held-out text, whatever its vocabulary; lower is better.

Windows: a document of at most `context_length` tokens is one window. A longer one is cut into windows of that length, each
`stride` (half of it unless told otherwise) after the one before, and only the tokens that no earlier window scored are scored:
every token is predicted from all the document before it, or from at least `context_length - stride` tokens of it. Documents never
see each other. Models of different contexts are compared fairly when both are given the same `context_length` and stride; an
RNN starts each window from its empty state, so that it sees exactly what a Transformer of that context sees.

What counts as a token and as a byte: see `documents`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from chatwright.evaluation.documents import DocumentScores, EncodedDocument

# Logits of so many numbers at a time (32 MiB of fp32): a whole batch of a large vocabulary would be gigabytes.
LOGITS_AT_ONCE = 1 << 23


class LanguageModel(Protocol):
    """GPT or RNN: hidden states of a batch, and logits of those rows that are asked for."""

    training: bool

    def hidden(self, ids_BT: Tensor, /) -> Tensor:
        """x_BTD: what comes before the output head."""
        ...

    def logits(self, x: Tensor, /) -> Tensor:
        """(..., D) → (..., V)."""
        ...


def bits_per_byte(
    model: LanguageModel,
    documents: Iterable[EncodedDocument],
    context_length: int,
    *,
    stride: int | None = None,
    batch_tokens: int = 8192,
) -> float:
    """`score_documents(…).bits_per_byte`."""
    return score_documents(model, documents, context_length, stride=stride, batch_tokens=batch_tokens).bits_per_byte


@torch.no_grad()
def score_documents(
    model: LanguageModel,
    documents: Iterable[EncodedDocument],
    context_length: int,
    *,
    stride: int | None = None,
    batch_tokens: int = 8192,
) -> DocumentScores:
    """Scores every document. `context_length`: tokens that go into the model at once; `batch_tokens`: padded tokens of one
    forward pass. The model is put into eval mode meanwhile. A model that says NaN gives NaN."""
    assert isinstance(model, nn.Module)
    stride = max(1, context_length // 2) if stride is None else stride
    assert 1 <= stride <= context_length
    documents = list(documents)
    device = next(model.parameters()).device
    nats_N = np.zeros(len(documents))
    windows = [w for n, document in enumerate(documents) for w in _windows(n, document, context_length, stride)]
    was_training = model.training
    model.eval()
    try:
        for batch in _batches(windows, batch_tokens):
            np.add.at(nats_N, [w.document for w in batch], _score(model, documents, batch, device))
    finally:
        model.train(was_training)
    return DocumentScores(
        nats_N,
        np.array([document.n_bytes for document in documents], dtype=np.int64),
        np.array([max(0, len(document.ids) - document.n_context) for document in documents], dtype=np.int64),
    )


class _Window(NamedTuple):
    """Input tokens `start`..`end` of a document; the tokens after `first`..`end` are scored."""

    document: int
    start: int
    first: int
    end: int


def _windows(n: int, document: EncodedDocument, context_length: int, stride: int) -> Iterator[_Window]:
    n_inputs = len(document.ids) - 1  # the last token is only predicted
    scored = document.n_context - 1  # position whose next token is the first to be scored
    start = 0
    while scored < n_inputs:
        end = min(n_inputs, start + context_length)
        if end > scored:
            yield _Window(n, start, scored, end)
            scored = end
        start += stride


def _batches(windows: list[_Window], batch_tokens: int) -> Iterator[list[_Window]]:
    """Windows of similar length together, at most `batch_tokens` with the padding (one window at least)."""
    batch: list[_Window] = []
    for window in sorted(windows, key=lambda w: w.start - w.end):
        if batch and (len(batch) + 1) * (batch[0].end - batch[0].start) > batch_tokens:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _score(
    model: LanguageModel, documents: Sequence[EncodedDocument], batch: Sequence[_Window], device: torch.device
) -> NDArray[np.float64]:
    """Nats of the scored tokens of each window of a batch."""
    length = max(w.end - w.start for w in batch)
    ids_BT = np.zeros((len(batch), length + 1), dtype=np.int64)  # padding stands right, where no real token looks
    scored_BT = np.zeros((len(batch), length), dtype=bool)
    for row, w in enumerate(batch):
        ids_BT[row, : w.end - w.start + 1] = documents[w.document].ids[w.start : w.end + 1]
        scored_BT[row, w.first - w.start : w.end - w.start] = True
    ids = torch.from_numpy(ids_BT).to(device)
    scored = torch.from_numpy(scored_BT).to(device)
    x_ND = model.hidden(ids[:, :-1])[scored]
    targets_N = ids[:, 1:][scored]
    first = model.logits(x_ND[:1])
    step = max(1, LOGITS_AT_ONCE // first.shape[-1])
    nats_N = torch.cat(
        [
            F.cross_entropy(model.logits(x_ND[i : i + step]).float(), targets_N[i : i + step], reduction="none")
            for i in range(0, len(x_ND), step)
        ]
    )
    rows_N = np.nonzero(scored_BT)[0]
    sums: NDArray[np.float64] = np.bincount(rows_N, nats_N.double().cpu().numpy(), len(batch)).astype(np.float64)
    return sums
