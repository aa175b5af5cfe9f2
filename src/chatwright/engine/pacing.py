"""How many prompt tokens a step may compute beside answers under way, so that nobody's answer stutters.

A step's time is about what its answers alone would take, plus so much a prompt token. Both depend on model, precision, machine and
load, from 2 ms and 0.3 ms to 50 ms and 2 ms for the same model, so they are measured as the engine runs, and prompts get what
keeps the step below `max_slowdown` times that of the answers alone. The rest of the prompt comes in the next steps.
"""

from __future__ import annotations

from bisect import bisect_right, insort

# Until both times are known: on two machines 8 tokens made the step of one answer 1.75 times as long, 16 2.6 times.
FIRST_TOKENS = 8
# However slow it looks, a prompt comes forward. So few tokens cost little more than the weights, read once for all; but deep in
# a long prompt attention costs more than they do: there 4 tokens took two steps of one answer (int4, one thread, 4,000 tokens).
MIN_TOKENS = 2
# After so many steps with prompts one goes without, a few percent of the time: what answers alone take changes with the machine's
# other work and with their length, and must stay known.
STEPS_TO_QUIET = 12
# Shorter chunks are mostly the fixed cost of a step: they say little about the cost of a token.
TELLING_TOKENS = 16
# Weight of a new measurement, and how far one may lie above what is expected: a hiccup of the machine is not the model's pace. What
# answers alone take rises more slowly: who believes a hiccup there makes the next dozen steps longer, the longest of them too. A
# hiccup in a prompt's pace makes them shorter.
WEIGHT = 0.3
MAX_SURPRISE = 3.0
MAX_DECODE_SURPRISE = 1.5
# A chunk beside answers takes at least this share of its step: the measured difference of two noisy times can be nothing.
MIN_SHARE = 0.25
# Clocks that tick slowly call short times 0.
CLOCK_S = 1e-6


class Pacer:
    """The measured pace, and the budget that follows. Times in seconds.

    max_tokens: the budget where nobody's answer is under way. max_slowdown: how many times longer a step may take with prompts
    than without. At 1.6 prompts get more than a third of the time. Users are promised 3, for single tokens: the rest is left to
    the machine, on two shared cores of which one wait in a hundred was 1.75 times the usual without any prompt, the longest 2.5.
    """

    def __init__(self, *, max_tokens: int, max_slowdown: float = 1.6) -> None:
        self.max_tokens = max_tokens
        self.max_slowdown = max_slowdown
        self._token_s: float | None = None
        # Time of a step that decodes so many answers and nothing else.
        self._decode_s: dict[int, float] = {}
        self._known: list[int] = []
        self._n_mixed = 0

    def budget(self, n_decoding: int) -> int:
        """Prompt tokens for a step beside `n_decoding` answers; now and then none."""
        if not n_decoding:
            return self.max_tokens
        if self._n_mixed >= STEPS_TO_QUIET:
            return 0
        decode_s = self._decoding(n_decoding)
        if decode_s is None or self._token_s is None:
            return min(FIRST_TOKENS, self.max_tokens)
        # Not rounded up: deep in a prompt, where a chunk has three tokens, one more makes the step a quarter longer.
        n_tokens = round((self.max_slowdown - 1) * decode_s / self._token_s)
        return min(max(n_tokens, MIN_TOKENS), self.max_tokens)

    def observe(self, n_decoding: int, n_prompt: int, seconds: float) -> None:
        """A step with so many answers and prompt tokens took so long."""
        seconds = max(seconds, CLOCK_S)
        self._n_mixed = self._n_mixed + 1 if n_prompt and n_decoding else 0
        if not n_prompt:
            self._learn_decoding(n_decoding, seconds)
        elif not n_decoding:
            if n_prompt >= TELLING_TOKENS:
                self._learn_token(seconds / n_prompt)
        elif n_decoding in self._decode_s or self._token_s is None:
            decode_s = self._decoding(n_decoding)
            if decode_s is not None:
                self._learn_token(max(seconds - decode_s, MIN_SHARE * seconds) / n_prompt)
        else:
            self._learn_decoding(n_decoding, max(seconds - self._token_s * n_prompt, MIN_SHARE * seconds))

    def _decoding(self, n: int) -> float | None:
        """The time of `n` answers; where it was never measured, less than it can be: one answer costs no less than its share of
        more, and more cost no less than one."""
        if n in self._decode_s:
            return self._decode_s[n]
        i = bisect_right(self._known, n)
        below = [self._decode_s[self._known[i - 1]]] if i else []
        above = [self._decode_s[self._known[i]] * n / self._known[i]] if i < len(self._known) else []
        return max(below + above, default=None)

    def _learn_decoding(self, n: int, seconds: float) -> None:
        if n not in self._decode_s:
            insort(self._known, n)
        self._decode_s[n] = _mixed(self._decode_s.get(n), seconds, MAX_DECODE_SURPRISE)

    def _learn_token(self, seconds: float) -> None:
        self._token_s = _mixed(self._token_s, seconds, MAX_SURPRISE)


def _mixed(known: float | None, measured: float, most: float) -> float:
    return measured if known is None else known + WEIGHT * (min(measured, most * known) - known)
