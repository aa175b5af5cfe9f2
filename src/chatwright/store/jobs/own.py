"""What users do with their own jobs, and with the models that came of them. What belongs to others does not exist."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import InvalidRequestError, NotFoundError, ThrottledError
from chatwright.store import clock
from chatwright.store.actor import Actor, Role
from chatwright.store.database import one_at_a_time
from chatwright.store.ids import is_id
from chatwright.store.jobs.events import Event, add_events
from chatwright.store.jobs.states import AT_WORK, ENDED, ModelState, State
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.tables import Job, JobEvent

# Waiting and paused ones of one user: each has its files in a folder.
MOST_OPEN = 100
FULL_RETRY_S = 60
# What the rows of a journal were read into so far.
NOTHING_READ = "{}"


@dataclass(frozen=True)
class NewJob:
    """What a row is made of. `id` and `model_name`: made here, not by whoever asks."""

    id: str
    kind: str
    place: str
    parameters: Mapping[str, Any]
    model_name: str


async def create_job(session: AsyncSession, actor: Actor, new: NewJob) -> Job:
    """Put it at the end of the queue. Raises ThrottledError where its user has too many open ones."""
    authorize(actor, Action.USE_JOBS)
    await one_at_a_time(session, "jobs")
    count = select(func.count()).select_from(Job).where(_is_of(actor), Job.state.not_in(ENDED))
    if (await session.scalar(count) or 0) >= MOST_OPEN:
        raise ThrottledError(
            "You have {n} jobs that are not finished: wait for one, or cancel one.", n=MOST_OPEN, seconds=FULL_RETRY_S
        )
    now = clock.now()
    job = Job(
        id=new.id,
        user_id=actor.user_id,
        number=(await session.scalar(select(func.max(Job.number))) or 0) + 1,
        place=new.place,
        kind=new.kind,
        state=State.VALIDATING,
        parameters=json.dumps(dict(new.parameters), ensure_ascii=False),
        chosen=None,
        model_name=new.model_name,
        model_state=ModelState.NONE,
        error_code=None,
        error_message=None,
        error_param=None,
        trained_tokens=None,
        result_file_id=None,
        journal=NOTHING_READ,
        n_events=0,
        tries=0,
        created_at=now,
        updated_at=now,
        finished_at=None,
        estimated_finish=None,
    )
    session.add(job)
    await session.flush()
    add_events(
        session,
        job,
        [
            Event(f"Created fine-tuning job: {job.id}"),
            Event(f"Validating training file: {new.parameters['training_file']}"),
        ],
    )
    return job


async def get_job(session: AsyncSession, actor: Actor, job_id: str) -> Job:
    """Raises NotFoundError."""
    authorize(actor, Action.USE_JOBS)
    job = await session.get(Job, job_id) if is_id(job_id) else None
    if job is None:
        raise NotFoundError("There is nothing of that id.")
    authorize(actor, Action.USE_JOBS, Resource(job.user_id))
    return job


async def list_jobs(
    session: AsyncSession, actor: Actor, *, after: str | None, limit: int, metadata: Mapping[str, str] | None = None
) -> tuple[list[Job], bool]:
    """(the newest first, whether there are more). `after`: the last one of the page before. `metadata`: what theirs must say.

    Raises NotFoundError for an `after` that is none.
    """
    authorize(actor, Action.USE_JOBS)
    query = select(Job).where(_is_of(actor)).order_by(Job.number.desc())
    if after is not None:
        query = query.where(Job.number < (await get_job(session, actor, after)).number)
    if not metadata:
        rows = list((await session.scalars(query.limit(limit + 1))).all())
        return rows[:limit], len(rows) > limit
    found: list[Job] = []
    for job in (await session.scalars(query)).all():
        said = json.loads(job.parameters).get("metadata") or {}
        if all(said.get(key) == value for key, value in metadata.items()):
            found.append(job)
            if len(found) > limit:
                break
    return found[:limit], len(found) > limit


async def list_events(
    session: AsyncSession, actor: Actor, job_id: str, *, before: int | None, limit: int
) -> tuple[Sequence[JobEvent], bool]:
    """(the newest first, whether there are more). `before`: only those with a smaller number. Raises NotFoundError."""
    job = await get_job(session, actor, job_id)
    query = select(JobEvent).where(JobEvent.job_id == job.id).order_by(JobEvent.number.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(JobEvent.number < before)
    rows = (await session.scalars(query)).all()
    return rows[:limit], len(rows) > limit


async def events_since(
    session: AsyncSession, actor: Actor, job_id: str, *, after: int, limit: int
) -> tuple[Job, Sequence[JobEvent]]:
    """The job, and the oldest of its events with a larger number than `after`. Raises NotFoundError."""
    job = await get_job(session, actor, job_id)
    query = select(JobEvent).where(JobEvent.job_id == job.id, JobEvent.number > after).order_by(JobEvent.number)
    return job, (await session.scalars(query.limit(limit))).all()


async def all_events(session: AsyncSession, actor: Actor, job_id: str, *, limit: int) -> Sequence[JobEvent]:
    """The newest of them, the oldest first, as the API of 2021 has them in the job itself. Raises NotFoundError."""
    rows, _ = await list_events(session, actor, job_id, before=None, limit=limit)
    return rows[::-1]


async def cancel_job(session: AsyncSession, actor: Actor, job_id: str) -> Job:
    """It will have no result. Raises NotFoundError, InvalidRequestError where it has ended already."""
    job = await _open_job(session, actor, job_id)
    job.state, job.finished_at, job.estimated_finish = State.CANCELLED, clock.now(), None
    add_events(session, job, [Event("The job has been cancelled.")])
    return job


async def pause_job(session: AsyncSession, actor: Actor, job_id: str) -> Job:
    """It keeps what it has done, and waits for `resume_job`. Raises NotFoundError, InvalidRequestError."""
    job = await _open_job(session, actor, job_id)
    if job.state not in AT_WORK:
        raise InvalidRequestError("The job {id} is paused already.", id=job.id, code="invalid_job_state")
    job.state, job.estimated_finish = State.PAUSED, None
    add_events(session, job, [Event("The job has been paused.")])
    return job


async def resume_job(session: AsyncSession, actor: Actor, job_id: str, *, validated: bool) -> Job:
    """It takes its place in the queue again. `validated`: whether its files were looked at before. Raises NotFoundError,
    InvalidRequestError."""
    job = await _open_job(session, actor, job_id)
    if job.state != State.PAUSED:
        raise InvalidRequestError("The job {id} is not paused.", id=job.id, code="invalid_job_state")
    job.state, job.tries = State.QUEUED if validated else State.VALIDATING, 0
    add_events(session, job, [Event("The job has been resumed and is waiting for its turn.")])
    return job


async def find_model(session: AsyncSession, actor: Actor, name: str, *, to_use: bool) -> Job | None:
    """The job whose result has this name, or whose checkpoints have it before theirs; None where there is none for this actor.
    `to_use`: for answers, which are the owner's only; administrators see it beside them."""
    job = await session.scalar(select(Job).where(Job.model_name == name))
    if job is None or not _may(actor, Action.GENERATE if to_use else Action.READ_MODELS, job):
        return None
    return job


