"""What training jobs are on the wire: what may be asked for, and rows of the store as OpenAI's objects."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from openai.types.fine_tuning import (
    DpoHyperparameters,
    DpoMethod,
    FineTuningJob,
    FineTuningJobEvent,
    SupervisedHyperparameters,
    SupervisedMethod,
)
from openai.types.fine_tuning.fine_tuning_job import Error, Hyperparameters, Method
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from openai.types.fine_tuning.jobs.fine_tuning_job_checkpoint import Metrics
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, model_validator

from chatwright.errors import InvalidRequestError
from chatwright.jobs import service
from chatwright.jobs.names import LONGEST_NAME, LONGEST_SUFFIX, checkpoint_model
from chatwright.jobs.reading import Checkpoint
from chatwright.jobs.service import LARGEST_SEED, Asked
from chatwright.store.jobs.states import ModelState, State
from chatwright.store.tables import Job, JobEvent

MOST_EPOCHS, LARGEST_BATCH = 100, 256
AUTO = "auto"
FileId = Annotated[str, StringConstraints(min_length=1, max_length=64)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_NAME)]
Auto = Literal["auto"]
Metadata = Annotated[
    dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]],
    Field(max_length=16),
]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True)


class HyperparametersBody(_Body):
    """Numbers, or "auto": the planner decides, by the data and the model."""

    n_epochs: Auto | Annotated[int, Field(ge=1, le=MOST_EPOCHS)] | None = None
    batch_size: Auto | Annotated[int, Field(ge=1, le=LARGEST_BATCH)] | None = None
    learning_rate_multiplier: Auto | Annotated[FiniteFloat, Field(ge=0.0001, le=100)] | None = None

    def asked(self) -> service.Hyperparameters:
        """None for what is to be decided."""
        return service.Hyperparameters(
            **{name: None if value == AUTO else value for name, value in self.model_dump().items()}
        )


class DpoHyperparametersBody(HyperparametersBody):
    """With `beta`: how dear the model as it was is."""

    beta: Auto | Annotated[FiniteFloat, Field(ge=0.0001, le=2)] | None = None


class SupervisedBody(_Body):
    """`method.supervised`."""

    hyperparameters: HyperparametersBody | None = None


class DpoBody(_Body):
    """`method.dpo`."""

    hyperparameters: DpoHyperparametersBody | None = None


class MethodBody(_Body):
    """How to train."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: SupervisedBody | None = None
    dpo: DpoBody | None = None


class CreateJobBody(_Body):
    """A job to be made."""

    model: ModelName
    training_file: FileId
    validation_file: FileId | None = None
    method: MethodBody | None = None
    hyperparameters: Annotated[HyperparametersBody | None, Field(description="Deprecated: say them in method.")] = None
    suffix: Annotated[str, StringConstraints(max_length=LONGEST_SUFFIX)] | None = None
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] | None = None
    metadata: Metadata | None = None
    integrations: Annotated[list[Any] | None, Field(max_length=16, description="None is supported.")] = None

    @model_validator(mode="after")
    def _refuse_unsupported(self) -> CreateJobBody:
        if self.integrations:
            raise InvalidRequestError(
                "This server does not support {name}. Leave it out.",
                name="integrations",
                param="integrations",
                code="unsupported_parameter",
            )
        if self.method is not None and self.method.type == "reinforcement":
            raise InvalidRequestError(
                "This server trains by the methods supervised and dpo.", param="method", code="unsupported_value"
            )
        return self

    def asked(self) -> Asked:
        """What the jobs understand."""
        kind: Literal["supervised", "dpo"] = "supervised"
        numbers: HyperparametersBody | None = self.hyperparameters
        if self.method is not None:
            kind = "dpo" if self.method.type == "dpo" else "supervised"
            more = self.method.dpo if kind == "dpo" else self.method.supervised
            numbers = (more.hyperparameters if more else None) or numbers
        return Asked(
            method=kind,
            training_file=self.training_file,
            validation_file=self.validation_file,
            hyperparameters=(numbers or HyperparametersBody()).asked(),
            suffix=self.suffix,
            seed=self.seed,
            metadata=self.metadata,
        )


class JobInfo(FineTuningJob):
    """OpenAI's object, with the status that its own client does not list though it can pause, and the suffix, which its service
    tells and its client does not list either: a job has no other name before it has a result."""

    user_provided_suffix: str | None = None
    status: Literal[  # type: ignore[assignment]
        "validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"
    ]


