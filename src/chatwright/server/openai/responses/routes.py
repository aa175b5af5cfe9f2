"""`/v1/responses`: make one, follow it, come back to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Request
from openai.types.responses.input_token_count_response import InputTokenCountResponse
from pydantic import BaseModel
from starlette.responses import Response

from chatwright.errors import EngineError, InvalidRequestError, NotFoundError
from chatwright.server.json_body import JsonRoute
from chatwright.server.metering import bill_of
from chatwright.server.openai.chat import ChatJob
from chatwright.server.openai.generation import on_behalf_of, unless_client_leaves
from chatwright.server.openai.lists import After, Limit, Order, json_response, page
from chatwright.server.openai.responses.context import Context, context_of, prompt_of
from chatwright.server.openai.responses.described import DescribedInputItems, DescribedResponse
from chatwright.server.openai.responses.items import contents
from chatwright.server.openai.responses.requests import ContextBody, ResponseBody, fields_of_responses
from chatwright.server.openai.responses.running import Keeping, Running, pieces_of
from chatwright.server.openai.responses.story import Told, retold
from chatwright.server.openai.responses.wire import (
    OutputItem,
    as_json,
    as_values,
    listed_item,
    new_head,
    output_item,
    response_object,
)
from chatwright.server.openai.streaming import Dialect, start_stream
from chatwright.server.permission import Permit
from chatwright.server.state import NeedDatabase, ServerState, State
from chatwright.store.actor import Actor
from chatwright.store.database import Database
from chatwright.store.kept import check_room, size_of
from chatwright.store.policy import Action, authorize
from chatwright.store.responses import conversations, rows
from chatwright.store.tables import ResponseRow

# How often the store is asked how a response goes on that another server writes, and for how long one waits for its cancellation.
LOOK_AGAIN_S = 1.0
PATIENCE_S = 15
# A comment, which clients pass over: an answer has to say something.
NOTHING_MORE = ": nothing comes after that\n\n"

router = APIRouter(route_class=JsonRoute, tags=["responses"])
# A POST without a body.
bare_router = APIRouter(tags=["responses"])
Owner = Annotated[Actor, Depends(Permit(Action.USE_RESPONSES))]
Asks = Annotated[Actor, Depends(Permit(Action.GENERATE))]

# What the routes answer, for the API's description: they return finished responses, which FastAPI does not look into.
ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "model": DescribedResponse,
        "description": "The response; with stream, numbered server-sent events from response.created to response.completed,"
        " .incomplete or .failed.",
        "content": {"text/event-stream": {}},
    }
}


class DeletedResponse(BaseModel):
    """It is gone, with all that was said in it."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


def _failed(status: int, message: str, param: str | None, code: str | None) -> str:
    event = {"type": "error", "code": code, "message": message, "param": param, "sequence_number": 0}
    return f"event: error\ndata: {orjson.dumps(event).decode()}\n\n"


RESPONSES = Dialect(_failed, "")


@router.post("/responses", response_model=None, responses=ANSWER)
async def create_response(body: ResponseBody, request: Request, actor: Asks, state: State) -> Response:
    """Answer, and keep the state for the next time."""
    store = rows.may_keep(actor) and state.database is not None if body.store is None else body.store
    if store or body.background or body.conversation is not None:
        authorize(actor, Action.USE_RESPONSES)
        state.required_database()
        store = True
    user = body.user
    with fields_of_responses():
        job, context = await _job(body, request, actor, state)
    if body.conversation is not None:  # before it costs anything; the answer is an item, too
        conversations.check_room(len(context.before) + len(context.said) + 1, "conversation")
    if store:
        async with state.required_database().read() as session:
            said = size_of(*(item.content for item in context.said))
            await check_room(session, actor, ResponseRow, said, state.settings.kept_quota)
    head = new_head(body, rows.new_response_id(), body.model or job.model.name, store=store, user=user)
    keeping = Keeping(actor, context.said, body.previous_response_id, body.conversation_id) if store else None
    running = await state.responses.start(job, head, keeping)
    if body.stream:
        return await start_stream(request, _followed(running, 0, body.obfuscate, owner=True), RESPONSES)
    if running.background:
        return Response(as_json(response_object(running.story.head, [])), media_type="application/json")
    try:
        await unless_client_leaves(request, _finished(running))
    finally:
        running.stop()
    return Response(as_json(response_object(running.story.head, running.story.output)), media_type="application/json")


