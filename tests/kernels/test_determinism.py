"""P10 and P11 on the kernels: what a request gets does not depend on load, batch, cache hits, preemption, threads or `n`."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from chatwright.engine import FinishEvent, GenerateRequest, SamplingParams, TokenEvent
from chatwright.engine.local import LocalEngine
from chatwright.engine.scheduler import Chunk, Scheduler

from .test_runner import KernelRunner, an_adapter, ids_for, kernels, runner_of, save, sequence_of

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


N_LONG = 270  # beyond a share of attention
CUTS = st.sets(st.integers(1, N_LONG - 1), max_size=10).map(sorted)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    an_adapter(folder, "gemma3", 1)  # some of its layers see a window only
    return folder


@pytest.mark.parametrize("quantization", ["int8", "int4", "bf16", "fp32"])
def test_however_a_prompt_is_cut_beside_others_its_logits_are_the_same_bits(quantization: str, adapted: Path) -> None:
    """How much of a prompt a step takes depends on how fast the machine is just now. Caches of 8, 16 and 32 bits, an adapter."""
    runners = [runner_of(adapted / "base", quantization, n_threads=n) for n in (1, 3)]
    for runner in runners:
        runner.add_adapter("one", runner.read_adapter(adapted / "adapter-1"))
    ids = ids_for(N_LONG, 96)
    [expected] = runners[0].step([Chunk(sequence_of(ids, adapter="one"), 0, N_LONG)])
    expected = expected.copy()

    def logits_of(runner: KernelRunner, cuts: list[int], beside: list[int]) -> NDArray[np.float32]:
        ours = sequence_of(ids, 3, adapter="one")
        others = [
            sequence_of(ids_for(n, 96, seed=i), 25 + 7 * i, adapter=[None, "one"][i % 2]) for i, n in enumerate(beside)
        ]
        rows = []
        for step, (start, end) in enumerate(zip([0, *cuts], [*cuts, N_LONG], strict=True)):
            before = [Chunk(other, 0, len(other.token_ids)) for other in others[: step % (len(others) + 1)]]
            rows.append(runner.step([*before, Chunk(ours, start, end)])[-1].copy())
        return np.concatenate(rows)

    @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(cuts=CUTS, beside=st.lists(st.integers(1, 40), max_size=3), n=st.integers(0, 1))
    def check(cuts: list[int], beside: list[int], n: int) -> None:
        assert np.array_equal(logits_of(runners[n], cuts, beside), expected)

    check()
    # A token a step, as answers are written.
    assert np.array_equal(logits_of(runners[0], list(range(1, N_LONG)), [5, 9]), expected)
