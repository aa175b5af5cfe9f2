"""Evals in the store: their owners' alone, in pages, and runs whose items are counted once, whoever works on them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import func, select

from chatwright.errors import ForbiddenError, InvalidRequestError, NotFoundError, TooLargeError
from chatwright.store.accounts import users
from chatwright.store.actor import OPEN, OPERATOR, SERVER_KEY, Actor, Role
from chatwright.store.database import Database
from chatwright.store.evals import definitions, runs, work
from chatwright.store.evals.runs import NewItem, NewRun
from chatwright.store.evals.work import Outcome, Use
from chatwright.store.tables import Eval, EvalItem, EvalRun
from tests.store.people import Clock, make_user, quick_accounts, set_clock, signed_in

HERE, THERE = "a" * 64, "b" * 64


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return set_clock(monkeypatch)


@pytest.fixture
async def ann(database: Database) -> Actor:
    return signed_in(await make_user(quick_accounts(database), "ann@example.org"))


async def make_eval(database: Database, actor: Actor, name: str = "e") -> str:
    async with database.write() as session:
        return (await definitions.add_eval(session, actor, name, "{}", "[]", {"n": name})).id


async def make_run(database: Database, actor: Actor, eval_id: str, n: int = 3, server: str = HERE) -> str:
    new = NewRun("r", "{}", "tiny", None, server)
    async with database.write() as session:
        return (await runs.add_run(session, actor, eval_id, new, [NewItem(f'{{"n":{i}}}') for i in range(n)])).id


async def queued(database: Database, run_id: str) -> Sequence[EvalItem]:
    async with database.read() as session:
        return await work.next_items(session, run_id, -1, 1000)


async def test_evals_are_their_owners_alone(database: Database, ann: Actor) -> None:
    accounts = quick_accounts(database)
    bob = signed_in(await make_user(accounts, "bob@example.org"))
    owner = signed_in(await make_user(accounts, "owner@example.org", Role.OWNER))
    hers, operators = await make_eval(database, ann), await make_eval(database, OPERATOR)
    her_run = await make_run(database, ann, hers)
    [first, *_] = await queued(database, her_run)
    async with database.write() as session:
        assert await work.record(session, her_run, [Outcome(first.id, "pass", "[]", "{}")])
    async with database.write() as session:
        for thief in (bob, owner, OPERATOR):
            for attempt in (
                definitions.get_eval(session, thief, hers),
                definitions.rename_eval(session, thief, hers, "x"),
                definitions.label_eval(session, thief, hers, {}),
                definitions.delete_eval(session, thief, hers),
                definitions.list_evals(session, thief, limit=20, after=hers),
                runs.add_run(session, thief, hers, NewRun("r", "{}", None, None, HERE), []),
                runs.get_run(session, thief, hers, her_run),
                runs.list_runs(session, thief, hers, limit=20, after=None),
                runs.cancel_run(session, thief, hers, her_run),
                runs.delete_run(session, thief, hers, her_run),
                runs.list_items(session, thief, hers, her_run, limit=20, after=None),
                runs.get_item(session, thief, hers, her_run, first.id),
            ):
                with pytest.raises(NotFoundError):
                    await attempt
        for stranger in (OPEN, SERVER_KEY):
            with pytest.raises(ForbiddenError):
                await definitions.get_eval(session, stranger, operators)
            with pytest.raises(ForbiddenError):
                await definitions.list_evals(session, stranger, limit=20, after=None)
        for wrong in ("", "eval_none", "eval_\x00", "x" * 100):
            with pytest.raises(NotFoundError):
                await definitions.get_eval(session, OPERATOR, wrong)
        # A run and an item are found where they belong only.
        with pytest.raises(NotFoundError):
            await runs.get_run(session, ann, operators, her_run)
        page = await definitions.list_evals(session, OPERATOR, limit=20, after=None)
        assert [row.id for row in page.evals] == [operators]
        assert (await runs.get_item(session, ann, hers, her_run, first.id)).status == "pass"


async def test_lists_come_in_pages_both_ways(database: Database, now: Clock) -> None:
    made = [await make_eval(database, OPERATOR, f"e{number}") for number in range(5)]
    now.now += 5
    async with database.write() as session:
        await definitions.rename_eval(session, OPERATOR, made[1], "changed")

    async def walk(**order: bool) -> list[str]:
        seen: list[str] = []
        async with database.read() as session:
            while True:
                after = seen[-1] if seen else None
                page = await definitions.list_evals(session, OPERATOR, limit=2, after=after, **order)
                seen += [row.id for row in page.evals]
                if not page.has_more:
                    return seen

    assert await walk() == made
    assert await walk(newest_first=True) == made[::-1]
    changed_last = [made[0], *made[2:], made[1]]
    assert await walk(by_change=True) == changed_last
    assert await walk(by_change=True, newest_first=True) == changed_last[::-1]


async def test_an_outcome_counts_once(database: Database, ann: Actor) -> None:
    eval_id = await make_eval(database, ann)
    run_id = await make_run(database, ann, eval_id)
    items = await queued(database, run_id)
    use = Use("tiny", 5, 2, 3)
    outcomes = [
        Outcome(items[0].id, "pass", "[1]", "{}", {"a": True, "b": True}, [use]),
        Outcome(items[1].id, "fail", "[2]", "{}", {"a": True, "b": False}, [use]),
    ]
    for _ in range(2):  # as a second server would, that took the run for lost
        async with database.write() as session:
            assert await work.record(session, run_id, outcomes)
    async with database.read() as session:
        run = await runs.get_run(session, ann, eval_id, run_id)
        assert (run.n_total, run.n_passed, run.n_failed, run.n_errored) == (3, 1, 1, 0)
        assert work.tallies_of(run) == {"criteria": {"a": [2, 0], "b": [1, 1]}, "models": {"tiny": [2, 10, 4, 6]}}
        page = await runs.list_items(session, ann, eval_id, run_id, limit=1, after=None)
        assert [(item.number, item.results) for item in page.items] == [(0, "[1]")]
        assert page.has_more
        page = await runs.list_items(session, ann, eval_id, run_id, limit=1, after=items[0].id)
        assert [item.number for item in page.items] == [1]
        assert not page.has_more, "what is still to be done is not shown"
        page = await runs.list_items(session, ann, eval_id, run_id, limit=9, after=None, status="fail")
        assert [item.number for item in page.items] == [1]
        page = await runs.list_items(session, ann, eval_id, run_id, limit=9, after=None, newest_first=True)
        assert [item.number for item in page.items] == [1, 0]
        with pytest.raises(NotFoundError):
            await runs.get_item(session, ann, eval_id, run_id, items[2].id)
    assert [item.number for item in await queued(database, run_id)] == [2]


async def test_nothing_is_added_to_a_run_that_is_over(database: Database, ann: Actor, now: Clock) -> None:
    eval_id = await make_eval(database, ann)
    run_id = await make_run(database, ann, eval_id)
    [item, *_] = await queued(database, run_id)
    async with database.write() as session:
        assert (await runs.cancel_run(session, ann, eval_id, run_id)).finished_at == now.now
    async with database.write() as session:
        assert not await work.record(session, run_id, [Outcome(item.id, "pass", "[]", "{}")])
        await work.end(session, run_id, "failed", "late", "Too late.")
        with pytest.raises(InvalidRequestError, match="canceled"):
            await runs.cancel_run(session, ann, eval_id, run_id)
    async with database.read() as session:
        run = await runs.get_run(session, ann, eval_id, run_id)
        assert (run.status, run.n_passed, run.error_code) == ("canceled", 0, None)
        assert await work.open_runs(session) == []
        assert await work.read_run(session, run_id) is None
        found = await runs.list_runs(session, ann, eval_id, limit=5, after=None, status="canceled")
        assert [run.id for run in found.runs] == [run_id]
        assert (await runs.list_runs(session, ann, eval_id, limit=5, after=None, status="failed")).runs == []


async def test_one_server_takes_a_run_and_another_only_when_it_is_gone(
    database: Database, ann: Actor, now: Clock
) -> None:
    run_id = await make_run(database, ann, await make_eval(database, ann), server=HERE)

    async def look() -> work.OpenRun:
        async with database.read() as session:
            [found] = await work.open_runs(session)
            return found

    async def take(found: work.OpenRun, server: str) -> bool:
        async with database.write() as session:
            return await work.claim(session, found, server)

    seen = await look()
    assert not seen.is_lost()
    now.now += 1
    assert await take(seen, HERE)
    assert not await take(seen, THERE), "it was taken meanwhile"
    now.now += work.STALE_S
    async with database.write() as session:
        await work.say_alive(session, [run_id], THERE)
    assert not (await look()).is_lost(), "a minute is not more than a minute; and it was not another's to keep alive"
    now.now += 1
    seen = await look()
    assert seen.is_lost()
    async with database.write() as session:
        await work.say_alive(session, [run_id], HERE)
    assert not await take(seen, THERE), "it was only slow"
    now.now += work.STALE_S + 1
    assert await take(await look(), THERE)
    assert (await look()).server == THERE


async def test_what_is_unfinished_and_kept_is_bounded(
    database: Database, ann: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MOST_OPEN", 2)
    monkeypatch.setattr(runs, "MOST_ITEMS_KEPT", 8)
    monkeypatch.setattr(definitions, "MOST_EVALS", 2)
    hers, operators = await make_eval(database, ann), await make_eval(database, OPERATOR)
    await make_eval(database, OPERATOR)
    with pytest.raises(TooLargeError, match="2 evals"):
        await make_eval(database, OPERATOR)
    first = await make_run(database, OPERATOR, operators, 3)
    await make_run(database, OPERATOR, operators, 3)
    with pytest.raises(TooLargeError, match="2 unfinished"):
        await make_run(database, OPERATOR, operators, 1)
    async with database.write() as session:
        await work.end(session, first, "completed")
    with pytest.raises(TooLargeError, match="8 items"):
        await make_run(database, OPERATOR, operators, 3)
    await make_run(database, OPERATOR, operators, 2)
    await make_run(database, ann, hers, 8)


async def test_what_is_deleted_takes_everything_with_it(database: Database, ann: Actor) -> None:
    await make_user(quick_accounts(database), "owner@example.org", Role.OWNER)
    eval_id, other = await make_eval(database, ann), await make_eval(database, ann)
    first, second = await make_run(database, ann, eval_id), await make_run(database, ann, eval_id, 1100)
    await make_run(database, ann, other, 2)
    assert len(await queued(database, second)) == 1000

    async def count() -> list[int]:
        async with database.read() as session:
            tables = (Eval, EvalRun, EvalItem)
            return [await session.scalar(select(func.count()).select_from(table)) or 0 for table in tables]

    assert await count() == [2, 3, 1105]
    async with database.write() as session:
        await runs.delete_run(session, ann, eval_id, first)
    assert await count() == [2, 2, 1102]
    async with database.write() as session:
        await definitions.delete_eval(session, ann, eval_id)
    assert await count() == [1, 1, 2]
    async with database.read() as session:
        assert [found.owner_is_active for found in await work.open_runs(session)] == [True]
    assert ann.user_id is not None
    async with database.write() as session:
        await users.suspend(session, OPERATOR, ann.user_id)
    async with database.read() as session:
        assert [found.owner_is_active for found in await work.open_runs(session)] == [False]
    async with database.write() as session:
        await users.remove_user(session, OPERATOR, ann.user_id)
    assert await count() == [0, 0, 0]
