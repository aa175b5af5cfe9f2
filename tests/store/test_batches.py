"""The rows of batches: their owners' alone, in pages, cancelled while there is something to cancel."""

from __future__ import annotations

import pytest

from chatwright.errors import ForbiddenError, InvalidRequestError, NotFoundError, TooLargeError
from chatwright.store import batches
from chatwright.store.accounts import users
from chatwright.store.actor import OPEN, OPERATOR, SERVER_KEY, Actor, Role, on_behalf_of_owner
from chatwright.store.batches import add_batch, cancel_batch, get_batch, list_batches, open_batches
from chatwright.store.database import Database
from chatwright.store.ids import new_id
from chatwright.store.tables import Batch
from tests.store.people import Clock, make_user, quick_accounts, set_clock, signed_in


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return set_clock(monkeypatch)


async def make(database: Database, actor: Actor, now: Clock, status: str = "validating") -> str:
    batch = Batch(
        id=new_id("batch"),
        user_id=actor.user_id,
        endpoint="/v1/completions",
        input_file_id="file-x",
        status=status,
        n_total=0,
        n_completed=0,
        n_failed=0,
        input_tokens=0,
        cached_tokens=0,
        output_tokens=0,
        created_at=now.now,
        expires_at=now.now + 86_400,
    )
    async with database.write() as session:
        await add_batch(session, actor, batch)
    return batch.id


async def test_batches_are_their_owners_alone(database: Database, now: Clock) -> None:
    accounts = quick_accounts(database)
    ann, bob = [signed_in(await make_user(accounts, f"{name}@example.org")) for name in ("ann", "bob")]
    owner = signed_in(await make_user(accounts, "owner@example.org", Role.OWNER))
    hers, operators = await make(database, ann, now), await make(database, OPERATOR, now)
    async with database.write() as session:
        for thief in (bob, owner, OPERATOR):
            for work in (get_batch(session, thief, hers), cancel_batch(session, thief, hers)):
                with pytest.raises(NotFoundError):
                    await work
            with pytest.raises(NotFoundError):
                await list_batches(session, thief, 20, hers)
        for stranger in (OPEN, SERVER_KEY):
            with pytest.raises(ForbiddenError):
                await get_batch(session, stranger, operators)
        for wrong in ("", "batch-none", "batch-\x00", "x" * 100):
            with pytest.raises(NotFoundError):
                await get_batch(session, OPERATOR, wrong)
        assert [batch.id for batch in (await list_batches(session, ann, 20, None)).batches] == [hers]
        assert [batch.id for batch in (await list_batches(session, OPERATOR, 20, None)).batches] == [operators]
        assert (await get_batch(session, on_behalf_of_owner(ann.user_id), hers)).id == hers


async def test_lists_come_in_pages(database: Database, now: Clock) -> None:
    made = []
    for number in range(5):
        made.append(await make(database, OPERATOR, now))
        now.now += number % 2
    seen: list[str] = []
    async with database.read() as session:
        while True:
            page = await list_batches(session, OPERATOR, 2, seen[-1] if seen else None)
            seen += [batch.id for batch in page.batches]
            if not page.has_more:
                break
    assert sorted(seen) == sorted(made)
    assert seen[0] == made[-1]


async def test_only_what_is_not_over_can_be_cancelled(database: Database, now: Clock) -> None:
    for status, wanted in (
        ("validating", "cancelling"),
        ("in_progress", "cancelling"),
        ("cancelling", "cancelling"),
        ("finalizing", "finalizing"),
    ):
        batch_id = await make(database, OPERATOR, now, status)
        async with database.write() as session:
            batch = await cancel_batch(session, OPERATOR, batch_id)
            assert batch.status == wanted
            assert batch.cancelling_at == (now.now if status in ("validating", "in_progress") else None)
    for status in ("completed", "failed", "expired", "cancelled"):
        batch_id = await make(database, OPERATOR, now, status)
        async with database.write() as session:
            with pytest.raises(InvalidRequestError, match=status):
                await cancel_batch(session, OPERATOR, batch_id)


async def test_work_knows_what_is_open_and_whose_owner_was_suspended(database: Database, now: Clock) -> None:
    accounts = quick_accounts(database)
    user = await make_user(accounts, "ann@example.org")
    await make_user(accounts, "owner@example.org", Role.OWNER)
    hers, operators = await make(database, signed_in(user), now), await make(database, OPERATOR, now, "in_progress")
    await make(database, OPERATOR, now, "completed")

    async def look() -> dict[str, bool]:
        async with database.read() as session:
            return {batch.id: batch.owner_is_active for batch in await open_batches(session)}

    assert await look() == {hers: True, operators: True}
    async with database.write() as session:
        await users.suspend(session, OPERATOR, user.id)
    assert await look() == {hers: False, operators: True}
    async with database.write() as session:
        await users.remove_user(session, OPERATOR, user.id)
    assert await look() == {operators: True}


async def test_unfinished_batches_are_bounded(database: Database, now: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_OPEN", 2)
    ann = signed_in(await make_user(quick_accounts(database), "ann@example.org"))
    for _ in range(2):
        await make(database, OPERATOR, now)
    await make(database, ann, now)
    with pytest.raises(TooLargeError, match="2 unfinished"):
        await make(database, OPERATOR, now)
