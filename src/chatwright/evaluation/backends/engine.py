"""Our engine in this process: what is measured is what `serve` would say, in the same weights and precision."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import aclosing

from chatwright.engine.protocol import SamplingParams
from chatwright.engine.text import PromptText, TextDelta, TextModel, TextRequest
from chatwright.errors import EvaluationError
from chatwright.evaluation.backends.protocol import (
    Likelihood,
    TextScore,
    check_choice,
    room_for_prompt,
    split_context,
    split_tokens,
)
from chatwright.evaluation.backends.windows import windows
from chatwright.evaluation.documents import document_boundary
from chatwright.evaluation.examples import Prompt
from chatwright.tokenizer.tokenizer import Tokenizer

# Requests at a time: items of eight choices each would be more than one user may have in the engine's queue.
_AT_ONCE = 32


class EngineWriter:
    """A `Writer` over a loaded model."""

    concurrency = 16

    def __init__(self, model: TextModel) -> None:
        tokenizer = model.tokenizer
        if not model.writes_text or not isinstance(tokenizer, Tokenizer):
            raise EvaluationError(
                "{name} only turns texts into vectors: it can be evaluated with a head that `chatwright tune` makes.",
                name=model.name,
            )
        self.model, self.tokenizer, self.name = model, tokenizer, model.name
        self.fingerprint = f"engine {model.fingerprint} {model.adapter or ''}"
        self._places = asyncio.Semaphore(_AT_ONCE)

    @property
    def chats(self) -> bool:
        """See Writer."""
        return self.model.template is not None

    @property
    def room(self) -> int:
        """See Writer."""
        return self.model.context_length

    async def likelihoods(self, prompt: Prompt, continuations: Sequence[str]) -> list[Likelihood]:
        """See Writer."""
        context_ids = await self._context(prompt) if prompt.messages else None
        pairs = [self._pair(prompt, context_ids, continuation) for continuation in continuations]
        return list(await asyncio.gather(*(self._likelihood(*pair) for pair in pairs)))

    async def score_text(self, text: str) -> TextScore:
        """See Writer."""
        body = self.tokenizer.encode(text, add_special_tokens=False)
        ids = [document_boundary(self.tokenizer), *body]
        nats = 0.0
        for window, n_scored in windows(ids, self.model.context_length):
            nats -= math.fsum((await self._logprobs(window))[-n_scored:])
        n_bytes = min(len(text.encode()), sum(len(self.tokenizer.token_bytes(i)) for i in body))
        return TextScore(nats, n_bytes, len(body))

    async def answer(self, prompt: Prompt, max_tokens: int, stop: Sequence[str]) -> str:
        """See Writer."""
        ids = await self._context(prompt)
        room = room_for_prompt(max_tokens, self.name, self.model.context_length)
        return await self._said(ids[-room:], SamplingParams(max_tokens=max_tokens, temperature=0.0), tuple(stop))

    async def sample(self, text: str, max_tokens: int, seed: int) -> str:
        """See Writer."""
        start = document_boundary(self.tokenizer)
        ids = [start, *self.tokenizer.encode(text, add_special_tokens=False)]
        max_tokens = min(max_tokens, self.model.context_length - 1)
        sampling = SamplingParams(max_tokens=max_tokens, temperature=1.0, seed=seed, stop_ids=frozenset({start}))
        return await self._said(ids[-(self.model.context_length - max_tokens) :], sampling)

    async def recite(self, text: str, n_given: int) -> tuple[str, str]:
        """See Writer."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)[: self.model.context_length - 3]
        n = split_tokens(ids, self._decoded, n_given)
        # Two more than the rest has: its last token was cut off by the end of `text`, and may be a part of a character.
        sampling = SamplingParams(max_tokens=len(ids) - n + 2, temperature=0.0)
        said = await self._said([document_boundary(self.tokenizer), *ids[:n]], sampling)
        return said, self._decoded(ids[n:])

    def _decoded(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, continuing=True)

    async def _said(self, ids: Sequence[int], sampling: SamplingParams, stop: tuple[str, ...] = ()) -> str:
        text = ""
        request = TextRequest(list(ids), sampling, stop)
        async with self._places, aclosing(self.model.generate(request)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    text += event.text
        return text

    async def close(self) -> None:
        """See Writer."""
        await self.model.close()

    async def _context(self, prompt: Prompt) -> list[int]:
        if prompt.messages:
            return await self.model.encode_chat(prompt.messages)
        return self.tokenizer.encode(prompt.text)

    def _pair(self, prompt: Prompt, context_ids: Sequence[int] | None, continuation: str) -> tuple[list[int], int]:
        """Ids of both, and how many of them are the context's."""
        if context_ids is not None:
            added = self.tokenizer.encode_prompts([[continuation]], continuing=True)[0]
            return [*context_ids, *added], len(context_ids)
        context, continuation = split_context(prompt.text, continuation)
        if not context:
            return [
                document_boundary(self.tokenizer),
                *self.tokenizer.encode(continuation, add_special_tokens=False),
            ], 1
        return self.tokenizer.encode(context + continuation), len(self.tokenizer.encode(context))

    async def _likelihood(self, ids: Sequence[int], n_context: int) -> Likelihood:
        n_cut = max(0, len(ids) - self.model.context_length)
        n_scored = max(
            1, len(ids) - n_context
        )  # where the last token of the context swallows the continuation, it is both
        check_choice(n_scored, len(ids) - n_cut, self.name, self.model.context_length)
        logprobs = await self._logprobs(ids[n_cut:])
        return Likelihood(math.fsum(logprobs[len(logprobs) - n_scored :]), n_scored, n_cut)

    async def _logprobs(self, ids: Sequence[int]) -> list[float]:
        """Of every token but the first."""
        request = TextRequest(list(ids), SamplingParams(max_tokens=0), prompt_logprobs=0)
        found: list[float] = []
        async with self._places, aclosing(self.model.generate(request)) as events:
            async for event in events:
                if isinstance(event, PromptText):
                    found = [token.logprob for token in event.tokens if token.logprob is not None]
        assert len(found) == len(ids) - 1
        return found
