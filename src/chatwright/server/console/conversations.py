"""One's own conversations: the list, and each as the tree of what was said."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, StringConstraints

from chatwright.i18n import Language
from chatwright.server.console.wire import Body, Deleted, NeedAccounts, Text
from chatwright.server.detached import DetachedAnswers
from chatwright.server.errors import WireError, language_of
from chatwright.server.json_body import JsonRoute
from chatwright.server.permission import Permit
from chatwright.server.state import State
from chatwright.store.actor import Actor
from chatwright.store.conversations import messages, threads
from chatwright.store.conversations.generations import generations_of
from chatwright.store.conversations.texts import MAX_CONTENT, Failure
from chatwright.store.policy import Action
from chatwright.store.tables import Conversation, Message

router = APIRouter(route_class=JsonRoute, tags=["conversations"])
Owner = Annotated[Actor, Depends(Permit(Action.USE_CONVERSATIONS))]
# Longer by one than is good: what is wrong is told by the code that knows better.
Content = Annotated[str, StringConstraints(max_length=MAX_CONTENT + 1)]


class ConversationObject(BaseModel):
    """A conversation without what was said. `title`: "" until something was. `active_message_id`: the last message of the branch
    that is shown. `generating`: whether an answer is being written."""

    object: Literal["conversation"] = "conversation"
    id: str
    title: str
    active_message_id: str | None
    generating: bool
    created_at: int
    updated_at: int

    @classmethod
    def of(cls, row: Conversation, generating: bool) -> ConversationObject:
        """From the row."""
        return cls(
            id=row.id,
            title=row.title,
            active_message_id=row.active_message_id,
            generating=generating,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


class ConversationObjects(BaseModel):
    """A page, the one last changed first."""

    object: Literal["list"] = "list"
    data: list[ConversationObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class MessageFailure(BaseModel):
    """Why an answer was not finished."""

    message: str
    code: str


class MessageUsage(BaseModel):
    """What an answer took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class MessageObject(BaseModel):
    """What one side said. `parent_id`: what it follows; messages with the same parent are versions of each other, in their order.

    `finish_reason` of an answer: null while it is being written; then stop, length, cancelled (somebody stopped it), interrupted
    (the server ended) or error, of which `error` says more. `position`: how many characters `content` has, for `after` of its
    events.
    """

    object: Literal["message"] = "message"
    id: str
    parent_id: str | None
    role: Literal["user", "assistant"]
    content: str
    model: str | None
    finish_reason: Literal["stop", "length", "cancelled", "interrupted", "error"] | None
    error: MessageFailure | None
    usage: MessageUsage | None
    position: int
    created_at: int

    @classmethod
    def of(cls, row: Message, language: Language) -> MessageObject:
        """From the row."""
        failure = Failure.from_text(row.error) if row.error is not None else None
        usage = None
        if row.prompt_tokens is not None and row.completion_tokens is not None:
            usage = MessageUsage(
                prompt_tokens=row.prompt_tokens,
                completion_tokens=row.completion_tokens,
                total_tokens=row.prompt_tokens + row.completion_tokens,
            )
        return cls.model_validate(
            {
                "object": "message",  # said, so that it is written where only what was set is
                "id": row.id,
                "parent_id": row.parent_id,
                "role": row.role,
                "content": row.content,
                "model": row.model,
                "finish_reason": row.finish_reason,
                "error": failure and {"message": failure.shown(language), "code": failure.code},
                "usage": usage,
                "position": len(row.content),
                "created_at": row.created_at,
            }
        )


class OpenConversation(ConversationObject):
    """A conversation with all that was said, parents before their children."""

    messages: list[MessageObject]


class BeginBody(Body):
    """Without a title the first message gives it one."""

    title: Text | None = None


class ChangeBody(Body):
    """What is not given stays."""

    title: Text | None = None
    active_message_id: Text | None = None


class AddMessageBody(Body):
    """What the user says. `parent_id`: the answer that it follows; null for the beginning of a conversation."""

    content: Content
    parent_id: Text | None = None


