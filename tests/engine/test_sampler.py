"""The sampler draws from exactly the distribution that its parameters describe."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chatwright.engine import SamplingParams, sampler
from chatwright.engine.sampler import adjust_logits, sample, score_token

LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40).map(lambda x: np.array(x, dtype=np.float32))


def draws(logits: NDArray[np.float32], params: SamplingParams, n: int = 4000) -> NDArray[np.float64]:
    counts = np.bincount([sample(logits, params, 0, step) for step in range(n)], minlength=len(logits))
    return counts / n


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float64]:
    weights = np.exp((logits - logits.max()).astype(np.float64) / temperature)
    return weights / weights.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_softmax(temperature: float) -> None:
    logits = np.array([2.0, 1.0, 0.5, -1.0, -5.0], dtype=np.float32)
    frequencies = draws(logits, SamplingParams(temperature=temperature, seed=3))
    assert frequencies == pytest.approx(softmax(logits, temperature), abs=0.03)


def test_top_k_keeps_k_and_renormalises() -> None:
    logits = np.array([0.0, 3.0, 2.0, 1.0], dtype=np.float32)
    frequencies = draws(logits, SamplingParams(top_k=2, seed=1))
    expected = np.array([0, *softmax(logits[1:3]), 0])
    assert frequencies == pytest.approx(expected, abs=0.03)


def test_top_p_keeps_the_smallest_head_that_reaches_the_mass() -> None:
    logits = np.log(np.array([0.05, 0.5, 0.3, 0.15], dtype=np.float32))
    frequencies = draws(logits, SamplingParams(top_p=0.75, seed=1))
    assert frequencies == pytest.approx(np.array([0, 0.625, 0.375, 0]), abs=0.03)


def test_min_p_cuts_relative_to_the_best() -> None:
    logits = np.log(np.array([0.6, 0.25, 0.1, 0.05], dtype=np.float32))
    frequencies = draws(logits, SamplingParams(min_p=0.3, seed=1))
    assert frequencies == pytest.approx(np.array([0.6, 0.25, 0, 0]) / 0.85, abs=0.03)


@given(LOGITS, st.floats(0, 1), st.integers(0, 50), st.floats(0, 1), st.integers(0, 2**64 - 1))
def test_a_token_is_always_found_whatever_the_cuts(
    logits: NDArray[np.float32], top_p: float, top_k: int, min_p: float, seed: int
) -> None:
    token = sample(logits, SamplingParams(top_p=top_p, top_k=top_k, min_p=min_p, seed=seed), 0, 0)
    assert 0 <= token < len(logits)


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.floats(0.0, 1.0), st.sampled_from([0, 5, 40, 200, 299, 300]), st.floats(0.0, 1.0))
def test_sorting_only_the_head_changes_nothing(seed: int, top_p: float, top_k: int, min_p: float) -> None:
    """The shortcut for large vocabularies agrees with sorting everything."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=300).astype(np.float32) * generator.integers(1, 9)
    for params in (
        SamplingParams(top_p=top_p, top_k=top_k, min_p=min_p**4, seed=seed),
        SamplingParams(top_p=top_p, top_k=top_k, seed=seed),
        SamplingParams(top_k=top_k, min_p=min_p**4, seed=seed),
    ):
        short = [sample(logits, params, 0, step) for step in range(10)]
        scores = score_token(logits, 7, top_k)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampler, "SHARES", (0.0,))
            assert short == [sample(logits, params, 0, step) for step in range(10)]
            assert scores == score_token(logits, 7, top_k)


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 2000))
def test_a_draw_is_the_inverse_of_the_distribution(seed: int, n: int) -> None:
    """Adding up in runs points to the same token as adding up one by one, but for rounding at the borders."""
    generator = np.random.default_rng(seed)
    weights = (generator.random(n) * (generator.random(n) < 0.5)).astype(np.float32)
    weights[generator.integers(n)] = 1.0
    cumulative = np.cumsum(weights, dtype=np.float64)
    for uniform in (0.0, *generator.random(20), np.nextafter(1.0, 0.0)):
        i = sampler._draw(weights, sampler._runs(weights), uniform)
        assert weights[i] > 0
        target = uniform * cumulative[-1]
        assert cumulative[i] - weights[i] - 1e-3 <= target <= cumulative[i] + 1e-3


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 1100), st.floats(1e-30, 100.0))
def test_the_kernels_weigh_as_numpy_does(seed: int, n: int, temperature: float) -> None:
    generator = np.random.default_rng(seed)
    logits = (generator.normal(size=n) * generator.integers(1, 40)).astype(np.float32)
    logits[generator.random(n) < 0.1] = -np.inf
    logits[generator.integers(n)] = 3.0
    weights, runs = sampler.weigh(logits, temperature)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler, "load_kernels", lambda: None)
        plain, plain_runs = sampler.weigh(logits, temperature)
    assert weights == pytest.approx(plain, rel=1e-4, abs=2e-38)
    assert runs == pytest.approx(plain_runs, rel=1e-4, abs=1e-35)
    assert weights.max() == 1.0
    assert not weights[np.isneginf(logits)].any()


@given(LOGITS)
def test_tiny_temperatures_are_greedy_and_do_not_overflow(logits: NDArray[np.float32]) -> None:
    token = sample(logits, SamplingParams(temperature=1e-9), 0, 0)
    assert logits[token] == pytest.approx(logits.max(), abs=1e-6)


@given(LOGITS)
def test_log_probabilities_are_never_positive_and_sum_to_one(logits: NDArray[np.float32]) -> None:
    logprobs = np.array([score_token(logits, i, 0).logprob for i in range(len(logits))])
    assert (logprobs <= 0).all()
    assert np.exp(logprobs).sum() == pytest.approx(1.0, abs=1e-5)
    scores = score_token(logits, 0, min(5, len(logits)))
    assert [lp for _, lp in scores.top] == sorted((lp for _, lp in scores.top), reverse=True)


def test_penalties_count_as_openai_and_ctrl_count() -> None:
    logits = np.array([1.0, -1.0, 2.0, 0.5], dtype=np.float32)
    counted = adjust_logits(logits, SamplingParams(presence_penalty=0.5, frequency_penalty=0.25), [3], {0: 2, 1: 1})
    assert counted.tolist() == [1.0 - 0.5 - 0.5, -1.0 - 0.5 - 0.25, 2.0, 0.5]
    repeated = adjust_logits(logits, SamplingParams(repetition_penalty=2.0), [3], {0: 2, 1: 1})
    assert repeated.tolist() == [0.5, -2.0, 2.0, 0.25]
    assert logits.tolist() == [1.0, -1.0, 2.0, 0.5], "the argument was changed"


def test_bias_bans_and_forces() -> None:
    logits = np.array([5.0, 1.0, 0.0], dtype=np.float32)
    banned = adjust_logits(logits, SamplingParams(logit_bias={0: -100.0}), [], {})
    assert sample(banned, SamplingParams(temperature=0.0), 0, 0) == 1
    forced = adjust_logits(logits, SamplingParams(logit_bias={2: 100.0}), [], {})
    assert draws(forced, SamplingParams(temperature=2.0), n=200)[2] == 1.0


def test_draws_differ_between_choices_steps_and_seeds() -> None:
    logits = np.zeros(1000, dtype=np.float32)
    tokens = {sample(logits, SamplingParams(seed=s), i, t) for s in range(3) for i in range(3) for t in range(3)}
    assert len(tokens) > 20
