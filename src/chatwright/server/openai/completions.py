"""`/v1/completions`: text that continues a prompt, as the API has done it since 2020."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import APIRouter, Request
from openai.types import Completion, CompletionChoice
from openai.types.completion_choice import Logprobs
from starlette.responses import Response

from chatwright.engine.text import PromptText, TextDelta, TextEvent, TextModel, TextRequest, TokenText
from chatwright.errors import InvalidRequestError
from chatwright.server.guard import Guard, watch_of
from chatwright.server.json_body import JsonRoute
from chatwright.server.metering import Bill, bill_of
from chatwright.server.openai.aliases import is_instruct
from chatwright.server.openai.generation import (
    check_ids,
    generate_all,
    on_behalf_of,
    owner_of,
    sampling_params,
    unless_client_leaves,
    usage,
    wire_reason,
)
from chatwright.server.openai.requests import MAX_SEQUENCES, CompletionBody
from chatwright.server.openai.streaming import json_text, obfuscated, sse, start_stream
from chatwright.server.permission import actor_of
from chatwright.server.state import ServerState, State

router = APIRouter(route_class=JsonRoute, tags=["completions"])

# What the routes answer, for the API's description: they return finished responses, which FastAPI does not look into.
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Completion,
        "description": "The answer; with stream, server-sent events, each a Completion, then [DONE].",
        "content": {"text/event-stream": {}},
    }
}


@router.post("/completions", response_model=None, responses=ANSWERS)
async def create_completion(body: CompletionBody, request: Request, state: State) -> Response:
    """Continue one or several prompts."""
    return await complete(body, body.model, request, state)


async def complete(body: CompletionBody, model_name: str | None, request: Request, state: ServerState) -> Response:
    """Answer a completion request for the model of that name (from the body, or from a legacy path)."""
    on_behalf_of(body, request)
    model = await state.model_for_answer(model_name, actor_of(request))
    job = await _Job.prepare(body, model_name or model.name, model, state.cut_off, bill_of(request), state.guard)
    if body.stream:
        return await start_stream(request, job.stream(include_usage=body.include_usage))
    completion = await unless_client_leaves(request, job.run())
    return Response(completion.model_dump_json(exclude_unset=True), media_type="application/json")


class _ChunkChoice(CompletionChoice):
    """finish_reason is null until the end; the client library's type does not know that of completions."""

    finish_reason: Literal["stop", "length", "content_filter"] | None  # type: ignore[assignment]


class _Chunk(Completion):
    """A piece of a stream. Validated and not `construct`ed: the library's `construct` costs 70 µs a token, this 5."""

    choices: list[_ChunkChoice]  # type: ignore[assignment]


@dataclass
class _Answer:
    """One choice as it grows."""

    text: str = ""
    tokens: list[TokenText] = field(default_factory=list)
    finish_reason: Literal["stop", "length", "content_filter"] = "stop"
    n_tokens: int = 0
    end_token: TokenText | None = None

    def mean_logprob(self) -> float:
        """What best_of ranks by: log probability per token."""
        scored = [token.logprob for token in self.tokens if token.logprob is not None]
        return sum(scored) / len(scored) if scored else float("-inf")


