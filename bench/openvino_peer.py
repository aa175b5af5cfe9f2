"""OpenVINO GenAI as a peer, from the GGUF (its own environment: `pip install openvino-genai`). It keeps some formats of weights as
they are, makes others its own, and caches keys and values in 8 bits: the perplexity says what that costs.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from bench.peer import Opening, serve

# Prompt tokens of one step, as of the other systems.
STEP_TOKENS = 512
CACHE_GB = 2


class OpenVINO:
    """See `bench.peer.Peer`. Its scheduler is ours to step, so that a step can be timed."""

    def __init__(self, opening: Opening) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = CACHE_GB
        scheduler.enable_prefix_caching = True
        scheduler.max_num_batched_tokens = STEP_TOKENS
        scheduler.max_num_seqs = max(256, opening.max_streams)
        properties = {"INFERENCE_NUM_THREADS": opening.threads}
        self.pipeline = genai.ContinuousBatchingPipeline(opening.model, scheduler, "CPU", properties)
        self.numbers = itertools.count()

    def _add(self, ids: Sequence[int], n_tokens: int, *, score: bool = False) -> Any:
        """A request that is not begun yet: its handle, without which the request is dropped."""
        options = genai.GenerationConfig()
        options.max_new_tokens, options.ignore_eos, options.do_sample = n_tokens, True, False
        if score:
            options.echo, options.logprobs = True, 1
        return self.pipeline.add_request(next(self.numbers), ov.Tensor(np.array([ids], np.int64)), options)

    def _finish(self) -> None:
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()

    def _ids(self, n_tokens: int, number: int) -> list[int]:
        """A prompt that begins like no other one: its beginning is not in the cache."""
        return [1000 + number, *range(2000, 2000 + n_tokens - 1)]

    def decode(self, n_streams: int, n_prompt: int, n_tokens: int) -> float:
        """See Peer. The prompts are computed first; what the cache has of them lets all streams begin together."""
        prompts = [self._ids(n_prompt, next(self.numbers)) for _ in range(n_streams)]
        for prompt in prompts:
            self._first(prompt)
        handles = [self._add(prompt, 2 * n_tokens + 8) for prompt in prompts]
        begun = [0] * n_streams
        while not all(begun):
            self.pipeline.step()
            begun = [n + _count(handle) for n, handle in zip(begun, handles, strict=True)]
        start = time.perf_counter()
        for _ in range(n_tokens):
            self.pipeline.step()
        seconds = time.perf_counter() - start
        n = sum(map(_count, handles))
        for handle in handles:
            handle.cancel()
        self._finish()
        return n / seconds

    def prompt(self, n_tokens: int) -> float:
        """See Peer."""
        return n_tokens / self._first(self._ids(n_tokens, next(self.numbers)))

    def first_token(self, n_tokens: int) -> tuple[float, float]:
        """See Peer."""
        prompt = self._ids(n_tokens - 2, next(self.numbers))
        return self._first([*prompt, 5, 6]), self._first([*prompt, 7, 8])

    def _first(self, ids: Sequence[int]) -> float:
        start = time.perf_counter()
        handle = self._add(ids, 1)
        self._finish()
        seconds = time.perf_counter() - start
        assert _count(handle) == 1
        return seconds

    def perplexity(self, windows: Sequence[Sequence[int]]) -> float:
        """See Peer. An echoed prompt comes with the log probability of each of its tokens."""
        nats, count = 0.0, 0
        for window in windows:
            handle = self._add(window, 1, score=True)
            self._finish()
            [output] = handle.read_all()
            scores = output.generated_log_probs[1 : len(window)]
            assert len(scores) == len(window) - 1
            nats -= math.fsum(scores)
            count += len(scores)
        return math.exp(nats / count)


def _count(handle: Any) -> int:
    """Tokens that came since the last look; each reading gives those of one step."""
    n = 0
    while handle.can_read():
        n += sum(len(output.generated_ids) for output in handle.read().values())
    return n


if __name__ == "__main__":
    serve(OpenVINO, ("openvino-genai", "openvino"))
