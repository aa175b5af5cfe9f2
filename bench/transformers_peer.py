"""Transformers as a peer: the model in fp32 with its own cache of keys and values."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from bench.peer import Opening, serve


class Transformers:
    """See `bench.peer.Peer`."""

    def __init__(self, opening: Opening) -> None:
        torch.set_num_threads(opening.threads)
        file = Path(opening.model)
        self.model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()

    def _next(self, ids: torch.Tensor, cache: Any = None) -> tuple[torch.Tensor, Any]:
        """The likeliest token after each row, and the cache."""
        out = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1:].argmax(-1), out.past_key_values

    @torch.inference_mode()
    def decode(self, n_streams: int, n_prompt: int, n_tokens: int) -> float:
        """See Peer."""
        chosen, cache = self._next(torch.arange(1000, 1000 + n_prompt).repeat(n_streams, 1))
        start = time.perf_counter()
        for _ in range(n_tokens):
            chosen, cache = self._next(chosen, cache)
        return n_streams * n_tokens / (time.perf_counter() - start)

    @torch.inference_mode()
    def prompt(self, n_tokens: int) -> float:
        """See Peer."""
        start = time.perf_counter()
        self._next(torch.arange(1000, 1000 + n_tokens)[None])
        return n_tokens / (time.perf_counter() - start)

    @torch.inference_mode()
    def first_token(self, n_tokens: int) -> tuple[float, float]:
        """See Peer."""
        ids = torch.arange(1000, 1000 + n_tokens)[None]
        start = time.perf_counter()
        _, cache = self._next(ids)
        cold_s = time.perf_counter() - start
        cache.crop(-2)
        start = time.perf_counter()
        self._next(ids[:, :2], cache)
        return cold_s, time.perf_counter() - start

    @torch.inference_mode()
    def perplexity(self, windows: Sequence[Sequence[int]]) -> float:
        """See Peer."""
        nats, count = 0.0, 0
        for window in windows:
            ids = torch.tensor(window)
            scores = self.model(ids[None]).logits[0, :-1].double().log_softmax(-1)
            nats -= float(scores.gather(1, ids[1:, None]).sum())
            count += len(ids) - 1
        return math.exp(nats / count)


if __name__ == "__main__":
    serve(Transformers, ("transformers", "torch"))
