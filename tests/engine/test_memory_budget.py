"""Several models within a budget: what is granted never exceeds it, the one least recently used goes, busy ones stay."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwright.engine.process import memory
from chatwright.engine.process.memory import MemoryBudget, MemoryNeed
from chatwright.errors import OverloadedError, UsageError


class Model:
    """Takes memory and gives it back, as `ProcessEngine` does."""

    def __init__(self, budget: MemoryBudget, name: str, fixed: int = 100, per_token: int = 1, most: int = 50) -> None:
        self.name, self.budget, self.need = name, budget, MemoryNeed(fixed, per_token, 10, most)
        self.used_at, self.idle, self.n_tokens = 0.0, True, 0
        budget.add(self)

    async def load(self, at: float = 0.0) -> int:
        self.used_at = at
        self.n_tokens = await self.budget.take(self)
        return self.n_tokens

    async def unload(self) -> None:
        assert self.idle
        await asyncio.sleep(0)
        self.n_tokens = 0
        self.budget.give_back(self)


def loaded(models: Sequence[Model]) -> set[str]:
    return {model.name for model in models if model.n_tokens}


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ROOM_WAIT_S", 0.05)
    monkeypatch.setattr(memory, "ROOM_POLL_S", 0.005)


async def test_the_least_recently_used_idle_model_goes() -> None:
    budget = MemoryBudget(250, firm=True)
    models = [Model(budget, name) for name in "abcd"]
    a, b, c, d = models
    await a.load(at=1)
    await b.load(at=2)
    a.used_at = 3
    await c.load(at=4)
    assert loaded(models) == {"a", "c"}
    a.idle = False
    await d.load(at=5)
    assert loaded(models) == {"a", "d"}


async def test_busy_models_stay_and_the_numbers_are_told() -> None:
    budget = MemoryBudget(250_000_000, firm=True)
    a, b, c = models = [Model(budget, name, fixed=100_000_000, per_token=100_000) for name in "abc"]
    await a.load()
    await b.load()
    a.idle = b.idle = False
    with pytest.raises(
        OverloadedError, match=r"no room for c just now: it needs about 101 MB of memory, .* of 250 MB are free"
    ):
        await c.load()
    assert loaded(models) == {"a", "b"}
    # It waits a little for one that is about to be free.
    waiting = asyncio.create_task(c.load())
    await asyncio.sleep(0.01)
    b.idle = True
    assert await waiting > 0
    assert loaded(models) == {"a", "c"}


async def test_a_model_that_never_fits_is_refused_when_the_limit_was_chosen() -> None:
    budget = MemoryBudget(100, firm=True)
    with pytest.raises(UsageError, match="needs about 110 B of memory, but memory_limit allows 100 B"):
        Model(budget, "a")


async def test_a_guessed_limit_forbids_no_model_to_be_alone() -> None:
    budget = MemoryBudget(100, firm=False)
    a, b = models = [Model(budget, name, fixed=1000) for name in "ab"]
    await a.load(at=1)
    await b.load(at=2)
    assert loaded(models) == {"b"}
    alone = MemoryBudget(100, firm=False)
    assert await Model(alone, "a", fixed=1000, most=77).load() == 77


async def test_the_cache_is_shared_out_so_that_the_others_fit_too() -> None:
    budget = MemoryBudget(500, firm=True)
    models = [Model(budget, name, most=10_000) for name in "abc"]
    for model in models:
        await model.load()
    assert loaded(models) == {"a", "b", "c"}
    assert sum(100 + model.n_tokens for model in models) == 500
    assert min(model.n_tokens for model in models) >= 50


async def test_a_crashed_model_keeps_its_place() -> None:
    budget = MemoryBudget(250, firm=True)
    a = Model(budget, "a")
    assert await a.load() == await a.load()
    assert budget.free_bytes == 250 - 100 - a.n_tokens
    budget.correct(a, 60)
    assert budget.free_bytes == 250 - 60 - a.n_tokens
    budget.give_back(a)
    budget.give_back(a)
    assert budget.free_bytes == 250


@given(
    needs=st.lists(st.tuples(st.integers(1, 200), st.integers(1, 3), st.integers(10, 500)), min_size=1, max_size=6),
    asked=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30),
)
def test_a_chosen_limit_is_never_exceeded(needs: list[tuple[int, int, int]], asked: list[tuple[int, bool]]) -> None:
    async def run() -> None:
        budget = MemoryBudget(300, firm=True)
        models = [Model(budget, str(i), fixed, per_token, most) for i, (fixed, per_token, most) in enumerate(needs)]
        for at, (number, idle) in enumerate(asked):
            model = models[number % len(models)]
            model.idle = True
            busy = [other for other in models if not other.idle and other.n_tokens]
            try:
                n_tokens = await model.load(at)
            except OverloadedError:
                assert busy
            else:
                assert model.need.least_tokens <= n_tokens <= max(model.need.most_tokens, model.need.least_tokens)
            assert all(other.n_tokens for other in busy), "a busy model was unloaded"
            used = sum(m.need.fixed_bytes + m.n_tokens * m.need.bytes_per_token for m in models if m.n_tokens)
            assert used <= 300
            assert budget.free_bytes == 300 - used
            model.idle = idle

    memory.ROOM_WAIT_S = 0.0
    asyncio.run(run())
