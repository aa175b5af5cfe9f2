"""Jobs as the server asks for them: made, cancelled, paused, resumed; and the models that come of them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from chatwright.errors import InvalidRequestError, NotFoundError
from chatwright.jobs.folder import Inputs, JobFolder, Method, Request
from chatwright.jobs.names import clean_suffix, new_model_name
from chatwright.jobs.supervisor import Supervisor
from chatwright.settings import Settings
from chatwright.store.actor import Actor, on_behalf_of_owner
from chatwright.store.database import Database
from chatwright.store.files import Files
from chatwright.store.files.folder import check_room
from chatwright.store.ids import new_id
from chatwright.store.jobs import own
from chatwright.store.policy import Action, authorize
from chatwright.store.tables import Job
from chatwright.store.url import shown

KIND = "fine-tune"
PURPOSE = "fine-tune"
LARGEST_SEED = 2**31 - 1


class UnknownFileError(NotFoundError):
    """There is no such file for whoever asks. `param`: which field named it."""

    def __init__(self, param: str) -> None:
        super().__init__("There is nothing of that id.")
        self.param = param


@dataclass(frozen=True)
class Hyperparameters:
    """As the API has them; None: decide."""

    n_epochs: int | None = None
    batch_size: int | None = None
    learning_rate_multiplier: float | None = None
    beta: float | None = None


@dataclass(frozen=True)
class Origin:
    """What a job trains: a model that is served, perhaps with the adapter of an earlier job. `asked`: what the job says that it
    trains; `name`: of the model itself; `owned`: whether that is a name of the models folder."""

    asked: str
    name: str
    path: Path
    owned: bool
    parent: Path | None = None


@dataclass(frozen=True)
class Asked:
    """What somebody wants trained."""

    method: Method
    training_file: str
    validation_file: str | None = None
    hyperparameters: Hyperparameters = field(default_factory=Hyperparameters)
    suffix: str | None = None
    seed: int | None = None
    metadata: Mapping[str, str] | None = None


class Jobs:
    """One per server."""

    def __init__(self, database: Database, files: Files, settings: Settings) -> None:
        self.database, self.files, self.settings = database, files, settings
        self.supervisor = Supervisor(database, files, settings)
        self.folder = self.supervisor.folder

    async def create(self, actor: Actor, asked: Asked, origin: Origin) -> Job:
        """Raises UnknownFileError, InvalidRequestError for a file of another purpose, ThrottledError, StorageError."""
        authorize(actor, Action.USE_JOBS)
        training, n_bytes = await self._content(actor, asked.training_file, "training_file")
        validation = None
        if asked.validation_file is not None:
            validation, more = await self._content(actor, asked.validation_file, "validation_file")
            n_bytes += more
        seed = secrets.randbelow(LARGEST_SEED + 1) if asked.seed is None else asked.seed
        wanted = asked.hyperparameters
        request = Request(
            method=asked.method,
            base_path=str(origin.path),
            base_name=origin.name if origin.owned else "",
            seed=seed,
            n_epochs=wanted.n_epochs,
            batch_size=wanted.batch_size,
            learning_rate_multiplier=wanted.learning_rate_multiplier,
            beta=wanted.beta,
            user_id=actor.user_id,
        )
        suffix = clean_suffix(asked.suffix or "")
        new = own.NewJob(
            id=new_id("ftjob"),
            kind=KIND,
            place=await asyncio.to_thread(self.folder.place),
            model_name=new_model_name(origin.name, self.settings.organization, suffix),
            parameters={
                "model": origin.asked,
                "base": origin.name,
                "base_path": str(origin.path),
                "method": asked.method,
                "hyperparameters": asdict(wanted),
                "training_file": asked.training_file,
                "validation_file": asked.validation_file,
                "suffix": asked.suffix,
                "seed": seed,
                "metadata": None if asked.metadata is None else dict(asked.metadata),
            },
        )
        await asyncio.to_thread(self.folder.claim, shown(self.database.url))
        await asyncio.to_thread(check_room, self.folder.path, n_bytes)
        inputs = Inputs(training, validation, origin.parent, request=request)
        folder = await asyncio.to_thread(self.folder.make, new.id, inputs)
        try:
            async with self.database.write() as session:
                job = await own.create_job(session, actor, new)
        except BaseException as error:
            # A commit whose answer was lost may have happened: without its folder the job says so.
            await asyncio.to_thread(folder.remove)
            if isinstance(error, IntegrityError):  # the user was removed just now
                raise NotFoundError("There is nothing of that id.") from error
            raise
        self.supervisor.wake()
        return job

    async def get(self, actor: Actor, job_id: str) -> Job:
        """Raises NotFoundError."""
        async with self.database.read() as session:
            return await own.get_job(session, actor, job_id)

    async def cancel(self, actor: Actor, job_id: str) -> Job:
        """Its worker, if there is one, ends in a moment. Raises NotFoundError, InvalidRequestError."""
        async with self.database.write() as session:
            job = await own.cancel_job(session, actor, job_id)
        if not self.supervisor.works_at(job.id):
            await asyncio.to_thread(self.of(job).forget_inputs)
        self.supervisor.wake()
        return job

    async def pause(self, actor: Actor, job_id: str) -> Job:
        """Its worker, if there is one, saves and ends. Raises NotFoundError, InvalidRequestError."""
        async with self.database.write() as session:
            job = await own.pause_job(session, actor, job_id)
        self.supervisor.wake()
        return job

    async def resume(self, actor: Actor, job_id: str) -> Job:
        """Raises NotFoundError, InvalidRequestError."""
        folder = self.of(await self.get(actor, job_id))
        checked = await asyncio.to_thread(folder.checked)
        async with self.database.write() as session:
            job = await own.resume_job(session, actor, job_id, validated=checked is not None)
        self.supervisor.wake()
        return job

    async def model(self, actor: Actor, name: str, *, to_use: bool) -> Job | None:
        """The job whose result, or whose checkpoints' results, are called so, if this actor may know or use it."""
        async with self.database.read() as session:
            return await own.find_model(session, actor, name, to_use=to_use)

    async def delete_model(self, actor: Actor, name: str) -> None:
        """The result of a job, and what is left of its run. Raises NotFoundError, StorageError."""
        async with self.database.write() as session:
            job = await own.delete_model(session, actor, name)
        await asyncio.to_thread(self.of(job).remove)

    def of(self, job: Job) -> JobFolder:
        """Where a job lies."""
        return self.folder.job(job.id)

    async def _content(self, actor: Actor, file_id: str, param: str) -> tuple[Path, int]:
        """(where a file's content lies, how large it is). A key for training alone may train on files that it can not read."""
        try:
            file, path = await self.files.content(on_behalf_of_owner(actor.user_id), file_id)
        except NotFoundError as error:
            raise UnknownFileError(param) from error
        if file.purpose != PURPOSE:
            raise InvalidRequestError(
                "The file {id} is for the purpose '{purpose}'. Upload it for the purpose '{wanted}'.",
                id=file.id,
                purpose=file.purpose,
                wanted=PURPOSE,
                param=param,
                code="invalid_file_purpose",
            )
        return path, file.size_bytes