@router.post("/responses/input_tokens", response_model=None, responses={200: {"model": InputTokenCountResponse}})
async def count_input_tokens(body: ContextBody, request: Request, actor: Asks, state: State) -> Response:
    """How many tokens the model would read. Nothing is generated."""
    state.check_open()
    with fields_of_responses():
        job, _ = await _job(body, request, actor, state)
    count = InputTokenCountResponse(object="response.input_tokens", input_tokens=job.n_prompt)
    return Response(as_json(count), media_type="application/json")


@router.get("/responses/{response_id}", response_model=None, responses=ANSWER)
async def retrieve_response(
    response_id: str,
    request: Request,
    actor: Owner,
    state: State,
    database: NeedDatabase,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
    include_obfuscation: bool = True,
) -> Response:
    """The response as far as it is. With `stream` its events, those after `starting_after`, up to its end."""
    if starting_after is not None and not stream:
        raise InvalidRequestError(
            "starting_after is only allowed when stream is true.", param="starting_after", code="invalid_value"
        )
    row, output = await _kept(state, database, actor, response_id)
    if not stream:
        return Response(as_json(response_object(orjson.loads(row.head), output)), media_type="application/json")
    after = -1 if starting_after is None else starting_after
    running = state.responses.get(response_id)
    if running is not None:
        events = _followed(running, after + 1, include_obfuscation, owner=False)
    else:
        events = _retold(state, database, actor, response_id, after, include_obfuscation)
    return await start_stream(request, events, RESPONSES)


@router.delete("/responses/{response_id}")
async def delete_response(response_id: str, actor: Owner, state: State, database: NeedDatabase) -> DeletedResponse:
    """Delete it, also while it is written."""
    async with database.write() as session:
        await rows.delete_response(session, actor, response_id)
    if (running := state.responses.get(response_id)) is not None:
        running.stop()
    return DeletedResponse(id=response_id)


@bare_router.post("/responses/{response_id}/cancel", response_model=None, responses={200: {"model": DescribedResponse}})
async def cancel_response(response_id: str, actor: Owner, state: State, database: NeedDatabase) -> Response:
    """End one in the background. One that is over stays as it is."""
    row, output = await _kept(state, database, actor, response_id)
    if not orjson.loads(row.head)["background"]:
        raise InvalidRequestError(
            "Only a response in the background can be cancelled: any other ends when its client hangs up.",
            param="response_id",
            code="not_in_background",
        )
    if row.status in rows.RUNNING:
        running = state.responses.get(response_id)
        if running is not None:
            running.stop()
            await running.finished()
        else:
            async with database.write() as session:
                await rows.ask_to_cancel(session, actor, response_id)
        for _ in range(round(PATIENCE_S / LOOK_AGAIN_S)):
            row, output = await _kept(state, database, actor, response_id)
            if row.status not in rows.RUNNING:
                break
            await asyncio.sleep(LOOK_AGAIN_S)
    return Response(as_json(response_object(orjson.loads(row.head), output)), media_type="application/json")


