"""`/v1/conversations`: what was said, kept by the server under one id, for responses to go on from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends
from openai.types.conversations import (
    Conversation,
    ConversationDeletedResource,
    Message,
)
from openai.types.responses.response_function_tool_call_item import ResponseFunctionToolCallItem
from openai.types.responses.response_function_tool_call_output_item import ResponseFunctionToolCallOutputItem
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from chatwright.errors import InvalidRequestError
from chatwright.server.json_body import JsonRoute
from chatwright.server.openai.lists import After, Limit, Order, json_response, page
from chatwright.server.openai.metadata import Metadata
from chatwright.server.openai.responses.described import DescribedItem, DescribedItems
from chatwright.server.openai.responses.items import ItemReference, Items, contents, kept_item
from chatwright.server.openai.responses.wire import as_json, as_values
from chatwright.server.permission import Permit
from chatwright.server.state import NeedDatabase, State
from chatwright.store.actor import Actor
from chatwright.store.kept import check_room, size_of
from chatwright.store.policy import Action
from chatwright.store.responses import conversations as store
from chatwright.store.responses.items import KeptItem
from chatwright.store.tables import ApiConversation

# At OpenAI; a program that brings a longer history sends it in several requests.
MAX_NEW_ITEMS = 20

router = APIRouter(route_class=JsonRoute, tags=["conversations"])
Owner = Annotated[Actor, Depends(Permit(Action.USE_RESPONSES))]


class NewConversationBody(BaseModel):
    """`POST /v1/conversations`."""

    model_config = ConfigDict(strict=True)

    items: Annotated[Items, Field(max_length=MAX_NEW_ITEMS)] | None = None
    metadata: Metadata | None = None


class ChangedConversationBody(BaseModel):
    """`POST /v1/conversations/{conversation_id}`: the metadata that it shall have from now on."""

    model_config = ConfigDict(strict=True)

    metadata: Metadata | None


class NewItemsBody(BaseModel):
    """`POST /v1/conversations/{conversation_id}/items`."""

    model_config = ConfigDict(strict=True)

    items: Annotated[Items, Field(min_length=1, max_length=MAX_NEW_ITEMS)]


def _answers(model: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model}}


@router.post("/conversations", response_model=None, responses=_answers(Conversation))
async def create_conversation(
    body: NewConversationBody, actor: Owner, state: State, database: NeedDatabase
) -> Response:
    """Begin one, with up to 20 items in it."""
    items = _new_items(body.items or ())
    more_bytes = size_of(*(item.content for item in items))
    async with database.write() as session:
        await check_room(session, actor, ApiConversation, more_bytes, state.settings.kept_quota)
        row = await store.add_conversation(session, actor, _json(body.metadata or {}), items)
    return _conversation(row)


@router.get("/conversations/{conversation_id}", response_model=None, responses=_answers(Conversation))
async def retrieve_conversation(conversation_id: str, actor: Owner, database: NeedDatabase) -> Response:
    """Its metadata; what was said in it are its items."""
    async with database.read() as session:
        return _conversation(await store.find_conversation(session, actor, conversation_id))


@router.post("/conversations/{conversation_id}", response_model=None, responses=_answers(Conversation))
async def update_conversation(
    conversation_id: str, body: ChangedConversationBody, actor: Owner, database: NeedDatabase
) -> Response:
    """Change its metadata."""
    async with database.write() as session:
        row = await store.find_conversation(session, actor, conversation_id, lock=True)
        row.labels = _json(body.metadata or {})
    return _conversation(row)


@router.delete("/conversations/{conversation_id}", response_model=None, responses=_answers(ConversationDeletedResource))
async def delete_conversation(conversation_id: str, actor: Owner, database: NeedDatabase) -> Response:
    """Delete it with what was said in it. Responses that were given in it stay until they are deleted themselves."""
    async with database.write() as session:
        await store.delete_conversation(session, actor, conversation_id)
    deleted = ConversationDeletedResource(id=conversation_id, object="conversation.deleted", deleted=True)
    return Response(as_json(deleted), media_type="application/json")


@router.post("/conversations/{conversation_id}/items", response_model=None, responses=_answers(DescribedItems))
async def create_items(
    conversation_id: str, body: NewItemsBody, actor: Owner, state: State, database: NeedDatabase
) -> Response:
    """Put items behind the last one."""
    items = _new_items(body.items)
    more_bytes = size_of(*(item.content for item in items))
    async with database.write() as session:
        await store.find_conversation(session, actor, conversation_id)
        await check_room(session, actor, None, more_bytes, state.settings.kept_quota)
        await store.add_items(session, actor, conversation_id, items)
    return json_response(page([_item_values(item) for item in contents(items)], has_more=False))


@router.get("/conversations/{conversation_id}/items", response_model=None, responses=_answers(DescribedItems))
async def list_items(
    conversation_id: str,
    actor: Owner,
    database: NeedDatabase,
    after: After = None,
    limit: Limit = 20,
    order: Order = "desc",
) -> Response:
    """What was said, the newest first unless asked otherwise."""
    async with database.read() as session:
        found = await store.list_items(
            session, actor, conversation_id, after=after, limit=limit, newest_first=order == "desc"
        )
    return json_response(page([_item_values(item) for item in contents(found.items)], found.has_more))


@router.get("/conversations/{conversation_id}/items/{item_id}", response_model=None, responses=_answers(DescribedItem))
async def retrieve_item(conversation_id: str, item_id: str, actor: Owner, database: NeedDatabase) -> Response:
    """One of them."""
    async with database.read() as session:
        item = await store.find_conversation_item(session, actor, conversation_id, item_id)
    return json_response(_item_values(contents([item])[0]))


@router.delete(
    "/conversations/{conversation_id}/items/{item_id}", response_model=None, responses=_answers(Conversation)
)
async def delete_item(conversation_id: str, item_id: str, actor: Owner, database: NeedDatabase) -> Response:
    """Take one out; the answer is the conversation."""
    async with database.write() as session:
        row = await store.delete_item(session, actor, conversation_id, item_id)
    return _conversation(row)


def _new_items(items: Sequence[Any]) -> list[KeptItem]:
    for item in items:
        if isinstance(item, ItemReference):
            raise InvalidRequestError(
                "A conversation keeps items, not references to them: send the item itself.",
                param="items",
                code="invalid_value",
            )
    return [kept_item(item) for item in items]


def _conversation(row: ApiConversation) -> Response:
    conversation = Conversation(
        id=row.id, object="conversation", created_at=row.created_at, metadata=orjson.loads(row.labels)
    )
    return Response(as_json(conversation), media_type="application/json")


def _item_values(content: dict[str, Any]) -> dict[str, Any]:
    kind: type[BaseModel] = Message
    if content["type"] == "function_call":
        kind = ResponseFunctionToolCallItem
    elif content["type"] == "function_call_output":
        kind = ResponseFunctionToolCallOutputItem
    return as_values(kind.model_validate(content))


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
