"""Kneser-Ney is a distribution over the next token, and the one that the papers define."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chatwright.evaluation.documents import EncodedDocument, encode_bytes
from chatwright.evaluation.ngram import FALLBACK_DISCOUNTS, KneserNey

V = 6  # 0..4 are tokens, 5 begins and ends documents

Gram = tuple[int, ...]
DOCUMENTS = st.lists(st.lists(st.integers(0, V - 2), max_size=12), min_size=1, max_size=12)


def bounded(bodies: list[list[int]]) -> list[EncodedDocument]:
    return [EncodedDocument((V - 1, *body, V - 1), len(body) + 1) for body in bodies]


def next_token_probabilities(model: KneserNey, history: Sequence[int]) -> NDArray[np.float64]:
    """The distribution after a history: (V,)."""
    continued = [EncodedDocument((*history, token), 1, len(history)) for token in range(V)]
    return np.exp(-model.score(continued).nats)


class SlowKneserNey:
    """From the definition, with dictionaries, one probability at a time."""

    def __init__(self, documents: list[EncodedDocument], order: int) -> None:
        self.order = order = min(order, max(len(document.ids) for document in documents))
        raw: list[Counter[Gram]] = [Counter() for _ in range(order + 1)]
        starts: list[set[Gram]] = [set() for _ in range(order + 1)]
        for document in documents:
            ids = tuple(document.ids)
            for n in range(1, order + 1):
                for end in range(n, len(ids) + 1):
                    gram = ids[end - n : end]
                    if end > 1:  # the start token is not predicted
                        raw[n][gram] += 1
                    if end == n > 1:
                        starts[n].add(gram)
        self.counts: list[Counter[Gram]] = [Counter() for _ in range(order + 1)]
        for n in range(1, order + 1):
            for gram, count in raw[n].items():
                if n == order or gram in starts[n]:
                    self.counts[n][gram] = count
                else:
                    self.counts[n][gram] = len({g[0] for g in raw[n + 1] if g[1:] == gram})
        self.discounts = [self.estimate(counts) for counts in self.counts]

    @staticmethod
    def estimate(counts: Counter[Gram]) -> tuple[float, ...]:
        t = [sum(count == k for count in counts.values()) for k in range(5)]
        if not (t[1] and t[2] and t[3]):
            return (0.0, *FALLBACK_DISCOUNTS)
        y = t[1] / (t[1] + 2 * t[2])
        found = [k - (k + 1) * y * t[k + 1] / t[k] for k in (1, 2, 3)]
        return (0.0, *(found if all(0 <= d <= k for k, d in enumerate(found, 1)) else FALLBACK_DISCOUNTS))

    def probability(self, token: int, history: Gram) -> float:
        history = history[max(0, len(history) - self.order + 1) :]
        return self.interpolated(token, history)

    def interpolated(self, token: int, context: Gram) -> float:
        lower = self.interpolated(token, context[1:]) if context else 1 / V
        n = len(context) + 1
        following = {g[-1]: c for g, c in self.counts[n].items() if g[:-1] == context}
        if not following:
            return lower
        total = sum(following.values())
        discount = self.discounts[n]
        count = following.get(token, 0)
        left = sum(discount[min(c, 3)] for c in following.values()) / total
        return (count - discount[min(count, 3)]) / total + left * lower


@given(DOCUMENTS, st.integers(1, 4), st.lists(st.integers(0, V - 2), max_size=6))
@settings(max_examples=60, deadline=None)
def test_equals_the_definition(bodies: list[list[int]], order: int, held_out: list[int]) -> None:
    documents = bounded(bodies)
    fast, slow = KneserNey.fit(documents, V, order), SlowKneserNey(documents, order)
    ids = (V - 1, *held_out, V - 1)
    for end in range(1, len(ids)):
        expected = [slow.probability(token, ids[:end]) for token in range(V)]
        assert next_token_probabilities(fast, ids[:end]) == pytest.approx(expected, abs=1e-6)
    nats = -sum(math.log(slow.probability(ids[i], ids[:i])) for i in range(1, len(ids)))
    assert fast.score([EncodedDocument(ids, 1)]).nats[0] == pytest.approx(nats, abs=1e-5)


@given(DOCUMENTS, st.integers(1, 5), st.lists(st.integers(0, V - 1), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_probabilities_after_any_history_sum_to_one(bodies: list[list[int]], order: int, history: list[int]) -> None:
    p_V = next_token_probabilities(KneserNey.fit(bounded(bodies), V, order), history)
    assert (p_V > 0).all()
    assert p_V.sum() == pytest.approx(1, abs=1e-5)


def test_documents_without_an_end_leave_their_last_context_to_the_lower_order() -> None:
    model = KneserNey.fit([EncodedDocument((V - 1, 0, 1, 2), 3), EncodedDocument((V - 1, 0, 1, 3), 3)], V, 3)
    for history in ([V - 1, 0, 1, 2], [3], [V - 1]):
        assert next_token_probabilities(model, history).sum() == pytest.approx(1, abs=1e-5)


def test_more_context_helps_on_text_of_a_fixed_order() -> None:
    generator = np.random.default_rng(0)
    successors = generator.dirichlet([0.1] * (V - 1), size=(V - 1, V - 1))

    def text(n: int) -> list[int]:
        ids = [0, 0]
        for _ in range(n):
            ids.append(int(generator.choice(V - 1, p=successors[ids[-2], ids[-1]])))
        return ids

    train, held_out = bounded([text(4000)]), bounded([text(2000)])
    scores = [KneserNey.fit(train, V, order).score(held_out).bits_per_byte for order in (1, 2, 3, 5)]
    assert scores[0] > scores[1] + 0.1 > scores[2] + 0.2
    assert scores[3] < scores[2] + 0.1, "smoothing keeps orders that say nothing new from hurting"


def test_bytes_are_a_vocabulary_too() -> None:
    train = encode_bytes(["hello world, hello world", "the world says hello", "你好，世界"] * 5)
    model = KneserNey.fit(train, 257)
    seen, unseen = model.score(encode_bytes(["hello world"])), model.score(encode_bytes(["qzxv jkwq!!"]))
    assert seen.bits_per_byte < 1 < 7 < unseen.bits_per_byte < 12
    assert model.score(encode_bytes(["你好"])).n_bytes.tolist() == [6]


def test_a_long_document_is_scored_in_parts_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = bounded([[0, 1, 2, 3, 4, 0, 1, 2, 0, 0, 1, 3]] * 3)
    model = KneserNey.fit(documents, V)
    whole = model.score(documents).nats
    monkeypatch.setattr("chatwright.evaluation.ngram.SCORED_AT_ONCE", 3)
    assert model.score(documents).nats == pytest.approx(whole)
