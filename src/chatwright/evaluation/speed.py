"""How fast an engine is: tokens per second of many streams, of prompts, the time to a first token; and at which perplexity.

Measured from outside, through `Engine.generate` and with the likeliest token chosen each time, so that scheduling and choosing
count as they do in an answer. Which tokens a prompt has changes no time: they come from the text that is scored, round and round.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from importlib.resources import files

from chatwright.engine.blocks import BLOCK_TOKENS
from chatwright.engine.protocol import Engine, FinishEvent, GenerateRequest, PromptEvent, SamplingParams, TokenEvent
from chatwright.errors import EngineError, UsageError
from chatwright.tokenizer.tokenizer import Tokenizer

# Decoding is measured behind prompts of so many tokens. One more than whole blocks: when they come from the cache, one is left to
# compute, and all streams begin to decode together.
DECODE_AFTER = 8 * BLOCK_TOKENS + 1
# Perplexity: windows of so many tokens, the first of each given, at most so many tokens in all.
WINDOW, SCORED_TOKENS = 512, 4096
# How many times as many tokens as are measured a stream may write until the last one has begun.
HEAD_START = 4


def bundled_text() -> str:
    """English prose out of this project's own documentation, frozen: no model was trained on it, and it never changes."""
    return files("chatwright.evaluation").joinpath("speed_text.txt").read_text(encoding="utf-8")


def perplexity_windows(
    tokenizer: Tokenizer, text: str, context_length: int, *, window: int = WINDOW, n_tokens: int = SCORED_TOKENS
) -> list[list[int]]:
    """The beginning of a text, cut into windows that are scored each on its own, behind what the tokenizer puts before a text.

    Raises UsageError for a text of fewer than two tokens.
    """
    before = tokenizer.encode("")
    ids = tokenizer.encode(text, add_special_tokens=False)[:n_tokens]
    length = min(window, context_length) - len(before)
    windows = [[*before, *ids[start : start + length]] for start in range(0, len(ids), length)]
    windows = [window for window in windows if len(window) > max(1, len(before))]
    if not windows:
        raise UsageError("The text is too short to be scored: give one of a few thousand words.")
    return windows