@router.get(
    "/responses/{response_id}/input_items", response_model=None, responses={200: {"model": DescribedInputItems}}
)
async def list_input_items(
    response_id: str,
    actor: Owner,
    database: NeedDatabase,
    after: After = None,
    limit: Limit = 20,
    order: Order = "desc",
) -> Response:
    """What the model read for this response: what was said before it, in the responses that it goes on from, and in it."""
    async with database.read() as session:
        row = await rows.find_response(session, actor, response_id)
        items = contents(await rows.input_of(session, row))
    if order == "desc":
        items.reverse()
    if after is not None:
        places = [number for number, item in enumerate(items) if item["id"] == after]
        if not places:
            raise InvalidRequestError(
                "There is no item '{id}' after which to go on.", id=after[:60], param="after", code="invalid_value"
            )
        items = items[places[0] + 1 :]
    data = [as_values(listed_item(item)) for item in items[:limit]]
    return json_response(page(data, len(items) > limit))


async def _job(body: ContextBody, request: Request, actor: Actor, state: ServerState) -> tuple[ChatJob, Context]:
    """Find the model, read what was said before, tokenise, check. Raises as `chat.answer` does, and as `context_of`."""
    body.user = body.user or getattr(body, "safety_identifier", None)
    on_behalf_of(body, request)
    model = await state.model_for_answer(body.model, actor)
    if rows.may_keep(actor) and (body.previous_response_id is not None or body.conversation_id is not None):
        state.required_database()
    context = await context_of(body, actor, state.database)
    chat = body.as_chat(context.messages(body.instructions))
    prompt = await prompt_of(chat, model, cut=body.truncation == "auto")
    job = ChatJob(chat, body.model or model.name, model, prompt, state.cut_off, bill_of(request), state.guard)
    return job, context


async def _finished(running: Running) -> None:
    """Wait for its end. Raises what it failed with: a status says that better than an object."""
    await asyncio.shield(running.began)
    await running.finished()
    if running.status is None:
        raise NotFoundError("The response was deleted while it was written.")
    if running.status == "failed":
        raise running.failure or EngineError("The server failed while it wrote this response. Its log says where.")


async def _followed(running: Running, first: int, obfuscate: bool, *, owner: bool) -> AsyncGenerator[str, None]:
    """Events as they come. `owner`: when its reader leaves it ends, unless it is in the background."""
    try:
        await asyncio.shield(running.began)
        async with aclosing(running.follow(first)) as events:
            is_silent = True
            async for told in events:
                is_silent = False
                yield told.sent(obfuscate=obfuscate)
        if is_silent:
            yield NOTHING_MORE
    finally:
        if owner and not running.background:
            running.stop()


async def _retold(
    state: ServerState, database: Database, actor: Actor, response_id: str, after: int, obfuscate: bool
) -> AsyncGenerator[str, None]:
    """The same of one that is over, or that another server writes; then from its end on."""
    row, _ = await _kept(state, database, actor, response_id)
    while row.status in rows.RUNNING and not state.cut_off.is_set():
        yield ": still written elsewhere\n\n"
        await asyncio.sleep(LOOK_AGAIN_S)
        row, _ = await _kept(state, database, actor, response_id)
    async with database.read() as session:
        items = contents(await rows.items_of(session, row, is_output=True))
    is_silent = True
    for told in _from(retold(orjson.loads(row.head), items, pieces_of(row.pieces), after), after):
        is_silent = False
        yield told.sent(obfuscate=obfuscate)
    if is_silent:
        yield NOTHING_MORE


def _from(events: Iterable[Told], after: int) -> Iterable[Told]:
    return (told for told in events if told.number > after)


async def _kept(
    state: ServerState, database: Database, actor: Actor, response_id: str
) -> tuple[ResponseRow, list[OutputItem]]:
    """The row and its output; what nobody writes any more is called failed first. Raises NotFoundError."""
    for attempt in range(2):
        async with database.read() as session:
            row = await rows.find_response(session, actor, response_id)
            output = [output_item(content) for content in contents(await rows.items_of(session, row, is_output=True))]
        if row.status not in rows.RUNNING or attempt or state.responses.get(response_id) is not None:
            break
        await state.responses.settle(response_id)
    return row, output
