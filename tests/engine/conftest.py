"""Tiny random models: real decoders of every attention kind, small enough to run in milliseconds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import torch

from chatwright.engine.decode import Graphs
from chatwright.engine.local import LocalEngine
from chatwright.engine.runner import ModelRunner
from chatwright.engine.scheduler import Scheduler
from chatwright.model.config import ModelConfig
from chatwright.model.gpt import GPT

VOCAB = 97


def tiny_model(window: int | None = None, seed: int = 0) -> GPT:
    """Two layers, grouped-query attention, logits far enough apart that argmax is no matter of rounding."""
    torch.manual_seed(seed)
    config = ModelConfig(
        family="qwen3",
        vocab_size=VOCAB,
        n_layer=2,
        d_model=32,
        n_head=4,
        n_kv_head=2,
        head_dim=8,
        d_ff=64,
        context_length=512,
        norm="rmsnorm",
        norm_eps=1e-6,
        positions="rotary",
        activation="silu",
        gated=True,
        qk_norm=True,
        windows=(window, None),
    )
    model = GPT(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model.requires_grad_(False)


@pytest.fixture
def model() -> GPT:
    return tiny_model()


MakeEngine = Callable[..., LocalEngine]


@pytest.fixture
async def make_engine() -> AsyncIterator[MakeEngine]:
    """Engines with chosen limits, closed at the end."""
    engines = []

    def make(
        model: GPT,
        *,
        max_batch: int = 16,
        max_step_tokens: int = 16,
        cache_tokens: int = 4096,
        max_queue: int = 256,
        graphs: Graphs | None = None,
    ) -> LocalEngine:
        scheduler = Scheduler(max_batch=max_batch, max_step_tokens=max_step_tokens, cache_tokens=cache_tokens)
        engine = LocalEngine(ModelRunner(model, graphs, max_batch), scheduler, max_context=512, max_queue=max_queue)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        await engine.close()


def greedy_reference(model: GPT, prompt: list[int], n: int) -> list[int]:
    """The plainest possible generation: the whole sequence through the whole model for each token."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(n):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]