async def need_answers(state: State, accounts: NeedAccounts) -> DetachedAnswers:
    """A dependency: what writes answers. Raises WireError (404) where there are no accounts."""
    assert state.answers is not None, "where there are accounts, there is one"
    return state.answers


NeedAnswers = Annotated[DetachedAnswers, Depends(need_answers)]


@router.get("/conversations")
async def list_conversations(
    actor: Owner,
    accounts: NeedAccounts,
    answers: NeedAnswers,
    limit: Annotated[int, Query(ge=1, le=100)] = 30,
    after: Annotated[str | None, Query(max_length=100)] = None,
) -> ConversationObjects:
    """One's conversations, the one last changed first. `after`: the last_id of the page before."""
    async with accounts.database.read() as session:
        rows, has_more = await threads.list_conversations(session, actor, limit, after)
        written = await generations_of(session, [row.id for row in rows])
    data = [ConversationObject.of(row, answers.seems_written(written.get(row.id))) for row in rows]
    return ConversationObjects(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=has_more,
    )


@router.post("/conversations")
async def begin_conversation(body: BeginBody, actor: Owner, accounts: NeedAccounts) -> ConversationObject:
    """Begin a conversation."""
    async with accounts.database.write() as session:
        return ConversationObject.of(await threads.begin_conversation(session, actor, body.title), False)


@router.get("/conversations/{conversation_id}")
async def open_conversation(
    conversation_id: str, actor: Owner, request: Request, accounts: NeedAccounts, answers: NeedAnswers
) -> OpenConversation:
    """A conversation with the whole tree of its messages."""
    for _ in range(2):
        async with accounts.database.read() as session:
            row = await threads.find_conversation(session, actor, conversation_id)
            said = await messages.list_messages(session, actor, conversation_id)
            written = (await generations_of(session, [row.id])).get(row.id)
        generating = answers.seems_written(written)
        if written is None or generating:
            break
        await answers.settle(row.id)  # a server ended while it wrote
    language = language_of(request)
    return OpenConversation(
        **ConversationObject.of(row, generating).model_dump(),
        messages=[MessageObject.of(message, language) for message in said],
    )


@router.patch("/conversations/{conversation_id}")
async def change_conversation(
    conversation_id: str, body: ChangeBody, actor: Owner, accounts: NeedAccounts, answers: NeedAnswers
) -> ConversationObject:
    """Rename a conversation, or show another branch of it."""
    if body.title is None and body.active_message_id is None:
        raise WireError(400, "Say what shall change: title or active_message_id.", code="missing")
    async with accounts.database.write() as session:
        row = await threads.find_conversation(session, actor, conversation_id)
        if body.title is not None:
            row = await threads.rename_conversation(session, actor, conversation_id, body.title)
        if body.active_message_id is not None:
            row = await threads.show_branch(session, actor, conversation_id, body.active_message_id)
        written = (await generations_of(session, [row.id])).get(row.id)
        return ConversationObject.of(row, answers.seems_written(written))


@router.delete("/conversations/{conversation_id}")
async def delete_conversation(
    conversation_id: str, actor: Owner, accounts: NeedAccounts, answers: NeedAnswers
) -> Deleted:
    """Delete a conversation with all that was said. An answer that is being written ends."""
    async with accounts.database.write() as session:
        await threads.delete_conversation(session, actor, conversation_id)
    answers.abandon(conversation_id)
    return Deleted(id=conversation_id)


@router.post("/conversations/{conversation_id}/messages")
async def add_message(
    conversation_id: str, body: AddMessageBody, actor: Owner, request: Request, accounts: NeedAccounts
) -> MessageObject:
    """Add what the user says, without an answer to it. A message beside another one is an edited version of it."""
    async with accounts.database.write() as session:
        message = await messages.add_question(session, actor, conversation_id, body.parent_id, body.content)
        return MessageObject.of(message, language_of(request))
