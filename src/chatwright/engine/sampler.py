"""From one row of logits to one token: penalties, bias, temperature, top-k, top-p, min-p, and log probabilities.

NumPy, and of the kernels the one pass over the vocabulary that costs most. Randomness is a counter-based generator keyed by (seed,
choice, step), so a draw depends on nothing else: not on the batch, not on other requests, not on whether the sequence was
preempted and computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from chatwright.engine.kernels.library import Kernels, load_kernels
from chatwright.engine.protocol import SamplingParams, TokenLogprobs

# Cuts need the likeliest tokens in order. Sorting a whole vocabulary takes milliseconds, the few that are not much less likely than
# the best microseconds: those above the first of these shares of its weight that gives enough of them.
SHARES = (2.0**-6, 2.0**-9, 2.0**-12, 2.0**-16, 2.0**-20, 0.0)
# A smaller one would be 0 in the precision of the weights; what it makes of them is the same.
LEAST_TEMPERATURE = 1e-30
# Adding up runs of this many weights first finds a draw's place without adding up one by one. As CW_RUN of the kernels.
RUN = 256
# exp of less is not a normal number: slow to compute with, and never drawn.
LEAST_EXPONENT = -87.0


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
    weights, runs = weigh(logits_V, max(sampling.temperature, LEAST_TEMPERATURE))
    key = np.array([sampling.seed % 2**64, (index << 32) + step], dtype=np.uint64)
    uniform = np.random.Generator(np.random.Philox(key=key)).random()
    if sampling.top_k == 0 and sampling.top_p >= 1.0 and sampling.min_p == 0.0:
        return _draw(weights, runs, uniform)
    candidates = _candidates(weights, float(runs.sum()), sampling)
    kept = weights[candidates]
    return int(candidates[_draw(kept, _runs(kept), uniform)])


def weigh(logits_V: NDArray[np.float32], temperature: float) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """(V,) weights of which the largest is 1 and any below e^-87 is 0, and the sums of each RUN of them."""
    kernels = load_kernels()
    if isinstance(kernels, Kernels):
        logits_V = np.ascontiguousarray(logits_V, np.float32)
        weights = np.empty_like(logits_V)
        runs = np.empty(-(-len(logits_V) // RUN))
        kernels.c.cw_weigh(
            kernels.isa, logits_V.ctypes.data, len(logits_V), temperature, weights.ctypes.data, runs.ctypes.data
        )
        return weights, runs
    # Subtract the maximum before dividing: a temperature of 1e-9 would overflow otherwise.
    with np.errstate(over="ignore"):  # minus infinity is right there: that token can not come
        exponents = (logits_V - logits_V.max()) / np.float32(temperature)
    weights = np.exp(np.maximum(exponents, np.float32(LEAST_EXPONENT)))
    weights[exponents < LEAST_EXPONENT] = 0.0
    return weights, _runs(weights)


def _runs(weights: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.add.reduceat(weights, np.arange(0, len(weights), RUN)).astype(np.float64)


def _candidates(weights_V: NDArray[np.float32], total: float, sampling: SamplingParams) -> NDArray[np.int64]:
    """Ids that top-k, top-p and min-p leave, likeliest first; equal weights in the order of their ids. The best weighs 1, all
    together `total`."""
    top_k = sampling.top_k if 0 < sampling.top_k < len(weights_V) else 0
    for share in SHARES:
        head = np.flatnonzero(weights_V >= share)
        if top_k:
            # top-p is a share of what top-k leaves, so all of that must be there.
            enough = len(head) >= top_k or (sampling.top_p >= 1.0 and sampling.min_p >= share)
        else:
            enough = sampling.min_p >= share or (
                sampling.top_p < 1.0 and weights_V[head].sum(dtype=np.float64) >= sampling.top_p * total
            )
        if enough:
            break
    order = _best(weights_V, head, top_k or len(head))
    if top_k:
        total = weights_V[order].sum(dtype=np.float64)
    if sampling.top_p < 1.0:
        mass = np.cumsum(weights_V[order], dtype=np.float64)
        kept = mass - weights_V[order] < sampling.top_p * total
        kept[0] = True  # top_p = 0 keeps nothing by the formula; the likeliest token always stays
        order = order[kept]
    return order[weights_V[order] >= sampling.min_p]


def _best(weights_V: NDArray[np.float32], ids: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The `n` heaviest of some ids, heaviest first; equal ones in their order."""
    if n < len(ids):
        least = np.partition(weights_V[ids], -n)[-n] if n else np.inf
        ids = ids[weights_V[ids] >= least]
    best: NDArray[np.int64] = ids[np.argsort(-weights_V[ids], kind="stable")][:n]
    return best


def _draw(weights: NDArray[np.float32], runs: NDArray[np.float64], uniform: float) -> int:
    """Inverse-CDF sampling with the sums of each RUN of weights; never an entry of weight zero."""
    runs = np.cumsum(runs)
    # Rounding up to the sum itself would point behind the last entry.
    target = min(uniform * runs[-1], np.nextafter(runs[-1], 0.0))
    run = int(np.searchsorted(runs, target, side="right"))
    inside = weights[run * RUN : (run + 1) * RUN]
    rest = target - (runs[run - 1] if run else 0.0)
    place = int(np.searchsorted(np.cumsum(inside, dtype=np.float64), rest, side="right"))
    # The run was added up in another order, so its end may lie a rounding beyond.
    return run * RUN + (place if place < len(inside) else int(np.flatnonzero(inside)[-1]))


def score_token(logits_V: NDArray[np.float32], token_id: int, n_top: int) -> TokenLogprobs:
    """The token's log probability and the `n_top` best, under the model's own distribution (unadjusted logits)."""
    largest = logits_V.max()
    weights, runs = weigh(logits_V, 1.0)
    log_total = float(np.log(runs.sum()))
    best = np.empty(0, np.int64)
    if n_top:
        for share in SHARES:
            head = np.flatnonzero(weights >= share)
            if len(head) >= n_top:
                break
        best = _best(logits_V, head, n_top)
    top = tuple((int(i), min(0.0, float(logits_V[i] - largest) - log_total)) for i in best)
    return TokenLogprobs(min(0.0, float(logits_V[token_id] - largest) - log_total), top)
