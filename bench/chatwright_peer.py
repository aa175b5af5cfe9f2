"""Ours, measured as `chatwright bench` does: the engine as `serve` loads it, at one precision."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from bench.peer import Opening, serve
from chatwright.engine.load import load_engine
from chatwright.engine.local import LocalEngine
from chatwright.evaluation.speed import DECODE_AFTER, SpeedTest
from chatwright.settings import load_settings

MANY_IDS = range(1000, 9000)


class Chatwright:
    """See `bench.peer.Peer`."""

    def __init__(self, opening: Opening) -> None:
        settings = load_settings(
            {
                "device": "cpu",
                "quantization": opening.kind,
                "threads": opening.threads,
                "max_batch": max(32, opening.max_streams),
                "kv_cache_tokens": max(65_536, 2 * opening.context),
            }
        )
        engine = load_engine(Path(opening.model), "model", settings)
        assert isinstance(engine, LocalEngine), "an encoder writes no text"
        self.test = SpeedTest(engine, MANY_IDS)
        self.loop = asyncio.Runner()

    def decode(self, n_streams: int, n_prompt: int, n_tokens: int) -> float:
        """See Peer."""
        assert n_prompt == DECODE_AFTER
        return self.loop.run(self.test.decode(n_streams, n_tokens))

    def prompt(self, n_tokens: int) -> float:
        """See Peer."""
        return self.loop.run(self.test.prompt(n_tokens))

    def first_token(self, n_tokens: int) -> tuple[float, float]:
        """See Peer."""
        first = self.loop.run(self.test.first_token(n_tokens))
        return first.cold_s, first.cached_s

    def perplexity(self, windows: Sequence[Sequence[int]]) -> float:
        """See Peer."""
        return self.loop.run(self.test.perplexity(windows))


if __name__ == "__main__":
    serve(Chatwright, ("chatwright", "chatwright-kernels", "torch"))
