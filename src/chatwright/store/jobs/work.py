"""What whoever carries out jobs reads and writes: everybody's, of one home folder. Each function looks at the state it found:
a user may have cancelled in between."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.store import clock
from chatwright.store.actor import Actor
from chatwright.store.database import one_at_a_time
from chatwright.store.jobs.events import Event, add_events
from chatwright.store.jobs.states import AT_WORK, ModelState, State
from chatwright.store.policy import Action, authorize
from chatwright.store.tables import Job, User


@dataclass(frozen=True)
class Failure:
    """Why a job has failed. `param`: which field of its request was wrong, if one was."""

    code: str
    message: str
    param: str | None = None


async def jobs_at_work(session: AsyncSession, actor: Actor, place: str) -> Sequence[Job]:
    """Those of one home folder that have to get on, in the order of the queue."""
    authorize(actor, Action.RUN_JOBS)
    query = select(Job).where(Job.place == place, Job.state.in_(AT_WORK)).order_by(Job.number)
    return (await session.scalars(query)).all()


async def knows(session: AsyncSession, actor: Actor, place: str) -> bool:
    """Whether this database has, or had the last time, jobs of that home folder."""
    authorize(actor, Action.RUN_JOBS)
    return await session.scalar(select(Job.id).where(Job.place == place).limit(1)) is not None


async def states_of(session: AsyncSession, actor: Actor, job_ids: Collection[str]) -> dict[str, State]:
    """What these jobs are; without those that are no more."""
    authorize(actor, Action.RUN_JOBS)
    if not job_ids:
        return {}
    rows = await session.execute(select(Job.id, Job.state).where(Job.id.in_(job_ids)))
    return {job_id: State(state) for job_id, state in rows}


async def kept_out(session: AsyncSession, actor: Actor, user_ids: Collection[str]) -> set[str]:
    """Which of these users can not sign in any more."""
    authorize(actor, Action.RUN_JOBS)
    if not user_ids:
        return set()
    active = await session.scalars(select(User.id).where(User.id.in_(user_ids), User.status == "active"))
    return set(user_ids) - set(active)


async def users_gone(session: AsyncSession, actor: Actor, user_ids: Collection[str]) -> set[str]:
    """Which of these users are no more."""
    authorize(actor, Action.RUN_JOBS)
    if not user_ids:
        return set()
    return set(user_ids) - set(await session.scalars(select(User.id).where(User.id.in_(user_ids))))


async def move(
    session: AsyncSession,
    actor: Actor,
    job_id: str,
    before: Collection[State],
    after: State,
    *,
    event: Event | None = None,
    again: bool = False,
) -> bool:
    """Change a state, if it still is one of `before`; whether it was. `again`: a start that counts as one more try."""
    job = await _locked(session, actor, job_id)
    if job is None or job.state not in before:
        return False
    job.state = after
    if again:
        job.tries += 1
    add_events(session, job, [event] if event else [])
    return True


async def note_progress(
    session: AsyncSession,
    actor: Actor,
    job_id: str,
    events: Iterable[Event],
    *,
    journal: Mapping[str, Any],
    chosen: Mapping[str, Any] | None,
    got_on: bool,
    estimated_finish: int | None,
) -> None:
    """What the journals of a job say that they did not say before; it and `journal`, how far they were read, or neither."""
    job = await _locked(session, actor, job_id)
    if job is None:
        return
    job.journal = json.dumps(dict(journal))
    if chosen is not None:
        job.chosen = json.dumps(dict(chosen))
    if got_on:
        job.tries = 0
    if job.state == State.RUNNING:
        job.estimated_finish = estimated_finish
    add_events(session, job, events)


async def fail(session: AsyncSession, actor: Actor, job_id: str, failure: Failure) -> bool:
    """It has failed, unless it has ended otherwise; whether it did."""
    job = await _locked(session, actor, job_id)
    if job is None or job.state not in AT_WORK:
        return False
    job.state, job.finished_at, job.estimated_finish = State.FAILED, clock.now(), None
    job.error_code, job.error_message, job.error_param = failure.code, failure.message, failure.param
    add_events(session, job, [Event(f"The job has failed: {failure.message}", level="error")])
    return True


async def succeed(
    session: AsyncSession, actor: Actor, job_id: str, *, trained_tokens: int | None, result_file_id: str | None
) -> bool:
    """It has a result, unless it was cancelled; whether it has."""
    job = await _locked(session, actor, job_id)
    if job is None or job.state not in AT_WORK:
        return False
    job.state, job.finished_at, job.estimated_finish = State.SUCCEEDED, clock.now(), None
    job.model_state, job.trained_tokens, job.result_file_id = ModelState.READY, trained_tokens, result_file_id
    add_events(
        session,
        job,
        [Event(f"New fine-tuned model created: {job.model_name}"), Event("The job has successfully completed.")],
    )
    return True


async def _locked(session: AsyncSession, actor: Actor, job_id: str) -> Job | None:
    """The row, which nobody else changes before this transaction ends."""
    authorize(actor, Action.RUN_JOBS)
    await one_at_a_time(session, f"job {job_id}")
    return await session.get(Job, job_id)
