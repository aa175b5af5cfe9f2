"""llama.cpp as a peer without a compiler: the prebuilt server of the package `xllamacpp`, in this process.

It is built for AVX2, so that a native build (`llama_cpp_peer`) is faster where the processor can do more. No call of it scores a
text: the perplexity is taken token by token, each forced by a bias, which does not touch the probability that is reported.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xllamacpp

from bench.peer import Opening, serve

FORCED = 1000.0


class XLlamaCpp:
    """See `bench.peer.Peer`."""

    def __init__(self, opening: Opening) -> None:
        options = xllamacpp.CommonParams()
        options.model.path = opening.model
        options.n_ctx, options.n_batch, options.n_ubatch = opening.context, 2048, 512
        options.n_parallel = opening.max_streams
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = opening.threads
        options.kv_unified = True
        options.cache_ram_mib = 0
        options.warmup = False
        options.port = 0
        self.server = xllamacpp.Server(options)
        self.numbers = itertools.count()

    def _complete(self, ids: Sequence[int], n_tokens: int, slot: int, callback: Any = None, **more: Any) -> Any:
        body = {
            "prompt": list(ids),
            "max_tokens": n_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": True,
            "id_slot": slot,
            **more,
        }
        reply = self.server.handle_completions(body, callback) if callback else self.server.handle_completions(body)
        if isinstance(reply, dict) and "choices" not in reply:
            raise RuntimeError(str(reply))
        return reply

    def _ids(self, n_tokens: int, number: int) -> list[int]:
        """A prompt that begins like no other one."""
        return [1000 + number, *range(2000, 2000 + n_tokens - 1)]

    def decode(self, n_streams: int, n_prompt: int, n_tokens: int) -> float:
        """See Peer. Each in a slot of its own that holds its prompt already, so that all begin together; counted from when the last
        one has begun until the first one is over."""
        prompts = [self._ids(n_prompt, next(self.numbers)) for _ in range(n_streams)]
        for slot, prompt in enumerate(prompts):
            self._complete(prompt, 1, slot)
        arrivals: list[list[tuple[float, int]]] = [[] for _ in prompts]

        def write(slot: int) -> None:
            def came(chunk: Any) -> None:
                if timings := chunk.get("timings"):
                    arrivals[slot].append((time.perf_counter(), timings["predicted_n"]))

            more = {"stream": True, "timings_per_token": True}
            self._complete(prompts[slot], 2 * n_tokens, slot, came, **more)

        with ThreadPoolExecutor(n_streams) as threads:
            list(threads.map(write, range(n_streams)))
        start = max(times[0][0] for times in arrivals)
        stop = min(times[-1][0] for times in arrivals)
        n = 0
        for times in arrivals:
            counts = [count for moment, count in times if start <= moment <= stop]
            n += counts[-1] - counts[0] if counts else 0
        return n / (stop - start)

    def prompt(self, n_tokens: int) -> float:
        """See Peer."""
        return n_tokens / self._first(self._ids(n_tokens, next(self.numbers)))

    def first_token(self, n_tokens: int) -> tuple[float, float]:
        """See Peer."""
        prompt = self._ids(n_tokens - 2, next(self.numbers))
        return self._first([*prompt, 5, 6]), self._first([*prompt, 7, 8])

    def _first(self, ids: Sequence[int]) -> float:
        start = time.perf_counter()
        self._complete(ids, 1, 0)
        return time.perf_counter() - start

    def perplexity(self, windows: Sequence[Sequence[int]]) -> float:
        """See Peer."""
        nats, count = 0.0, 0
        for window in windows:
            for end in range(1, len(window)):
                forced = [[window[end], FORCED]]
                reply = self._complete(window[:end], 1, 0, logprobs=1, logit_bias=forced)
                [token] = reply["choices"][0]["logprobs"]["content"]
                assert token["id"] == window[end]
                nats -= token["logprob"]
                count += 1
        return math.exp(nats / count)


if __name__ == "__main__":
    serve(XLlamaCpp, ("xllamacpp",))
