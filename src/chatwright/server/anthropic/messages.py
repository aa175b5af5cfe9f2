"""`/v1/messages` and its `count_tokens`: chat in Anthropic's form. The answer is that of `/v1/chat/completions`, told otherwise."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import orjson
import pydantic_core
from fastapi import APIRouter, Request
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from starlette.responses import Response

from chatwright.engine.text import TextDelta, TextFinish, TextModel
from chatwright.errors import InvalidRequestError
from chatwright.server.anthropic.requests import CountBody, MessagesBody
from chatwright.server.anthropic.wire import (
    AnthropicMessage,
    AnthropicText,
    AnthropicUsage,
    BlockDelta,
    BlockStart,
    BlockStop,
    Ending,
    InputPiece,
    MessageDelta,
    MessageStart,
    MessageStop,
    StopReason,
    StreamEvent,
    TextPiece,
    TokenCount,
    ToolUseContent,
)
from chatwright.server.errors import AnthropicErrorBody, anthropic_error_object
from chatwright.server.json_body import JsonRoute
from chatwright.server.metering import bill_of
from chatwright.server.openai.chat import ChatJob, ChatPrompt
from chatwright.server.openai.generation import on_behalf_of, unless_client_leaves
from chatwright.server.openai.streaming import Dialect, named_sse, start_stream
from chatwright.server.permission import actor_of
from chatwright.server.state import ServerState, State

ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": AnthropicErrorBody},
    "5XX": {"model": AnthropicErrorBody},
}
# What the route answers, for the API's description: it returns finished responses, which FastAPI does not look into.
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": AnthropicMessage,
        "description": "The answer; with stream, server-sent events from message_start to message_stop.",
        "content": {"text/event-stream": {}},
    }
}

router = APIRouter(route_class=JsonRoute, tags=["anthropic"], responses=ERRORS)


def _failed(status: int, message: str, param: str | None, code: str | None) -> str:
    return f"event: error\ndata: {orjson.dumps(anthropic_error_object(status, message)).decode()}\n\n"


ANTHROPIC = Dialect(_failed, "")


@router.post("/messages", response_model=None, responses=ANSWERS)
async def create_message(body: MessagesBody, request: Request, state: State) -> Response:
    """Continue a conversation, in Anthropic's form."""
    job = await _Told.prepare(body, request, state)
    if body.stream:
        return await start_stream(request, job.stream(), ANTHROPIC)
    message = await unless_client_leaves(request, job.run())
    return Response(message.model_dump_json(), media_type="application/json")


@router.post("/messages/count_tokens")
async def count_tokens(body: CountBody, request: Request, state: State) -> TokenCount:
    """How many tokens a conversation has, as the model would read it. Nothing is generated."""
    state.check_open()
    prompt = await ChatPrompt.of(body.as_chat(), await state.model_called(body.model, actor_of(request)))
    return TokenCount(input_tokens=len(prompt.ids))


