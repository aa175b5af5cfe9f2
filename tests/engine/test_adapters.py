"""Adapters beside a running model: loaded and unloaded between steps, not while they answer, and never found by another's cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from chatwright.engine import EngineEvent, FinishEvent, GenerateRequest, SamplingParams, TokenEvent
from chatwright.engine.local import LocalEngine
from chatwright.errors import InUseError, InvalidModelError, ModelNotFoundError
from chatwright.model.lora import LoraConfig, add_lora, save_adapter
from tests.model.tiny_models import factors

from .conftest import MakeEngine, tiny_model

GREEDY = SamplingParams(max_tokens=10, temperature=0.0)
PROMPT = list(range(40))


def adapter(folder: Path, seed: int) -> str:
    if (folder / str(seed)).is_dir():
        return str(folder / str(seed))
    model = tiny_model(None)
    config = LoraConfig(r=4)
    add_lora(model, config, seed=0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in factors(model):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    save_adapter(model, config, folder / str(seed), "tiny")
    return str(folder / str(seed))


async def answer(engine: LocalEngine, name: str | None, request_id: str = "r") -> list[int]:
    request = GenerateRequest(request_id, PROMPT, GREEDY, adapter=name)
    tokens = []
    async for event in engine.generate(request):
        if isinstance(event, TokenEvent):
            tokens.append(event.token_id)
        assert not isinstance(event, FinishEvent) or event.reason == "length"
    return tokens


async def test_an_adapter_comes_answers_and_goes(make_engine: MakeEngine, tmp_path: Path) -> None:
    engine = make_engine(tiny_model(None))
    plain = await answer(engine, None)
    with pytest.raises(ModelNotFoundError, match="shop is not loaded"):
        await answer(engine, "shop")
    await engine.load_adapter("shop", adapter(tmp_path, 1))
    first = await answer(engine, "shop")
    assert first != plain
    together = await asyncio.gather(*(answer(engine, name, str(i)) for i, name in enumerate([None, "shop"] * 3)))
    assert together == [plain, first] * 3
    with pytest.raises(InUseError, match="loaded already"):
        await engine.load_adapter("shop", adapter(tmp_path, 2))
    await engine.unload_adapter("shop")
    with pytest.raises(ModelNotFoundError):
        await engine.unload_adapter("shop")
    # Another one of the same name: what the cache holds of the first is not its.
    await engine.load_adapter("shop", adapter(tmp_path, 2))
    fresh = make_engine(tiny_model(None))
    await fresh.load_adapter("shop", adapter(tmp_path, 2))
    assert await answer(engine, "shop") == await answer(fresh, "shop") != first


async def test_an_adapter_that_answers_takes_nothing_new_and_goes_with_its_last_answer(
    make_engine: MakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(tiny_model(None))
    removed: list[str] = []
    remove = engine._runner.remove_adapter
    monkeypatch.setattr(engine._runner, "remove_adapter", lambda name: (removed.append(name), remove(name)))
    await engine.load_adapter("shop", adapter(tmp_path, 1))
    request = GenerateRequest("long", PROMPT[:4], SamplingParams(max_tokens=40, temperature=0.0), adapter="shop")

    async def tokens(events: AsyncGenerator[EngineEvent, None]) -> list[int]:
        return [event.token_id async for event in events if isinstance(event, TokenEvent)]

    expected = await tokens(engine.generate(request))
    running = [engine.generate(replace(request, id=str(i))) for i in range(2)]
    begun = []
    for events in running:
        event = await anext(events)
        assert isinstance(event, TokenEvent)
        begun.append(event.token_id)
    await engine.unload_adapter("shop")
    with pytest.raises(ModelNotFoundError, match="shop is not loaded"):
        await answer(engine, "shop")
    with pytest.raises(ModelNotFoundError):
        await engine.unload_adapter("shop")
    # Another one may have the name meanwhile, and is another one.
    await engine.load_adapter("shop", adapter(tmp_path, 2))
    fresh = make_engine(tiny_model(None))
    await fresh.load_adapter("shop", adapter(tmp_path, 2))
    assert await answer(engine, "shop") == await answer(fresh, "shop")
    assert [begun[0], *await tokens(running[0])] == expected
    await engine.probe()
    assert not removed
    # Whoever hangs up uses it no more.
    await running[1].aclose()
    await engine.probe()
    assert len(removed) == 1
    assert await answer(engine, "shop") == await answer(fresh, "shop")


async def test_requests_meet_an_adapter_or_none_but_never_lose_it(make_engine: MakeEngine, tmp_path: Path) -> None:
    """It goes and comes while requests begin: each gets its tokens, or hears at once that it is not there."""
    engine = make_engine(tiny_model(None))
    await engine.load_adapter("shop", adapter(tmp_path, 1))
    expected = await answer(engine, "shop")
    ended = {"answered": 0, "absent": 0, "unloaded": 0}
    done = asyncio.Event()

    async def come_and_go() -> None:
        while not done.is_set():
            await engine.unload_adapter("shop")
            ended["unloaded"] += 1
            await asyncio.sleep(0.001)
            await engine.load_adapter("shop", adapter(tmp_path, 1))
            await asyncio.sleep(0.005)  # or nobody would ever meet it

    async def ask(number: int) -> None:
        i = 0
        while i < 30 or not all(ended.values()):  # until all that can happen has happened, or the test's time is over
            i += 1
            try:
                assert await answer(engine, "shop", f"{number} {i}") == expected
                ended["answered"] += 1
            except ModelNotFoundError:
                ended["absent"] += 1
            await asyncio.sleep(0.001 * (number + i) % 0.005)

    changing = asyncio.create_task(come_and_go())
    await asyncio.gather(*(ask(number) for number in range(3)))
    done.set()
    await changing


async def test_what_is_no_adapter_is_refused_and_the_engine_goes_on(make_engine: MakeEngine, tmp_path: Path) -> None:
    engine = make_engine(tiny_model(None))
    with pytest.raises(ModelNotFoundError):
        await engine.load_adapter("x", str(tmp_path / "absent"))
    with pytest.raises(InvalidModelError):
        await engine.load_adapter("x", str(tmp_path))
    assert len(await answer(engine, None)) == 10
