"""`/v1/chat/completions`: the assistant's next message of a conversation."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, Request
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionTokenLogprob
from openai.types.chat.chat_completion import Choice, ChoiceLogprobs
from openai.types.chat.chat_completion_chunk import Choice as ChunkChoice
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from openai.types.chat.chat_completion_chunk import ChoiceLogprobs as ChunkLogprobs
from openai.types.chat.chat_completion_token_logprob import TopLogprob
from starlette.responses import Response

from chatwright.engine.protocol import Grammar
from chatwright.engine.text import TextDelta, TextFinish, TextModel, TextRequest, TokenText
from chatwright.engine.tool_format import ToolFormat
from chatwright.engine.tool_grammar import json_grammar, tool_grammar
from chatwright.engine.tool_reader import ToolReader
from chatwright.errors import InvalidRequestError
from chatwright.server.guard import Guard, watch_of
from chatwright.server.json_body import JsonRoute
from chatwright.server.metering import Bill, bill_of
from chatwright.server.openai.choice import ChatChoice
from chatwright.server.openai.generation import (
    generate_all,
    on_behalf_of,
    owner_of,
    sampling_params,
    unless_client_leaves,
    usage,
)
from chatwright.server.openai.requests import ChatBody, conversation, said_by_others
from chatwright.server.openai.stored import Keep, keeping
from chatwright.server.openai.streaming import json_text, obfuscated, sse, start_stream
from chatwright.server.openai.tools import ToolUse
from chatwright.server.permission import actor_of
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
    on_behalf_of(body, request)
    model = await state.model_for_answer(model_name, actor_of(request))
    keep = await keeping(body, actor_of(request), state) if body.store else None
    prompt = await ChatPrompt.of(body, model)
    job = ChatJob(body, model_name or model.name, model, prompt, state.cut_off, bill_of(request), state.guard)
    if body.stream:
        return await start_stream(request, job.stream(include_usage=body.include_usage, keep=keep))
    completion = await unless_client_leaves(request, job.run())
    if keep is not None:
        await keep(completion)
    return Response(completion.model_dump_json(exclude_unset=True), media_type="application/json")


@dataclass(frozen=True)
class _Form:
    """The form that the answer has to have. use, tool_format: where something may be called. param: which field asks for it."""

    use: ToolUse | None
    tool_format: ToolFormat | None
    grammar: Grammar | None
    param: str | None

    @classmethod
    async def asked_for(cls, body: ChatBody, model: TextModel) -> _Form:
        """From the request. Raises InvalidRequestError."""
        use = body.tool_use()
        schema = body.response_format.schema_to_match() if body.response_format else None
        if use is None:
            return cls(None, None, None if schema is None else json_grammar(schema), "response_format")
        tool_format = await model.tool_format()
        if schema is not None and not tool_format.opening:
            # JSON that is an answer could not be told from JSON that is a call; in our own format it can.
            tool_format = ToolFormat(system_role=tool_format.system_role)
        # A model that learned no tools, but is told of them in our words, easily makes the same call again and again.
        several = tool_format.native if use.several is None else use.several
        otherwise: Mapping[str, Any] | Literal["text"] | None = "text" if schema is None else schema
        grammar = tool_grammar(
            tool_format, use.callable, otherwise=None if use.required else otherwise, several=several
        )
        return cls(use, tool_format, grammar, use.param)

    def choice(self) -> ChatChoice:
        """A choice that is about to grow."""
        reader = ToolReader(self.tool_format) if self.tool_format else None
        return ChatChoice(reader, legacy=self.use is not None and self.use.legacy)


@dataclass(frozen=True)
class ChatPrompt:
    """A conversation as the model reads it, and the form that its answer has to have."""

    ids: list[int]
    form: _Form

    @classmethod
    async def of(cls, body: ChatBody, model: TextModel) -> ChatPrompt:
        """Tokenised. Raises InvalidRequestError."""
        form = await _Form.asked_for(body, model)
        ids = await model.encode_chat(
            conversation(body.messages),
            tools=form.use.tools if form.use else (),
            tool_format=form.tool_format,
            instruction=body.response_format.instruction() if body.response_format else "",
        )
        return cls(ids, form)


class ChatJob:
    """One conversation to be continued, whoever asks and in whatever form the answer is wanted: `events` are what the model says,
    `form.choice()` tells text from calls. Raises InvalidRequestError."""

    def __init__(
        self,
        body: ChatBody,
        name: str,
        model: TextModel,
        prompt: ChatPrompt,
        cut_off: asyncio.Event,
        bill: Bill,
        guard: Guard | None,
    ) -> None:
        self.body, self.model, self.form, self.cut_off, self.bill = body, model, prompt.form, cut_off, bill
        self.guard = guard
        self.n_prompt = n_prompt = len(prompt.ids)
        self.n = body.n or 1
        self.around_text: dict[int, tuple[str, str]] = {}
        self.head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": name,
            "system_fingerprint": model.fingerprint,
        }
        asked = self.asked = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
        # At least one token: a conversation that fills the context is an error, not an empty answer.
        max_tokens = max(1, model.max_tokens_left(n_prompt)) if asked is None else asked
        model.check_length(n_prompt, max_tokens, param="messages")
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        self.request = TextRequest(
            prompt_ids=prompt.ids,
            sampling=sampling_params(body, model, max_tokens=max_tokens, logprobs=logprobs),
            stop=body.stops,
            n=self.n,
            owner=owner_of(body),
            grammar=self.form.grammar,
            watch=watch_of(guard),
        )

    async def run(self) -> ChatCompletion:
        """The whole answer at once."""
        gathered = _Gathered(self)
        async with aclosing(self.events()) as events:
            async for event in events:
                gathered.take(event)
        return gathered.completion()

    async def stream(self, *, include_usage: bool, keep: Keep | None = None) -> AsyncGenerator[str, None]:
        """The answer as events; the same texts, calls, tokens and reasons as `run`. `keep`: what is to be done with the whole."""
        no_usage: dict[str, Any] = {"usage": None} if include_usage else {}
        gathered = _Gathered(self)
        async with aclosing(self.events()) as events:
            async for event in events:
                deltas, reason = gathered.take(event)
                logprobs = None
                if isinstance(event, TextDelta) and self.body.logprobs:
                    logprobs = ChunkLogprobs(content=_logprobs(event.tokens), refusal=None)
                    # The tokens of what is held back, or only marks a call, are told without delay.
                    deltas = deltas or [ChoiceDelta()]
                for number, delta in enumerate(deltas, start=1):
                    yield self._chunk(event.index, delta, logprobs if number == len(deltas) else None, None, no_usage)
                if reason is not None:
                    yield self._chunk(event.index, ChoiceDelta(), None, reason, no_usage)
        if keep is not None:
            await keep(gathered.completion())
        if include_usage:
            yield self._sse([], {"usage": gathered.usage()})

    async def events(self) -> AsyncGenerator[TextDelta | TextFinish, None]:
        """What the model says. Raises InvalidRequestError, naming the field, where it cannot be held to the form asked for,
        or where the server is to refuse what was said."""
        if self.guard is not None:
            await self.guard.check(said_by_others(self.body.messages), param="messages")
        all_events = generate_all(
            self.model, [self.request], self.cut_off, self.bill, can_be_shorter=self.asked is None
        )
        async with aclosing(all_events) as events:
            try:
                async for _, event in events:
                    if isinstance(event, TextDelta | TextFinish):
                        yield event
            except InvalidRequestError as error:
                error.param = error.param or self.form.param
                raise

    def _chunk(
        self, index: int, delta: ChoiceDelta, logprobs: ChunkLogprobs | None, reason: Any, extra: dict[str, Any]
    ) -> str:
        if logprobs is None and reason is None and delta.content and delta.model_fields_set == {"content"}:
            before, after = self._around_text(index, extra)
            text = json_text(delta.content)
            event = before + text + after
            return obfuscated(event, len(text.encode())) if self.body.obfuscate else event
        event = self._sse([ChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=reason)], extra)
        return obfuscated(event) if self.body.obfuscate else event

    def _around_text(self, index: int, extra: dict[str, Any]) -> tuple[str, str]:
        """What stands before and after the text in the chunks that are nothing but text, most of them: made once."""
        if index not in self.around_text:
            mark = "TEXT" + uuid.uuid4().hex
            choice = ChunkChoice(index=index, delta=ChoiceDelta(content=mark), logprobs=None, finish_reason=None)
            before, _, after = self._sse([choice], extra).partition(f'"{mark}"')
            self.around_text[index] = before, after
        return self.around_text[index]

    def _sse(self, choices: list[ChunkChoice], extra: dict[str, Any]) -> str:
        return sse(
            ChatCompletionChunk(**self.head, object="chat.completion.chunk", choices=choices, **extra)  # type: ignore[arg-type]
        )


class _Gathered:
    """What the model said so far in all choices of a job."""

    def __init__(self, job: ChatJob) -> None:
        self.job = job
        self.answers = [job.form.choice() for _ in range(job.n)]
        self.tokens: list[list[TokenText]] = [[] for _ in range(job.n)]
        self.reasons: list[Any] = [None] * job.n
        self.n_completion = self.n_reused = 0

    def take(self, event: TextDelta | TextFinish) -> tuple[list[ChoiceDelta], Any]:
        """What a stream says of it: deltas, and the reason if that choice is over."""
        answer = self.answers[event.index]
        if isinstance(event, TextDelta):
            if self.job.body.logprobs:
                self.tokens[event.index].extend(event.tokens)
            return answer.push(event.text), None
        deltas, reason = answer.finish(event)
        self.reasons[event.index] = reason
        self.n_completion += event.n_tokens
        if event.index == 0:  # the others found what this one computed
            self.n_reused = event.reused_tokens
        return deltas, reason

    def usage(self) -> CompletionUsage:
        """Token counts."""
        return usage(self.job.n_prompt, self.n_completion, self.n_reused)

    def completion(self) -> ChatCompletion:
        """The whole, when it is finished."""
        choices = [
            Choice(
                index=index,
                message=answer.message(),
                logprobs=ChoiceLogprobs(content=_logprobs(self.tokens[index]), refusal=None)
                if self.job.body.logprobs
                else None,
                finish_reason=self.reasons[index],
            )
            for index, answer in enumerate(self.answers)
        ]
        return ChatCompletion(
            **self.job.head,  # type: ignore[arg-type]
            object="chat.completion",
            choices=choices,
            usage=self.usage(),
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