class _Told:
    """A chat, told as Anthropic tells it. `cut`: less than `max_tokens` fits behind the prompt."""

    def __init__(self, job: ChatJob, name: str, *, cut: bool) -> None:
        self.job, self.name, self.cut = job, name, cut
        self.id = f"msg_{uuid.uuid4().hex}"

    @classmethod
    async def prepare(cls, body: MessagesBody, request: Request, state: ServerState) -> _Told:
        """Find the model, tokenise, check. Raises as `chat.answer` does."""
        chat = body.as_chat()
        on_behalf_of(chat, request)
        model = await state.model_for_answer(body.model, actor_of(request))
        prompt = await ChatPrompt.of(chat, model)
        left = _room(len(prompt.ids), model)
        # Required, and so mostly larger than anybody wants: what does not fit is an end of its own.
        chat.max_tokens = min(body.max_tokens, left)
        return cls(
            ChatJob(chat, body.model, model, prompt, state.cut_off, bill_of(request), state.guard),
            body.model,
            cut=left < body.max_tokens,
        )

    async def run(self) -> AnthropicMessage:
        """The whole answer at once."""
        answer = self.job.form.choice()
        finish: TextFinish | None = None
        reason = "stop"
        async with aclosing(self.job.events()) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    answer.push(event.text)
                else:
                    finish = event
                    _, reason = answer.finish(event)
        assert finish is not None, "every answer has an end"
        said = answer.message()
        content: list[AnthropicText | ToolUseContent] = [AnthropicText(text=said.content)] if said.content else []
        for call in said.tool_calls or ():
            assert call.type == "function"
            arguments = _object_in(call.function.arguments)
            content.append(ToolUseContent(id=_call_id(call.id), name=call.function.name, input=arguments))
        return self._message(content, finish, reason)

    async def stream(self) -> AsyncGenerator[str, None]:
        """The answer as events; the same blocks and reasons as `run`."""
        answer, blocks = self.job.form.choice(), _Blocks()
        started = False
        async with aclosing(self.job.events()) as events:
            async for event in events:
                if not started:  # not before the engine has: what it refuses gets a status of its own
                    started = True
                    yield _written(MessageStart(message=self._message([], None, "")))
                if isinstance(event, TextDelta):
                    deltas, reason = answer.push(event.text), None
                else:
                    deltas, reason = answer.finish(event)
                for delta in deltas:
                    for told in blocks.take(delta):
                        yield _written(told)
                if isinstance(event, TextFinish):
                    for told in blocks.close():
                        yield _written(told)
                    yield _written(MessageDelta(delta=self._ending(event, str(reason)), usage=self._usage(event)))
                    yield _written(MessageStop())

    def _message(
        self, content: list[AnthropicText | ToolUseContent], finish: TextFinish | None, reason: str
    ) -> AnthropicMessage:
        ending = self._ending(finish, reason) if finish else None
        return AnthropicMessage(
            id=self.id,
            model=self.name,
            content=content,
            stop_reason=ending.stop_reason if ending else None,
            stop_sequence=ending.stop_sequence if ending else None,
            usage=self._usage(finish),
        )

    def _usage(self, finish: TextFinish | None) -> AnthropicUsage:
        n_answer, n_reused = (finish.n_tokens, finish.reused_tokens) if finish else (0, 0)
        return AnthropicUsage.of(self.job.n_prompt, n_answer, n_reused)

    def _ending(self, finish: TextFinish, reason: str) -> Ending:
        """Anthropic's words for it."""
        stop_reason: StopReason = "end_turn"
        if reason == "tool_calls":
            stop_reason = "tool_use"
        elif reason == "length":
            stop_reason = "model_context_window_exceeded" if self.cut else "max_tokens"
        elif reason == "content_filter":
            stop_reason = "refusal"
        elif finish.stop is not None:
            stop_reason = "stop_sequence"
        return Ending(stop_reason=stop_reason, stop_sequence=finish.stop if stop_reason == "stop_sequence" else None)


class _Blocks:
    """Blocks of an answer as they come: at most one is open."""

    def __init__(self) -> None:
        self._index = -1
        self._open: str | None = None

    def take(self, delta: ChoiceDelta) -> Iterator[StreamEvent]:
        """What a piece of a chat stream comes to."""
        if delta.content:
            if self._open != "text":
                yield from self.close()
                yield from self._begin(AnthropicText(text=""))
            yield BlockDelta(index=self._index, delta=TextPiece(text=delta.content))
        for call in delta.tool_calls or ():
            assert call.function is not None
            if call.id is not None:
                yield from self.close()
                yield from self._begin(ToolUseContent(id=_call_id(call.id), name=call.function.name or "", input={}))
            if call.function.arguments:
                yield BlockDelta(index=self._index, delta=InputPiece(partial_json=call.function.arguments))

    def close(self) -> Iterator[StreamEvent]:
        """The end of the block that is open."""
        if self._open is not None:
            self._open = None
            yield BlockStop(index=self._index)

    def _begin(self, block: AnthropicText | ToolUseContent) -> Iterator[StreamEvent]:
        self._index += 1
        self._open = block.type
        yield BlockStart(index=self._index, content_block=block)


def _written(event: StreamEvent) -> str:
    return named_sse(event.type, event)


def _room(n_prompt: int, model: TextModel) -> int:
    """Tokens that an answer can have. Raises InvalidRequestError, in Anthropic's own words, where it is none."""
    left = model.max_tokens_left(n_prompt)
    if left < 1:
        raise InvalidRequestError(
            "prompt is too long: {n} tokens > {limit} maximum",
            n=n_prompt,
            limit=model.context_length - 1,
            param="messages",
            code="context_length_exceeded",
        )
    return left


def _call_id(call_id: str) -> str:
    """With the beginning that Anthropic's ids have."""
    return "toolu_" + call_id.removeprefix("call_")


def _object_in(arguments: str) -> dict[str, Any]:
    """Arguments as an object; of a call that was cut off, what had come."""
    value = pydantic_core.from_json(arguments, allow_partial="trailing-strings") if arguments.strip() else {}
    return value if isinstance(value, dict) else {}
