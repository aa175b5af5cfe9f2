"""What the engine promises: the same tokens as the plain model, whoever else is served, and nothing left behind."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable

import pytest
import torch

from chatwright.engine import FinishEvent, GenerateRequest, PromptEvent, SamplingParams, TokenEvent
from chatwright.engine.blocks import BLOCK_TOKENS
from chatwright.engine.local import LocalEngine
from chatwright.engine.scheduler import Chunk
from chatwright.errors import EngineError, OverloadedError

from .conftest import VOCAB, MakeEngine, greedy_reference, tiny_model

GREEDY = SamplingParams(max_tokens=12, temperature=0.0)


async def run(engine: LocalEngine, request: GenerateRequest) -> tuple[dict[int, list[int]], dict[int, str]]:
    tokens: dict[int, list[int]] = defaultdict(list)
    reasons = {}
    async for event in engine.generate(request):
        if isinstance(event, TokenEvent):
            tokens[event.index].append(event.token_id)
        elif isinstance(event, FinishEvent):
            reasons[event.index] = event.reason
    return tokens, reasons


def prompts(n: int, seed: int = 1) -> list[list[int]]:
    generator = random.Random(seed)
    return [[generator.randrange(VOCAB) for _ in range(generator.randint(1, 60))] for _ in range(n)]


async def idle(engine: LocalEngine) -> None:
    for _ in range(200):
        stats = engine.stats()
        if stats.running == stats.waiting == stats.cached_tokens == stats.blocks_used == 0:
            assert not getattr(engine._runner, "caches", None), "the runner still holds something"
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the engine still holds something: {engine.stats()}")


@pytest.mark.parametrize("window", [None, 7])
async def test_many_at_once_equal_the_plain_model_one_by_one(make_engine: MakeEngine, window: int | None) -> None:
    model = tiny_model(window)
    engine = make_engine(model)
    batch = prompts(24)
    results = await asyncio.gather(
        *(run(engine, GenerateRequest(str(i), prompt, GREEDY)) for i, prompt in enumerate(batch))
    )
    for prompt, (tokens, reasons) in zip(batch, results, strict=True):
        assert tokens[0] == greedy_reference(model, prompt, 12)
        assert reasons == {0: "length"}
    await idle(engine)


async def test_preempted_equals_unpreempted(make_engine: MakeEngine) -> None:
    """A cache far too small for everybody at once: choices are thrown out and computed again, to the same end."""
    model = tiny_model()
    engine = make_engine(model, cache_tokens=100)
    batch = [prompt[:30] for prompt in prompts(8, seed=2)]
    sampling = SamplingParams(max_tokens=40, temperature=0.0)
    scheduled: list[int] = []
    schedule = engine._scheduler.schedule

    def watch() -> object:
        result = schedule()
        scheduled.append(len(result[1]))
        return result

    engine._scheduler.schedule = watch  # type: ignore[method-assign,assignment]
    results = await asyncio.gather(
        *(run(engine, GenerateRequest(str(i), prompt, sampling)) for i, prompt in enumerate(batch))
    )
    assert sum(scheduled) > 0, "nothing was preempted, so this test showed nothing"
    for prompt, (tokens, _) in zip(batch, results, strict=True):
        assert tokens[0] == greedy_reference(model, prompt, 40)
    await idle(engine)


async def test_a_seeded_choice_does_not_depend_on_n_or_load(make_engine: MakeEngine) -> None:
    model = tiny_model()
    engine = make_engine(model)
    prompt = prompts(1)[0]
    sampling = SamplingParams(max_tokens=20, temperature=1.0, top_p=0.9, seed=7)
    alone, _ = await run(engine, GenerateRequest("alone", prompt, sampling))
    noise = [
        asyncio.create_task(run(engine, GenerateRequest(f"noise{i}", p, SamplingParams(max_tokens=30, seed=i))))
        for i, p in enumerate(prompts(8))
    ]
    five, _ = await run(engine, GenerateRequest("five", prompt, sampling, n=5))
    await asyncio.gather(*noise)
    assert five[0] == alone[0]
    assert len({tuple(tokens) for tokens in five.values()}) > 1, "all choices are the same"


async def test_siblings_share_the_prompt_and_still_agree(make_engine: MakeEngine) -> None:
    model = tiny_model()
    engine = make_engine(model, max_batch=3)
    prompt = prompts(1, seed=5)[0] * 3
    tokens, reasons = await run(engine, GenerateRequest("n", prompt, GREEDY, n=10))
    assert set(map(tuple, tokens.values())) == {tuple(greedy_reference(model, prompt, 12))}
    assert reasons == dict.fromkeys(range(10), "length")
    await idle(engine)
    assert engine.stats().reused_tokens == 9 * ((len(prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS)


async def test_scores_are_the_models_log_probabilities(make_engine: MakeEngine) -> None:
    model = tiny_model()
    engine = make_engine(model)
    prompt = prompts(1, seed=3)[0] * 2
    scores = await engine.score(prompt, top=3)
    with torch.inference_mode():
        expected = torch.log_softmax(model(torch.tensor([prompt]))[0].double(), -1)
    assert scores[0] is None
    for position, score in enumerate(scores[1:], start=1):
        assert score is not None
        assert score.logprob == pytest.approx(float(expected[position - 1, prompt[position]]), abs=1e-4)
        assert [i for i, _ in score.top] == expected[position - 1].topk(3).indices.tolist()
    assert len(scores) == len(prompt)


async def test_prompt_scores_come_once_even_when_preempted(make_engine: MakeEngine) -> None:
    engine = make_engine(tiny_model(), cache_tokens=120)
    batch = [prompt[:40] for prompt in prompts(6, seed=9)]

    async def score(number: int, prompt: list[int]) -> int:
        request = GenerateRequest(
            str(number), prompt, SamplingParams(max_tokens=30, temperature=0.0), prompt_logprobs=0
        )
        return sum([len(e.scores) async for e in engine.generate(request) if isinstance(e, PromptEvent)])

    counts = await asyncio.gather(*(score(i, prompt) for i, prompt in enumerate(batch)))
    assert counts == [len(prompt) for prompt in batch]


async def test_hanging_up_frees_everything(make_engine: MakeEngine) -> None:
    engine = make_engine(tiny_model())
    endless = SamplingParams(max_tokens=400, temperature=1.0)

    async def hang_up(number: int) -> None:
        events = engine.generate(GenerateRequest(str(number), prompts(1, number)[0], endless, n=3))
        async for _ in events:
            break
        await events.aclose()

    await asyncio.gather(*(hang_up(i) for i in range(10)))
    await idle(engine)


async def test_one_choice_can_be_ended_while_its_siblings_go_on(make_engine: MakeEngine) -> None:
    engine = make_engine(tiny_model())
    request = GenerateRequest("r", [1, 2, 3], SamplingParams(max_tokens=30, temperature=1.0), n=3)
    reasons = {}
    async for event in engine.generate(request):
        if isinstance(event, TokenEvent):
            engine.abort("r", 1)
        elif isinstance(event, FinishEvent):
            reasons[event.index] = event.reason
    assert reasons == {0: "length", 1: "abort", 2: "length"}


async def test_stop_ids_end_a_choice_and_are_not_reported(make_engine: MakeEngine) -> None:
    model = tiny_model()
    engine = make_engine(model)
    expected = greedy_reference(model, [5, 6, 7], 12)
    stop = expected[6]
    sampling = SamplingParams(max_tokens=12, temperature=0.0, stop_ids=frozenset({stop}))
    tokens, reasons = await run(engine, GenerateRequest("r", [5, 6, 7], sampling))
    assert tokens[0] == expected[: expected.index(stop)]
    assert reasons == {0: "stop"}


async def test_a_full_queue_refuses_and_harms_nobody(make_engine: MakeEngine) -> None:
    engine = make_engine(tiny_model(), max_batch=1, max_queue=1)
    tasks = [asyncio.create_task(run(engine, GenerateRequest(str(i), [1, 2], GREEDY))) for i in range(5)]
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, OverloadedError)]
    assert len(refused) == 3
    assert all(outcome[1] == {0: "length"} for outcome in outcomes if not isinstance(outcome, BaseException))


async def test_a_failing_step_ends_its_requests_and_not_the_engine(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(tiny_model())
    step = engine._runner.step

    def fail(chunks: object) -> object:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine._runner, "step", fail)
    _, reasons = await run(engine, GenerateRequest("bad", [1, 2], GREEDY))
    assert reasons == {0: "error"}
    monkeypatch.setattr(engine._runner, "step", step)
    _, reasons = await run(engine, GenerateRequest("good", [1, 2], GREEDY))
    assert reasons == {0: "length"}
    await idle(engine)


async def test_a_model_that_gives_nan_is_an_error_and_no_hang(make_engine: MakeEngine) -> None:
    model = tiny_model()
    model.norm.weight.data[:] = float("nan")
    _, reasons = await run(make_engine(model), GenerateRequest("r", [1, 2], GREEDY))
    assert reasons == {0: "error"}


async def test_closing_ends_running_requests(make_engine: MakeEngine) -> None:
    engine = make_engine(tiny_model())
    task = asyncio.create_task(
        run(engine, GenerateRequest("r", [1], SamplingParams(max_tokens=500, temperature=1.0, seed=1)))
    )
    while not engine.stats().running:
        await asyncio.sleep(0.001)
    await engine.close()
    _, reasons = await task
    assert reasons == {0: "abort"}
    assert not engine.stats().alive
    with pytest.raises(EngineError):
        await run(engine, GenerateRequest("late", [1], GREEDY))


async def test_embedding_is_the_mean_of_the_hidden_states(make_engine: MakeEngine) -> None:
    model = tiny_model()
    embedding = await make_engine(model).embed([1, 2, 3])
    with torch.inference_mode():
        expected = model.hidden(torch.tensor([[1, 2, 3]]))[0].mean(0)
    assert embedding == pytest.approx(expected.tolist(), abs=1e-5)


async def test_probe_makes_a_round_trip_while_the_engine_works(make_engine: MakeEngine) -> None:
    engine = make_engine(tiny_model())
    task = asyncio.create_task(run(engine, GenerateRequest("r", [1], SamplingParams(max_tokens=100))))
    assert 0 <= await engine.probe() < 30
    await task


async def test_a_failing_step_with_a_shared_prompt_loses_nobody(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts of a failed step are tried one by one; a sibling keeps the prompt of one that ends meanwhile."""
    model = tiny_model()
    engine = make_engine(model)
    step = engine._runner.step
    failures = []

    def fail_once(chunks: list[Chunk]) -> object:
        if not failures and any(chunk.sequence.n_reused for chunk in chunks):
            failures.append(len(chunks))
            raise RuntimeError("out of memory")
        return step(chunks)

    monkeypatch.setattr(engine._runner, "step", fail_once)
    prompt = prompts(1, seed=4)[0][:1] * 40
    sampling = SamplingParams(max_tokens=2, temperature=0.0)
    tokens, reasons = await run(engine, GenerateRequest("r", prompt, sampling, n=3))
    assert failures, "no step with a shared prompt failed, so this test showed nothing"
    assert reasons == dict.fromkeys(range(3), "length")
    assert set(map(tuple, tokens.values())) == {tuple(greedy_reference(model, prompt, 2))}
    await idle(engine)


