"""The benchmark of one model at one or several precisions: all are loaded, then take turns in every round.

A machine whose speed drifts is so fair to all of them. What is measured, and how: see `speed`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from chatwright.engine.blocks import BLOCK_TOKENS, blocks_for
from chatwright.engine.load import load_engine
from chatwright.engine.local import LocalEngine
from chatwright.engine.tokenizers import load_model_tokenizer
from chatwright.errors import UsageError
from chatwright.evaluation.figure import Figure
from chatwright.evaluation.speed import DECODE_AFTER, WINDOW, SpeedTest, perplexity_windows
from chatwright.settings import Settings

# The prompt of the time to a first token, where the context has room for it.
FIRST_TOKEN_PROMPT = 1000
# Tokens that each stream decodes in a round.
DECODE_TOKENS = 32
UNITS = {
    "load": "s",
    "memory": "MB",
    "perplexity": "",
    "decode": "tokens/s",
    "prompt": "tokens/s",
    "first token, cold": "s",
    "first token, cached": "s",
}


@dataclass(frozen=True)
class Plan:
    """What is measured: at how many streams, with prompts of how many tokens, how often. `adapter`: the folder of the LoRA adapter
    that answers, if any."""

    streams: tuple[int, ...]
    prompts: tuple[int, ...]
    rounds: int
    first_token_prompt: int = FIRST_TOKEN_PROMPT
    adapter: Path | None = None

    def cache_tokens(self) -> int:
        """Tokens that the engine's cache has to hold at once: whole blocks for each stream, and for the longest prompt."""
        streams = max(self.streams, default=1) * blocks_for(DECODE_AFTER + 4 * DECODE_TOKENS)
        longest = blocks_for(max([*self.prompts, self.first_token_prompt, WINDOW]) + 1)
        return BLOCK_TOKENS * max(streams, longest)

    def n_measurements(self, n_systems: int) -> int:
        """How often `Progress.step` will be told something."""
        return n_systems * (2 + (1 + self.rounds) * len(self.cases()))

    def cases(self) -> list[Case]:
        """What is measured in every round."""

        def decode(n: int) -> Case:
            async def measure(test: SpeedTest) -> Mapping[str, float]:
                return {"decode": await test.decode(n, DECODE_TOKENS)}

            return Case("decode", n, measure)

        def prompt(n: int) -> Case:
            async def measure(test: SpeedTest) -> Mapping[str, float]:
                return {"prompt": await test.prompt(n)}

            return Case("prompt", n, measure)

        async def first_token(test: SpeedTest) -> Mapping[str, float]:
            first = await test.first_token(self.first_token_prompt)
            return {"first token, cold": first.cold_s, "first token, cached": first.cached_s}

        first = Case("first token", self.first_token_prompt, first_token)
        return [*map(decode, self.streams), *map(prompt, self.prompts), first]


class Progress(Protocol):
    """Who watches a benchmark."""

    def begin(self, n_measurements: int) -> None:
        """So many measurements will be taken."""

    def step(self, what: str, size: int | None, system: str) -> None:
        """The next one begins: "load", "perplexity", "decode", "prompt" or "first token"."""


@dataclass(frozen=True)
class Case:
    """A measurement that gives figures of `size` (streams, tokens)."""

    what: str
    size: int
    measure: Callable[[SpeedTest], Awaitable[Mapping[str, float]]]


async def run_benchmark(
    path: Path, name: str, plan: Plan, settings: Sequence[Settings], text: str, progress: Progress
) -> list[Figure]:
    """All figures of the model at `path` under each of the settings, which differ in their quantization.

    Raises UsageError where the plan does not fit the model or the memory, and what loading an engine raises.
    """
    engines: dict[str, LocalEngine] = {}
    tests: dict[str, SpeedTest] = {}
    figures: list[Figure] = []
    progress.begin(plan.n_measurements(len(settings)))
    try:
        for each in settings:
            system = each.quantization
            progress.step("load", None, system)
            memory, start = psutil.Process().memory_info().rss, time.perf_counter()
            engine = engines[system] = _load(path, name, plan, each)
            windows = perplexity_windows(load_model_tokenizer(path), text, engine.max_context)
            test = tests[system] = SpeedTest(
                engine, [i for window in windows for i in window], adapter=name if plan.adapter else None
            )
            await test.prompt(1)
            load_s = time.perf_counter() - start
            progress.step("perplexity", None, system)
            perplexity = await test.perplexity(windows)
            memory = psutil.Process().memory_info().rss - memory
            for what, value in (("load", load_s), ("memory", memory / 1e6), ("perplexity", perplexity)):
                figures.append(Figure(what, system, (value,), UNITS[what]))
        for case in plan.cases():
            figures += await _measure(case, tests, plan.rounds, progress)
    finally:
        for engine in engines.values():
            await engine.close()
    return figures


def _load(path: Path, name: str, plan: Plan, settings: Settings) -> LocalEngine:
    engine = load_engine(path, name, settings, {name: plan.adapter} if plan.adapter else {})
    assert isinstance(engine, LocalEngine), "an encoder writes no text: the caller checks"
    n_tokens = engine.stats().blocks_total * BLOCK_TOKENS
    if n_tokens < plan.cache_tokens():
        raise UsageError(
            "The memory left holds {n} tokens of conversation, but {needed} are needed: take fewer streams (--streams) or shorter"
            " prompts (--prompts).",
            n=n_tokens,
            needed=plan.cache_tokens(),
        )
    return engine


async def _measure(case: Case, tests: Mapping[str, SpeedTest], rounds: int, progress: Progress) -> list[Figure]:
    """One round to warm up, then those that count, all systems taking turns."""
    values: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 1):
        for system, test in tests.items():
            progress.step(case.what, case.size, system)
            for what, value in (await case.measure(test)).items():
                if number:
                    values.setdefault((what, system), []).append(value)
    return [
        Figure(what, system, tuple(measured), UNITS[what], case.size) for (what, system), measured in values.items()
    ]
