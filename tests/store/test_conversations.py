"""Conversations in the store: a tree that belongs to one user, and answers that are being written by somebody, or are not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from chatwright.errors import ConflictError, EngineError, InvalidRequestError, NotFoundError
from chatwright.store.accounts import users
from chatwright.store.actor import OPERATOR, Actor
from chatwright.store.backup import back_up, move, restore
from chatwright.store.conversations import generations, messages, texts, threads
from chatwright.store.conversations.generations import STALE_S, Begun, Ended
from chatwright.store.conversations.texts import TITLE_COLUMNS, Failure, clean_title, title_of
from chatwright.store.database import Database
from chatwright.store.ids import new_id
from chatwright.store.tables import Base, Conversation, Generation, Message
from chatwright.store.url import sqlite_url
from tests.store.people import make_user, quick_accounts, set_clock, signed_in

SERVER, OTHER_SERVER = "s" * 64, "o" * 64


@pytest.fixture
async def ann(database: Database) -> Actor:
    return signed_in(await make_user(quick_accounts(database), "ann@example.org"))


@pytest.fixture
async def li(database: Database) -> Actor:
    return signed_in(await make_user(quick_accounts(database), "li@example.org"))


async def begin(database: Database, actor: Actor, title: str | None = None) -> str:
    async with database.write() as session:
        return (await threads.begin_conversation(session, actor, title)).id


async def say(database: Database, actor: Actor, conversation: str, content: str, parent: str | None = None) -> str:
    async with database.write() as session:
        return (await messages.add_question(session, actor, conversation, parent, content)).id


async def ask(
    database: Database, actor: Actor, conversation: str, parent: str | None = None, content: str | None = None
) -> Begun:
    async with database.write() as session:
        return await generations.begin_generation(
            session,
            actor,
            conversation,
            parent_id=parent,
            content=content,
            model="tiny",
            message_id=new_id("msg"),
            server=SERVER,
        )


async def end(database: Database, message: str, content: str = "Yes.", reason: str = "stop") -> Message | None:
    async with database.write() as session:
        return await generations.end_generation(session, message, Ended(content, reason, None, 5, 2))


async def tree(database: Database, actor: Actor, conversation: str) -> list[Message]:
    async with database.read() as session:
        return list(await messages.list_messages(session, actor, conversation))


async def count(database: Database, table: type[Base]) -> int:
    async with database.read() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def test_what_was_said_is_a_tree_in_the_order_in_which_it_was_said(database: Database, ann: Actor) -> None:
    conversation = await begin(database, ann)
    first = await ask(database, ann, conversation, content="One")
    assert first.question is not None
    await end(database, first.answer.id, "Uno")
    again = await ask(database, ann, conversation, parent=first.question.id)
    await end(database, again.answer.id, "Un")
    edited = await ask(database, ann, conversation, content="Two")
    assert edited.question is not None
    await end(database, edited.answer.id, "Dos")
    further = await say(database, ann, conversation, "Three", again.answer.id)
    rows = await tree(database, ann, conversation)
    ids = [first.question.id, first.answer.id, again.answer.id, edited.question.id, edited.answer.id, further]
    assert [row.id for row in rows] == ids
    parents = [None, ids[0], ids[0], None, ids[3], ids[2]]
    assert [row.parent_id for row in rows] == parents
    assert [row.content for row in rows] == ["One", "Uno", "Un", "Two", "Dos", "Three"]
    async with database.read() as session:
        path = await messages.branch(session, ann, conversation, further)
        found = await threads.find_conversation(session, ann, conversation)
    assert [row.content for row in path] == ["One", "Un", "Three"], "a branch has nothing of the others"
    assert found.active_message_id == further
    assert found.title == "One"
    async with database.write() as session:
        await threads.show_branch(session, ann, conversation, ids[1])
    async with database.read() as session:
        assert (await threads.find_conversation(session, ann, conversation)).active_message_id == ids[1]


async def test_only_questions_are_answered_and_only_answers_followed(database: Database, ann: Actor) -> None:
    conversation = await begin(database, ann)
    begun = await ask(database, ann, conversation, content="One")
    assert begun.question is not None
    with pytest.raises(ConflictError):
        await say(database, ann, conversation, "Two", begun.answer.id)
    await end(database, begun.answer.id)
    for wrong in (
        say(database, ann, conversation, "x", begun.question.id),
        ask(database, ann, conversation, parent=begun.answer.id),
        ask(database, ann, conversation),
        *(say(database, ann, conversation, text) for text in ("", "  \n ", "a\0b", "x" * (texts.MAX_CONTENT + 1))),
    ):
        with pytest.raises(InvalidRequestError):
            await wrong
    assert len(await tree(database, ann, conversation)) == 2


async def test_a_parent_is_of_the_same_conversation(database: Database, ann: Actor) -> None:
    one, other = await begin(database, ann), await begin(database, ann)
    begun = await ask(database, ann, one, content="One")
    await end(database, begun.answer.id)
    for wrong in (
        say(database, ann, other, "x", begun.answer.id),
        ask(database, ann, other, content="x", parent=begun.answer.id),
        ask(database, ann, other, parent=begun.question.id if begun.question else None),
    ):
        with pytest.raises(NotFoundError):
            await wrong
    with pytest.raises(NotFoundError):
        async with database.write() as session:
            await threads.show_branch(session, ann, other, begun.answer.id)
    # And whatever the code does, the table does not hold it.
    with pytest.raises(IntegrityError):
        async with database.write() as session:
            await session.execute(update(Message).where(Message.id == begun.answer.id).values(conversation_id=other))


def works_on(actor: Actor, id: str, message_id: str, *, whole: bool) -> list[Any]:
    """All that can be done with a message of a conversation; `whole`: and with the conversation."""
    works: list[Any] = [
        lambda session: messages.find_message(session, actor, id, message_id),
        lambda session: messages.branch(session, actor, id, message_id),
        lambda session: threads.show_branch(session, actor, id, message_id),
        lambda session: generations.ask_to_stop(session, actor, id, message_id),
        lambda session: messages.add_question(session, actor, id, message_id, "x"),
    ]
    if whole:
        works += [
            lambda session: threads.find_conversation(session, actor, id),
            lambda session: threads.list_conversations(session, actor, 3, id),
            lambda session: threads.rename_conversation(session, actor, id, "x"),
            lambda session: threads.delete_conversation(session, actor, id),
            lambda session: messages.list_messages(session, actor, id),
            lambda session: messages.add_question(session, actor, id, None, "x"),
        ]
    return works


@pytest.mark.parametrize("wrong", ["conv-none", "", "\0", "conv-' OR 1=1 --", "x" * 10_000, "会话", "conv-\ud800"])
async def test_what_is_not_there_or_belongs_to_others_is_not_found(
    database: Database, ann: Actor, li: Actor, wrong: str
) -> None:
    conversation = await begin(database, ann)
    message = await say(database, ann, conversation, "secret")
    for actor, id, message_id in ((ann, wrong, message), (ann, conversation, wrong), (li, conversation, message)):
        for work in works_on(actor, id, message_id, whole=id != conversation or actor is li):
            with pytest.raises(NotFoundError):
                async with database.write() as session:
                    await work(session)
    assert [row.content for row in await tree(database, ann, conversation)] == ["secret"]
    async with database.read() as session:
        assert await threads.list_conversations(session, li, 10) == ([], False)


async def test_pages_have_each_conversation_once_and_the_last_changed_first(
    database: Database, ann: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = set_clock(monkeypatch)
    made = []
    for number in range(11):
        clock.now += number % 2  # some in the same second
        made.append(await begin(database, ann, f"Nr. {number}"))
    clock.now += 5
    await say(database, ann, made[3], "again")
    seen: list[str] = []
    after, more = None, True
    while more:
        async with database.read() as session:
            rows, more = await threads.list_conversations(session, ann, 3, after)
        seen += [row.id for row in rows]
        after = seen[-1]
    assert seen[0] == made[3]
    assert sorted(seen) == sorted(made)
    async with database.read() as session:
        rows, more = await threads.list_conversations(session, ann, 11)
    times = [row.updated_at for row in rows]
    assert times == sorted(times, reverse=True)
    assert not more


async def test_deleting_takes_all_with_it_however_long_the_conversation_is(database: Database, ann: Actor) -> None:
    """SQLite gives up cascades that go down a thousand levels."""
    conversation, other = await begin(database, ann), await begin(database, ann)
    kept = await say(database, ann, other, "kept")
    async with database.write() as session:
        rows = [
            Message(
                id=f"msg-{n}",
                conversation_id=conversation,
                parent_id=f"msg-{n - 1}" if n else None,
                number=n + 1,
                role=("user", "assistant")[n % 2],
                content=str(n),
                created_at=1,
            )
            for n in range(2500)
        ]
        session.add_all(rows)
    async with database.read() as session:
        path = await messages.branch(session, ann, conversation, "msg-2499")
    assert [row.content for row in path] == [str(n) for n in range(2500)]
    async with database.write() as session:
        await threads.delete_conversation(session, ann, conversation)
    assert [row.id for row in await tree(database, ann, other)] == [kept]
    assert await count(database, Message) == 1
    await ask(database, ann, other, parent=kept)
    async with database.write() as session:
        await users.remove_user(session, OPERATOR, ann.user_id or "")
    assert [await count(database, table) for table in (Conversation, Message, Generation)] == [0, 0, 0]


async def test_sizes_are_limited(database: Database, ann: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MOST_CONVERSATIONS", 2)
    monkeypatch.setattr(messages, "MOST_MESSAGES", 3)
    monkeypatch.setattr(messages, "MOST_CHARACTERS", 10)
    conversation = await begin(database, ann)
    await begin(database, ann)
    with pytest.raises(InvalidRequestError, match="at most 2"):
        await begin(database, ann)
    await say(database, ann, conversation, "12345")
    with pytest.raises(InvalidRequestError, match="as long as"):
        await say(database, ann, conversation, "123456")
    await say(database, ann, conversation, "12345")
    begun = await ask(database, ann, conversation, parent=(await tree(database, ann, conversation))[0].id)
    await end(database, begun.answer.id)
    with pytest.raises(InvalidRequestError, match="as long as"):
        await say(database, ann, conversation, "1")


async def test_one_answer_at_a_time(database: Database, ann: Actor) -> None:
    conversation = await begin(database, ann)
    question = await say(database, ann, conversation, "One")
    results = await asyncio.gather(
        *(ask(database, ann, conversation, parent=question) for _ in range(10)), return_exceptions=True
    )
    begun = [result for result in results if isinstance(result, Begun)]
    assert len(begun) == 1
    assert sum(isinstance(result, ConflictError) for result in results) == 9
    assert len(await tree(database, ann, conversation)) == 2, "what was refused left nothing"
    await end(database, begun[0].answer.id)
    await ask(database, ann, conversation, parent=question)


async def test_a_message_is_being_written_or_says_why_not(database: Database, ann: Actor) -> None:
    conversation = await begin(database, ann)
    begun = await ask(database, ann, conversation, content="One")
    answer = begun.answer.id
    async with database.write() as session:
        assert list(await generations.note_progress(session, SERVER, {answer: "Ye"})) == []
    assert (await tree(database, ann, conversation))[1].content == "Ye"
    await end(database, answer, "Yes.")
    async with database.write() as session:  # a save that was on its way, too late
        assert list(await generations.note_progress(session, SERVER, {answer: "Ye"})) == [answer]
    await end(database, answer, "No.", "cancelled")
    row = (await tree(database, ann, conversation))[1]
    assert (row.content, row.finish_reason, row.prompt_tokens, row.completion_tokens) == ("Yes.", "stop", 5, 2)
    assert await count(database, Generation) == 0


async def test_who_must_not_be_written_for_any_more_is_told_apart(database: Database, ann: Actor, li: Actor) -> None:
    begun = {}
    for name, actor in (("kept", ann), ("stopped", ann), ("deleted", ann), ("suspended", li)):
        begun[name] = await ask(database, actor, await begin(database, actor), content=name)
    async with database.write() as session:
        stopped = begun["stopped"].answer
        await generations.ask_to_stop(session, ann, stopped.conversation_id, stopped.id)
        await threads.delete_conversation(session, ann, begun["deleted"].answer.conversation_id)
        await users.suspend(session, OPERATOR, li.user_id or "")
    async with database.write() as session:
        contents = {row.answer.id: "text" for row in begun.values()}
        unwanted = await generations.note_progress(session, SERVER, contents)
    assert set(unwanted) == {row.answer.id for name, row in begun.items() if name != "kept"}
    assert await end(database, begun["deleted"].answer.id) is None


async def test_what_a_server_left_behind_is_called_interrupted(
    database: Database, ann: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = set_clock(monkeypatch)
    begun = await ask(database, ann, await begin(database, ann), content="One")
    conversation, answer = begun.answer.conversation_id, begun.answer.id

    async def look(server: str, *written: str) -> int:
        async with database.write() as session:
            return await generations.end_lost(session, server, written.__contains__)

    async with database.write() as session:
        await generations.note_progress(session, SERVER, {answer: "Ye"})
    assert await look(SERVER, answer) == 0
    assert await look(OTHER_SERVER) == 0, "another server's work is its own, as long as it says so"
    clock.now += STALE_S + 1
    assert await look(SERVER, answer) == 0, "one's own work is known"
    async with database.write() as session:
        await generations.note_progress(session, SERVER, {answer: None})
    assert await look(OTHER_SERVER) == 0
    clock.now -= 3 * STALE_S  # the clock is set back
    async with database.write() as session:
        await generations.note_progress(session, SERVER, {answer: None})
    assert await look(OTHER_SERVER) == 0
    assert await look(SERVER) == 1, "the same server after a restart"
    row = (await tree(database, ann, conversation))[1]
    assert (row.content, row.finish_reason) == ("Ye", "interrupted")
    failure = Failure.from_text(row.error or "")
    assert failure.code == "interrupted"
    assert failure.shown("en").startswith("The server ended")
    assert failure.shown("zh").startswith("生成这个回答时")
    begun = await ask(database, ann, conversation, content="Two", parent=answer)
    clock.now += STALE_S + 1
    assert await look(OTHER_SERVER) == 1
    assert await count(database, Generation) == 0


async def test_a_tree_moves_house_whatever_the_order_of_its_rows(
    database: Database, ann: Actor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Children whose id, or place in the table, comes before that of their parents."""
    monkeypatch.chdir(tmp_path)  # where what a backup replaces is put
    conversation = await begin(database, ann)
    async with database.write() as session:
        for number, (id, parent) in enumerate([("msg-z", None), ("msg-m", "msg-z"), ("msg-a", "msg-m")], start=1):
            session.add(
                Message(
                    id=id,
                    conversation_id=conversation,
                    parent_id=parent,
                    number=number,
                    role="user",
                    content="猫",
                    created_at=1,
                )
            )
            await session.flush()
    if not database.is_sqlite:
        # Rows that were changed come last in PostgreSQL's order.
        async with database.write() as session:
            await session.execute(update(Message).where(Message.id == "msg-z").values(content="狗"))
    before = [(row.id, row.parent_id, row.content) for row in await tree(database, ann, conversation)]
    target = sqlite_url(tmp_path / "moved.db")
    counts = await move(database.url, target)
    assert counts["messages"] == 3
    moved = Database(target)
    try:
        assert [(row.id, row.parent_id, row.content) for row in await tree(moved, ann, conversation)] == before
        await back_up(target, tmp_path / "backup.db")
    finally:
        await moved.close()
    if not database.is_sqlite:
        await restore(tmp_path / "backup.db", database.url, tmp_path, replace=True)
        assert [(row.id, row.parent_id, row.content) for row in await tree(database, ann, conversation)] == before