@pytest.mark.parametrize("window", [None, 7])
async def test_a_beginning_from_the_cache_equals_computing_it(make_engine: MakeEngine, window: int | None) -> None:
    """Tokens and log probabilities after a cache hit, against a fresh engine that has nothing."""
    model = tiny_model(window)
    engine = make_engine(model)
    beginning = prompts(1, seed=11)[0] * 3
    sampling = SamplingParams(max_tokens=20, temperature=0.0, logprobs=3)

    async def scores(engine: LocalEngine, name: str, prompt: list[int]) -> tuple[list[TokenEvent], int]:
        events = [event async for event in engine.generate(GenerateRequest(name, prompt, sampling))]
        finish = events[-1]
        assert isinstance(finish, FinishEvent)
        return [event for event in events if isinstance(event, TokenEvent)], finish.reused_tokens

    await scores(engine, "first", [*beginning, 1])
    for i, end in enumerate(([2], [3, 4, 5], [*range(40)])):
        prompt = beginning + end
        warm, n_reused = await scores(engine, f"warm{i}", prompt)
        cold, n_nothing = await scores(make_engine(model), f"cold{i}", prompt)
        assert n_reused == len(beginning) // BLOCK_TOKENS * BLOCK_TOKENS
        assert n_nothing == 0
        assert (
            [event.token_id for event in warm]
            == [event.token_id for event in cold]
            == greedy_reference(model, prompt, 20)
        )
        for event, expected in zip(warm, cold, strict=True):
            assert event.scores is not None
            assert expected.scores is not None
            assert event.scores.logprob == pytest.approx(expected.scores.logprob, abs=1e-4)


