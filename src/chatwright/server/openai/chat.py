"""`/v1/chat/completions`: the assistant's next message of a conversation."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage, ChatCompletionTokenLogprob
from openai.types.chat.chat_completion import Choice, ChoiceLogprobs
from openai.types.chat.chat_completion_chunk import Choice as ChunkChoice
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from openai.types.chat.chat_completion_chunk import ChoiceLogprobs as ChunkLogprobs
from openai.types.chat.chat_completion_token_logprob import TopLogprob
from starlette.responses import Response

from chatwright.engine.text import TextDelta, TextFinish, TextModel, TextRequest, TokenText
from chatwright.server.json_body import JsonRoute
from chatwright.server.openai.generation import (
    generate_all,
    owner_of,
    sampling_params,
    unless_client_leaves,
    usage,
    wire_reason,
)
from chatwright.server.openai.requests import ChatBody
from chatwright.server.openai.streaming import sse, start_stream
from chatwright.server.state import ServerState, State

router = APIRouter(route_class=JsonRoute, tags=["chat"])

# What the routes answer, for the API's description: they return finished responses, which FastAPI does not look into.
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ChatCompletion,
        "description": "The answer; with stream, server-sent events, each a ChatCompletionChunk, then [DONE].",
        "content": {"text/event-stream": {}},
    }
}


@router.post("/chat/completions", response_model=None, responses=ANSWERS)
async def create_chat_completion(body: ChatBody, request: Request, state: State) -> Response:
    """Continue a conversation."""
    return await answer(body, body.model, request, state)


async def answer(body: ChatBody, model_name: str | None, request: Request, state: ServerState) -> Response:
    """Answer a chat request for the model of that name (from the body, or from a legacy path)."""
    model = await state.model_for_answer(model_name)
    job = await _Job.prepare(body, model_name or model.name, model, state.cut_off)
    if body.stream:
        events = job.stream(include_usage=bool(body.stream_options and body.stream_options.include_usage))
        return await start_stream(request, events)
    completion = await unless_client_leaves(request, job.run())
    return Response(completion.model_dump_json(exclude_unset=True), media_type="application/json")


class _Job:
    """One conversation, tokenised and checked."""

    def __init__(self, body: ChatBody, name: str, model: TextModel, prompt: list[int], cut_off: asyncio.Event) -> None:
        self.body, self.model, self.n_prompt, self.cut_off = body, model, len(prompt), cut_off
        self.n = body.n or 1
        self.head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": name,
            "system_fingerprint": model.fingerprint,
        }
        asked = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
        # At least one token: a conversation that fills the context is an error, not an empty answer.
        max_tokens = max(1, model.max_tokens_left(len(prompt))) if asked is None else asked
        model.check_length(len(prompt), max_tokens, param="messages")
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        sampling = sampling_params(body, model, max_tokens=max_tokens, logprobs=logprobs)
        self.requests = [
            TextRequest(prompt_ids=prompt, sampling=sampling, stop=body.stops, n=self.n, owner=owner_of(body))
        ]

    @classmethod
    async def prepare(cls, body: ChatBody, name: str, model: TextModel, cut_off: asyncio.Event) -> _Job:
        """Tokenise and check. Raises InvalidRequestError."""
        prompt = await model.encode_chat([message.for_template() for message in body.messages])
        return cls(body, name, model, prompt, cut_off)

    async def run(self) -> ChatCompletion:
        """The whole answer at once."""
        texts = [""] * self.n
        tokens: list[list[TokenText]] = [[] for _ in range(self.n)]
        reasons: list[Any] = [None] * self.n
        n_completion = n_reused = 0
        async with aclosing(generate_all(self.model, self.requests, self.cut_off)) as events:
            async for _, event in events:
                if isinstance(event, TextDelta):
                    texts[event.index] += event.text
                    tokens[event.index].extend(event.tokens)
                elif isinstance(event, TextFinish):
                    reasons[event.index] = wire_reason(event)
                    n_completion += event.n_tokens
                    if event.index == 0:  # the others found what this one computed
                        n_reused = event.reused_tokens
        choices = [
            Choice(
                index=index,
                message=ChatCompletionMessage(role="assistant", content=texts[index], refusal=None),
                logprobs=ChoiceLogprobs(content=_logprobs(tokens[index]), refusal=None) if self.body.logprobs else None,
                finish_reason=reasons[index],
            )
            for index in range(self.n)
        ]
        return ChatCompletion(
            **self.head,  # type: ignore[arg-type]
            object="chat.completion",
            choices=choices,
            usage=usage(self.n_prompt, n_completion, n_reused),
        )

    async def stream(self, *, include_usage: bool) -> AsyncGenerator[str, None]:
        """The answer as events; the same texts, tokens and reasons as `run`."""
        no_usage: dict[str, Any] = {"usage": None} if include_usage else {}
        n_completion = n_reused = 0
        started: set[int] = set()
        async with aclosing(generate_all(self.model, self.requests, self.cut_off)) as events:
            async for _, event in events:
                if not isinstance(event, TextDelta | TextFinish):
                    continue
                if event.index not in started:
                    started.add(event.index)
                    yield self._chunk(
                        event.index, ChoiceDelta(role="assistant", content="", refusal=None), None, None, no_usage
                    )
                if isinstance(event, TextDelta):
                    logprobs = None
                    if self.body.logprobs:
                        logprobs = ChunkLogprobs(content=_logprobs(event.tokens), refusal=None)
                    yield self._chunk(event.index, ChoiceDelta(content=event.text), logprobs, None, no_usage)
                else:
                    n_completion += event.n_tokens
                    if event.index == 0:  # the others found what this one computed
                        n_reused = event.reused_tokens
                    yield self._chunk(event.index, ChoiceDelta(), None, wire_reason(event), no_usage)
        if include_usage:
            yield self._sse([], {"usage": usage(self.n_prompt, n_completion, n_reused)})

    def _chunk(
        self, index: int, delta: ChoiceDelta, logprobs: ChunkLogprobs | None, reason: Any, extra: dict[str, Any]
    ) -> str:
        return self._sse([ChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=reason)], extra)

    def _sse(self, choices: list[ChunkChoice], extra: dict[str, Any]) -> str:
        return sse(
            ChatCompletionChunk(**self.head, object="chat.completion.chunk", choices=choices, **extra)  # type: ignore[arg-type]
        )


def _logprobs(tokens: Sequence[TokenText]) -> list[ChatCompletionTokenLogprob]:
    return [
        ChatCompletionTokenLogprob(
            token=token.text,
            bytes=list(token.bytes),
            logprob=token.logprob if token.logprob is not None else 0.0,
            top_logprobs=[TopLogprob(token=a.text, bytes=list(a.bytes), logprob=a.logprob) for a in token.top],
        )
        for token in tokens
    ]
