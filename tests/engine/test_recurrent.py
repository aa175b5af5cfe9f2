"""Recurrent models behind the same engine: the same tokens as the plain model, whoever else is served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import torch

from chatwright.engine import GenerateRequest, SamplingParams
from chatwright.engine.local import LocalEngine
from chatwright.engine.recurrent import RecurrentRunner
from chatwright.engine.scheduler import Scheduler
from chatwright.model.init import initialise
from chatwright.model.rnn import RNN
from chatwright.model.rnn_config import Cell, RNNConfig

from .conftest import VOCAB
from .test_local import GREEDY, idle, prompts, run

CELLS = ["rnn", "lstm"]
MakeRecurrent = Callable[..., LocalEngine]


def tiny(cell: Cell) -> RNN:
    """Logits far enough apart that argmax is no matter of rounding."""
    model = RNN(RNNConfig(cell=cell, vocab_size=VOCAB, n_layer=2, d_model=24, context_length=512)).eval()
    initialise(model, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # not from state to state: a plain RNN would be chaotic, and rounding would choose the tokens
            parameter.mul_(6 if parameter.ndim > 1 and "weight_hh" not in name else 1)
    return model.requires_grad_(False)


def reference(model: RNN, prompt: list[int], n: int) -> list[int]:
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(n):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.fixture
async def make_engine() -> AsyncIterator[MakeRecurrent]:
    engines = []

    def make(model: RNN, *, cache_tokens: int = 4096) -> LocalEngine:
        scheduler = Scheduler(max_batch=16, max_step_tokens=16, cache_tokens=cache_tokens, prefix_cache=False)
        engines.append(LocalEngine(RecurrentRunner(model), scheduler, max_context=512, max_queue=256))
        return engines[-1]

    yield make
    for engine in engines:
        await engine.close()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("cache_tokens", [4096, 100])
async def test_many_at_once_equal_the_plain_model(make_engine: MakeRecurrent, cell: Cell, cache_tokens: int) -> None:
    """With 100 places some are thrown out and computed again."""
    model = tiny(cell)
    engine = make_engine(model, cache_tokens=cache_tokens)
    batch = prompts(12)
    results = await asyncio.gather(
        *(run(engine, GenerateRequest(str(i), prompt, GREEDY)) for i, prompt in enumerate(batch))
    )
    for prompt, (tokens, _) in zip(batch, results, strict=True):
        assert tokens[0] == reference(model, prompt, 12)
    await idle(engine)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("length", [1, 2, 16, 17, 33])
async def test_choices_of_one_prompt_agree(make_engine: MakeRecurrent, cell: Cell, length: int) -> None:
    model = tiny(cell)
    engine = make_engine(model)
    prompt = prompts(1, seed=5)[0][:1] * length
    tokens, _ = await run(engine, GenerateRequest("a", prompt, GREEDY, n=4))
    for index in range(4):
        assert tokens[index] == reference(model, prompt, 12)
    await idle(engine)


@pytest.mark.parametrize("cell", CELLS)
async def test_scores_are_the_log_probabilities(make_engine: MakeRecurrent, cell: Cell) -> None:
    model = tiny(cell)
    prompt = prompts(1, seed=6)[0][:40]
    scores = await make_engine(model).score(prompt)
    with torch.inference_mode():
        expected = model(torch.tensor([prompt]))[0].log_softmax(-1)
    assert scores[0] is None
    for position, score in enumerate(scores[1:], 1):
        assert score is not None
        assert score.logprob == pytest.approx(float(expected[position - 1, prompt[position]]), abs=1e-3)


async def test_a_failed_step_is_computed_again(make_engine: MakeRecurrent) -> None:
    """The states of the beginning of the chunk are still there."""
    model = tiny("lstm")
    engine = make_engine(model)
    runner = engine._runner
    step, failed = runner.step, []

    def failing(chunks: list[object]) -> object:
        result = step(chunks)  # type: ignore[arg-type]
        if len(chunks) > 1 and len(failed) < 3:
            failed.append(True)
            raise RuntimeError("out of memory")
        return result

    runner.step = failing  # type: ignore[method-assign,assignment]
    batch = prompts(3, seed=7)
    results = await asyncio.gather(
        *(run(engine, GenerateRequest(str(i), prompt, GREEDY)) for i, prompt in enumerate(batch))
    )
    assert failed
    for prompt, (tokens, _) in zip(batch, results, strict=True):
        assert tokens[0] == reference(model, prompt, 12)


async def test_a_state_does_not_grow_with_the_text(make_engine: MakeRecurrent) -> None:
    engine = make_engine(tiny("lstm"))
    kept = []
    step = engine._runner.step

    def watched(chunks: list[object]) -> object:
        result = step(chunks)  # type: ignore[arg-type]
        kept.append(max(len(states) for states in engine._runner.caches.values()))  # type: ignore[attr-defined]
        return result

    engine._runner.step = watched  # type: ignore[method-assign,assignment]
    await run(engine, GenerateRequest("a", prompts(1)[0], SamplingParams(max_tokens=100, temperature=0.0)))
    assert max(kept) <= 2