async def test_nothing_crosses_between_owners(make_engine: MakeEngine) -> None:
    """32 users with a secret each behind a shared beginning: none reuses what another left, each gets its own answer."""
    model = tiny_model()
    engine = make_engine(model, cache_tokens=8192)
    shared = prompts(1, seed=12)[0][:20] * 3

    async def ask(user: int, turn: int) -> tuple[list[int], int]:
        request = GenerateRequest(f"{user}.{turn}", [*shared, user, turn], GREEDY, owner=f"user {user}")
        events = [event async for event in engine.generate(request)]
        assert isinstance(events[-1], FinishEvent)
        return [event.token_id for event in events if isinstance(event, TokenEvent)], events[-1].reused_tokens

    for turn, expected_reuse in ((0, 0), (1, len(shared) // BLOCK_TOKENS * BLOCK_TOKENS)):
        results = await asyncio.gather(*(ask(user, turn) for user in range(32)))
        for user, (tokens, n_reused) in enumerate(results):
            assert tokens == greedy_reference(model, [*shared, user, turn], 12)
            assert n_reused == expected_reuse
    await idle(engine)


async def test_200_aborted_streams_leave_no_block_in_use(make_engine: MakeEngine) -> None:
    engine = make_engine(tiny_model(), max_batch=32, cache_tokens=16_384)
    endless = SamplingParams(max_tokens=400, temperature=1.0)

    async def hang_up(number: int) -> None:
        events = engine.generate(GenerateRequest(str(number), prompts(1, number)[0], endless, owner=str(number % 7)))
        n_read = 0
        async for _ in events:
            n_read += 1
            if n_read > number % 5:
                break
        await events.aclose()

    await asyncio.gather(*(hang_up(i) for i in range(200)))
    await asyncio.wait_for(idle(engine), timeout=2)
    assert not engine._places


async def test_a_reader_who_stalls_holds_neither_blocks_nor_a_place(make_engine: MakeEngine) -> None:
    """Generation waits for no reader; when it is over its blocks and its place are free, and the reader finds all events."""
    model = tiny_model()
    engine = make_engine(model, max_batch=2, max_queue=0)
    stalled = [engine.generate(GenerateRequest(f"stalled {i}", [i, 2, 3], GREEDY, n=2)) for i in range(2)]
    first = [await anext(events) for events in stalled]
    await idle(engine)
    for i in range(3):
        tokens, _ = await run(engine, GenerateRequest(f"quick {i}", [4, 5], GREEDY))
        assert len(tokens[0]) == 12
    for i, events in enumerate(stalled):
        rest = [first[i], *[event async for event in events]]
        answers = [[e.token_id for e in rest if isinstance(e, TokenEvent) and e.index == index] for index in range(2)]
        assert answers == [greedy_reference(model, [i, 2, 3], 12)] * 2
        assert len(rest) <= 2 * (GREEDY.max_tokens + 1)


async def test_one_user_can_not_fill_the_queue(make_engine: MakeEngine) -> None:
    engine = make_engine(tiny_model(), max_batch=1, max_queue=8)
    slow = SamplingParams(max_tokens=60, temperature=0.0)
    flood = [
        asyncio.create_task(run(engine, GenerateRequest(f"ann {i}", [1, 2], slow, owner="ann"))) for i in range(20)
    ]
    await asyncio.sleep(0)
    late = [asyncio.create_task(run(engine, GenerateRequest(f"bob {i}", [3], slow, owner="bob"))) for i in range(3)]
    outcomes = await asyncio.gather(*flood, *late, return_exceptions=True)
    refused = [isinstance(outcome, OverloadedError) for outcome in outcomes]
    assert sum(refused[:20]) == 20 - 7, "one running and six of eight places"
    assert sum(refused[20:]) == 1, "two places were kept for others"
    assert not any(
        isinstance(outcome, BaseException) and not isinstance(outcome, OverloadedError) for outcome in outcomes
    )


async def test_what_fits_the_cache_only_alone_is_served_among_others(make_engine: MakeEngine) -> None:
    model = tiny_model()
    engine = make_engine(model, cache_tokens=130)
    assert engine.max_context == 128, "whole blocks"
    longest = SamplingParams(max_tokens=engine.max_context - 60, temperature=0.0)
    batch = [prompt * 60 for prompt in ([1], [2], [3])]
    results = await asyncio.gather(
        *(run(engine, GenerateRequest(str(i), prompt, longest, n=2)) for i, prompt in enumerate(batch))
    )
    for prompt, (tokens, reasons) in zip(batch, results, strict=True):
        assert tokens[0] == tokens[1] == greedy_reference(model, prompt, 68)
        assert reasons == {0: "length", 1: "length"}
    await idle(engine)


async def test_many_texts_to_embed_stop_nobodys_answer(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(tiny_model())
    turns: list[str] = []
    for name in ("embed", "step"):
        function = getattr(engine._runner, name)

        def noting(argument: object, name: str = name, function: Callable[..., object] = function) -> object:
            turns.append(name)
            return function(argument)

        monkeypatch.setattr(engine._runner, name, noting)
    answer = asyncio.create_task(run(engine, GenerateRequest("r", [1], SamplingParams(max_tokens=60, seed=1))))
    vectors = await asyncio.gather(*(engine.embed([i, 2, 3]) for i in range(40)))
    await answer
    assert len({tuple(vector) for vector in vectors}) == 40
    assert "embed embed" not in " ".join(turns[turns.index("step") : len(turns) - turns[::-1].index("step")])
