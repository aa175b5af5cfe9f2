"""What the model reads for a response: instructions, what was said before, and what is new; cut where that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.engine.text import TextModel
from chatwright.errors import InvalidRequestError
from chatwright.server.openai.chat import ChatPrompt
from chatwright.server.openai.requests import ChatBody, Message
from chatwright.server.openai.responses.items import ItemReference, MessageItem, contents, kept, kept_item, messages_of
from chatwright.server.openai.responses.requests import ContextBody
from chatwright.store.actor import Actor
from chatwright.store.database import Database
from chatwright.store.ids import new_wire_id
from chatwright.store.policy import Action, authorize
from chatwright.store.responses import conversations, rows
from chatwright.store.responses.items import KeptItem

# With truncation, this part of the context is left for an answer whose length nobody named.
ROOM_FOR_ANSWER = 4


@dataclass(frozen=True)
class Context:
    """`before`: of the previous response or the conversation; `said`: what is new."""

    before: Sequence[KeptItem]
    said: Sequence[KeptItem]

    def messages(self, instructions: str | None) -> list[Message]:
        """For the model. Raises InvalidRequestError."""
        system = [Message(role="system", content=instructions)] if instructions else []
        return [*system, *messages_of(contents([*self.before, *self.said]))]


async def context_of(body: ContextBody, actor: Actor, database: Database | None) -> Context:
    """Read what was said before. Raises InvalidRequestError, NotFoundError, ForbiddenError, StoreError and its kin."""
    items = [MessageItem(role="user", content=body.input)] if isinstance(body.input, str) else body.input
    if isinstance(body.input, str) and not body.input:
        items = []
    needs_store = (
        body.previous_response_id is not None
        or body.conversation_id is not None
        or any(isinstance(item, ItemReference) for item in items)
    )
    if not needs_store:
        return Context([], [kept_item(item) for item in items if not isinstance(item, ItemReference)])
    authorize(actor, Action.USE_RESPONSES)
    assert database is not None, "whoever calls this has made sure of it"
    async with database.read() as session:
        before: list[KeptItem] = []
        if body.previous_response_id is not None:
            before = await rows.history(session, actor, body.previous_response_id)
        elif body.conversation_id is not None:
            before = await conversations.all_items(session, actor, body.conversation_id)
        said = [
            await _referred(session, actor, item, before) if isinstance(item, ItemReference) else kept_item(item)
            for item in items
        ]
    return Context(before, said)


async def _referred(
    session: AsyncSession, actor: Actor, reference: ItemReference, before: Sequence[KeptItem]
) -> KeptItem:
    """A copy of the item: one may be referred to many times."""
    found = next((item for item in before if item.id == reference.id), None)
    found = found or await rows.find_item(session, actor, reference.id)
    if found is None:
        raise InvalidRequestError(
            "Item with id '{id}' not found.", id=reference.id[:60], param="input", code="item_not_found"
        )
    [content] = contents([found])
    return kept(content | {"id": new_wire_id(found.id.partition("_")[0])})


async def prompt_of(chat: ChatBody, model: TextModel, *, cut: bool) -> ChatPrompt:
    """The conversation as the model reads it. `cut`: what does not fit is left away from the beginning, whole turns at a time, but
    neither instructions nor the last turn. Raises InvalidRequestError."""
    n_answer = chat.max_completion_tokens or model.context_length // ROOM_FOR_ANSWER
    if not cut:
        return await ChatPrompt.of(chat, model)
    system = [message for message in chat.messages if message.role in ("system", "developer")]
    turns = [message for message in chat.messages if message.role not in ("system", "developer")]
    starts = [number for number, message in enumerate(turns) if message.role == "user"] or [0]
    if starts[0] != 0:
        starts.insert(0, 0)

    async def beginning_at(start: int) -> ChatPrompt | None:
        shorter = chat.model_copy(update={"messages": chat.messages if start == 0 else [*system, *turns[start:]]})
        try:
            prompt = await ChatPrompt.of(shorter, model)
        except InvalidRequestError as error:
            if error.code == "context_length_exceeded":
                return None
            raise
        return prompt if len(prompt.ids) + n_answer <= model.context_length else None

    # The first beginning with which it fits: the shorter, the better it does.
    low, high, found = 0, len(starts) - 1, None
    while low <= high:
        middle = (low + high) // 2 if low or found else 0  # mostly all of it fits
        prompt = await beginning_at(starts[middle])
        if prompt is None:
            low = middle + 1
        else:
            found, high = prompt, middle - 1
    if found is not None:
        return found
    last = chat.model_copy(update={"messages": [*system, *turns[starts[-1] :]]})
    return await ChatPrompt.of(last, model)  # its length is checked, and told, like that of any other
