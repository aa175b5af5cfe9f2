"""Bits per byte says what the model's own probabilities say, however documents are batched and windowed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwright.evaluation.bits_per_byte import _windows, bits_per_byte, score_documents
from chatwright.evaluation.documents import EncodedDocument, document_boundary, encode_documents
from chatwright.model.gpt import GPT
from chatwright.tokenizer.load import load_tokenizer
from tests.engine.conftest import VOCAB, tiny_model
from tests.server.tiny import make_model_folder


@pytest.fixture(scope="module")
def model() -> GPT:
    return tiny_model()


def random_documents(lengths: list[int], seed: int = 0) -> list[EncodedDocument]:
    generator = torch.Generator().manual_seed(seed)
    return [
        EncodedDocument(torch.randint(VOCAB, (length,), generator=generator).tolist(), n_bytes=3 * length)
        for length in lengths
    ]


def test_whole_documents_cost_the_sum_of_their_tokens_log_probabilities(model: GPT) -> None:
    documents = random_documents([5, 40, 2, 17, 64])
    expected = []
    for document in documents:
        ids = torch.tensor([document.ids])
        logprobs = model(ids[:, :-1]).log_softmax(-1)
        expected.append(-logprobs.gather(-1, ids[:, 1:, None]).sum().item())
    scores = score_documents(model, documents, context_length=64)
    assert scores.nats == pytest.approx(expected, rel=1e-5)
    assert scores.n_tokens.tolist() == [4, 39, 1, 16, 63]
    assert scores.bits_per_byte == pytest.approx(sum(expected) / math.log(2) / (3 * 128), rel=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 50, 100_000])
def test_batching_changes_nothing(model: GPT, batch_tokens: int) -> None:
    documents = random_documents([3, 90, 41, 41, 7])
    one = score_documents(model, documents, 16, batch_tokens=64)
    assert score_documents(model, documents, 16, batch_tokens=batch_tokens).nats == pytest.approx(one.nats, rel=1e-5)


@given(
    length=st.integers(1, 200),
    n_context=st.integers(1, 60),
    context_length=st.integers(1, 50),
    share=st.floats(0, 1),
)
@settings(max_examples=200, deadline=None)
def test_windows_score_every_token_once_and_with_enough_context(
    length: int, n_context: int, context_length: int, share: float
) -> None:
    stride = max(1, round(share * context_length))
    document = EncodedDocument(range(length), 1, n_context)
    scored = []
    for window in _windows(0, document, context_length, stride):
        assert 0 < window.end - window.start <= context_length
        for position in range(window.first, window.end):
            scored.append(position + 1)
            assert window.start == 0 or position + 1 - window.start > context_length - stride
    assert scored == list(range(n_context, length))


def test_a_longer_context_only_adds_to_what_is_seen(model: GPT) -> None:
    """The tokens of the first window do not depend on what follows; the second window starts half-way."""
    [document] = random_documents([24])
    both = score_documents(model, [document], 16).nats[0]
    first = score_documents(model, [EncodedDocument(document.ids[:17], 1)], 16).nats[0]
    rest = score_documents(model, [EncodedDocument(document.ids[8:], 1, n_context=9)], 16).nats[0]
    assert both == pytest.approx(first + rest, rel=1e-5)


def test_context_tokens_are_not_scored(model: GPT) -> None:
    [document] = random_documents([20])
    whole, head = (
        score_documents(model, [document._replace(ids=ids)], 64).nats[0] for ids in (document.ids, document.ids[:12])
    )
    tail = score_documents(model, [document._replace(n_context=12)], 64).nats[0]
    assert tail == pytest.approx(whole - head, rel=1e-4)


def test_scoring_leaves_the_mode_of_the_model_alone(model: GPT) -> None:
    model.train()
    bits_per_byte(model, random_documents([4]), 16)
    assert model.training
    model.eval()


def test_bytes_are_those_of_the_text_also_where_tokens_hold_half_a_character(tmp_path) -> None:  # type: ignore[no-untyped-def]
    tokenizer = load_tokenizer(make_model_folder(tmp_path / "tiny"))
    boundary = document_boundary(tokenizer)
    texts = ["plain", "漢字，🙂!", ""]
    documents = encode_documents(tokenizer, texts, start_id=boundary, end_id=boundary)
    assert [d.n_bytes for d in documents] == [5, len("漢字，🙂!".encode())]
    assert all(d.ids[0] == d.ids[-1] == boundary for d in documents)
    assert len(encode_documents(tokenizer, ["a"], start_id=boundary, end_id=None)[0].ids) == 2
