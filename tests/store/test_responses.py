"""What programs leave on /v1, in the store: chains, owners, ends that are written once, and servers that are gone."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from sqlalchemy import func, select

from chatwright.errors import InvalidRequestError, NotFoundError
from chatwright.store import clock
from chatwright.store.accounts import users
from chatwright.store.actor import OPERATOR, Actor
from chatwright.store.database import Database
from chatwright.store.ids import is_wire_id, new_wire_id
from chatwright.store.responses import conversations, rows
from chatwright.store.responses.completions import Kept, keep_completion
from chatwright.store.responses.items import KeptItem
from chatwright.store.responses.rows import Ended, Status
from chatwright.store.tables import ResponseItemRow, ResponseRow, StoredCompletion
from tests.store.people import make_user, quick_accounts, set_clock, signed_in

HERE, THERE = "a" * 64, "b" * 64


def item(text: str) -> KeptItem:
    id = new_wire_id("msg")
    return KeptItem(id, json.dumps({"id": id, "text": text}))


def texts(items: Sequence[KeptItem]) -> list[str]:
    return [json.loads(item.content)["text"] for item in items]


@pytest.fixture
async def ann(database: Database) -> Actor:
    return signed_in(await make_user(quick_accounts(database), "ann@example.org"))


@pytest.fixture
async def bob(database: Database) -> Actor:
    return signed_in(await make_user(quick_accounts(database), "bob@example.org"))


async def respond(
    database: Database,
    actor: Actor,
    said: Sequence[str],
    answer: Sequence[str] | None,
    *,
    previous: str | None = None,
    conversation: str | None = None,
    server: str = HERE,
    status: Status = "completed",
) -> str:
    """A response; None: nobody has finished it."""
    response_id = rows.new_response_id()
    row = rows.new_row(actor, response_id, "in_progress", '{"status":"in_progress"}', server, previous, conversation)
    async with database.write() as session:
        await rows.add_response(session, actor, row, [item(text) for text in said])
    if answer is not None:
        ended = Ended(status, json.dumps({"status": status}), "[]", [item(text) for text in answer])
        async with database.write() as session:
            assert await rows.end(session, response_id, ended)
    return response_id


async def test_a_chain_is_read_from_its_beginning(database: Database, ann: Actor) -> None:
    previous = None
    for number in range(60):
        previous = await respond(database, ann, [f"q{number}"], [f"a{number}"], previous=previous)
    await respond(database, ann, ["elsewhere"], ["x"])
    assert previous is not None
    async with database.read() as session:
        found = texts(await rows.history(session, ann, previous))
    assert found == [text for number in range(60) for text in (f"q{number}", f"a{number}")]


async def test_a_chain_with_a_gap_is_refused(database: Database, ann: Actor) -> None:
    first = await respond(database, ann, ["a"], ["b"])
    second = await respond(database, ann, ["c"], ["d"], previous=first)
    third = await respond(database, ann, ["e"], ["f"], previous=second)
    async with database.write() as session:
        await rows.delete_response(session, ann, second)
    async with database.read() as session:
        with pytest.raises(InvalidRequestError, match=second):
            await rows.history(session, ann, third)
        assert texts(await rows.history(session, ann, first)) == ["a", "b"]


async def test_what_belongs_to_others_does_not_exist(database: Database, ann: Actor, bob: Actor) -> None:
    hers = await respond(database, ann, ["secret"], ["secret"])
    operators = await respond(database, OPERATOR, ["secret"], ["secret"])
    async with database.write() as session:
        hers_led = (await conversations.add_conversation(session, ann, "{}", [item("secret")])).id
    for actor, response_id in ((bob, hers), (OPERATOR, hers), (ann, operators), (bob, operators)):
        async with database.write() as session:
            with pytest.raises(NotFoundError):
                await rows.find_response(session, actor, response_id)
            with pytest.raises(NotFoundError):
                await rows.delete_response(session, actor, response_id)
            with pytest.raises(NotFoundError):
                await rows.ask_to_cancel(session, actor, response_id)
            with pytest.raises(InvalidRequestError):
                await rows.history(session, actor, response_id)
            if actor is not ann:
                with pytest.raises(NotFoundError):
                    await conversations.add_items(session, actor, hers_led, [item("x")])
                with pytest.raises(NotFoundError):
                    await conversations.delete_conversation(session, actor, hers_led)
    async with database.read() as session:
        [hidden] = await rows.items_of(session, await rows.find_response(session, ann, hers), is_output=True)
        assert await rows.find_item(session, bob, hidden.id) is None
        assert await rows.find_item(session, ann, hidden.id) == hidden


async def test_the_first_last_word_counts(database: Database, ann: Actor) -> None:
    response_id = await respond(database, ann, ["q"], ["a"])
    async with database.write() as session:
        assert not await rows.end(session, response_id, Ended("failed", "{}", None, [item("late")]))
    async with database.read() as session:
        row = await rows.find_response(session, ann, response_id)
        assert row.status == "completed"
        assert texts(await rows.items_of(session, row, is_output=True)) == ["a"]
    async with database.write() as session:
        assert not await rows.end(session, "resp_gone", Ended("failed", "{}", None, []))


async def test_a_server_that_comes_back_ends_what_it_had_begun(
    database: Database, ann: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = set_clock(monkeypatch)
    mine = await respond(database, ann, ["q"], None)
    running = await respond(database, ann, ["q"], None)
    others = await respond(database, ann, ["q"], None, server=THERE)
    async with database.write() as session:
        assert await rows.end_lost(session, HERE, [running]) == [mine]
    async with database.read() as session:
        row = await rows.find_response(session, ann, mine)
        assert row.status == "failed"
        assert json.loads(row.head)["error"]["message"] == rows.LOST
    time.now += rows.STALE_S
    async with database.write() as session:
        await rows.note_alive(session, THERE, [others])
    time.now += rows.STALE_S
    async with database.write() as session:
        assert await rows.end_lost(session, HERE, [running], only=mine) == []
        assert await rows.end_lost(session, HERE, [running]) == []
    time.now += 1
    async with database.write() as session:
        assert await rows.end_lost(session, HERE, [running]) == [others]


async def test_a_server_hears_what_nobody_wants_any_more(database: Database, ann: Actor, bob: Actor) -> None:
    wanted, cancelled, deleted = [await respond(database, ann, ["q"], None) for _ in range(3)]
    of_bob, operators = await respond(database, bob, ["q"], None), await respond(database, OPERATOR, ["q"], None)
    async with database.write() as session:
        await rows.ask_to_cancel(session, ann, cancelled)
        await rows.delete_response(session, ann, deleted)
        assert bob.user_id is not None
        await users.suspend(session, OPERATOR, bob.user_id)
    async with database.write() as session:
        unwanted = await rows.note_alive(session, HERE, [wanted, cancelled, deleted, of_bob, operators])
    assert list(unwanted) == [cancelled, deleted, of_bob]


async def test_a_conversation_has_what_its_responses_say(database: Database, ann: Actor) -> None:
    async with database.write() as session:
        led = (await conversations.add_conversation(session, ann, "{}", [item("begin")])).id
    first = await respond(database, ann, ["q1"], ["a1"], conversation=led)
    await respond(database, ann, ["q2"], ["half"], conversation=led, status="cancelled")
    await respond(database, ann, ["q3"], ["lost"], conversation=led, status="failed")
    async with database.write() as session:
        await rows.delete_response(session, ann, first)
    async with database.read() as session:
        assert texts(await conversations.all_items(session, ann, led)) == ["begin", "q1", "a1", "q2", "half"]
        page = await conversations.list_items(session, ann, led, after=None, limit=2, newest_first=True)
        assert (texts(page.items), page.has_more) == (["half", "q2"], True)
        page = await conversations.list_items(session, ann, led, after=page.items[-1].id, limit=3, newest_first=True)
        assert (texts(page.items), page.has_more) == (["a1", "q1", "begin"], False)
    async with database.write() as session:
        await conversations.delete_conversation(session, ann, led)
    await respond(database, ann, ["q"], ["a"], conversation=led)  # deleted while it was written


async def test_a_conversation_does_not_grow_for_ever(
    database: Database, ann: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversations, "MAX_ITEMS", 3)
    async with database.write() as session:
        led = (await conversations.add_conversation(session, ann, "{}", [item("1"), item("2")])).id
    async with database.write() as session:
        with pytest.raises(InvalidRequestError):
            await conversations.add_items(session, ann, led, [item("3"), item("4")])
    # What others have filled meanwhile costs no answer that was begun while there was room.
    await respond(database, ann, ["q"], ["a"], conversation=led)
    async with database.read() as session:
        assert texts(await conversations.all_items(session, ann, led)) == ["1", "2", "q", "a"]


async def test_all_goes_with_its_user(database: Database, ann: Actor) -> None:
    async with database.write() as session:
        led = (await conversations.add_conversation(session, ann, "{}", [item("x")])).id
        kept = Kept("chatcmpl-" + "0" * 32, "{}", {"k": "v"})
        await keep_completion(session, ann, kept, "tiny", clock.now(), ["{}"])
    response_id = await respond(database, ann, ["q"], ["a"], conversation=led)
    async with database.write() as session:
        assert ann.user_id is not None
        await users.remove_user(session, OPERATOR, ann.user_id)
    async with database.read() as session:
        assert await session.get(ResponseRow, response_id) is None
        assert await session.get(StoredCompletion, kept.id) is None
        with pytest.raises(NotFoundError):
            await conversations.find_conversation(session, OPERATOR, led)
        assert await session.scalar(select(func.count()).select_from(ResponseItemRow)) == 0


def test_ids_are_what_clients_expect() -> None:
    assert is_wire_id(rows.new_response_id())
    assert rows.new_response_id().startswith("resp_")
    for text in ("", "resp_", "resp-x", "resp_x y", "resp_\0", "resp_" + "x" * 40, "RESP_x", "resp_é"):
        assert not is_wire_id(text), text
