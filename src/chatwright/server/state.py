"""What the routes share: settings, loaded models, and whether the server is on its way out."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Depends, Request

from chatwright.engine.protocol import EngineStats
from chatwright.engine.text import TextModel
from chatwright.errors import InvalidRequestError, ModelNotFoundError, OverloadedError, StoreUnavailableError
from chatwright.inspection.looking import Looking
from chatwright.jobs.names import is_result_name
from chatwright.jobs.service import Jobs
from chatwright.server.adapters import AdapterShelf
from chatwright.server.detached import DetachedAnswers
from chatwright.server.fine_tuned import FineTunedModels
from chatwright.server.guard import Guard, Moderator
from chatwright.server.metering import Meter
from chatwright.server.metrics import Metrics
from chatwright.server.openai.aliases import is_alias, is_embedding_alias
from chatwright.server.openai.responses.running import RunningResponses
from chatwright.server.provider import Provider
from chatwright.settings import Settings
from chatwright.store.accounts.service import Accounts
from chatwright.store.actor import Actor
from chatwright.store.database import Database
from chatwright.store.files import Files, Uploads

if TYPE_CHECKING:
    from chatwright.server.batches.runner import BatchRunner
    from chatwright.server.evals.runner import EvalRunner

T = TypeVar("T")


@dataclass
class ServerState:
    """One per app. The first model that writes text is the one that aliases stand for.

    `database`, and what lies in it: None only where it could not be opened on a server without accounts.
    `responses`: what writes those of `/v1/responses`.
    `provider`: through which one may sign in beside passwords.
    `draining`: the server is on its way out and takes nothing new. `cut_off`: its grace period is over, answers end now.
    `answers`: what writes those of conversations, which are there with accounts only.
    """

    settings: Settings
    models: list[TextModel]
    adapters: AdapterShelf
    looking: Looking
    accounts: Accounts | None = None
    database: Database | None = None
    files: Files | None = None
    uploads: Uploads | None = None
    batches: BatchRunner | None = None
    evals: EvalRunner | None = None
    jobs: Jobs | None = None
    fine_tuned: FineTunedModels | None = None
    provider: Provider | None = None
    draining: bool = False
    cut_off: asyncio.Event = field(default_factory=asyncio.Event)
    meter: Meter = field(init=False)
    moderator: Moderator = field(init=False)
    responses: RunningResponses = field(init=False)

    answers: DetachedAnswers | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.moderator = Moderator(self.settings.moderation_model)
        self.meter = Meter(self.database, Metrics(self.engine_stats))
        name = server_name(self.settings.home)
        self.responses = RunningResponses(self.database, name, self.cut_off)
        if self.accounts is not None:
            self.answers = DetachedAnswers(self.accounts.database, name, self.cut_off)

    @property
    def is_private(self) -> bool:
        """Whether not everybody who can connect is let in."""
        return self.accounts is not None or self.settings.api_key is not None

    @property
    def guard(self) -> Guard | None:
        """What looks at what is said and answered, where that is switched on."""
        return Guard(self.moderator) if self.settings.moderate else None

    async def model_for_answer(self, name: str | None, actor: Actor) -> TextModel:
        """The model that shall answer to somebody, loaded if it was not.

        Raises InvalidRequestError, ModelNotFoundError, OverloadedError, EngineError, and what loading raises.
        """
        self.check_open()
        if not name:
            raise InvalidRequestError("Name a model: the field model is missing.", param="model", code="missing_model")
        model = await self.model_called(name, actor)
        await model.engine.ready()
        return model

    async def model_called(self, name: str, actor: Actor) -> TextModel:
        """The model that answers to a name or alias, or the result of a job of this actor. Raises ModelNotFoundError, and for a
        result what loading it raises."""
        if self.fine_tuned is not None and is_result_name(name):
            return await self.fine_tuned.model(name, actor)
        return self.find_model(name)

    def check_open(self) -> None:
        """Raises OverloadedError when the server is on its way out."""
        if self.draining:
            raise OverloadedError("The server is shutting down. Send the request again in a moment.")

    def base_of(self, model: TextModel) -> str | None:
        """The name of the model that an adapter is put on, where that is served too."""
        if model.adapter is None:
            return None
        bases = (other.name for other in self.models if other.engine is model.engine and other.adapter is None)
        return next(bases, None)

    def engine_stats(self) -> dict[str, EngineStats]:
        """Of each engine, by the name of its model. A model and its adapters have one engine."""
        names = {id(model.engine): self.base_of(model) or model.name for model in self.models}
        engines = {names[id(model.engine)]: model.engine for model in self.models}
        return {name: engine.stats() for name, engine in engines.items()}

    def load(self) -> tuple[int, int]:
        """(running, waiting) choices of all engines."""
        stats = self.engine_stats().values()
        return sum(s.running for s in stats), sum(s.waiting for s in stats)

    def find_model(self, name: str) -> TextModel:
        """The model that answers to a name or alias. Raises ModelNotFoundError."""
        for model in self.models:
            if model.name == name:
                return model
        if is_embedding_alias(name):
            # An encoder where there is one; a decoder embeds too, if less well.
            return next((model for model in self.models if model.embeds and not model.writes_text), self.models[0])
        if is_alias(name):
            return next((model for model in self.models if model.writes_text), self.models[0])
        raise ModelNotFoundError(
            "The model '{name}' does not exist here. Served: {served}.",
            name=name[:100],
            served=", ".join(model.name for model in self.models),
        )

    def required_database(self) -> Database:
        """The store. Raises StoreUnavailableError (503) where there is none."""
        return _there(self.database)


def server_name(home: Path) -> str:
    """What tells this server from others on the same database, after a restart too: a home folder has one server at a time."""
    return hashlib.sha256(f"{socket.gethostname()}\n{home.absolute()}".encode()).hexdigest()


def get_state(request: Request) -> ServerState:
    """The app's state, as a dependency."""
    state: ServerState = request.app.state.server
    return state


State = Annotated[ServerState, Depends(get_state)]


async def need_database(state: State) -> Database:
    """A dependency: the store. Raises StoreUnavailableError (503) where there is none."""
    return state.required_database()


async def need_files(state: State) -> Files:
    """A dependency: the files of this server. Raises StoreUnavailableError (503) where there is no database."""
    return _there(state.files)


async def need_uploads(state: State) -> Uploads:
    """The same for uploads."""
    return _there(state.uploads)


async def need_batches(state: State) -> Any:
    """The same for batches."""
    return _there(state.batches)


async def need_evals(state: State) -> Any:
    """The same for runs of evals."""
    return _there(state.evals)


async def need_jobs(state: State) -> Jobs:
    """The same for jobs."""
    return _there(state.jobs)


def _there(part: T | None) -> T:
    if part is None:
        raise StoreUnavailableError("This server has no database: it could not be opened when the server started.")
    return part


NeedDatabase = Annotated[Database, Depends(need_database)]
NeedFiles = Annotated[Files, Depends(need_files)]
NeedUploads = Annotated[Uploads, Depends(need_uploads)]
NeedJobs = Annotated[Jobs, Depends(need_jobs)]
