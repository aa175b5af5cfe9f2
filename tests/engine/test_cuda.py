"""What only a GPU can show: graphs of CUDA, its arithmetic beside the CPU's, its memory. `pytest -m cuda -s` where there is one.

None of this has run yet (docs/en/gpu.md): whoever runs it first, please tell what it says.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from chatwright.engine import GenerateRequest, SamplingParams
from chatwright.engine.blocks import blocks_for
from chatwright.engine.decode import CudaGraphs
from chatwright.engine.load import load_engine
from chatwright.engine.local import LocalEngine
from chatwright.engine.runner import ModelRunner
from chatwright.engine.scheduler import Chunk
from chatwright.errors import StorageError
from chatwright.model.config import ModelConfig
from chatwright.model.gpt import GPT
from chatwright.settings import Settings
from tests.server.tiny import make_model_folder

from .conftest import MakeEngine, tiny_model
from .test_adapters import adapter
from .test_decode import N_BLOCKS, after_prompts, chunks_of, sequences_of
from .test_local import idle, prompts, run

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

GREEDY = SamplingParams(max_tokens=40, temperature=0.0)
# Two logits that are nearer to each other than this may change places from device to device.
TIE = 1e-3


def on_gpu(model: GPT) -> tuple[GPT, CudaGraphs]:
    device = torch.device("cuda")
    return deepcopy(model).to(device), CudaGraphs(device)


def assert_greedy_but_for_ties(model: GPT, prompt: list[int], tokens: Sequence[int]) -> None:
    """What the plain model on the CPU would write, up to its first tie."""
    with torch.inference_mode():
        logits_TV = model(torch.tensor([[*prompt, *tokens]]))[0, len(prompt) - 1 :]
    for logits_V, token in zip(logits_TV, tokens, strict=False):
        if token != int(logits_V.argmax()):
            assert logits_V.max() - logits_V[token] < TIE
            return


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("n_rows", [1, 3, 16])
def test_the_graph_equals_the_eager_step(n_rows: int, window: int | None, dtype: torch.dtype) -> None:
    model, graphs = on_gpu(tiny_model(window).to(dtype))
    within = 2e-3 if dtype == torch.float32 else 0.2
    static = None
    for seed in range(3):  # recorded, then replayed for other numbers
        groups = sequences_of(random.Random(seed).choices([1, 2, 16, 17, 200], k=n_rows), seed=seed)
        eager = after_prompts(model, groups)
        if static is None:
            static = after_prompts(model, groups, graphs)
        elif others := chunks_of(groups, prompt=True):
            static.step(others)
        for old, new in zip(eager.step(chunks_of(groups)), static.step(chunks_of(groups)), strict=True):
            np.testing.assert_allclose(new, old, atol=within, rtol=within)
        assert static.decoder is not None, "nothing could be recorded; the log says why"
        assert len(static.decoder.replays) == 1


@pytest.mark.parametrize("window", [None, 7])
async def test_greedy_tokens_are_the_cpus_unless_tied(make_engine: MakeEngine, window: int | None) -> None:
    cpu = tiny_model(window)
    model, graphs = on_gpu(cpu)
    engine = make_engine(model, graphs=graphs, cache_tokens=400)  # some are thrown out and computed again
    batch = prompts(16)
    done = await asyncio.gather(*(run(engine, GenerateRequest(str(i), ids, GREEDY)) for i, ids in enumerate(batch)))
    for prompt, (tokens, reasons) in zip(batch, done, strict=True):
        assert reasons == {0: "length"}
        assert_greedy_but_for_ties(cpu, prompt, tokens[0])
    await idle(engine)


async def test_adapters_on_a_gpu_change_their_own_choices_only(make_engine: MakeEngine, tmp_path: Path) -> None:
    model, graphs = on_gpu(tiny_model())
    engine = make_engine(model, graphs=graphs)
    requests = [GenerateRequest("alone", list(range(40)), GREEDY)]
    plain, _ = await run(engine, requests[0])
    await engine.load_adapter("shop", adapter(tmp_path, 1))
    requests = [GenerateRequest(str(i), list(range(40)), GREEDY, adapter=n) for i, n in enumerate([None, "shop"] * 3)]
    done = [tokens[0] for tokens, _ in await asyncio.gather(*(run(engine, request) for request in requests))]
    assert done[1] == done[3] == done[5] != plain[0]
    for tokens in done[::2]:
        assert_greedy_but_for_ties(tiny_model(), list(range(40)), tokens)


async def test_a_model_is_loaded_in_bfloat16_and_answers(tmp_path: Path) -> None:
    engine = load_engine(make_model_folder(tmp_path / "tiny"), "tiny", Settings(device="cuda"))
    assert isinstance(engine, LocalEngine)
    assert isinstance(engine._runner, ModelRunner)
    assert "decoding in graphs" in engine._runner.described
    tokens, reasons = await run(engine, GenerateRequest("a", [5, 6, 7, 8], SamplingParams(max_tokens=30, seed=1)))
    assert (len(tokens[0]), reasons[0]) in ((30, "length"), (len(tokens[0]), "stop"))
    assert engine._runner.decoder is not None, "nothing could be recorded; the log says why"
    await engine.close()


def test_a_gpu_without_room_is_named_with_numbers(tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "tiny")
    torch.cuda.set_per_process_memory_fraction(0.0)
    try:
        with pytest.raises(
            StorageError, match=r"does not fit into the memory of cuda: its weights alone take .* were free"
        ):
            load_engine(folder, "tiny", Settings(device="cuda"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_how_fast_graphs_are(capsys: pytest.CaptureFixture[str]) -> None:
    """SmolLM2-135M's shape with random weights, 200 tokens of context: milliseconds a step. Nothing is asserted of them."""
    config = ModelConfig(
        family="llama",
        vocab_size=49_152,
        n_layer=30,
        d_model=576,
        n_head=9,
        n_kv_head=3,
        head_dim=64,
        d_ff=1536,
        context_length=2048,
        norm="rmsnorm",
        norm_eps=1e-5,
        positions="rotary",
        activation="silu",
        gated=True,
        windows=(None,) * 30,
    )
    model, graphs = on_gpu(GPT(config).eval().requires_grad_(False).to(torch.bfloat16))
    for n_rows in (1, 4, 16):
        groups = sequences_of([200] * min(n_rows, N_BLOCKS // blocks_for(200)))
        chunks = chunks_of(groups)
        eager, static = after_prompts(model, groups), after_prompts(model, groups, graphs)
        taken: dict[str, list[float]] = {"eager": [], "graph": []}
        for _ in range(20):
            for name, runner in (("eager", eager), ("graph", static)):
                taken[name].append(_seconds(runner, chunks))
        medians = {name: 1000 * float(np.median(seconds[5:])) for name, seconds in taken.items()}
        with capsys.disabled():
            print(f"\n{len(chunks)} rows: eager {medians['eager']:.2f} ms, graph {medians['graph']:.2f} ms a step")
        assert static.decoder is not None, "nothing could be recorded; the log says why"


def _seconds(runner: ModelRunner, chunks: list[Chunk]) -> float:
    start = time.perf_counter()
    runner.step(chunks)  # its logits are on the host when it returns
    return time.perf_counter() - start