async def list_models(session: AsyncSession, actor: Actor) -> Sequence[Job]:
    """Jobs whose results are there for this actor to see, the oldest first."""
    query = select(Job).where(Job.model_state == ModelState.READY).order_by(Job.number)
    if actor.role is None or actor.role < Role.ADMIN:
        query = query.where(_is_of(actor))
    return [job for job in (await session.scalars(query)).all() if _may(actor, Action.READ_MODELS, job)]


async def delete_model(session: AsyncSession, actor: Actor, name: str) -> Job:
    """From now on there is no such model. Raises NotFoundError."""
    job = await session.scalar(select(Job).where(Job.model_name == name, Job.model_state == ModelState.READY))
    if job is None:
        raise NotFoundError("There is nothing of that id.")
    authorize(actor, Action.USE_JOBS, Resource(job.user_id))
    job.model_state, job.updated_at = ModelState.DELETED, clock.now()
    return job


async def _open_job(session: AsyncSession, actor: Actor, job_id: str) -> Job:
    await one_at_a_time(session, f"job {job_id}")
    job = await get_job(session, actor, job_id)
    if job.state in ENDED:
        raise InvalidRequestError(
            "The job {id} has ended already ({state}).", id=job.id, state=job.state, code="invalid_job_state"
        )
    return job


def _may(actor: Actor, action: Action, job: Job) -> bool:
    """Whether a job is there for this actor to do that with."""
    try:
        authorize(actor, action, Resource(job.user_id))
    except NotFoundError:
        return False
    return True


def _is_of(actor: Actor) -> Any:
    """What is this actor's own. On a server where nobody can be told from another, that is the operator's, or nothing."""
    return Job.user_id.is_(None) if actor.user_id is None else Job.user_id == actor.user_id
