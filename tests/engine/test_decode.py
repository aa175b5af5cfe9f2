"""The decode step in fixed shapes, without a GPU: equal to the eager step, in its own memory only, and asking the host nothing.

What stands in for a CUDA graph here is as strict as one: it records every operation of PyTorch that a function runs, and later runs
those on the same memory, without a line of the function's Python.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from chatwright.engine.blocks import BLOCK_TOKENS, blocks_for
from chatwright.engine.cache import PagedCache
from chatwright.engine.decode import FEWEST_BLOCKS, StaticDecoder
from chatwright.engine.protocol import GenerateRequest, SamplingParams
from chatwright.engine.runner import ModelRunner
from chatwright.engine.scheduler import Chunk
from chatwright.engine.sequence import Group
from chatwright.model.gpt import GPT
from chatwright.model.load import load_model
from tests.model.tiny_models import CASES, reference

from .conftest import VOCAB, MakeEngine, greedy_reference, tiny_model
from .test_adapters import adapter
from .test_local import idle, prompts, run

GREEDY = SamplingParams(max_tokens=12, temperature=0.0)
N_BLOCKS = 200


class RecordedOperations(TorchDispatchMode):
    """What `CudaGraphs` does, on a CPU: results lie where they lay when they were recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.n_recorded = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        return result

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        self.n_recorded += 1
        self.operations = operations = []
        with self:
            function()
        return lambda: self._replay(operations)

    def _replay(self, operations: Sequence[tuple[Any, Any, Any, Any]]) -> None:
        for func, args, kwargs, result in operations:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Never:
    """No graph can be recorded."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        raise torch.OutOfMemoryError("CUDA out of memory.")


def sequences_of(lengths: Sequence[int], seed: int = 0) -> list[Group]:
    """Choices in decoding: `n` known tokens, the last of which is to be computed; their blocks lie scattered."""
    generator = random.Random(seed)
    free = generator.sample(range(N_BLOCKS), N_BLOCKS)
    groups = []
    for number, n in enumerate(lengths):
        ids = [generator.randrange(VOCAB - 1) for _ in range(n)]
        group = Group(GenerateRequest(str(number), ids, GREEDY))
        group.sequences[0].blocks = [free.pop() for _ in range(blocks_for(n))]
        groups.append(group)
    return groups


def chunks_of(groups: Sequence[Group], *, prompt: bool = False) -> list[Chunk]:
    """Everything but the last token of each, or the last token."""
    chunks = []
    for group in groups:
        [sequence] = group.sequences
        n = len(sequence.token_ids)
        if not prompt:
            chunks.append(Chunk(sequence, n - 1, n))
        elif n > 1:
            chunks.append(Chunk(sequence, 0, n - 1))
    return chunks


def runner_of(model: GPT, graphs: Any = None) -> ModelRunner:
    runner = ModelRunner(model, graphs, max_batch=16)
    runner.allocate(N_BLOCKS)
    assert runner.cache is not None
    # What nobody wrote must not matter.
    for part in (runner.cache.keys_LGbtD, runner.cache.values_LGbtD):
        part[:, :, :N_BLOCKS] = torch.nan
        part[:, :, N_BLOCKS, 1:] = torch.nan
    return runner


def after_prompts(model: GPT, groups: Sequence[Group], graphs: Any = None) -> ModelRunner:
    runner = runner_of(model, graphs)
    if prompts := chunks_of(groups, prompt=True):
        runner.step(prompts)
    return runner


def assert_steps_agree(model: GPT, lengths: Sequence[int], graphs: RecordedOperations, within: float = 2e-4) -> None:
    groups = sequences_of(lengths, seed=len(lengths))
    chunks = chunks_of(groups)
    eager, static = after_prompts(model, groups), after_prompts(model, groups, graphs)
    n_recorded = graphs.n_recorded
    expected, computed = eager.step(chunks), static.step(chunks)
    assert graphs.n_recorded == n_recorded + 1
    for old, new in zip(expected, computed, strict=True):
        assert new.shape == old.shape == (1, model.config.vocab_size)
        np.testing.assert_allclose(new, old, atol=within, rtol=within)
    assert eager.cache is not None
    assert static.cache is not None
    for old, new in (
        (eager.cache.keys_LGbtD, static.cache.keys_LGbtD),
        (eager.cache.values_LGbtD, static.cache.values_LGbtD),
    ):
        # NaN where nobody wrote, in both: so each wrote where the other did, and nowhere else.
        torch.testing.assert_close(new[:, :, :N_BLOCKS], old[:, :, :N_BLOCKS], equal_nan=True, atol=within, rtol=within)
        assert not new[:, :, N_BLOCKS, 0].any(), "the zeros were overwritten"
        assert new[:, :, N_BLOCKS, 2:].isnan().all()


@pytest.mark.parametrize("window", [None, 7, 300])
@pytest.mark.parametrize("n_rows", [1, 2, 3, 4, 7, 8, 9, 16])
def test_the_static_step_equals_the_eager_one_in_every_bucket(n_rows: int, window: int | None) -> None:
    model = tiny_model(window)
    generator = random.Random(n_rows)
    edges = [1, 2, BLOCK_TOKENS, BLOCK_TOKENS + 1, BLOCK_TOKENS * FEWEST_BLOCKS]
    short = generator.choices(edges, k=n_rows)
    assert_steps_agree(model, short, RecordedOperations())
    assert_steps_agree(model, [BLOCK_TOKENS * FEWEST_BLOCKS + 1, *short[1:]], RecordedOperations())
    assert_steps_agree(model, [512, *short[1:]], RecordedOperations())


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_family_decodes_the_same_in_fixed_shapes(name: str, tmp_path: Path) -> None:
    reference(name).save_pretrained(tmp_path)
    assert_steps_agree(load_model(tmp_path), [1, 40, 5, 31, 17], RecordedOperations())


def test_in_bfloat16_the_steps_differ_by_roundings_only() -> None:
    assert_steps_agree(tiny_model(7).to(torch.bfloat16), [1, 40, 5, 31, 17], RecordedOperations(), within=0.1)


def test_what_others_left_changes_not_a_bit() -> None:
    """The same step in a cache full of NaN, and in one full of numbers, of which no row may see any."""
    model = tiny_model(7)
    groups = sequences_of([1, 17, 40])
    results = []
    for filler in (torch.nan, 3.0):
        runner = runner_of(model, RecordedOperations())
        assert runner.cache is not None
        runner.cache.keys_LGbtD[:, :, :N_BLOCKS] = filler
        runner.cache.values_LGbtD[:, :, :N_BLOCKS] = filler
        runner.step(chunks_of(groups, prompt=True))
        results.append(np.concatenate(runner.step(chunks_of(groups))))
    assert np.isfinite(results[0]).all()
    np.testing.assert_array_equal(results[0], results[1])


def test_a_replay_computes_what_stands_in_the_buffers_now() -> None:
    """One recording, replayed for other tokens, positions and blocks, and for fewer choices than it was recorded with."""
    model = tiny_model(7)
    graphs = RecordedOperations()
    first = sequences_of([30, 3, 100, 8], seed=1)
    static = after_prompts(model, first, graphs)
    static.step(chunks_of(first))
    for seed, lengths in enumerate([[1, 200, 33, 7], [16, 17, 2]], start=2):
        groups = sequences_of(lengths, seed=seed)
        eager = after_prompts(model, groups)
        static.step(chunks_of(groups, prompt=True))
        for old, new in zip(eager.step(chunks_of(groups)), static.step(chunks_of(groups)), strict=True):
            np.testing.assert_allclose(new, old, atol=2e-4, rtol=1e-4)
    assert graphs.n_recorded == 1


@pytest.mark.parametrize("window", [None, 7])
async def test_an_engine_with_graphs_writes_what_the_plain_model_writes(
    make_engine: MakeEngine, window: int | None
) -> None:
    """Also where choices are thrown out of a cache too small for all, and get other blocks later."""
    model, graphs = tiny_model(window), RecordedOperations()
    engine = make_engine(model, graphs=graphs, cache_tokens=100)
    batch = [prompt[:30] for prompt in prompts(8, seed=2)]
    sampling = SamplingParams(max_tokens=40, temperature=0.0)
    results = await asyncio.gather(
        *(run(engine, GenerateRequest(str(i), prompt, sampling)) for i, prompt in enumerate(batch))
    )
    for prompt, (tokens, reasons) in zip(batch, results, strict=True):
        assert tokens[0] == greedy_reference(model, prompt, 40)
        assert reasons == {0: "length"}
    assert engine.stats().preemptions > 0
    assert 2 <= graphs.n_recorded <= 4, "1, 2, 4 and 8 rows at most"
    await idle(engine)


async def test_choices_with_and_without_an_adapter_share_a_step_with_graphs(
    make_engine: MakeEngine, tmp_path: Path
) -> None:
    prompt = list(range(40))

    async def answers(graphs: RecordedOperations | None) -> list[list[int]]:
        engine = make_engine(tiny_model(), graphs=graphs)
        requests = [GenerateRequest("before", prompt, GREEDY)]
        await run(engine, requests[0])  # recorded before the adapter is there
        await engine.load_adapter("shop", adapter(tmp_path, 1))
        requests = [GenerateRequest(str(i), prompt, GREEDY, adapter=name) for i, name in enumerate([None, "shop"] * 3)]
        done = await asyncio.gather(*(run(engine, request) for request in requests))
        return [tokens[0] for tokens, _ in done]

    graphs = RecordedOperations()
    with_graphs = await answers(graphs)
    assert graphs.n_recorded > 0
    assert with_graphs == await answers(None)
    assert with_graphs[0] != with_graphs[1]


async def test_where_nothing_can_be_recorded_it_goes_on_eagerly(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model()
    engine = make_engine(model, graphs=Never())
    tokens, reasons = await run(engine, GenerateRequest("a", prompts(1)[0], GREEDY))
    assert tokens[0] == greedy_reference(model, prompts(1)[0], 12)
    assert reasons == {0: "length"}
    assert [record.message for record in caplog.records if "graphs" in record.message] == [
        "decoding goes on without graphs: CUDA out of memory."
    ]


class OneDevice(TorchDispatchMode):
    """Every tensor of every operation lies on the device without memory, whose tensors have shapes and no contents: asking for a
    value, or making a shape of one, is an error there already."""

    n_operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        assert all(x.device.type == "meta" for x in tensors), f"{func} touches the host"
        self.n_operations += 1
        return result


@pytest.mark.parametrize("case", ["gpt2", "qwen3, window in the middle layer", "gemma3"])
def test_the_step_asks_the_host_for_nothing(case: str, tmp_path: Path) -> None:
    """What a CUDA graph could not record: a value read back, a shape that depends on one, a tensor made on the host."""
    reference(case).save_pretrained(tmp_path)
    model = load_model(tmp_path, dtype=torch.bfloat16).to("meta")
    cache = PagedCache(model.config, N_BLOCKS, torch.bfloat16, torch.device("meta"))
    decoder = StaticDecoder(model, cache, RecordedOperations(), 16)
    for n_rows in (1, 4, 16):
        for n_blocks in (FEWEST_BLOCKS, decoder.max_blocks):
            with torch.inference_mode(), OneDevice() as operations:
                decoder._compute(n_rows, n_blocks)
            assert operations.n_operations > 50
