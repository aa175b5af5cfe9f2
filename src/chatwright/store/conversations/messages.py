"""What was said in a conversation: a tree, to which messages are added and in which nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import ConflictError, InvalidRequestError, NotFoundError
from chatwright.store import clock
from chatwright.store.actor import Actor
from chatwright.store.conversations.texts import clean_content, title_of
from chatwright.store.conversations.threads import find_conversation
from chatwright.store.database import one_at_a_time
from chatwright.store.ids import is_id, new_id
from chatwright.store.tables import Conversation, Message

MOST_MESSAGES = 4000
MOST_CHARACTERS = 4_000_000


async def list_messages(session: AsyncSession, actor: Actor, conversation_id: str) -> Sequence[Message]:
    """The whole tree, parents before their children. Raises NotFoundError."""
    conversation = await find_conversation(session, actor, conversation_id)
    query = select(Message).where(Message.conversation_id == conversation.id).order_by(Message.number)
    return (await session.scalars(query)).all()


async def find_message(session: AsyncSession, actor: Actor, conversation_id: str, message_id: str) -> Message:
    """One of a conversation of one's own. Raises NotFoundError."""
    conversation = await find_conversation(session, actor, conversation_id)
    message = await session.get(Message, message_id) if is_id(message_id) else None
    if message is None or message.conversation_id != conversation.id:
        raise NotFoundError("There is nothing of that id.")
    return message


async def branch(session: AsyncSession, actor: Actor, conversation_id: str, message_id: str) -> list[Message]:
    """The messages from the first one down to this one. Raises NotFoundError."""
    last = await find_message(session, actor, conversation_id, message_id)
    own = Message.conversation_id == last.conversation_id
    path = select(Message.id, Message.parent_id).where(own, Message.id == last.id).cte("path", recursive=True)
    path = path.union_all(select(Message.id, Message.parent_id).where(own, Message.id == path.c.parent_id))
    query = select(Message).where(Message.id.in_(select(path.c.id))).order_by(Message.number)
    return list((await session.scalars(query)).all())


async def add_question(
    session: AsyncSession, actor: Actor, conversation_id: str, parent_id: str | None, content: str
) -> Message:
    """What the user says after an answer, or first of all (None). Where something was said there already, this is another version
    of it. The first message gives the conversation its title.

    Raises NotFoundError, InvalidRequestError, ConflictError while the answer before it is being written.
    """
    conversation = await _find_to_change(session, actor, conversation_id)
    content = clean_content(content)
    if parent_id is not None:
        parent = await find_message(session, actor, conversation_id, parent_id)
        if parent.role != "assistant":
            raise InvalidRequestError(
                "A message of the user follows an answer, or nothing.", param="parent_id", code="invalid_value"
            )
        if parent.finish_reason is None:
            raise being_written()
    if not conversation.title:
        conversation.title = title_of(content)
    return await _add(session, conversation, parent_id, role="user", content=content)


async def add_answer(
    session: AsyncSession, actor: Actor, conversation_id: str, parent_id: str, model: str, message_id: str
) -> Message:
    """An answer without a word yet, to a message of the user; another version where there is one.

    Raises NotFoundError, InvalidRequestError.
    """
    conversation = await _find_to_change(session, actor, conversation_id)
    parent = await find_message(session, actor, conversation_id, parent_id)
    if parent.role != "user":
        raise InvalidRequestError("An answer follows a message of the user.", param="parent_id", code="invalid_value")
    return await _add(
        session, conversation, parent.id, role="assistant", content="", model=model[:200], message_id=message_id
    )


async def _find_to_change(session: AsyncSession, actor: Actor, conversation_id: str) -> Conversation:
    conversation = await find_conversation(session, actor, conversation_id)
    await one_at_a_time(session, f"conversation {conversation.id}")
    return conversation


async def _add(
    session: AsyncSession,
    conversation: Conversation,
    parent_id: str | None,
    *,
    role: str,
    content: str,
    model: str | None = None,
    message_id: str | None = None,
) -> Message:
    size = select(func.max(Message.number), func.sum(func.length(Message.content)))
    last, characters = (await session.execute(size.where(Message.conversation_id == conversation.id))).one()
    number = (last or 0) + 1
    if number > MOST_MESSAGES or (characters or 0) + len(content) > MOST_CHARACTERS:
        raise InvalidRequestError(
            "This conversation is as long as one can be: begin a new one.", code="conversation_too_long"
        )
    now = clock.now()
    message = Message(
        id=message_id or new_id("msg"),
        conversation_id=conversation.id,
        parent_id=parent_id,
        number=number,
        role=role,
        content=content,
        model=model,
        finish_reason=None,
        error=None,
        prompt_tokens=None,
        completion_tokens=None,
        created_at=now,
    )
    session.add(message)
    conversation.active_message_id = message.id
    conversation.updated_at = now
    await session.flush()
    return message


def being_written() -> ConflictError:
    """What is told whoever comes while an answer is on its way."""
    return ConflictError("An answer of this conversation is being written: stop it, or wait for its end.")
