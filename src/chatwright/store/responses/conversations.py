"""Conversations that programs lead: items in order, put there by hand or by responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import InvalidRequestError, NotFoundError
from chatwright.store import clock
from chatwright.store.actor import Actor
from chatwright.store.ids import is_wire_id, new_wire_id
from chatwright.store.kept import size_of
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.responses.items import KeptItem
from chatwright.store.tables import ApiConversation, ApiConversationItem

# As many as one request may have messages.
MAX_ITEMS = 4096


@dataclass(frozen=True)
class ItemPage:
    """`has_more`: there are more behind the last one."""

    items: Sequence[KeptItem]
    has_more: bool


async def add_conversation(
    session: AsyncSession, actor: Actor, labels: str, items: Sequence[KeptItem]
) -> ApiConversation:
    """A new one. `labels`: its metadata, as JSON."""
    row = ApiConversation(
        id=new_wire_id("conv"), user_id=actor.user_id, labels=labels, size_bytes=0, created_at=clock.now()
    )
    authorize(actor, Action.USE_RESPONSES, Resource(row.user_id))
    check_room(len(items))
    session.add(row)
    await session.flush()
    await append(session, row.id, items)
    return row


async def find_conversation(
    session: AsyncSession, actor: Actor, conversation_id: str, *, lock: bool = False
) -> ApiConversation:
    """Raises NotFoundError. `lock`: until the end of the transaction nobody else puts anything into it."""
    row = None
    if is_wire_id(conversation_id):
        row = await session.get(ApiConversation, conversation_id, with_for_update=lock or None)
    if row is None:
        authorize(actor, Action.USE_RESPONSES)
        raise NotFoundError("There is nothing of that id.")
    authorize(actor, Action.USE_RESPONSES, Resource(row.user_id))
    return row


async def delete_conversation(session: AsyncSession, actor: Actor, conversation_id: str) -> None:
    """With what was said in it; responses that were given in it stay. Raises NotFoundError."""
    row = await find_conversation(session, actor, conversation_id)
    await session.execute(delete(ApiConversation).where(ApiConversation.id == row.id))


async def add_items(session: AsyncSession, actor: Actor, conversation_id: str, items: Sequence[KeptItem]) -> None:
    """Put items behind the last one. Raises NotFoundError, InvalidRequestError."""
    await find_conversation(session, actor, conversation_id, lock=True)
    n_items, _ = await _counted(session, conversation_id)
    check_room(n_items + len(items))
    await append(session, conversation_id, items)


async def append(session: AsyncSession, conversation_id: str, items: Sequence[KeptItem]) -> None:
    """The same for what may have been deleted meanwhile, and for what was said while there was room: it is not lost where others
    have taken that in the meantime."""
    row = await session.get(ApiConversation, conversation_id, with_for_update=True)
    if row is None:
        return
    row.size_bytes += size_of(*(item.content for item in items))
    _, last = await _counted(session, conversation_id)
    for number, item in enumerate(items, start=0 if last is None else last + 1):
        session.add(
            ApiConversationItem(conversation_id=conversation_id, id=item.id, number=number, content=item.content)
        )
    await session.flush()


def check_room(n_items: int, param: str = "items") -> None:
    """Raise InvalidRequestError where a conversation would come to more items than one may have."""
    if n_items > MAX_ITEMS:
        raise InvalidRequestError(
            "A conversation has at most {n} items: begin a new one.", n=MAX_ITEMS, param=param, code="invalid_value"
        )


async def _counted(session: AsyncSession, conversation_id: str) -> tuple[int, int | None]:
    """(items, the number of the last one)."""
    counted = select(func.count(), func.max(ApiConversationItem.number)).where(
        ApiConversationItem.conversation_id == conversation_id
    )
    n_items, last = (await session.execute(counted)).one()
    return n_items, last


async def all_items(session: AsyncSession, actor: Actor, conversation_id: str) -> list[KeptItem]:
    """What was said in it, in order. Raises NotFoundError."""
    await find_conversation(session, actor, conversation_id)
    query = select(ApiConversationItem).where(ApiConversationItem.conversation_id == conversation_id)
    return [
        KeptItem(item.id, item.content) for item in await session.scalars(query.order_by(ApiConversationItem.number))
    ]


async def list_items(
    session: AsyncSession, actor: Actor, conversation_id: str, *, after: str | None, limit: int, newest_first: bool
) -> ItemPage:
    """Some of them, those behind the item `after`. Raises NotFoundError, InvalidRequestError."""
    await find_conversation(session, actor, conversation_id)
    number = ApiConversationItem.number
    query = select(ApiConversationItem).where(ApiConversationItem.conversation_id == conversation_id)
    if after is not None:
        start = await _item(session, conversation_id, after)
        if start is None:
            raise InvalidRequestError(
                "There is no item '{id}' after which to go on.", id=after[:60], param="after", code="invalid_value"
            )
        query = query.where(number < start.number if newest_first else number > start.number)
    rows = (await session.scalars(query.order_by(number.desc() if newest_first else number).limit(limit + 1))).all()
    return ItemPage([KeptItem(row.id, row.content) for row in rows[:limit]], len(rows) > limit)


async def find_conversation_item(session: AsyncSession, actor: Actor, conversation_id: str, item_id: str) -> KeptItem:
    """Raises NotFoundError."""
    await find_conversation(session, actor, conversation_id)
    row = await _item(session, conversation_id, item_id)
    if row is None:
        raise NotFoundError("There is nothing of that id.")
    return KeptItem(row.id, row.content)


async def delete_item(session: AsyncSession, actor: Actor, conversation_id: str, item_id: str) -> ApiConversation:
    """Take it out. Raises NotFoundError."""
    conversation = await find_conversation(session, actor, conversation_id, lock=True)
    row = await _item(session, conversation_id, item_id)
    if row is None:
        raise NotFoundError("There is nothing of that id.")
    await session.delete(row)
    conversation.size_bytes -= size_of(row.content)
    return conversation


async def _item(session: AsyncSession, conversation_id: str, item_id: str) -> ApiConversationItem | None:
    return await session.get(ApiConversationItem, (conversation_id, item_id)) if is_wire_id(item_id) else None
