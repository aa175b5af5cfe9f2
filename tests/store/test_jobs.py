"""Jobs as rows: whose they are, in which order they come, what may become of them, and that no row says what is not so."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select

from chatwright.errors import ForbiddenError, InvalidRequestError, NotFoundError, ThrottledError
from chatwright.store.accounts import users
from chatwright.store.actor import OPEN, OPERATOR, SERVER_KEY, Actor, Role, Scope, Via
from chatwright.store.database import Database
from chatwright.store.ids import new_id
from chatwright.store.jobs import own, work
from chatwright.store.jobs.events import Event
from chatwright.store.jobs.states import AT_WORK, ENDED, State
from chatwright.store.jobs.work import Failure
from chatwright.store.tables import Job, JobEvent
from tests.store.people import make_user, quick_accounts, signed_in

PLACE = "place-1"


async def people(database: Database) -> tuple[Actor, Actor, Actor]:
    """(ann, bob, an administrator)."""
    accounts = quick_accounts(database)
    return (
        signed_in(await make_user(accounts, "ann@example.org")),
        signed_in(await make_user(accounts, "bob@example.org")),
        signed_in(await make_user(accounts, "admin@example.org", Role.ADMIN)),
    )


async def make_job(database: Database, actor: Actor, place: str = PLACE, **parameters: Any) -> Job:
    job_id = new_id("ftjob")
    asked = {"model": "tiny", "training_file": "file-1", "metadata": None} | parameters
    async with database.write() as session:
        return await own.create_job(
            session, actor, own.NewJob(job_id, "fine-tune", place, asked, f"ft:tiny:chatwright::{job_id[-8:]}")
        )


async def state_of(database: Database, actor: Actor, job: Job) -> str:
    async with database.read() as session:
        return (await own.get_job(session, actor, job.id)).state


async def test_they_come_in_the_order_in_which_they_were_made(database: Database) -> None:
    ann, bob, _ = await people(database)
    made = [await make_job(database, who) for who in (ann, bob, ann, OPERATOR)]
    async with database.read() as session:
        waiting = await work.jobs_at_work(session, OPERATOR, PLACE)
        assert [job.id for job in waiting] == [job.id for job in made]
        assert await work.jobs_at_work(session, OPERATOR, "place-2") == []
        newest_first, more = await own.list_jobs(session, ann, after=None, limit=1)
        assert ([job.id for job in newest_first], more) == ([made[2].id], True)
        rest, more = await own.list_jobs(session, ann, after=made[2].id, limit=1)
        assert ([job.id for job in rest], more) == ([made[0].id], False)


async def test_metadata_choose_among_them(database: Database) -> None:
    ann, *_ = await people(database)
    made = [await make_job(database, ann, metadata=each) for each in ({"für": "客服"}, None, {"für": "x", "b": "c"})]
    async with database.read() as session:
        for wanted, found in (({"für": "客服"}, [0]), ({"für": "x", "b": "c"}, [2]), ({"b": "x"}, []), ({}, [2, 1, 0])):
            jobs, _ = await own.list_jobs(session, ann, after=None, limit=5, metadata=wanted)
            assert [job.id for job in jobs] == [made[i].id for i in found]


async def test_those_of_others_do_not_exist(database: Database) -> None:
    ann, bob, admin = await people(database)
    job = await make_job(database, ann)
    async with database.write() as session:
        await work.succeed(session, OPERATOR, job.id, trained_tokens=5, result_file_id=None)
    for other in (bob, admin, OPERATOR):
        async with database.write() as session:
            for ask, more in (
                (own.get_job, {}),
                (own.cancel_job, {}),
                (own.pause_job, {}),
                (own.resume_job, {"validated": True}),
                (own.list_events, {"before": None, "limit": 5}),
                (own.events_since, {"after": 0, "limit": 5}),
            ):
                with pytest.raises(NotFoundError):
                    await ask(session, other, job.id, **more)  # type: ignore[operator]
            with pytest.raises(NotFoundError):
                await own.delete_model(session, other, job.model_name)
            assert await own.find_model(session, other, job.model_name, to_use=True) is None
            with pytest.raises(NotFoundError):
                await own.list_jobs(session, other, after=job.id, limit=5)
    async with database.read() as session:
        seen = {"ann": ann, "bob": bob, "admin": admin, "operator": OPERATOR}
        listed = {name: [each.id for each in await own.list_models(session, who)] for name, who in seen.items()}
        assert listed == {"ann": [job.id], "bob": [], "admin": [job.id], "operator": [job.id]}
        assert await own.find_model(session, admin, job.model_name, to_use=False) is not None
        assert await own.find_model(session, bob, job.model_name, to_use=False) is None
    for stranger in (OPEN, SERVER_KEY, Actor(Via.KEY, ann.user_id, Role.MEMBER, frozenset({Scope.INFERENCE}))):
        async with database.read() as session:
            with pytest.raises(ForbiddenError):
                await own.get_job(session, stranger, job.id)
    async with database.read() as session:
        for who in (ann, admin):
            with pytest.raises(ForbiddenError):
                await work.jobs_at_work(session, who, PLACE)


async def test_what_is_the_operators_is_nobody_elses(database: Database) -> None:
    ann, _, admin = await people(database)
    job = await make_job(database, OPERATOR)
    async with database.write() as session:
        await work.succeed(session, OPERATOR, job.id, trained_tokens=5, result_file_id=None)
        for who in (ann, admin, OPEN, SERVER_KEY):
            assert await own.find_model(session, who, job.model_name, to_use=True) is None
        assert await own.find_model(session, OPERATOR, job.model_name, to_use=True) is not None
        assert await own.list_models(session, OPEN) == []


@pytest.mark.parametrize("state", State)
async def test_what_may_become_of_a_job(database: Database, state: State) -> None:
    job = await make_job(database, OPERATOR)
    for wanted, allowed in (("cancel", state not in ENDED), ("pause", state in AT_WORK), ("resume", state == "paused")):
        async with database.write() as session:
            (await session.get_one(Job, job.id)).state = state
        async with database.write() as session:
            call = {
                "cancel": lambda: own.cancel_job(session, OPERATOR, job.id),
                "pause": lambda: own.pause_job(session, OPERATOR, job.id),
                "resume": lambda: own.resume_job(session, OPERATOR, job.id, validated=False),
            }[wanted]
            if allowed:
                after = {"cancel": "cancelled", "pause": "paused", "resume": "validating"}[wanted]
                assert (await call()).state == after
            else:
                with pytest.raises(InvalidRequestError) as error:
                    await call()
                assert error.value.code == "invalid_job_state"
        assert await state_of(database, OPERATOR, job) == (after if allowed else state)


async def test_a_cancelled_job_neither_succeeds_nor_fails(database: Database) -> None:
    job = await make_job(database, OPERATOR)
    async with database.write() as session:
        await own.cancel_job(session, OPERATOR, job.id)
    async with database.write() as session:
        assert not await work.succeed(session, OPERATOR, job.id, trained_tokens=1, result_file_id="file-1")
        assert not await work.fail(session, OPERATOR, job.id, Failure("x", "y"))
        assert not await work.move(session, OPERATOR, job.id, {State.RUNNING}, State.QUEUED)
    async with database.read() as session:
        row = await own.get_job(session, OPERATOR, job.id)
        assert (row.state, row.error_code, row.model_state, row.result_file_id) == ("cancelled", None, "none", None)


async def test_events_are_counted_and_come_in_pages(database: Database) -> None:
    job = await make_job(database, OPERATOR)
    progress: dict[str, Any] = {"chosen": {"n_epochs": 3}, "got_on": True, "estimated_finish": 9}
    async with database.write() as session:
        await work.note_progress(
            session, OPERATOR, job.id, [Event(f"e{n}", data={"n": n}) for n in range(5)], journal={"at": 7}, **progress
        )
    async with database.read() as session:
        page, more = await own.list_events(session, OPERATOR, job.id, before=None, limit=3)
        assert [event.number for event in page] == [7, 6, 5]
        assert more
        page, more = await own.list_events(session, OPERATOR, job.id, before=3, limit=3)
        assert [event.message for event in page][1] == f"Created fine-tuning job: {job.id}"
        assert not more
        row, since = await own.events_since(session, OPERATOR, job.id, after=5, limit=10)
        assert [json.loads(event.data or "") for event in since] == [{"n": 3}, {"n": 4}]
        assert (json.loads(row.journal), json.loads(row.chosen or "")) == ({"at": 7}, {"n_epochs": 3})
        assert row.estimated_finish is None, "it does not run"


async def test_nobody_fills_the_queue_for_all(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob, _ = await people(database)
    monkeypatch.setattr(own, "MOST_OPEN", 2)
    jobs = [await make_job(database, ann) for _ in range(2)]
    with pytest.raises(ThrottledError):
        await make_job(database, ann)
    await make_job(database, bob)
    async with database.write() as session:
        await own.cancel_job(session, ann, jobs[0].id)
    await make_job(database, ann)


async def test_jobs_go_with_their_user(database: Database) -> None:
    ann, bob, _ = await people(database)
    job, other = await make_job(database, ann), await make_job(database, bob)
    assert ann.user_id is not None
    async with database.write() as session:
        await users.suspend(session, OPERATOR, ann.user_id)
        assert await work.kept_out(session, OPERATOR, {ann.user_id, bob.user_id or ""}) == {ann.user_id}
    async with database.write() as session:
        await users.remove_user(session, OPERATOR, ann.user_id)
    async with database.read() as session:
        assert await work.states_of(session, OPERATOR, [job.id, other.id]) == {other.id: State.VALIDATING}
        assert list(await session.scalars(select(JobEvent.job_id).distinct())) == [other.id]
        assert await work.users_gone(session, OPERATOR, {ann.user_id, bob.user_id or ""}) == {ann.user_id}


async def test_a_result_is_deleted_once(database: Database) -> None:
    job = await make_job(database, OPERATOR)
    for _ in range(2):
        async with database.write() as session:
            if _ == 0:
                with pytest.raises(NotFoundError):
                    await own.delete_model(session, OPERATOR, job.model_name)
                await work.succeed(session, OPERATOR, job.id, trained_tokens=1, result_file_id=None)
                await own.delete_model(session, OPERATOR, job.model_name)
            with pytest.raises(NotFoundError):
                await own.delete_model(session, OPERATOR, job.model_name)
    async with database.read() as session:
        assert await own.list_models(session, OPERATOR) == []
        assert (await own.get_job(session, OPERATOR, job.id)).model_state == "deleted"
