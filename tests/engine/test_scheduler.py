"""The scheduler's promises, whatever arrives, ends or is aborted when: plain Python, so that any order of events can be tried."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from chatwright.engine.protocol import GenerateRequest, SamplingParams
from chatwright.engine.scheduler import Scheduler
from chatwright.engine.sequence import Group, Sequence

MAX_BATCH, MAX_STEP, CACHE = 4, 8, 40
# (tokens of the prompt, choices, tokens of the answer, whether the prompt is scored); each fits into the cache alone.
REQUESTS = st.tuples(st.integers(1, 20), st.integers(1, 4), st.integers(1, 15), st.booleans())
EVENTS = st.lists(st.one_of(REQUESTS, st.integers(0, 30)), max_size=40)


class Simulation:
    """Does with the scheduler what the engine does, without a model, and checks every step."""

    def __init__(self) -> None:
        self.scheduler = Scheduler(max_batch=MAX_BATCH, max_step_tokens=MAX_STEP, cache_tokens=CACHE)
        self.living: list[Sequence] = []
        self.n_answer: dict[Sequence, int] = {}

    def add(self, n_prompt: int, n: int, n_answer: int, scored: bool) -> None:
        group = Group(GenerateRequest("r", [7] * n_prompt, SamplingParams(), n, 0 if scored else None))
        self.scheduler.add(group)
        self.living += group.sequences
        self.n_answer |= dict.fromkeys(group.sequences, n_answer)

    def end(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        self.living.remove(sequence)

    def step(self) -> None:
        scheduler = self.scheduler
        decoding = [s for s in scheduler.running if len(s.token_ids) - s.n_cached == 1]
        chunks, preempted = scheduler.schedule()
        assert chunks, "there is work, but nothing is done"
        assert len(scheduler.running) <= MAX_BATCH
        assert scheduler.cached_tokens() <= CACHE or len(scheduler.running) == 1
        assert not set(scheduler.running) & set(scheduler.waiting)
        assert {*scheduler.running, *scheduler.waiting} == set(self.living), "a choice was lost"
        taken = [chunk.sequence for chunk in chunks]
        assert len(taken) == len(set(taken))
        assert all(s in taken for s in decoding if s not in preempted), "a prompt stopped somebody's answer"
        assert sum(chunk.end - chunk.start for chunk in chunks) <= MAX_STEP + len(decoding)
        for chunk in chunks:
            sequence = chunk.sequence
            assert sequence.running
            assert 0 <= chunk.start < chunk.end <= len(sequence.token_ids)
            if chunk.lender is None:
                assert chunk.start == sequence.n_cached
            else:
                assert chunk.lender.group is sequence.group
                assert chunk.lender.n_cached >= sequence.n_prompt > chunk.n_copied == chunk.start
                assert not (sequence.wants_prompt_scores and sequence.n_scored < sequence.n_prompt)
        for chunk in chunks:
            scheduler.advance(chunk)
            if chunk.sequence.wants_prompt_scores:
                chunk.sequence.n_scored = max(chunk.sequence.n_scored, min(chunk.end + 1, chunk.sequence.n_prompt))
            if chunk.reaches_end:
                chunk.sequence.append(7)
                if chunk.sequence.n_output >= self.n_answer[chunk.sequence]:
                    self.end(chunk.sequence)


@settings(max_examples=200, deadline=None)
@given(EVENTS)
def test_everybody_is_served_within_the_limits(events: list[tuple[int, int, int, bool] | int]) -> None:
    simulation = Simulation()
    for event in events:
        if isinstance(event, tuple):
            simulation.add(*event)
        elif simulation.living:
            # Somebody hangs up, then a step.
            if event < len(simulation.living):
                simulation.end(simulation.living[event])
            if simulation.scheduler.has_work():
                simulation.step()
    for _ in range(20_000):
        if not simulation.scheduler.has_work():
            break
        simulation.step()
    assert not simulation.living, "somebody waits for ever"
    assert not simulation.scheduler.has_work()