def decode_prompt(context_length: int, n_tokens: int) -> int:
    """Tokens before those that are decoded: DECODE_AFTER, or as many whole blocks and one as a short context has room for."""
    room = max(1, context_length - n_tokens)
    return min(DECODE_AFTER, (room - 1) // BLOCK_TOKENS * BLOCK_TOKENS + 1)


@dataclass(frozen=True)
class FirstToken:
    """Seconds to the first token behind a prompt that nobody computed before, and behind one whose beginning was."""

    cold_s: float
    cached_s: float


class _Together:
    """When the tokens of several streams came, from the moment on when all of them write."""

    def __init__(self, n_streams: int, n_tokens: int) -> None:
        self.arrivals: list[list[float]] = [[] for _ in range(n_streams)]
        self.n_tokens = n_tokens
        self.n_waiting = n_streams
        self.start_s = 0.0
        self.n_before: list[int] = []
        self.over = False

    def arrived(self, stream: int) -> None:
        """A token came. It is over when one stream has `n_tokens` since the last one began."""
        times = self.arrivals[stream]
        times.append(time.perf_counter())
        if len(times) == 1:
            self.n_waiting -= 1
            if not self.n_waiting:
                self.start_s, self.n_before = times[0], [len(each) for each in self.arrivals]
        elif not self.n_waiting and len(times) - self.n_before[stream] >= self.n_tokens:
            self.over = True

    def tokens_per_s(self) -> float:
        """Of all streams, until the first of them had its last token. Where one was over before another began (steps of
        microseconds, a context of a few tokens): from the first token of all to the last."""
        moments = sorted(moment for times in self.arrivals for moment in times)
        start_s, stop_s = self.start_s, min((times[-1] for times in self.arrivals if times), default=0.0)
        if self.n_waiting or stop_s <= start_s:
            start_s, stop_s = (moments[0], moments[-1]) if moments else (0.0, 0.0)
        if stop_s <= start_s:
            raise EngineError(
                "The engine did not answer {n} streams at the same time: take fewer.", n=len(self.arrivals)
            )
        return sum(start_s < moment <= stop_s for moment in moments) / (stop_s - start_s)


class SpeedTest:
    """Measures one engine. `ids`: tokens that prompts are made of. `adapter`: the LoRA adapter that answers, if any."""

    def __init__(self, engine: Engine, ids: Sequence[int], *, adapter: str | None = None) -> None:
        self.engine = engine
        self.ids = ids
        self.adapter = adapter
        self._numbers = itertools.count()

    async def decode(self, n_streams: int, n_tokens: int) -> float:
        """Tokens per second of all streams together, each behind a prompt of its own, while all of them write.

        From the moment when the last one has begun until one has written `n_tokens` more, or is over.
        """
        n_prompt = decode_prompt(self.engine.max_context, n_tokens)
        most = min(HEAD_START * n_tokens, self.engine.max_context - n_prompt)
        prompts = [self._prompt(n_prompt, i) for i in range(n_streams)]
        await asyncio.gather(*(self._first(prompt, f"stream {i}") for i, prompt in enumerate(prompts)))
        together = _Together(n_streams, n_tokens)

        async def write(i: int) -> None:
            request = self._request(prompts[i], f"stream {i}", most)
            try:
                async with aclosing(self.engine.generate(request)) as events:
                    async for event in events:
                        if together.over:
                            return
                        if isinstance(event, TokenEvent):
                            together.arrived(i)
                        elif isinstance(event, FinishEvent):
                            _check(event)
            finally:
                together.over = True  # also when this one failed, so that the others end with it

        for result in await asyncio.gather(*map(write, range(n_streams)), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        return together.tokens_per_s()

    async def prompt(self, n_tokens: int) -> float:
        """Prompt tokens per second of a prompt that nobody computed before, until its first token."""
        number = next(self._numbers)
        return n_tokens / await self._first(self._prompt(n_tokens, number), f"prompt {number}")

    async def first_token(self, n_tokens: int) -> FirstToken:
        """See FirstToken; two prompts that differ in their last two tokens."""
        number = next(self._numbers)
        prompt, owner = self._prompt(n_tokens - 2, number), f"first {number}"
        cold = await self._first([*prompt, *self._prompt(2, 1)], owner)
        return FirstToken(cold, await self._first([*prompt, *self._prompt(2, 3)], owner))

    async def perplexity(self, windows: Sequence[Sequence[int]]) -> float:
        """Over all tokens of the windows but the first of each."""
        nats, count = 0.0, 0
        for ids in windows:
            request = GenerateRequest(
                f"score {next(self._numbers)}", ids, SamplingParams(0), prompt_logprobs=0, adapter=self.adapter
            )
            async for event in self.engine.generate(request):
                if isinstance(event, PromptEvent):
                    scores = [score.logprob for score in event.scores if score is not None]
                    nats -= math.fsum(scores)
                    count += len(scores)
                elif isinstance(event, FinishEvent):
                    _check(event)
        return math.exp(nats / count)

    async def _first(self, prompt: Sequence[int], owner: str) -> float:
        """Seconds to a first token, and the only one."""
        start = time.perf_counter()
        seconds = 0.0
        async with aclosing(self.engine.generate(self._request(prompt, owner, 1))) as events:
            async for event in events:
                if isinstance(event, TokenEvent):
                    seconds = time.perf_counter() - start
                elif isinstance(event, FinishEvent):
                    _check(event)
        return seconds

    def _request(self, prompt: Sequence[int], owner: str, max_tokens: int) -> GenerateRequest:
        """The cache is shared within an owner only: a new one has nothing in it."""
        sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0)
        return GenerateRequest(f"speed {next(self._numbers)}", prompt, sampling, owner=owner, adapter=self.adapter)

    def _prompt(self, n_tokens: int, number: int) -> list[int]:
        start = 37 * number
        return [self.ids[(start + i) % len(self.ids)] for i in range(n_tokens)]


def _check(event: FinishEvent) -> None:
    if event.reason == "error":
        raise EngineError("The engine failed in the middle of an answer: {reason}.", reason=event.error)