class JobList(BaseModel):
    """A page of jobs, the newest first. `has_more`: ask again, with `after` the last id."""

    object: Literal["list"] = "list"
    data: list[JobInfo]
    has_more: bool


class EventList(BaseModel):
    """A page of events, the newest first."""

    object: Literal["list"] = "list"
    data: list[FineTuningJobEvent]
    has_more: bool


class CheckpointList(BaseModel):
    """A page of checkpoints, the newest first."""

    object: Literal["list"] = "list"
    data: list[FineTuningJobCheckpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool


STATUS: dict[str, Any] = {State.VALIDATING: "validating_files"}


def numbers_of(job: Job) -> dict[str, Any]:
    """The hyperparameters: those that were chosen, and before, those that were asked for."""
    asked = json.loads(job.parameters)["hyperparameters"]
    numbers = {name: AUTO if value is None else value for name, value in asked.items()}
    return numbers | (json.loads(job.chosen) if job.chosen else {})


def job_info(job: Job, organization: str) -> JobInfo:
    """A job."""
    asked, numbers = json.loads(job.parameters), numbers_of(job)
    beta = numbers.pop("beta", None)
    # A fraction of an epoch is nothing that the API can ask for, nor say.
    if asked["method"] == "dpo":
        more = {} if beta is None else {"beta": beta}
        method = Method(type="dpo", dpo=DpoMethod(hyperparameters=DpoHyperparameters(**numbers, **more)))
    else:
        method = Method(
            type="supervised", supervised=SupervisedMethod(hyperparameters=SupervisedHyperparameters(**numbers))
        )
    error = None
    if job.error_code is not None:
        error = Error(code=job.error_code, message=job.error_message or "", param=job.error_param)
    return JobInfo(
        id=job.id,
        object="fine_tuning.job",
        created_at=job.created_at,
        error=error,
        fine_tuned_model=job.model_name if job.model_state != ModelState.NONE else None,
        finished_at=job.finished_at,
        hyperparameters=Hyperparameters(**numbers),
        model=asked["model"],
        organization_id=f"org-{organization}",
        result_files=[job.result_file_id] if job.result_file_id else [],
        status=STATUS.get(job.state, job.state),
        trained_tokens=job.trained_tokens,
        training_file=asked["training_file"],
        validation_file=asked["validation_file"],
        seed=asked["seed"],
        estimated_finish=job.estimated_finish,
        integrations=[],
        metadata=asked["metadata"],
        method=method,
        user_provided_suffix=asked["suffix"],
    )


def event_id(event: JobEvent) -> str:
    """The name of an event: of its job, and its number in it."""
    return f"ftevent-{event.job_id.partition('-')[2]}-{event.number}"


def number_of_event(text: str, job_id: str) -> int:
    """The number of an event of a job, from its name. Raises InvalidRequestError."""
    job, _, number = text.removeprefix("ftevent-").partition("-")
    if job != job_id.partition("-")[2] or not (number.isascii() and number.isdigit() and len(number) < 10):
        raise InvalidRequestError("after is the id of an event of this job.", param="after", code="invalid_value")
    return int(number)


def event_info(event: JobEvent) -> FineTuningJobEvent:
    """An event."""
    return FineTuningJobEvent(
        id=event_id(event),
        object="fine_tuning.job.event",
        created_at=event.created_at,
        level=event.level,  # type: ignore[arg-type]
        message=event.message,
        type=event.type,  # type: ignore[arg-type]
        data=None if event.data is None else json.loads(event.data),
    )


def checkpoint_info(job: Job, checkpoint: Checkpoint) -> FineTuningJobCheckpoint:
    """A checkpoint, which is a model too."""
    known = {name: value for name, value in checkpoint.metrics.items() if name in Metrics.model_fields}
    return FineTuningJobCheckpoint(
        id=f"ftckpt_{job.id.partition('-')[2]}-{checkpoint.step}",
        object="fine_tuning.job.checkpoint",
        created_at=checkpoint.created_at,
        fine_tuned_model_checkpoint=checkpoint_model(job.model_name, checkpoint.step),
        fine_tuning_job_id=job.id,
        metrics=Metrics.model_validate(known),
        step_number=checkpoint.step,
    )
