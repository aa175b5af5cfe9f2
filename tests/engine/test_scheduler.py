"""The scheduler's promises, whatever arrives, ends or is aborted when: plain Python, so that any order of events can be tried.

The model is a fake one that reads what the blocks hold: its next token is a hash of every token id that its blocks say came before,
so a wrong, overwritten or foreign block changes the answer.
"""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwright.engine.blocks import BLOCK_TOKENS, blocks_for
from chatwright.engine.protocol import BACKGROUND, GenerateRequest, SamplingParams
from chatwright.engine.scheduler import MOST_STILL, Chunk, Scheduler
from chatwright.engine.sequence import Group, Sequence

MAX_BATCH, MAX_STEP, CACHE = 4, 24, 160
BATCH = BACKGROUND + "batch"
OWNERS = ["ann", "bob", "eve", BATCH]


class FakeModel:
    """Keys and values are the token ids and their owner."""

    def __init__(self, n_blocks: int) -> None:
        self.slots: list[list[tuple[int, str] | None]] = [[None] * BLOCK_TOKENS for _ in range(n_blocks)]
        self.n_computed = 0

    def step(self, chunk: Chunk) -> int:
        """Compute a chunk; the next token, if it reaches the end."""
        sequence = chunk.sequence
        owner = sequence.group.request.owner
        for i in range(chunk.start, chunk.end):
            self.slots[sequence.blocks[i // BLOCK_TOKENS]][i % BLOCK_TOKENS] = (sequence.token_ids[i], owner)
        self.n_computed += chunk.end - chunk.start
        read = [self.slots[sequence.blocks[i // BLOCK_TOKENS]][i % BLOCK_TOKENS] for i in range(chunk.end)]
        assert all(slot is not None and slot[1] == owner for slot in read), "a block of somebody else was read"
        return next_token([slot[0] for slot in read if slot is not None], sequence.index)


def next_token(ids: list[int], index: int) -> int:
    """What the fake model says after `ids`; choices differ."""
    return hash((tuple(ids), index)) % 5


def expected_answer(prompt: list[int], index: int, n: int) -> list[int]:
    ids = list(prompt)
    for _ in range(n):
        ids.append(next_token(ids, index))
    return ids[len(prompt) :]


class Simulation:
    """Does with the scheduler what the engine does, with the fake model, and checks every step."""

    def __init__(self, *, cache_tokens: int = CACHE, prefix_cache: bool = True, max_batch: int = MAX_BATCH) -> None:
        self.scheduler = Scheduler(
            max_batch=max_batch, max_step_tokens=MAX_STEP, cache_tokens=cache_tokens, prefix_cache=prefix_cache
        )
        self.model = FakeModel(self.scheduler.pool.n_blocks)
        self.living: list[Sequence] = []
        self.n_answer: dict[Sequence, int] = {}
        self.finished: list[Sequence] = []
        self.n_still = 0

    def add(
        self, prompt: list[int], *, n: int = 1, n_answer: int = 1, scored: bool = False, owner: str = ""
    ) -> list[Sequence]:
        group = Group(GenerateRequest("r", prompt, SamplingParams(), n, 0 if scored else None, owner))
        self.scheduler.add(group)
        self.living += group.sequences
        self.n_answer |= dict.fromkeys(group.sequences, n_answer)
        return group.sequences

    def end(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        self.living.remove(sequence)
        assert not sequence.blocks

    def check_blocks(self) -> None:
        """Every block is in use, idle or free, and counted once for each that refers to it."""
        pool = self.scheduler.pool
        references = Counter(block for s in self.living for block in s.blocks)
        assert [references[block] for block in range(pool.n_blocks)] == pool._references
        in_use = {block for block, n in enumerate(pool._references) if n}
        free, idle = set(pool._free), set(pool._idle)
        assert len(pool._free) == len(free)
        assert not in_use & free | in_use & idle | free & idle
        assert in_use | free | idle == set(range(pool.n_blocks))
        kept = {block for block, prefix in enumerate(pool._prefixes) if prefix}
        assert kept == set(pool._block_of.values())
        assert len(kept) == len(pool._block_of)
        assert idle <= kept
        assert not free & kept

    def step(self) -> list[Chunk]:
        scheduler = self.scheduler
        decoding = [s for s in scheduler.running if len(s.token_ids) - s.n_cached == 1]
        resting = {s for s in decoding if s.group.request.owner == BATCH}
        chunks, preempted = scheduler.schedule()
        assert chunks, "there is work, but nothing is done"
        assert len(scheduler.running) <= scheduler.max_batch
        assert not set(scheduler.running) & set(scheduler.waiting)
        assert {*scheduler.running, *scheduler.waiting} == set(self.living), "a choice was lost"
        assert len(scheduler.waiting) == len(list(scheduler.waiting))
        self.check_blocks()
        taken = [chunk.sequence for chunk in chunks]
        assert len(taken) == len(set(taken))
        stopped = {s for s in decoding if s not in preempted and s not in taken}
        assert stopped <= resting, "a prompt stopped somebody's answer"
        self.n_still = self.n_still + 1 if stopped else 0
        assert self.n_still <= MOST_STILL, "the background never comes forward"
        assert sum(chunk.end - chunk.start for chunk in chunks) <= MAX_STEP + len(decoding)
        written: set[tuple[int, int]] = set()
        for chunk in chunks:
            sequence = chunk.sequence
            assert sequence.running
            assert 0 <= chunk.start == sequence.n_cached < chunk.end <= len(sequence.token_ids)
            assert len(sequence.blocks) == blocks_for(chunk.end)
            for i in range(chunk.start, chunk.end):
                block = sequence.blocks[i // BLOCK_TOKENS]
                assert scheduler.pool._references[block] == 1
                assert scheduler.pool._prefixes[block] is None, "what others may find is written over"
                written.add((block, i % BLOCK_TOKENS))
            if sequence.wants_prompt_scores and chunk.start < sequence.n_prompt and not sequence.n_scored:
                assert chunk.start == 0, "a prompt to be scored was not computed in full"
        assert len(written) == sum(chunk.end - chunk.start for chunk in chunks), "two write to the same place"
        for chunk in chunks:
            token = self.model.step(chunk)
            scheduler.advance(chunk)
            sequence = chunk.sequence
            if sequence.wants_prompt_scores:
                sequence.n_scored = max(sequence.n_scored, min(chunk.end + 1, sequence.n_prompt))
            if chunk.reaches_end:
                sequence.append(token)
                if sequence.n_output >= self.n_answer[sequence]:
                    self.finished.append(sequence)
                    self.end(sequence)
        self.check_blocks()
        return chunks

    def run(self, max_steps: int = 20_000) -> None:
        for _ in range(max_steps):
            if not self.scheduler.has_work():
                break
            self.step()
        assert not self.living, "somebody waits for ever"
        assert self.scheduler.pool.n_used == 0, "a block is still in use"

    def check_answers(self) -> None:
        for sequence in self.finished:
            prompt = list(sequence.group.request.prompt_ids)
            assert sequence.token_ids[len(prompt) :] == expected_answer(prompt, sequence.index, self.n_answer[sequence])


# (which beginning, tokens of it, tokens of one's own, choices, tokens of the answer, scored, owner); each fits the cache alone.
REQUESTS = st.tuples(
    st.integers(0, 2),
    st.integers(0, 70),
    st.integers(1, 20),
    st.integers(1, 4),
    st.integers(1, 60),
    st.booleans(),
    st.sampled_from(OWNERS),
)
EVENTS = st.lists(st.one_of(REQUESTS, st.integers(0, 30)), max_size=40)
Event = tuple[int, int, int, int, int, bool, str] | int


@pytest.mark.parametrize("prefix_cache", [True, False])
@settings(max_examples=150, deadline=None)
@given(events=EVENTS)
def test_everybody_is_served_rightly_within_the_limits(prefix_cache: bool, events: list[Event]) -> None:
    """Any interleaving of arrivals, ends, aborts and preemptions: no block is lost, freed twice, written over or read by another
    owner, nobody starves, and every answer is what a model that computes all by itself gives."""
    simulation = Simulation(prefix_cache=prefix_cache)
    for event in events:
        if isinstance(event, tuple):
            beginning, n_shared, n_own, n, n_answer, scored, owner = event
            prompt = [beginning * 7 + i % 5 for i in range(n_shared)] + [i % 3 for i in range(n_own)]
            simulation.add(prompt, n=n, n_answer=n_answer, scored=scored, owner=owner)
        elif simulation.living:
            # Somebody hangs up, then a step.
            if event < len(simulation.living):
                simulation.end(simulation.living[event])
            if simulation.scheduler.has_work():
                simulation.step()
    simulation.run()
    simulation.check_answers()
    if not prefix_cache:
        assert simulation.scheduler.n_reused_tokens == simulation.scheduler.pool.n_idle == 0


def test_a_batch_stands_still_while_a_prompt_of_others_is_computed() -> None:
    """And comes forward by one token now and then, and with all of its own when nobody's prompt is left."""
    simulation = Simulation(cache_tokens=1600)
    batch = [*simulation.add([1, 2, 3], n_answer=60, owner=BATCH), *simulation.add([4, 5], n_answer=60, owner=BATCH)]
    for _ in range(3):
        simulation.step()
    before = [len(sequence.token_ids) for sequence in batch]
    [chat] = simulation.add(list(range(MAX_STEP * (MOST_STILL + 3))), n_answer=5, owner="ann")
    steps = 0
    while not chat.n_output:
        simulation.step()
        steps += 1
    assert steps <= MOST_STILL + 4, "the prompt had nearly all of each step to itself"
    assert [len(sequence.token_ids) for sequence in batch] == [n + 1 for n in before]
    simulation.step()
    assert [len(sequence.token_ids) for sequence in batch] == [n + 2 for n in before], "beside answers it goes on"
    simulation.run()
    simulation.check_answers()


def test_a_batch_that_fills_the_cache_does_not_stop_those_who_wait_for_room() -> None:
    simulation = Simulation(cache_tokens=128, max_batch=2)
    for number in range(2):
        simulation.add([number, *range(30)], n_answer=30, owner=BATCH)
    for _ in range(4):
        simulation.step()
    simulation.add([7, *range(40)], n_answer=30, owner="ann")
    simulation.run()
    simulation.check_answers()


def test_preempted_equals_unpreempted() -> None:
    prompts = [[i, *range(25)] for i in range(8)]
    tight = Simulation(cache_tokens=128)
    for prompt in prompts:
        tight.add(prompt, n_answer=80)
    tight.run()
    assert tight.scheduler.n_preempted > 0
    tight.check_answers()
    assert len(tight.finished) == 8


def test_a_beginning_is_computed_once() -> None:
    simulation = Simulation(cache_tokens=1600)
    prompt = list(range(100))
    simulation.add([*prompt, 1], n_answer=3)
    simulation.run()
    computed = simulation.model.n_computed
    [second] = simulation.add([*prompt, 2], n_answer=3)
    simulation.run()
    assert second.n_reused == 96
    assert simulation.model.n_computed - computed == 101 - 96 + 2
    simulation.check_answers()


def test_an_answer_is_part_of_the_beginning_of_the_next_turn() -> None:
    simulation = Simulation(cache_tokens=1600)
    [first] = simulation.add(list(range(40)), n_answer=40)
    simulation.run()
    [second] = simulation.add([*first.token_ids, 5, 6, 7], n_answer=3)
    simulation.run()
    # the last token of the answer was never fed to the model
    assert second.n_reused == 79 // BLOCK_TOKENS * BLOCK_TOKENS
    simulation.check_answers()


@pytest.mark.parametrize("n_prompt", [1, 15, 16, 17, 32, 33, 100])
def test_the_last_token_of_a_prompt_is_always_computed(n_prompt: int) -> None:
    simulation = Simulation(cache_tokens=1600)
    for _ in range(2):
        [choice] = simulation.add(list(range(n_prompt)), n_answer=2)
        simulation.run()
    assert choice.n_reused == (n_prompt - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    simulation.check_answers()


def test_choices_share_their_prompt() -> None:
    simulation = Simulation(cache_tokens=1600, max_batch=8)
    choices = simulation.add(list(range(64)), n=8, n_answer=4)
    simulation.run()
    assert [choice.n_reused for choice in choices] == [0] + [48] * 7
    simulation.check_answers()


def test_owners_and_adapters_share_nothing() -> None:
    """The same prompt of another owner, or for another adapter, takes exactly as many steps as the first time."""
    simulation = Simulation(cache_tokens=1600)
    prompt = list(range(100))
    for owner, adapter in [("ann", None), ("bob", None), ("ann", "lora"), ("ann', None, 'x", None)]:
        group = Group(GenerateRequest("r", prompt, SamplingParams(), owner=owner, adapter=adapter))
        simulation.scheduler.add(group)
        simulation.living += group.sequences
        simulation.n_answer[group.sequences[0]] = 1
        simulation.run()
        assert group.sequences[0].n_reused == 0


def test_what_was_used_longest_ago_goes_first() -> None:
    simulation = Simulation(cache_tokens=10 * BLOCK_TOKENS)
    old, new = [1] * 49, [2] * 49
    for prompt in (old, new, old):
        [choice] = simulation.add(prompt)
        simulation.run()
    assert choice.n_reused == 48
    simulation.add([3] * 65)  # five blocks: the four that are free, and one of those used longest ago
    simulation.run()
    for prompt, n_reused in ((old, 48), (new, 32)):
        [choice] = simulation.add(prompt)
        simulation.run()
        assert choice.n_reused == n_reused


def test_what_was_spoilt_is_not_found() -> None:
    simulation = Simulation(cache_tokens=1600)
    [choice] = simulation.add([4] * 50, n_answer=10)
    for _ in range(5):
        simulation.step()
    simulation.scheduler.remove(choice, spoilt=True)
    simulation.living.remove(choice)
    [second] = simulation.add([4] * 50)
    simulation.run()
    assert second.n_reused == 0


def test_owners_take_turns() -> None:
    """Who sends a hundred requests at once delays another's single one by what runs already, not by the hundred."""
    simulation = Simulation(cache_tokens=1600, max_batch=2)
    flood = [simulation.add([i], n_answer=3, owner="ann")[0] for i in range(100)]
    for _ in range(4):
        simulation.step()
    [single] = simulation.add([1, 2, 3], n_answer=3, owner="bob")
    n_before = len(simulation.finished)
    while single in simulation.living:
        simulation.step()
    assert len(simulation.finished) - n_before <= 5
    simulation.run()
    assert [s for s in simulation.finished if s in flood] == flood, "an owner's requests are served in their order"


def test_a_turn_is_remembered_while_nothing_waits() -> None:
    """Whose first request found everything free has had a turn: those that came behind it wait for another's first."""
    simulation = Simulation(cache_tokens=1600, max_batch=1)
    [running] = simulation.add([0], n_answer=50, owner="ann")
    simulation.step()
    more = [simulation.add([i], n_answer=3, owner="ann")[0] for i in range(1, 4)]
    [single] = simulation.add([1, 2, 3], n_answer=3, owner="bob")
    simulation.step()
    simulation.end(running)
    while single in simulation.living:
        simulation.step()
    assert not [s for s in simulation.finished if s in more]
    simulation.run()
    assert [s for s in simulation.finished if s in more] == more


def test_owners_nobody_has_seen_before_do_not_overtake_for_ever() -> None:
    """Owners may be names that clients make up."""
    simulation = Simulation(cache_tokens=1600, max_batch=1)
    simulation.add([0], n_answer=3, owner="ann")
    simulation.step()
    [second] = simulation.add([1], n_answer=3, owner="ann")
    n = 0
    while second in simulation.living and n < 1000:
        simulation.add([2, n], n_answer=1, owner=f"stranger {n}")
        simulation.step()
        n += 1
    assert n < 100


def test_aborted_streams_leave_no_block_in_use() -> None:
    simulation = Simulation(cache_tokens=3200, max_batch=32)
    generator = random.Random(1)
    for i in range(200):
        choices = simulation.add(
            [generator.randrange(3) for _ in range(generator.randint(1, 100))], n=2, n_answer=50, owner=OWNERS[i % 3]
        )
        for _ in range(generator.randint(0, 3)):
            simulation.step()
        for choice in choices:
            if choice in simulation.living:
                simulation.end(choice)
    for choice in list(simulation.living):
        simulation.end(choice)
    assert simulation.scheduler.pool.n_used == 0
    assert not simulation.scheduler.has_work()


def test_a_long_prompt_stops_nobody() -> None:
    """Those who decode get a token in every step; `Simulation.step` checks it. The prompt comes forward all the while."""
    simulation = Simulation(cache_tokens=16_000)
    for i in range(3):
        simulation.add([i], n_answer=200)
    simulation.step()
    [long] = simulation.add(list(range(4000)))
    progress = [0]
    while long in simulation.living:
        simulation.step()
        progress.append(long.n_cached)
    assert all(after > before for before, after in pairwise(progress[:-1]))
    simulation.run()
    simulation.check_answers()


def test_a_short_prompt_does_not_wait_for_a_long_one_of_another_owner() -> None:
    simulation = Simulation(cache_tokens=32_000, max_batch=8)
    long = [simulation.add([i] * 4000, owner=owner)[0] for i, owner in enumerate(["ann", "ann", "bob"])]
    for _ in range(10):
        simulation.step()
    assert long[0].n_cached + long[2].n_cached >= 9 * MAX_STEP
    assert abs(long[0].n_cached - long[2].n_cached) <= 2 * MAX_STEP, "two owners share the steps"
    assert long[1].n_cached == 0, "of one owner the first is computed first"
    [short] = simulation.add([7] * 20, n_answer=5, owner="eve")
    for _ in range(5):
        simulation.step()
    assert short not in simulation.living
    assert set(long) <= set(simulation.living)
    simulation.run()
    simulation.check_answers()


def test_who_was_interrupted_goes_on_before_those_who_have_not_started() -> None:
    simulation = Simulation(cache_tokens=128)
    choices = [simulation.add([i, *range(20)], n_answer=90, owner=OWNERS[i % 3])[0] for i in range(4)]
    while simulation.scheduler.n_preempted < 2:
        simulation.step()
    [late] = simulation.add([9], n_answer=1, owner="late")
    while late in simulation.living:
        simulation.step()
    assert not set(choices) & set(simulation.scheduler.waiting), "a newcomer started before one that was interrupted"
    simulation.run()
    assert [s for s in simulation.finished if s is not late] == choices, "who came first goes on first"
