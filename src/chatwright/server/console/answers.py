"""Answers in conversations: asked for, followed while they are written, stopped. The connection that asks may go away."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, Field, FiniteFloat, StringConstraints
from starlette.responses import StreamingResponse

from chatwright.engine.text import TextModel, TextRequest
from chatwright.errors import InvalidRequestError
from chatwright.i18n import Language
from chatwright.server.console.conversations import Content, MessageObject, NeedAnswers, Owner
from chatwright.server.console.wire import Body, NeedAccounts, Text
from chatwright.server.detached import Delta, Event, Failed, Finished
from chatwright.server.errors import ErrorDetail, WireError, as_wire_error, error_object, language_of
from chatwright.server.guard import Guard, watch_of
from chatwright.server.json_body import JsonRoute
from chatwright.server.metering import bill_of
from chatwright.server.openai.generation import owner_of, sampling_params
from chatwright.server.openai.requests import SamplingBody
from chatwright.server.openai.streaming import sse
from chatwright.server.state import State
from chatwright.store.accounts.service import Accounts
from chatwright.store.actor import Actor
from chatwright.store.conversations import messages, threads
from chatwright.store.conversations.generations import check_request

router = APIRouter(route_class=JsonRoute, tags=["conversations"])

MAX_INSTRUCTIONS = 20_000
PING = ": ping\n\n"


class GenerateBody(Body):
    """How an answer shall be written. With `content`, the user says this after the message `parent_id`, and it is answered;
    without, the message `parent_id` is, once more where there is an answer. `instructions`: the system message.
    `max_tokens`: as many as fit, where it is not given."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    content: Content | None = None
    parent_id: Text | None = None
    instructions: Annotated[str, StringConstraints(max_length=MAX_INSTRUCTIONS)] | None = None
    temperature: Annotated[FiniteFloat, Field(ge=0, le=2)] | None = None
    top_p: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[FiniteFloat, Field(ge=0.01, le=10)] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None


class GenerationObject(BaseModel):
    """An answer that is being written. `question`: what the user said, where that is new."""

    object: Literal["generation"] = "generation"
    id: str
    conversation_id: str
    title: str
    question: MessageObject | None
    answer: MessageObject


class StopBody(Body):
    """Nothing has to be said."""


class MessageEvent(BaseModel):
    """The data of an event. `text` of "delta": the answer goes on with it. `message` of "finished", the last event: the whole
    answer. `error` of "error", also the last one: there is no more to read."""

    text: str | None = None
    message: MessageObject | None = None
    error: ErrorDetail | None = None


EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": MessageEvent,
        "description": "Server-sent events, each with an id to go on from and a MessageEvent as its data.",
        "content": {"text/event-stream": {}},
    }
}


@router.post("/conversations/{conversation_id}/generations")
async def generate(
    conversation_id: str,
    body: GenerateBody,
    actor: Owner,
    request: Request,
    state: State,
    accounts: NeedAccounts,
    answers: NeedAnswers,
) -> GenerationObject:
    """Ask for an answer. It is written to its end whether anybody follows its events or not. 409 while there is another one."""
    said = await _history(body, actor, conversation_id, accounts)
    model = await state.model_for_answer(body.model, actor)
    try:
        text_request = await _request(body, actor, said, model, state.guard)
        if state.guard is not None:  # of what fits into the context only: a long history would take it many seconds
            await state.guard.check([turn["content"] for turn in said if turn["role"] != "system"], param="content")
    except InvalidRequestError as error:
        error.param = "content" if error.param == "messages" else error.param
        raise
    begun = await answers.begin(
        actor,
        conversation_id,
        parent_id=body.parent_id,
        content=body.content,
        model=model,
        request=text_request,
        bill=bill_of(request),
    )
    language = language_of(request)
    return GenerationObject(
        id=begun.generation.id,
        conversation_id=conversation_id,
        title=begun.title,
        question=MessageObject.of(begun.question, language) if begun.question is not None else None,
        answer=MessageObject.of(begun.answer, language),
    )