class _Job:
    """The prompts of one request, tokenised and checked. `continued`: of each the text that its answers go on from; "" where they
    answer it."""

    def __init__(
        self,
        body: CompletionBody,
        name: str,
        model: TextModel,
        prompts: list[list[int]],
        texts: list[str],
        continued: list[str],
        cut_off: asyncio.Event,
        bill: Bill,
        guard: Guard | None,
    ) -> None:
        self.cut_off, self.bill, self.guard = cut_off, bill, guard
        self.body, self.name, self.model, self.prompts, self.texts = body, name, model, prompts, texts
        self.n = body.n or 1
        self.n_prompt = sum(len(prompt) for prompt in prompts)
        self.best_of = body.best_of or self.n
        self.head: dict[str, Any] = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": name,
            "object": "text_completion",
            "system_fingerprint": model.fingerprint,
        }
        # best_of ranks by log probability, so it needs them even where the client does not.
        inner_logprobs = body.logprobs if self.best_of == self.n else body.logprobs or 0
        max_tokens = 16 if body.max_tokens is None else body.max_tokens
        self.requests = [
            TextRequest(
                prompt_ids=prompt,
                sampling=sampling_params(body, model, max_tokens=max_tokens, logprobs=inner_logprobs),
                stop=body.stops,
                n=self.best_of,
                prompt_logprobs=body.logprobs if body.echo else None,
                owner=owner_of(body),
                watch=watch_of(guard, before),
            )
            for prompt, before in zip(prompts, continued, strict=True)
        ]
        for prompt in prompts:
            model.check_length(len(prompt), max_tokens, param="prompt")

    @classmethod
    async def prepare(
        cls,
        body: CompletionBody,
        name: str,
        model: TextModel,
        cut_off: asyncio.Event,
        bill: Bill,
        guard: Guard | None,
    ) -> _Job:
        """Tokenise and check. Raises InvalidRequestError."""
        prompts = _as_list(body.prompt)
        if len(prompts) * max(body.n or 1, body.best_of or 1) > MAX_SEQUENCES:
            raise InvalidRequestError(
                "The request asks for more than {limit} answers at once (prompts x n or best_of). Ask for fewer.",
                limit=MAX_SEQUENCES,
                param="n",
                code="invalid_value",
            )
        # Those models took a plain prompt as an instruction; continuing it as text would be a wrong answer.
        instructed = is_instruct(name) or model.takes_instructions
        as_chat = instructed and not body.echo and not body.suffix and model.template is not None
        ids = []
        for prompt in prompts:
            if isinstance(prompt, str):
                if not prompt and not body.suffix:
                    raise InvalidRequestError("The prompt is empty.", param="prompt", code="invalid_value")
            else:
                check_ids(prompt, model, param="prompt")
            if body.suffix:
                ids.append(await model.encode_between(prompt, body.suffix))
            elif not isinstance(prompt, str):
                ids.append(prompt)
            elif as_chat:
                ids.append(await model.encode_chat([{"role": "user", "content": prompt}]))
            else:
                ids.append(await model.encode(prompt))
        texts = [p if isinstance(p, str) else model.tokenizer.decode(p) for p in prompts]
        continued = ["" if as_chat and isinstance(p, str) else text for p, text in zip(prompts, texts, strict=True)]
        return cls(body, name, model, ids, texts, continued, cut_off, bill, guard)

    async def run(self) -> Completion:
        """The whole answer at once."""
        answers = [[_Answer() for _ in range(self.best_of)] for _ in self.prompts]
        prompt_tokens: dict[int, Sequence[TokenText]] = {}
        async with aclosing(self._events()) as events:
            async for number, event in events:
                if isinstance(event, PromptText):
                    prompt_tokens[number] = event.tokens
                elif isinstance(event, TextDelta):
                    answer = answers[number][event.index]
                    answer.text += event.text
                    answer.tokens.extend(event.tokens)
                else:
                    answer = answers[number][event.index]
                    answer.finish_reason, answer.n_tokens = wire_reason(event), event.n_tokens
                    answer.end_token = event.end_token
        choices = []
        for number, candidates in enumerate(answers):
            best = candidates
            if self.best_of > self.n:
                best = sorted(candidates, key=_Answer.mean_logprob, reverse=True)[: self.n]
            for index, answer in enumerate(best):
                tokens = list(answer.tokens)
                text, offset = answer.text, len(self.texts[number])
                if self.body.echo:
                    text, offset = self.texts[number] + text, 0
                    # lm-evaluation-harness asks for echo and one token and drops the last entry: there must be one behind the
                    # prompt's, also where the model would end.
                    tokens = [*prompt_tokens.get(number, ()), *tokens, *_if_any(answer.end_token)]
                choices.append(
                    CompletionChoice(
                        finish_reason=answer.finish_reason,
                        index=number * self.n + index,
                        text=text,
                        logprobs=self._logprobs(tokens, offset),
                    )
                )
        n_completion = sum(answer.n_tokens for candidates in answers for answer in candidates)
        return Completion(**self.head, choices=choices, usage=usage(self.n_prompt, n_completion))

    async def stream(self, *, include_usage: bool) -> AsyncGenerator[str, None]:
        """The answer as events; the same texts, tokens and reasons as `run`."""
        lengths = [[len(text)] * self.n for text in self.texts]
        started: set[tuple[int, int]] = set()
        prompt_tokens: dict[int, Sequence[TokenText]] = {}
        n_completion = 0
        async with aclosing(self._events()) as events:
            async for number, event in events:
                if isinstance(event, PromptText):
                    prompt_tokens[number] = event.tokens
                    continue
                choice = number * self.n + event.index
                if self.body.echo and (number, event.index) not in started:
                    started.add((number, event.index))
                    logprobs = self._logprobs(prompt_tokens.get(number, ()), 0)
                    yield self._chunk(choice, self.texts[number], None, logprobs, include_usage)
                if isinstance(event, TextDelta):
                    logprobs = self._logprobs(event.tokens, lengths[number][event.index])
                    lengths[number][event.index] += len(event.text)
                    yield self._chunk(choice, event.text, None, logprobs, include_usage)
                else:
                    n_completion += event.n_tokens
                    end_token = _if_any(event.end_token) if self.body.echo else ()
                    logprobs = self._logprobs(end_token, lengths[number][event.index]) if end_token else None
                    yield self._chunk(choice, "", wire_reason(event), logprobs, include_usage)
        if include_usage:
            yield sse(Completion(**self.head, choices=[], usage=usage(self.n_prompt, n_completion)))

    async def _events(self) -> AsyncGenerator[tuple[int, TextEvent], None]:
        if self.guard is not None:
            await self.guard.check([*self.texts, self.body.suffix or ""], param="prompt")
        all_events = generate_all(
            self.model, self.requests, self.cut_off, self.bill, can_be_shorter=self.body.max_tokens is None
        )
        async with aclosing(all_events) as events:
            async for item in events:
                yield item

    def _chunk(
        self,
        index: int,
        text: str,
        reason: Literal["stop", "length", "content_filter"] | None,
        logprobs: Logprobs | None,
        include_usage: bool,
    ) -> str:
        no_usage: dict[str, Any] = {"usage": None} if include_usage else {}
        choice = _ChunkChoice(finish_reason=reason, index=index, text=text, logprobs=logprobs)
        event = sse(_Chunk(**self.head, choices=[choice], **no_usage))
        if not self.body.obfuscate:
            return event
        return obfuscated(event, len(json_text(text).encode()) if logprobs is None else None)

    def _logprobs(self, tokens: Sequence[TokenText], offset: int) -> Logprobs | None:
        """OpenAI's 2020 format; `offset` is where the first token begins, in characters from the start of the prompt."""
        if self.body.logprobs is None:
            return None
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(token.text)
        return Logprobs.model_construct(
            tokens=[token.text for token in tokens],
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[self._top(token) for token in tokens],
            text_offset=offsets,
        )

    def _top(self, token: TokenText) -> dict[str, float] | None:
        """Alternatives by text, best first; the token itself is always among them, so there may be one more than asked for."""
        if token.logprob is None:
            return None
        top = {alternative.text: alternative.logprob for alternative in token.top}
        top.setdefault(self.model.token_label(token.id), token.logprob)
        return top


def _if_any(token: TokenText | None) -> tuple[TokenText, ...]:
    return () if token is None else (token,)


def _as_list(prompt: str | list[str] | list[int] | list[list[int]] | None) -> list[str | list[int]]:
    if prompt is None:
        raise InvalidRequestError("The field prompt is missing.", param="prompt", code="missing_prompt")
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [prompt]
    return prompt  # type: ignore[return-value]
