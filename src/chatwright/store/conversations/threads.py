"""Conversations as a list: begun, found, renamed, deleted; which branch is shown."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import InvalidRequestError, NotFoundError
from chatwright.store import clock
from chatwright.store.actor import Actor
from chatwright.store.conversations.texts import clean_title
from chatwright.store.database import one_at_a_time
from chatwright.store.ids import is_id, new_id
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.tables import Conversation, Message

MOST_CONVERSATIONS = 10_000


async def list_conversations(
    session: AsyncSession, actor: Actor, limit: int, after: str | None = None
) -> tuple[Sequence[Conversation], bool]:
    """(one's own, the one last changed first; whether there are more). `after`: the id that the page before ended with.

    Raises NotFoundError for an `after` that is not one's own, or not there any more.
    """
    authorize(actor, Action.USE_CONVERSATIONS, Resource(actor.user_id))
    query = select(Conversation).where(Conversation.user_id == actor.user_id)
    if after is not None:
        last = await find_conversation(session, actor, after)
        place = tuple_(Conversation.updated_at, Conversation.id)
        query = query.where(place < tuple_(last.updated_at, last.id))
    query = query.order_by(Conversation.updated_at.desc(), Conversation.id.desc()).limit(limit + 1)
    rows = (await session.scalars(query)).all()
    return rows[:limit], len(rows) > limit


async def find_conversation(session: AsyncSession, actor: Actor, conversation_id: str) -> Conversation:
    """One's own. Raises NotFoundError, also for those of others."""
    authorize(actor, Action.USE_CONVERSATIONS)
    row = await session.get(Conversation, conversation_id) if is_id(conversation_id) else None
    if row is None:
        raise NotFoundError("There is nothing of that id.")
    authorize(actor, Action.USE_CONVERSATIONS, Resource(row.user_id))
    return row


async def begin_conversation(session: AsyncSession, actor: Actor, title: str | None = None) -> Conversation:
    """A new one, without a message. Raises InvalidRequestError for one too many."""
    authorize(actor, Action.USE_CONVERSATIONS, Resource(actor.user_id))
    assert actor.user_id is not None
    await one_at_a_time(session, f"conversations of {actor.user_id}")
    count = select(func.count()).select_from(Conversation).where(Conversation.user_id == actor.user_id)
    if (await session.scalar(count) or 0) >= MOST_CONVERSATIONS:
        raise InvalidRequestError(
            "A user has at most {n} conversations: delete one first.",
            n=MOST_CONVERSATIONS,
            code="too_many_conversations",
        )
    now = clock.now()
    row = Conversation(
        id=new_id("conv"),
        user_id=actor.user_id,
        title="" if title is None else clean_title(title),
        active_message_id=None,
        created_at=now,
        updated_at=now,
    )
    session.add(row)
    await session.flush()
    return row


async def rename_conversation(session: AsyncSession, actor: Actor, conversation_id: str, title: str) -> Conversation:
    """Its place in the list stays. Raises NotFoundError, InvalidRequestError."""
    row = await find_conversation(session, actor, conversation_id)
    row.title = clean_title(title)
    return row


async def show_branch(session: AsyncSession, actor: Actor, conversation_id: str, message_id: str) -> Conversation:
    """Show the branch that ends with this message. Raises NotFoundError for one of another conversation."""
    row = await find_conversation(session, actor, conversation_id)
    message = await session.get(Message, message_id) if is_id(message_id) else None
    if message is None or message.conversation_id != row.id:
        raise NotFoundError("There is nothing of that id.")
    row.active_message_id = message.id
    return row


async def delete_conversation(session: AsyncSession, actor: Actor, conversation_id: str) -> None:
    """With all that was said. Raises NotFoundError."""
    await session.delete(await find_conversation(session, actor, conversation_id))
    await session.flush()
