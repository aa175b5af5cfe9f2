"""One choice of one request on its way through the engine: its tokens, its blocks, and how far the cache has come."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chatwright.engine.blocks import Prefix
from chatwright.engine.protocol import GenerateRequest

if TYPE_CHECKING:
    from chatwright.engine.grammar import Constraint


class Group:
    """The choices of one request. They share a prompt: the first computes it, the others find its blocks."""

    def __init__(self, request: GenerateRequest) -> None:
        self.request = request
        self.sequences = [Sequence(self, index) for index in range(request.n)]

    def prompt_under_way(self) -> bool:
        """Whether a choice is computing the prompt just now; the others wait for it."""
        return any(s.running and s.n_cached < s.n_prompt for s in self.sequences)


class Sequence:
    """Prompt and output tokens of one choice.

    `n_cached` tokens have their keys and values in the cache; the others must still be computed. In decoding, exactly one
    is missing: the token chosen last. Preemption sets it back to 0, and what is not found again is computed again.

    `blocks`: the blocks of the cache that hold its tokens in order, block i those from i x BLOCK_TOKENS on. They cover at least
    the tokens of the chunk that is being computed. Only the scheduler changes them; a block that others share is full, and
    nobody writes into it.
    """

    def __init__(self, group: Group, index: int) -> None:
        self.group = group
        self.index = index
        self.n_prompt = len(group.request.prompt_ids)
        self.token_ids: list[int] = list(group.request.prompt_ids)
        self.output_counts: Counter[int] = Counter()
        self.n_cached = 0
        self.blocks: list[int] = []
        # What the full blocks hold, as far as it was needed; stays right through preemption, since tokens never change.
        self.prefixes: list[Prefix] = []
        self.n_kept = 0  # how many of `blocks` were handed to the prefix cache or came from it
        self.prompt_step = -1  # the scheduler's step in which a part of its prompt was computed last
        # Prompt tokens that were found in the cache when the choice first started.
        self.n_reused: int | None = None
        # Prompt positions whose scores were already reported; a preempted prompt is not reported twice.
        self.n_scored = 0
        self.running = False
        self.finished = False
        # What the answer must look like; it has seen every token in `output_counts`, whatever preemption does to the cache.
        self.constraint: Constraint | None = None

    @property
    def n_output(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.n_prompt

    @property
    def wants_prompt_scores(self) -> bool:
        """Only the first choice reports the scores of the shared prompt."""
        return self.index == 0 and self.group.request.prompt_logprobs is not None

    def append(self, token_id: int) -> None:
        """Add a generated token; it is not in the cache yet."""
        self.token_ids.append(token_id)
        self.output_counts[token_id] += 1