@pytest.mark.parametrize(
    ("content", "title"),
    [
        ("Hello", "Hello"),
        ("  What is\n\nthe capital\tof France?  ", "What is the capital of France?"),
        ("猫" * 30, "猫" * 24 + "…"),
        ("one two three four five six seven eight nine ten eleven", "one two three four five six seven eight nine…"),
        ("x" * 100, "x" * 48 + "…"),
        ("a" + " " * 1000 + "b", "a…"),
        ("\u202eevil\u2066 \x07bell", "evil bell"),
        ("👩\u200d💻 code", "👩\u200d💻 code"),
        ("\u200b", ""),
    ],
)
def test_a_title_is_made_of_the_first_words(content: str, title: str) -> None:
    assert title_of(content) == title


@given(st.text(max_size=600))
@settings(max_examples=300)
def test_a_title_is_one_short_line_whatever_was_said(content: str) -> None:
    title = title_of(content)
    assert len(title) <= TITLE_COLUMNS + 1
    assert title == "" or len(title.splitlines()) == 1
    assert "\0" not in title
    if title:
        assert clean_title(title) == title


def test_a_sentence_is_kept_for_readers_of_both_languages() -> None:
    error = EngineError("The engine failed in the middle of an answer: {reason}.", reason=ValueError("x\0y"))
    failure = Failure.from_text(Failure.of(error, "engine_error").to_text())
    assert failure.shown("en") == "The engine failed in the middle of an answer: x\0y."
    assert failure.shown("zh") != failure.shown("en")
    assert "x" in failure.shown("zh")
