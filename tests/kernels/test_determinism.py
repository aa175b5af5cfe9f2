"""P10 and P11 on the kernels: what a request gets does not depend on load, batch, cache hits, preemption, threads or `n`."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from pathlib import Path

import pytest

from chatwright.engine import FinishEvent, GenerateRequest, SamplingParams, TokenEvent
from chatwright.engine.local import LocalEngine
from chatwright.engine.scheduler import Scheduler

from .test_runner import KernelRunner, kernels, save

N_REQUESTS = 64


def requests() -> list[GenerateRequest]:
    """Greedy and sampled, short and long, some with a beginning in common, some of several choices."""
    generator = random.Random(1)
    common = [generator.randrange(96) for _ in range(70)]
    found = []
    for i in range(N_REQUESTS):
        n_own = generator.randint(260, 330) if i % 9 == 4 else generator.randint(1, 90)
        ids = (common if i % 3 == 0 else []) + [generator.randrange(96) for _ in range(n_own)]
        sampling = SamplingParams(
            max_tokens=generator.randint(1, 24), temperature=generator.choice([0.0, 0.7, 1.3]), top_p=0.95, seed=i
        )
        found.append(GenerateRequest(str(i), ids, sampling, n=1 + (i % 8 == 0), owner=str(i % 4)))
    return found


async def answer(engine: LocalEngine, request: GenerateRequest) -> dict[int, list[int]]:
    tokens: dict[int, list[int]] = defaultdict(list)
    async for event in engine.generate(request):
        if isinstance(event, TokenEvent):
            tokens[event.index].append(event.token_id)
        assert not isinstance(event, FinishEvent) or event.reason == "length"
    return tokens


def engine_of(
    folder: Path, quantization: str, *, n_threads: int, cache_tokens: int, max_step_tokens: int
) -> LocalEngine:
    runner = KernelRunner.load(
        kernels(),
        folder,
        quantization,  # type: ignore[arg-type]
        max_step_tokens=max_step_tokens + 32,
        n_threads=n_threads,
        store=None,
    )
    scheduler = Scheduler(max_batch=32, max_step_tokens=max_step_tokens, cache_tokens=cache_tokens)
    return LocalEngine(runner, scheduler, max_context=512, max_queue=256)


@pytest.mark.parametrize("quantization", ["int8", "int4", "fp32"])
async def test_the_same_requests_alone_together_again_and_on_more_threads(quantization: str, tmp_path: Path) -> None:
    save(tmp_path, "qwen3")
    everything = requests()
    alone_engine = engine_of(tmp_path, quantization, n_threads=1, cache_tokens=4096, max_step_tokens=256)
    alone = [await answer(alone_engine, request) for request in everything]
    again = [await answer(alone_engine, request) for request in everything]
    assert alone_engine.stats().reused_tokens > 1000
    assert again == alone
    await alone_engine.close()
    for n_threads, max_step_tokens, cache_tokens in [(2, 256, 16384), (1, 24, 16384), (2, 64, 512)]:
        engine = engine_of(
            tmp_path, quantization, n_threads=n_threads, cache_tokens=cache_tokens, max_step_tokens=max_step_tokens
        )
        together = await asyncio.gather(*(answer(engine, request) for request in everything))
        assert together == alone, (n_threads, max_step_tokens, cache_tokens)
        if cache_tokens == 512:
            assert engine.stats().preemptions > 0
        await engine.close()
    # Few at a time: the positions of a long one are then shared out among threads.
    engine = engine_of(tmp_path, quantization, n_threads=2, cache_tokens=4096, max_step_tokens=256)
    for first in range(0, N_REQUESTS, 2):
        pair = await asyncio.gather(*(answer(engine, request) for request in everything[first : first + 2]))
        assert pair == alone[first : first + 2], first
    await engine.close()
    by_seed = await asyncio.gather(*(_choices(tmp_path, quantization, n) for n in (1, 3)))
    assert by_seed[0][0] == by_seed[1][0]


async def _choices(folder: Path, quantization: str, n: int) -> dict[int, list[int]]:
    engine = engine_of(folder, quantization, n_threads=1, cache_tokens=2048, max_step_tokens=256)
    request = GenerateRequest("n", list(range(20)), SamplingParams(max_tokens=10, seed=3), n=n)
    answers = await answer(engine, request)
    await engine.close()
    return answers
