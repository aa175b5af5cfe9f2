"""Which tokens the next step computes: continuous batching with chunked prefill, preemption, and a bounded cache.

Plain Python, no torch. Each step takes one token of every choice that is decoding and fills up with chunks of prompts, so
that a long prompt never stops the others. When the cache is full, the choice that came last gives its place back and is
computed again later.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from chatwright.engine.sequence import Group, Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """Compute tokens `start`..`end` of a sequence. Before that, `n_copied` cached tokens come from `lender`, if any."""

    sequence: Sequence
    start: int
    end: int
    lender: Sequence | None = None
    n_copied: int = 0

    @property
    def reaches_end(self) -> bool:
        """Whether the last token's logits choose the next one."""
        return self.end == len(self.sequence.token_ids)


class Scheduler:
    """`waiting` and `running` choices, and how many tokens the cache may hold."""

    def __init__(self, *, max_batch: int, max_step_tokens: int, cache_tokens: int) -> None:
        self.max_batch = max_batch
        self.max_step_tokens = max_step_tokens
        self.cache_tokens = cache_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, group: Group) -> None:
        """Queue all choices of a request."""
        self.waiting.extend(group.sequences)

    def has_work(self) -> bool:
        """Whether `schedule` would return anything."""
        return bool(self.waiting or self.running)

    def cached_tokens(self) -> int:
        """Places of the cache that running choices hold or are about to fill."""
        return sum(len(s.token_ids) for s in self.running)

    def schedule(self) -> tuple[list[Chunk], list[Sequence]]:
        """The chunks of the next step, and the choices whose cache must be dropped first."""
        preempted = self._preempt()
        chunks = []
        budget = self.max_step_tokens
        for sequence in self.running:
            n_missing = len(sequence.token_ids) - sequence.n_cached
            # Decoding always goes on; only prompts queue for what is left of the budget.
            n_tokens = 1 if n_missing == 1 else min(n_missing, budget)
            if n_tokens:
                chunks.append(Chunk(sequence, sequence.n_cached, sequence.n_cached + n_tokens))
                budget = max(0, budget - n_tokens)
        for sequence in list(self.waiting):
            if not budget or not self._has_place(sequence):
                break
            if sequence.group.prompt_under_way():
                continue  # a sibling is just computing the same prompt, and will lend it
            chunk = self._admit(sequence, budget)
            chunks.append(chunk)
            budget = max(0, budget - (chunk.end - chunk.start))
        return chunks, preempted

    def advance(self, chunk: Chunk) -> None:
        """The chunk was computed."""
        chunk.sequence.n_cached = chunk.end

    def remove(self, sequence: Sequence) -> None:
        """The choice is over, for whatever reason."""
        sequence.finished = True
        sequence.n_cached = 0
        if sequence.running:
            sequence.running = False
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)

    def _preempt(self) -> list[Sequence]:
        """Send back the choices that came last until the others fit. One alone always fits: longer ones are refused early."""
        preempted = []
        while self.cached_tokens() > self.cache_tokens and len(self.running) > 1:
            sequence = self.running.pop()
            sequence.running = False
            sequence.n_cached = 0
            self.waiting.appendleft(sequence)
            preempted.append(sequence)
        return preempted

    def _has_place(self, sequence: Sequence) -> bool:
        """Whether a waiting choice may start. One free token is left to each, lest the next step preempt it again."""
        n_needed = self.cached_tokens() + len(sequence.token_ids) + len(self.running) + 1
        return len(self.running) < self.max_batch and (not self.running or n_needed <= self.cache_tokens)

    def _admit(self, sequence: Sequence, budget: int) -> Chunk:
        """Start a waiting choice, with the prompt of a sibling where one has it."""
        self.waiting.remove(sequence)
        sequence.running = True
        self.running.append(sequence)
        # A prompt to be scored must be computed: the scores are not kept.
        scored = not sequence.wants_prompt_scores or sequence.n_scored >= sequence.n_prompt
        lender = sequence.group.lender() if scored else None
        # The last prompt token is computed again: its logits are needed, and they are not kept either.
        n_copied = sequence.n_prompt - 1 if lender else 0
        end = min(len(sequence.token_ids), n_copied + budget)
        return Chunk(sequence, n_copied, end, lender, n_copied)
