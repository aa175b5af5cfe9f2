"""`/v1/fine-tunes`: the same jobs as clients of 2021 to 2023 know them (openai < 1.0), from files of prompts and completions."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, FiniteFloat, StringConstraints

from chatwright.errors import NotFoundError
from chatwright.jobs.service import Jobs
from chatwright.server.json_body import JsonRoute
from chatwright.server.openai.files import FileInfo, file_info
from chatwright.server.openai.fine_tuning import Trainer, events_as_they_happen, make_job
from chatwright.server.openai.fine_tuning_wire import (
    LARGEST_BATCH,
    MOST_EPOCHS,
    CreateJobBody,
    FileId,
    HyperparametersBody,
    ModelName,
    numbers_of,
)
from chatwright.server.state import NeedJobs, State
from chatwright.store.actor import Actor, on_behalf_of_owner
from chatwright.store.jobs import own
from chatwright.store.jobs.states import ModelState
from chatwright.store.jobs.states import State as JobState
from chatwright.store.tables import Job, JobEvent

router = APIRouter(tags=["legacy"])
create_router = APIRouter(route_class=JsonRoute, tags=["legacy"])

MOST_LISTED, MOST_EVENTS = 100, 1000
STATUS = {JobState.VALIDATING: "pending", JobState.QUEUED: "pending", JobState.PAUSED: "pending"}


class CreateFineTuneBody(BaseModel):
    """A job to be made. What only OpenAI's own models had (classification, the loss of prompts) is ignored, as the defaults are."""

    training_file: FileId
    validation_file: FileId | None = None
    model: ModelName = "curie"
    n_epochs: Annotated[int, Field(ge=1, le=MOST_EPOCHS)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=LARGEST_BATCH)] | None = None
    learning_rate_multiplier: Annotated[FiniteFloat, Field(ge=0.0001, le=100)] | None = None
    suffix: Annotated[str, StringConstraints(max_length=40)] | None = None

    def as_job(self) -> CreateJobBody:
        """The same in today's words."""
        return CreateJobBody(
            model=self.model,
            training_file=self.training_file,
            validation_file=self.validation_file,
            hyperparameters=HyperparametersBody(
                n_epochs=self.n_epochs,
                batch_size=self.batch_size,
                learning_rate_multiplier=self.learning_rate_multiplier,
            ),
            suffix=self.suffix,
        )


class FineTuneEvent(BaseModel):
    """What happened."""

    object: Literal["fine-tune-event"] = "fine-tune-event"
    created_at: int
    level: str
    message: str


class FineTuneEvents(BaseModel):
    """A list of them, the oldest first."""

    object: Literal["list"] = "list"
    data: list[FineTuneEvent]


class FineTune(BaseModel):
    """A job of 2021."""

    id: str
    object: Literal["fine-tune"] = "fine-tune"
    created_at: int
    updated_at: int
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: str
    hyperparams: dict[str, Any]
    training_files: list[FileInfo]
    validation_files: list[FileInfo]
    result_files: list[FileInfo]
    events: list[FineTuneEvent] | None = None


class FineTunes(BaseModel):
    """A list of jobs."""

    object: Literal["list"] = "list"
    data: list[FineTune]


@create_router.post("/fine-tunes", response_model_exclude_unset=True)
async def create_fine_tune(body: CreateFineTuneBody, actor: Trainer, jobs: NeedJobs, state: State) -> FineTune:
    """Train a model on a file."""
    job = await make_job(body.as_job(), actor, jobs, state)
    return await _fine_tune(job, actor, jobs, state.settings.organization, events=True)


@router.get("/fine-tunes", response_model_exclude_unset=True)
async def list_fine_tunes(actor: Trainer, jobs: NeedJobs, state: State) -> FineTunes:
    """One's jobs, the oldest first."""
    async with jobs.database.read() as session:
        rows, _ = await own.list_jobs(session, actor, after=None, limit=MOST_LISTED)
    organization = state.settings.organization
    return FineTunes(
        object="list", data=[await _fine_tune(job, actor, jobs, organization, events=False) for job in reversed(rows)]
    )


@router.get("/fine-tunes/{job_id}", response_model_exclude_unset=True)
async def retrieve_fine_tune(job_id: str, actor: Trainer, jobs: NeedJobs, state: State) -> FineTune:
    """One job, with what happened to it."""
    return await _fine_tune(await jobs.get(actor, job_id), actor, jobs, state.settings.organization, events=True)


@router.post("/fine-tunes/{job_id}/cancel", response_model_exclude_unset=True)
async def cancel_fine_tune(job_id: str, actor: Trainer, jobs: NeedJobs, state: State) -> FineTune:
    """End a job without a result."""
    return await _fine_tune(await jobs.cancel(actor, job_id), actor, jobs, state.settings.organization, events=True)


@router.get("/fine-tunes/{job_id}/events", responses={200: {"content": {"text/event-stream": {}}}})
async def list_fine_tune_events(
    job_id: str, request: Request, actor: Trainer, jobs: NeedJobs, state: State, stream: bool = False
) -> FineTuneEvents:
    """What happened; with `stream` as it happens, until the job has ended."""
    if stream:
        return await events_as_they_happen(job_id, request, actor, state, jobs, _event)  # type: ignore[return-value]
    async with jobs.database.read() as session:
        rows = await own.all_events(session, actor, job_id, limit=MOST_EVENTS)
    return FineTuneEvents(object="list", data=[_event(row) for row in rows])


async def _fine_tune(job: Job, actor: Actor, jobs: Jobs, organization: str, *, events: bool) -> FineTune:
    asked, numbers = json.loads(job.parameters), numbers_of(job)
    result = FineTune(
        id=job.id,
        object="fine-tune",
        created_at=job.created_at,
        updated_at=job.updated_at,
        model=asked["model"],
        fine_tuned_model=job.model_name if job.model_state != ModelState.NONE else None,
        organization_id=f"org-{organization}",
        status=STATUS.get(JobState(job.state), job.state),
        # Their clients take numbers: what is not decided yet is null.
        hyperparams={name: value if isinstance(value, int | float) else None for name, value in numbers.items()},
        training_files=await _files(jobs, actor, asked["training_file"]),
        validation_files=await _files(jobs, actor, asked["validation_file"]),
        result_files=await _files(jobs, actor, job.result_file_id),
    )
    if events:
        async with jobs.database.read() as session:
            rows = await own.all_events(session, actor, job.id, limit=MOST_EVENTS)
        result.events = [_event(row) for row in rows]
    return result


async def _files(jobs: Jobs, actor: Actor, file_id: str | None) -> list[FileInfo]:
    """The file, if it is still there."""
    if file_id is None:
        return []
    try:
        return [file_info(await jobs.files.get(on_behalf_of_owner(actor.user_id), file_id))]
    except NotFoundError:
        return []


def _event(row: JobEvent) -> FineTuneEvent:
    return FineTuneEvent(object="fine-tune-event", created_at=row.created_at, level=row.level, message=row.message)