@router.get("/conversations/{conversation_id}/messages/{message_id}/events", response_model=None, responses=EVENTS)
async def follow_message(
    conversation_id: str,
    message_id: str,
    actor: Owner,
    request: Request,
    accounts: NeedAccounts,
    answers: NeedAnswers,
    after: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
) -> StreamingResponse:
    """Follow an answer: what is there after a position, then what comes, up to its end. The id of an event is the position after
    it; a browser that lost the connection sends the last one as Last-Event-ID, which counts more than `after`."""
    if last_event_id is not None:
        if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 10):
            raise WireError(400, "Last-Event-ID is the id of an event.", param="Last-Event-ID", code="invalid_value")
        after = int(last_event_id)
    async with accounts.database.read() as session:
        message = await messages.find_message(session, actor, conversation_id, message_id)
    events = _written(answers.follow(actor, message, after), language_of(request))
    return StreamingResponse(
        events, media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


@router.post("/conversations/{conversation_id}/messages/{message_id}/stop")
async def stop_message(
    conversation_id: str, message_id: str, body: StopBody, actor: Owner, request: Request, answers: NeedAnswers
) -> MessageObject:
    """Stop the engine. What there is of the answer is kept; one that is over stays as it is."""
    return MessageObject.of(await answers.stop(actor, conversation_id, message_id), language_of(request))


async def _history(body: GenerateBody, actor: Actor, conversation_id: str, accounts: Accounts) -> list[dict[str, Any]]:
    """What the model is told was said. An answer that failed before its first word is no part of the talk.

    Raises NotFoundError, InvalidRequestError.
    """
    check_request(body.parent_id, body.content)
    async with accounts.database.read() as session:
        await threads.find_conversation(session, actor, conversation_id)
        before = []
        if body.parent_id is not None:
            before = await messages.branch(session, actor, conversation_id, body.parent_id)
    said = [{"role": message.role, "content": message.content} for message in before if message.content]
    if body.content is not None:
        said.append({"role": "user", "content": body.content})
    if body.instructions and body.instructions.strip():
        said.insert(0, {"role": "system", "content": body.instructions.strip()})
    return said


async def _request(
    body: GenerateBody, actor: Actor, said: list[dict[str, Any]], model: TextModel, guard: Guard | None
) -> TextRequest:
    """What the engine is asked. Raises InvalidRequestError."""
    prompt = await model.encode_chat(said)
    # At least one token: a conversation that fills the context is an error, not an empty answer.
    max_tokens = max(1, model.max_tokens_left(len(prompt))) if body.max_tokens is None else body.max_tokens
    model.check_length(len(prompt), max_tokens, param="content")
    sampling = SamplingBody(
        temperature=body.temperature,
        top_p=body.top_p,
        repetition_penalty=body.repetition_penalty,
        user=f"{actor.user_id}\n",  # as `on_behalf_of` has it: /v1 and this share what the cache holds of one user
    )
    return TextRequest(
        prompt_ids=prompt,
        sampling=sampling_params(sampling, model, max_tokens=max_tokens, logprobs=None),
        owner=owner_of(sampling),
        watch=watch_of(guard),
    )


async def _written(events: AsyncGenerator[Event, None], language: Language) -> AsyncGenerator[str, None]:
    async with aclosing(events):
        async for event in events:
            match event:
                case Delta():
                    yield f"id: {event.position}\nevent: delta\n{sse(MessageEvent(text=event.text))}"
                case Finished():
                    message = MessageObject.of(event.message, language)
                    yield f"id: {message.position}\nevent: finished\n{sse(MessageEvent(message=message))}"
                case Failed():
                    wire = as_wire_error(event.error, language)
                    error = error_object(wire.status_code, str(wire.detail), wire.param, wire.code)["error"]
                    yield f"event: error\n{sse(MessageEvent(error=ErrorDetail(**error)))}"
                case _:
                    yield PING
