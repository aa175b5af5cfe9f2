"""A long prompt beside answers under way: no step much longer than without it, on machines of any pace, and no idling."""

from __future__ import annotations

import random
from dataclasses import dataclass
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwright.engine.pacing import MIN_TOKENS, Pacer
from chatwright.engine.protocol import GenerateRequest, SamplingParams
from chatwright.engine.scheduler import Scheduler
from chatwright.engine.sequence import Group


@dataclass
class Machine:
    """Times of a step: `first_s` for one answer, `next_s` for each more, `token_s` for a prompt token; `noise` of it at random."""

    first_s: float
    next_s: float
    token_s: float
    noise: float = 0.0

    def step_s(self, n_decoding: int, n_prompt: int, generator: random.Random) -> float:
        decode_s = self.first_s + self.next_s * (n_decoding - 1) if n_decoding else 0.3 * self.first_s
        return (decode_s + self.token_s * n_prompt) * (1 + self.noise * generator.random())


MACHINES = {
    "int4, two cores": Machine(0.0026, 0.0006, 0.0004, 0.1),
    "int8, two cores": Machine(0.004, 0.0005, 0.00035, 0.1),
    "fp32, two cores": Machine(0.042, 0.005, 0.0022, 0.1),
    "a GPU": Machine(0.005, 0.00001, 0.00002, 0.1),
}


def serve(machine: Machine, n_answers: int, prompts: list[int], slower: float = 1.0) -> tuple[list[float], int, int]:
    """Answers under way, then prompts one after the other, from where on all takes `slower` times as long: times of all steps, how
    many prompt tokens were computed, and the number of the step where the prompts come."""
    generator = random.Random(1)
    scheduler = Scheduler(max_batch=64, max_step_tokens=256, cache_tokens=100_000, pacer=Pacer(max_tokens=256))
    for i in range(n_answers):
        scheduler.add(Group(GenerateRequest(str(i), [i] * 40, SamplingParams())))
    times: list[float] = []
    n_prompt_tokens = n_quiet = 0
    while True:
        if len(times) >= 200 and not n_quiet:
            n_quiet = len(times)
            for number, n_tokens in enumerate(prompts):
                scheduler.add(Group(GenerateRequest(f"p{number}", [100 + number] * n_tokens, SamplingParams())))
        chunks, _ = scheduler.schedule()
        n_decoding = sum(chunk.end - chunk.start == 1 for chunk in chunks)
        n_tokens = sum(chunk.end - chunk.start for chunk in chunks) - n_decoding
        seconds = machine.step_s(n_decoding, n_tokens, generator) * (slower if n_quiet else 1.0)
        scheduler.observe(chunks, seconds)
        for chunk in chunks:
            scheduler.advance(chunk)
            if chunk.reaches_end:
                chunk.sequence.append(7)
                if chunk.sequence.group.request.id.startswith("p"):
                    scheduler.remove(chunk.sequence)
        times.append(seconds)
        if n_quiet:
            n_prompt_tokens += n_tokens
            if len(scheduler.running) == n_answers and not len(scheduler.waiting):
                return times, n_prompt_tokens, n_quiet


@pytest.mark.parametrize("slower", [0.4, 2.5])
@pytest.mark.parametrize("name", [name for name in MACHINES if "cores" in name])
def test_the_pace_is_followed_when_the_machine_gets_other_work(name: str, slower: float) -> None:
    machine = MACHINES[name]
    times, n_tokens, n_quiet = serve(machine, 8, [8000], slower)
    usual = slower * (machine.first_s + 7 * machine.next_s) * 1.05
    assert max(times[n_quiet + len(times) // 4 :]) <= 3 * usual
    assert n_tokens * machine.token_s * slower >= 0.3 * sum(times[n_quiet:])


@pytest.mark.parametrize("n_answers", [1, 4, 16, 32])
@pytest.mark.parametrize("name", MACHINES)
def test_a_long_prompt_delays_nobodys_token_beyond_three_times_the_median(name: str, n_answers: int) -> None:
    machine = MACHINES[name]
    times, n_tokens, n_quiet = serve(machine, n_answers, [4000])
    usual = median(times[n_quiet - 100 : n_quiet])
    # Where one answer is as quick as MIN_TOKENS of a prompt, the least chunk is what it is.
    least = machine.step_s(n_answers, MIN_TOKENS, random.Random(0)) * 1.1
    assert max(times[n_quiet:]) <= max(3 * usual, least)
    assert n_tokens >= 3999  # a last chunk of one token looks like an answer's
    # And it is used: a third of the time goes to the prompt, but for the steps without it.
    assert n_tokens * machine.token_s >= 0.3 * sum(times[n_quiet:]) or n_tokens / len(times[n_quiet:]) > 200


def test_alone_a_prompt_gets_full_steps() -> None:
    pacer = Pacer(max_tokens=256)
    assert pacer.budget(0) == 256
    pacer.observe(0, 256, 0.1)
    assert pacer.budget(0) == 256


def test_a_hiccup_of_the_machine_changes_little() -> None:
    pacer = Pacer(max_tokens=256)
    pacer.observe(0, 256, 0.256)
    for _ in range(10):
        pacer.observe(8, 0, 0.03)
    before = pacer.budget(8)
    pacer.observe(8, before, 5.0)
    pacer.observe(8, 0, 5.0)
    assert before / 2 <= pacer.budget(8) <= 2 * before


MEASUREMENTS = st.tuples(st.integers(0, 40), st.integers(0, 300), st.floats(0, 100))


@settings(max_examples=200, deadline=None)
@given(st.lists(MEASUREMENTS, max_size=50), st.integers(0, 64))
def test_whatever_was_measured_a_prompt_comes_forward(measurements: list[tuple[int, int, float]], n: int) -> None:
    pacer = Pacer(max_tokens=256)
    for n_decoding, n_prompt, seconds in measurements:
        if n_decoding or n_prompt:
            pacer.observe(n_decoding, n_prompt, seconds)
    for _ in range(3):
        budget = pacer.budget(n)
        if budget:
            break
        pacer.observe(n, 0, 0.01)
    assert MIN_TOKENS <= budget <= 256
