"""`/v1/fine_tuning/jobs`: models are trained on uploaded files; what comes of it answers as a model of its owner's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from openai.types.fine_tuning import FineTuningJobEvent
from pydantic import BaseModel
from starlette.responses import Response

from chatwright.jobs.reading import checkpoints_of
from chatwright.jobs.service import Jobs, UnknownFileError
from chatwright.server.errors import no_such_file
from chatwright.server.json_body import JsonRoute
from chatwright.server.openai.fine_tuning_wire import (
    CheckpointList,
    CreateJobBody,
    EventList,
    JobInfo,
    JobList,
    checkpoint_info,
    event_info,
    job_info,
    number_of_event,
)
from chatwright.server.openai.lists import LOOKED_FOR
from chatwright.server.openai.streaming import sse, start_stream
from chatwright.server.permission import Permit
from chatwright.server.state import NeedJobs, ServerState, State
from chatwright.store.actor import Actor
from chatwright.store.jobs import own
from chatwright.store.jobs.states import ENDED
from chatwright.store.policy import Action
from chatwright.store.tables import Job, JobEvent

Trainer = Annotated[Actor, Depends(Permit(Action.USE_JOBS))]
Cursor = Annotated[str, Query(max_length=100)]
Limit = Annotated[int, Query(ge=1, le=100)]

router = APIRouter(tags=["fine-tuning"])
# These take a body.
create_router = APIRouter(route_class=JsonRoute, tags=["fine-tuning"])

EVENTS_A_TURN = 500
NEWS_S = 1.0


@create_router.post("/fine_tuning/jobs")
async def create_job(body: CreateJobBody, actor: Trainer, jobs: NeedJobs, state: State) -> JobInfo:
    """Train a model on a file."""
    job = await make_job(body, actor, jobs, state)
    return job_info(job, state.settings.organization)


async def make_job(body: CreateJobBody, actor: Actor, jobs: Jobs, state: ServerState) -> Job:
    """A job as it was asked for. Raises WireError (404) for a file that is not there, and what making it raises."""
    state.check_open()
    assert state.fine_tuned is not None
    origin = await state.fine_tuned.origin(body.model, actor)
    try:
        return await jobs.create(actor, body.asked(), origin)
    except UnknownFileError as error:
        raise no_such_file(error.param) from None


@router.get("/fine_tuning/jobs", openapi_extra=LOOKED_FOR)
async def list_jobs(
    request: Request, actor: Trainer, jobs: NeedJobs, state: State, after: Cursor | None = None, limit: Limit = 20
) -> JobList:
    """One's jobs, the newest first. `metadata[KEY]=VALUE`: only those whose metadata say so."""
    metadata = {
        name.removeprefix("metadata[").removesuffix("]"): value
        for name, value in request.query_params.items()
        if name.startswith("metadata[") and name.endswith("]")
    }
    async with jobs.database.read() as session:
        rows, has_more = await own.list_jobs(session, actor, after=after, limit=limit, metadata=metadata)
    return JobList(data=[job_info(row, state.settings.organization) for row in rows], has_more=has_more)


@router.get("/fine_tuning/jobs/{job_id}")
async def retrieve_job(job_id: str, actor: Trainer, jobs: NeedJobs, state: State) -> JobInfo:
    """One job. 404 for those of others."""
    return job_info(await jobs.get(actor, job_id), state.settings.organization)


@router.post("/fine_tuning/jobs/{job_id}/cancel")
async def cancel_job(job_id: str, actor: Trainer, jobs: NeedJobs, state: State) -> JobInfo:
    """End a job without a result. Its checkpoints stay."""
    return job_info(await jobs.cancel(actor, job_id), state.settings.organization)


@router.post("/fine_tuning/jobs/{job_id}/pause")
async def pause_job(job_id: str, actor: Trainer, jobs: NeedJobs, state: State) -> JobInfo:
    """Save what a job has done, and let it rest."""
    return job_info(await jobs.pause(actor, job_id), state.settings.organization)


@router.post("/fine_tuning/jobs/{job_id}/resume")
async def resume_job(job_id: str, actor: Trainer, jobs: NeedJobs, state: State) -> JobInfo:
    """Go on with a paused job."""
    return job_info(await jobs.resume(actor, job_id), state.settings.organization)


@router.get("/fine_tuning/jobs/{job_id}/events", responses={200: {"content": {"text/event-stream": {}}}})
async def list_events(
    job_id: str,
    request: Request,
    actor: Trainer,
    jobs: NeedJobs,
    state: State,
    after: Cursor | None = None,
    limit: Limit = 20,
    stream: bool = False,
) -> EventList:
    """What happened to a job, the newest first. With `stream`, from the first one on, as it happens, until the job has ended."""
    if stream:
        return await events_as_they_happen(job_id, request, actor, state, jobs, event_info)  # type: ignore[return-value]
    before = None if after is None else number_of_event(after, job_id)
    async with jobs.database.read() as session:
        rows, has_more = await own.list_events(session, actor, job_id, before=before, limit=limit)
    return EventList(data=[event_info(row) for row in rows], has_more=has_more)


@router.get("/fine_tuning/jobs/{job_id}/checkpoints")
async def list_checkpoints(
    job_id: str, actor: Trainer, jobs: NeedJobs, after: Cursor | None = None, limit: Limit = 10
) -> CheckpointList:
    """The checkpoints that are kept, the newest first; each answers as a model."""
    job = await jobs.get(actor, job_id)
    found = await asyncio.to_thread(checkpoints_of, jobs.of(job))
    data = [checkpoint_info(job, checkpoint) for checkpoint in found]
    if after is not None:
        ids = [each.id for each in data]
        data = data[ids.index(after) + 1 :] if after in ids else []
    page = data[:limit]
    return CheckpointList(
        data=page,
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=len(data) > limit,
    )


async def events_as_they_happen(
    job_id: str,
    request: Request,
    actor: Actor,
    state: ServerState,
    jobs: Jobs,
    shown: Callable[[JobEvent], FineTuningJobEvent | BaseModel],
) -> Response:
    """All events of a job as server-sent events, until it has ended, its user has gone, or the server leaves."""

    async def events() -> AsyncGenerator[str, None]:
        number = 0
        while True:
            async with jobs.database.read() as session:
                job, rows = await own.events_since(session, actor, job_id, after=number, limit=EVENTS_A_TURN)
            for row in rows:
                number = row.number
                yield sse(shown(row))
            if len(rows) == EVENTS_A_TURN:
                continue
            if job.state in ENDED or state.draining:
                return
            await jobs.supervisor.news(NEWS_S)

    return await start_stream(request, events())
