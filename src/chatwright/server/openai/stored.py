"""Chat completions that were to be kept (`store: true`): listed, looked at, labelled, deleted."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Request
from openai.types.chat import ChatCompletion, ChatCompletionDeleted, ChatCompletionStoreMessage
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from starlette.responses import Response

from chatwright.errors import InvalidRequestError
from chatwright.server.json_body import JsonRoute
from chatwright.server.openai.lists import LOOKED_FOR, After, Limit, Order, json_response, page
from chatwright.server.openai.metadata import Metadata
from chatwright.server.openai.requests import ChatBody, Message
from chatwright.server.permission import Permit
from chatwright.server.state import NeedDatabase, ServerState
from chatwright.store.actor import Actor
from chatwright.store.kept import check_room, size_of
from chatwright.store.policy import Action, authorize
from chatwright.store.responses import completions as store
from chatwright.store.responses.completions import Kept
from chatwright.store.tables import StoredCompletion

FILTER = re.compile(r"metadata\[(.+)\]", re.DOTALL)
METADATA: TypeAdapter[dict[str, str]] = TypeAdapter(Metadata)
Keep = Callable[[ChatCompletion], Awaitable[None]]

router = APIRouter(route_class=JsonRoute, tags=["chat"])
Owner = Annotated[Actor, Depends(Permit(Action.USE_RESPONSES))]


class MetadataBody(BaseModel):
    """`POST /v1/chat/completions/{completion_id}`: the metadata that it shall have from now on."""

    model_config = ConfigDict(strict=True)

    metadata: Metadata | None


class CompletionList(BaseModel):
    """A page of completions."""

    object: str
    data: list[ChatCompletion]
    first_id: str
    last_id: str
    has_more: bool


class KeptMessage(ChatCompletionStoreMessage):
    """A message as it was sent. (OpenAI's own type allows the assistant's only, as if nobody else had said anything.)"""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]  # type: ignore[assignment]


class MessageList(BaseModel):
    """A page of messages."""

    object: str
    data: list[KeptMessage]
    first_id: str
    last_id: str
    has_more: bool


def _answers(model: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model}}


async def keeping(body: ChatBody, actor: Actor, state: ServerState) -> Keep:
    """What keeps the answer to a request. Raises ForbiddenError, StoreUnavailableError, TooLargeError before it is answered."""
    authorize(actor, Action.USE_RESPONSES)
    database = state.required_database()
    messages = [orjson.dumps(_kept_message(message)).decode() for message in body.messages]
    async with database.read() as session:
        await check_room(session, actor, StoredCompletion, size_of(*messages), state.settings.kept_quota)

    async def keep(completion: ChatCompletion) -> None:
        written = completion.model_dump_json(exclude_unset=True)
        kept = Kept(completion.id, written, body.metadata or {})
        async with database.write() as session:
            await store.keep_completion(session, actor, kept, completion.model, completion.created, messages)

    return keep


@router.get("/chat/completions", response_model=None, responses=_answers(CompletionList), openapi_extra=LOOKED_FOR)
async def list_completions(
    request: Request,
    actor: Owner,
    database: NeedDatabase,
    model: Annotated[str | None, Query(max_length=200)] = None,
    after: After = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> Response:
    """Those that were kept, the oldest first; `metadata[KEY]=VALUE` looks for pairs."""
    async with database.read() as session:
        found = await store.list_completions(
            session,
            actor,
            model=None if model is None or "\0" in model else model,
            metadata=_wanted(request.query_params.multi_items()),
            after=after,
            limit=limit,
            newest_first=order == "desc",
        )
    return json_response(page([_values(kept) for kept in found.completions], found.has_more))


@router.get("/chat/completions/{completion_id}", response_model=None, responses=_answers(ChatCompletion))
async def retrieve_completion(completion_id: str, actor: Owner, database: NeedDatabase) -> Response:
    """One of them."""
    async with database.read() as session:
        return json_response(_values(await store.find_completion(session, actor, completion_id)))


@router.post("/chat/completions/{completion_id}", response_model=None, responses=_answers(ChatCompletion))
async def update_completion(completion_id: str, body: MetadataBody, actor: Owner, database: NeedDatabase) -> Response:
    """Change its metadata, and nothing else."""
    async with database.write() as session:
        return json_response(_values(await store.change_metadata(session, actor, completion_id, body.metadata or {})))


@router.delete("/chat/completions/{completion_id}")
async def delete_completion(completion_id: str, actor: Owner, database: NeedDatabase) -> ChatCompletionDeleted:
    """Delete it with what it answered."""
    async with database.write() as session:
        await store.delete_completion(session, actor, completion_id)
    return ChatCompletionDeleted(id=completion_id, object="chat.completion.deleted", deleted=True)


@router.get("/chat/completions/{completion_id}/messages", response_model=None, responses=_answers(MessageList))
async def list_messages(
    completion_id: str,
    actor: Owner,
    database: NeedDatabase,
    after: After = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> Response:
    """What it answers."""
    async with database.read() as session:
        kept = await store.messages_of(session, actor, completion_id)
    messages = [{"id": f"{completion_id}-{number}", **orjson.loads(text)} for number, text in enumerate(kept)]
    if order == "desc":
        messages.reverse()
    if after is not None:
        places = [number for number, message in enumerate(messages) if message["id"] == after]
        if not places:
            raise InvalidRequestError(
                "There is no message '{id}' after which to go on.", id=after[:60], param="after", code="invalid_value"
            )
        messages = messages[places[0] + 1 :]
    return json_response(page(messages[:limit], len(messages) > limit))


def _kept_message(message: Message) -> dict[str, Any]:
    """As the wire shows it, without an id."""
    parts = None if isinstance(message.content, str | None) else [part.model_dump() for part in message.content]
    shown = message.model_dump(exclude_none=True, exclude={"content"})
    content = None if message.content is None else message.text
    return {"refusal": None, **shown, "content": content, "content_parts": parts}


def _values(kept: Kept) -> dict[str, Any]:
    values: dict[str, Any] = orjson.loads(kept.body)
    return {**values, "metadata": dict(kept.metadata)}


def _wanted(query: list[tuple[str, str]]) -> Mapping[str, str]:
    """The pairs that are looked for. Raises InvalidRequestError."""
    pairs = {found[1]: value for name, value in query if (found := FILTER.fullmatch(name))}
    try:
        return METADATA.validate_python(pairs)
    except ValidationError:
        raise InvalidRequestError(
            "metadata is looked for as metadata[KEY]=VALUE: up to 16 pairs, keys of up to 64 characters, values of up to 512.",
            param="metadata",
            code="invalid_value",
        ) from None
