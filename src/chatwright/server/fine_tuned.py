"""Results of training jobs as models: loaded beside their base when somebody asks for them, known to their owner only.

They are in no list of what the server serves; a name is looked up in the store each time, for whoever asks.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from chatwright.engine.text import TextModel
from chatwright.errors import (
    EngineError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
    OverloadedError,
)
from chatwright.hub import ModelsFolder
from chatwright.jobs.names import is_result_name, split_checkpoint
from chatwright.jobs.service import Jobs, Origin
from chatwright.model.config import ModelConfig
from chatwright.model.describe import describe_model
from chatwright.server.adapters import AdapterShelf
from chatwright.server.openai.aliases import is_alias
from chatwright.settings import Settings
from chatwright.store.actor import Actor
from chatwright.store.jobs import own
from chatwright.store.jobs.states import ModelState
from chatwright.store.tables import Job

log = logging.getLogger(__name__)

# Adapters that stay beside their bases; the one used least recently goes first, and comes again when it is asked for.
MOST_LOADED = 32


@dataclass(frozen=True)
class Listed:
    """A result that an actor may see. `base`: what it is put on."""

    name: str
    created: int
    base: TextModel


class FineTunedModels:
    """One per server."""

    def __init__(self, jobs: Jobs, shelf: AdapterShelf, models: list[TextModel], settings: Settings) -> None:
        self._jobs, self._shelf, self._models, self._settings = jobs, shelf, models, settings
        self._loaded: OrderedDict[str, TextModel] = OrderedDict()
        self._changing = asyncio.Lock()

    async def model(self, name: str, actor: Actor) -> TextModel:
        """The result of a job of this actor, or a checkpoint of one, ready to answer. Raises ModelNotFoundError, InvalidModelError,
        and what loading its base raises."""
        job, base, folder = await self._find(name, actor, to_use=True)
        async with self._changing:
            if model := self._loaded.get(name):
                self._loaded.move_to_end(name)
                return model
            model = await self._shelf.put_beside(base, name, folder)
            checked = await asyncio.to_thread(self._jobs.of(job).checked)
            model.takes_instructions = checked is not None and checked.texts
            self._loaded[name] = model
            while len(self._loaded) > MOST_LOADED:
                await self._unload(next(iter(self._loaded)))
        return model

    async def look(self, name: str, actor: Actor) -> Listed:
        """A result, or a checkpoint, that this actor may see. Raises ModelNotFoundError."""
        job, base, _ = await self._find(name, actor, to_use=False)
        return Listed(name, job.finished_at or job.created_at, base)

    async def list(self, actor: Actor) -> list[Listed]:
        """The results that this actor may see and that could answer now."""
        async with self._jobs.database.read() as session:
            jobs = await own.list_models(session, actor)
        listed = []
        for job in jobs:
            base = self._base_of(job)
            if base is not None and await asyncio.to_thread(self._jobs.of(job).adapter.is_dir):
                listed.append(Listed(job.model_name, job.finished_at or job.created_at, base))
        return listed

    async def delete(self, name: str, actor: Actor) -> None:
        """It takes no new requests; answers under way end with it, and its files are gone. Raises ModelNotFoundError,
        StorageError."""
        result, step = split_checkpoint(name)
        if step is None:
            try:
                await self._jobs.delete_model(actor, name)
            except NotFoundError:
                raise _no_model(name) from None
            gone = [loaded for loaded in self._loaded if split_checkpoint(loaded)[0] == name]
        else:
            job = await self._jobs.model(actor, result, to_use=True)
            if job is None or not await asyncio.to_thread(self._jobs.of(job).remove_checkpoint, step):
                raise _no_model(name)
            gone = [name]
        async with self._changing:
            for each in gone:
                await self._unload(each)

    async def origin(self, asked: str, actor: Actor) -> Origin:
        """What a new job trains. Raises ModelNotFoundError, InvalidRequestError for a model that can not be trained here."""
        parent: Path | None = None
        if is_result_name(asked):
            _job, base, folder = await self._find(asked, actor, to_use=True)
            parent = folder
        else:
            known = self._models[0].name if is_alias(asked) and not self._serves(asked) else asked
            base_or_none = self._shelf.base_called(known)
            if base_or_none is None and self._serves(known):
                raise InvalidRequestError(
                    "{name} is an adapter that the server was given: train the model that it is put on.",
                    name=known,
                    param="model",
                    code="unsupported_model",
                )
            if base_or_none is None:
                raise _no_model(asked)
            base = base_or_none
            asked = base.name
        path = self._shelf.path_of(base)
        info = None if path is None else await asyncio.to_thread(describe_model, path)
        if path is None or info is None or not isinstance(info.config, ModelConfig):
            raise InvalidRequestError(
                "{name} is of a kind that takes no adapter: it can not be trained by the API.",
                name=base.name,
                param="model",
                code="unsupported_model",
            )
        owned = ModelsFolder(self._settings.models_dir).owns(path)
        return Origin(asked, base.name, path, owned, parent)

    async def _find(self, name: str, actor: Actor, *, to_use: bool) -> tuple[Job, TextModel, Path]:
        """(the job, the model it is put on, the folder of the adapter). Raises ModelNotFoundError."""
        result, step = split_checkpoint(name)
        job = await self._jobs.model(actor, result, to_use=to_use)
        if job is None or job.model_state == ModelState.DELETED:
            raise _no_model(name)
        base = self._base_of(job)
        if base is None:
            raise ModelNotFoundError(
                "The model '{name}' is put on {base}, which this server does not serve now.",
                name=name,
                base=json.loads(job.parameters)["base"],
            )
        folder = self._jobs.of(job)
        path = folder.adapter if step is None else folder.checkpoint(step)
        is_there = await asyncio.to_thread(path.is_dir)
        if (step is None and job.model_state != ModelState.READY) or not is_there:
            if name in self._loaded:  # a checkpoint that training has removed
                async with self._changing:
                    await self._unload(name)
            raise _no_model(name)
        return job, base, path

    def _serves(self, name: str) -> bool:
        return any(model.name == name for model in self._models)

    def _base_of(self, job: Job) -> TextModel | None:
        """The model that its result is put on, if it is served: by its name, and from the same place."""
        parameters = json.loads(job.parameters)
        base = self._shelf.base_called(parameters["base"])
        return base if base is not None and str(self._shelf.path_of(base)) == parameters["base_path"] else None

    async def _unload(self, name: str) -> None:
        model = self._loaded.pop(name, None)
        if model is None or model.adapter is None:
            return
        try:
            await model.engine.unload_adapter(model.adapter)
        except (ModelNotFoundError, EngineError, OverloadedError) as error:
            # Its engine is gone, or never had it again: then nothing is left to be taken away.
            log.info("%s was not unloaded: %s", name, error)


def _no_model(name: str) -> ModelNotFoundError:
    return ModelNotFoundError("The model '{name}' does not exist here, or is not yours.", name=name[:200])
