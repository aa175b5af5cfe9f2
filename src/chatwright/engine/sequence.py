"""One choice of one request on its way through the engine: its tokens, and how far the cache has come."""

from __future__ import annotations

from collections import Counter

from chatwright.engine.protocol import GenerateRequest


class Group:
    """The choices of one request. They share a prompt, so the first that has it in the cache lends it to the others."""

    def __init__(self, request: GenerateRequest) -> None:
        self.request = request
        self.sequences = [Sequence(self, index) for index in range(request.n)]

    def lender(self) -> Sequence | None:
        """A choice whose cache holds the whole prompt."""
        return next((s for s in self.sequences if s.n_cached >= s.n_prompt), None)

    def prompt_under_way(self) -> bool:
        """Whether a choice is computing the prompt just now; the others wait for it."""
        return any(s.running and s.n_cached < s.n_prompt for s in self.sequences)


class Sequence:
    """Prompt and output tokens of one choice.

    `n_cached` tokens have their keys and values in the cache; the others must still be computed. In decoding, exactly one
    is missing: the token chosen last. Preemption sets it back to 0, and everything is computed again.
    """

    def __init__(self, group: Group, index: int) -> None:
        self.group = group
        self.index = index
        self.n_prompt = len(group.request.prompt_ids)
        self.token_ids: list[int] = list(group.request.prompt_ids)
        self.output_counts: Counter[int] = Counter()
        self.n_cached = 0
        # Prompt positions whose scores were already reported; a preempted prompt is not reported twice.
        self.n_scored = 0
        self.running = False
        self.finished = False

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
