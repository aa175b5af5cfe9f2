"""Answers that are being written. Each has a row here until its message has a reason why it ended: both change in one transaction,
so that no message seems to be written that nobody writes.

Who may begin one is asked with the actor. What follows is the server's own bookkeeping of what was begun, and takes none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import InvalidRequestError, StoreError
from chatwright.store import clock
from chatwright.store.actor import Actor
from chatwright.store.conversations.messages import add_answer, add_question, being_written, find_message
from chatwright.store.conversations.texts import Failure
from chatwright.store.ids import new_id
from chatwright.store.tables import Conversation, Generation, Message, User

# A server says once a second that it is there. Who was silent for so long is gone.
STALE_S = 30
INTERRUPTED = Failure.of(
    StoreError("The server ended while it wrote this answer. What there was of it is kept: ask again."), "interrupted"
)


@dataclass(frozen=True)
class Begun:
    """`question`: what the user said, where that was new. `title`: of the conversation, which may be new too."""

    title: str
    generation: Generation
    answer: Message
    question: Message | None


@dataclass(frozen=True)
class Ended:
    """How an answer came to its end."""

    content: str
    reason: str
    failure: Failure | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def check_request(parent_id: str | None, content: str | None) -> None:
    """Raise InvalidRequestError where nothing is said that could be answered."""
    if content is None and parent_id is None:
        raise InvalidRequestError(
            "Say what shall be answered: content, or in parent_id a message of the user.",
            param="parent_id",
            code="missing",
        )


async def begin_generation(
    session: AsyncSession,
    actor: Actor,
    conversation_id: str,
    *,
    parent_id: str | None,
    content: str | None,
    model: str,
    message_id: str,
    server: str,
) -> Begun:
    """An answer to the message `parent_id`; with `content`, to this, said after `parent_id`.

    Raises NotFoundError, InvalidRequestError, ConflictError while another one of the conversation is being written.
    """
    check_request(parent_id, content)
    question = None
    if content is not None:
        question = await add_question(session, actor, conversation_id, parent_id, content)
    asked = question.id if question is not None else parent_id or ""
    answer = await add_answer(session, actor, conversation_id, asked, model, message_id)
    if await session.scalar(select(Generation.id).where(Generation.conversation_id == conversation_id)) is not None:
        raise being_written()
    now = clock.now()
    generation = Generation(
        id=new_id("gen"),
        conversation_id=answer.conversation_id,
        message_id=answer.id,
        server=server,
        stop_asked=False,
        started_at=now,
        seen_at=now,
    )
    session.add(generation)
    await session.flush()
    conversation = await session.get_one(Conversation, answer.conversation_id)
    return Begun(conversation.title, generation, answer, question)


async def generations_of(session: AsyncSession, conversation_ids: Collection[str]) -> Mapping[str, Generation]:
    """What is being written, by conversation."""
    rows = await session.scalars(select(Generation).where(Generation.conversation_id.in_(conversation_ids)))
    return {row.conversation_id: row for row in rows}


async def ask_to_stop(session: AsyncSession, actor: Actor, conversation_id: str, message_id: str) -> Message:
    """Tell whichever server writes this answer that it shall end. Raises NotFoundError."""
    message = await find_message(session, actor, conversation_id, message_id)
    await session.execute(update(Generation).where(Generation.message_id == message.id).values(stop_asked=True))
    return message


async def note_progress(session: AsyncSession, server: str, contents: Mapping[str, str | None]) -> Collection[str]:
    """Write down how far answers came (message id → text; None: no further than last time), and that their server is there.

    Returns those that shall end: it was asked for, the user may not be here any more, or there is nothing left to write to.
    """
    rows = await session.execute(
        select(Generation.message_id, Generation.stop_asked, User.status)
        .join(Conversation, Conversation.id == Generation.conversation_id)
        .join(User, User.id == Conversation.user_id)
        .where(Generation.message_id.in_(contents), Generation.server == server)
    )
    wanted = {message_id: status == "active" and not stop_asked for message_id, stop_asked, status in rows}
    for message_id in wanted:
        if (content := contents[message_id]) is not None:
            # The last word on an answer may have been written while this was on its way.
            unfinished = Message.id == message_id, Message.finish_reason.is_(None)
            await session.execute(update(Message).where(*unfinished).values(content=content))
    await session.execute(update(Generation).where(Generation.message_id.in_(wanted)).values(seen_at=clock.now()))
    return [message_id for message_id in contents if not wanted.get(message_id, False)]


async def end_generation(session: AsyncSession, message_id: str, ended: Ended) -> Message | None:
    """The last word on an answer; None where it is gone with its conversation. Who comes second changes nothing."""
    # The message first, as `note_progress` does: two transactions that lock in different orders may wait for each other.
    message = await session.get(Message, message_id, with_for_update=True)
    await session.execute(delete(Generation).where(Generation.message_id == message_id))
    if message is not None and message.finish_reason is None:
        message.content = ended.content
        message.finish_reason = ended.reason
        message.error = None if ended.failure is None else ended.failure.to_text()
        message.prompt_tokens, message.completion_tokens = ended.prompt_tokens, ended.completion_tokens
        await session.execute(
            update(Conversation).where(Conversation.id == message.conversation_id).values(updated_at=clock.now())
        )
    return message


def is_lost(generation: Generation, server: str, is_written: Callable[[str], bool]) -> bool:
    """Whether nobody writes this any more, as `server` sees it: its own work, by message id, is known to it."""
    if generation.server == server:
        return not is_written(generation.message_id)
    return abs(clock.now() - generation.seen_at) > STALE_S


async def end_lost(
    session: AsyncSession, server: str, is_written: Callable[[str], bool], conversation_id: str | None = None
) -> int:
    """Say of answers that nobody writes any more that they were interrupted, in one conversation or all. Returns how many."""
    query = select(Generation)
    if conversation_id is not None:
        query = query.where(Generation.conversation_id == conversation_id)
    # Asked after the rows are read: what is in them was known to be written before they were.
    lost = [row.message_id for row in (await session.scalars(query)).all() if is_lost(row, server, is_written)]
    for message_id in lost:
        message = await session.get(Message, message_id, with_for_update=True)
        if message is not None:
            await end_generation(session, message_id, Ended(message.content, "interrupted", INTERRUPTED))
    return len(lost)
