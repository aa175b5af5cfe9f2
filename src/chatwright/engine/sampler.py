"""From one row of logits to one token: penalties, bias, temperature, top-k, top-p, min-p, and log probabilities.

NumPy only. Randomness is a counter-based generator keyed by (seed, choice, step), so a draw depends on nothing else: not on
the batch, not on other requests, not on whether the sequence was preempted and computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from chatwright.engine.protocol import SamplingParams, TokenLogprobs

# top-p needs the candidates in descending order; sorting a whole vocabulary takes milliseconds, its head microseconds. The head
# is enough whenever it holds the mass asked for; otherwise everything is sorted.
SORTED_HEAD = 1024


def adjust_logits(
    logits_V: NDArray[np.float32],
    sampling: SamplingParams,
    prompt_ids: Sequence[int],
    output_counts: Mapping[int, int],
) -> NDArray[np.float32]:
    """Penalties and bias. Returns a copy where something changes; the argument is left alone. (V,) → (V,)"""
    penalised = sampling.presence_penalty or sampling.frequency_penalty or sampling.repetition_penalty != 1.0
    if not penalised and not sampling.logit_bias:
        return logits_V
    logits_V = logits_V.copy()
    if sampling.repetition_penalty != 1.0:
        seen = np.fromiter({*prompt_ids, *output_counts}, dtype=np.int64)
        values = logits_V[seen]
        logits_V[seen] = np.where(
            values > 0, values / sampling.repetition_penalty, values * sampling.repetition_penalty
        )
    if output_counts and (sampling.presence_penalty or sampling.frequency_penalty):
        ids = np.fromiter(output_counts.keys(), dtype=np.int64)
        counts = np.fromiter(output_counts.values(), dtype=np.float32)
        logits_V[ids] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    for token_id, bias in sampling.logit_bias.items():
        logits_V[token_id] += bias
    return logits_V


def sample(logits_V: NDArray[np.float32], sampling: SamplingParams, index: int, step: int) -> int:
    """Choose a token from adjusted logits. `index` is the choice within its request, `step` the tokens it already has."""
    if sampling.temperature == 0.0:
        return int(np.argmax(logits_V))
    # Subtract the maximum before dividing: a temperature of 1e-9 would overflow otherwise.
    with np.errstate(over="ignore"):  # minus infinity is right there: that token can not come
        scaled = (logits_V - logits_V.max()).astype(np.float64) / sampling.temperature
    weights = np.exp(scaled)
    key = np.array([sampling.seed % 2**64, (index << 32) + step], dtype=np.uint64)
    uniform = np.random.Generator(np.random.Philox(key=key)).random()
    if sampling.top_k == 0 and sampling.top_p >= 1.0 and sampling.min_p == 0.0:
        return _draw(weights, uniform)
    candidates = _candidates(weights, sampling)
    return int(candidates[_draw(weights[candidates], uniform)])


def _candidates(weights: NDArray[np.float64], sampling: SamplingParams) -> NDArray[np.int64]:
    """Ids that top-k, top-p and min-p leave, likeliest first; equal weights in the order of their ids."""
    n_vocab = len(weights)
    n_kept = min(sampling.top_k or n_vocab, n_vocab)
    order = _largest(weights, min(n_kept, SORTED_HEAD))
    total = weights.sum() if n_kept == n_vocab else weights[_largest(weights, n_kept)].sum()
    if len(order) < n_kept and weights[order].sum() < sampling.top_p * total:
        order = _largest(weights, n_kept)
    if sampling.top_p < 1.0:
        mass_before = np.cumsum(weights[order]) - weights[order]
        kept = mass_before < sampling.top_p * total
        kept[0] = True  # top_p = 0 keeps nothing by the formula; the likeliest token always stays
        order = order[kept]
    elif len(order) < n_kept:
        order = _largest(weights, n_kept)
    if sampling.min_p > 0.0:
        order = order[weights[order] >= sampling.min_p * weights[order[0]]]
    return order


def _largest(values: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Indices of the k largest values, largest first, ties by index."""
    if k < len(values):
        threshold = np.partition(values, len(values) - k)[len(values) - k]
        above = np.flatnonzero(values > threshold)
        ties = np.flatnonzero(values == threshold)[: k - len(above)]
        head = np.sort(np.concatenate([above, ties]))
    else:
        head = np.arange(len(values))
    ordered: NDArray[np.int64] = head[np.argsort(-values[head], kind="stable")]
    return ordered


def _draw(weights: NDArray[np.float64], uniform: float) -> int:
    """Inverse-CDF sampling; never an entry of weight zero."""
    cumulative = np.cumsum(weights)
    return int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right").clip(max=len(weights) - 1))


def log_softmax(logits_V: NDArray[np.float32]) -> NDArray[np.float64]:
    """Natural-log probabilities, never above 0. (V,) → (V,)"""
    shifted = (logits_V - logits_V.max()).astype(np.float64)
    logprobs: NDArray[np.float64] = np.minimum(shifted - np.log(np.exp(shifted).sum()), 0.0)
    return logprobs


def score_token(logits_V: NDArray[np.float32], token_id: int, n_top: int) -> TokenLogprobs:
    """The token's log probability and the `n_top` best, under the model's own distribution (unadjusted logits)."""
    logprobs = log_softmax(logits_V)
    top = tuple((int(i), float(logprobs[i])) for i in _largest(logprobs, n_top)) if n_top else ()
    return TokenLogprobs(float(logprobs[token_id]), top)
