"""Adapters that come and go while the server runs: found by name, checked, put beside their base, listed as models of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chatwright.engine.opened import OpenedModel, open_model
from chatwright.engine.protocol import Engine
from chatwright.engine.text import TextModel
from chatwright.errors import InvalidRequestError, ModelNotFoundError
from chatwright.hub import is_name
from chatwright.hub.adapters import AdapterFolders, is_called
from chatwright.model.adapter import open_adapter
from chatwright.settings import Settings


@dataclass(frozen=True)
class _Base:
    """A model that adapters can be put on. `name` is what it, or the adapter served in its place, is called."""

    name: str
    path: Path
    engine: Engine


class AdapterShelf:
    """Changes `models`, the list of what is served. One change at a time; requests go on meanwhile."""

    def __init__(self, settings: Settings, models: list[TextModel], opened: Sequence[OpenedModel]) -> None:
        """`opened`: what the models were made of, in their order."""
        self._settings = settings
        self._models = models
        self._folders = AdapterFolders.of(settings)
        self._changing = asyncio.Lock()
        self._sources: dict[str, str] = {}
        self._opened = {files.name: files for files in opened}
        self._bases: dict[Path, _Base] = {}
        for files, model in sorted(zip(opened, models, strict=False), key=lambda pair: pair[0].adapter is not None):
            self._bases.setdefault(files.path, _Base(files.name, files.path, model.engine))

    def source_of(self, name: str) -> str | None:
        """The folder's name of an adapter that was loaded while the server ran."""
        return self._sources.get(name)

    def opened_as(self, name: str) -> OpenedModel | None:
        """The files of the model or adapter that is served as `name`."""
        return self._opened.get(name)

    async def installed(self) -> list[str]:
        """The names of what could be loaded."""
        return await asyncio.to_thread(self._folders.list)

    async def load(self, name: str, source: str, base_name: str | None) -> TextModel:
        """Serve the adapter in the folder called `source` as `name`. `base_name`: the model it is for, where several are served.

        Raises InvalidRequestError, ModelNotFoundError, InvalidModelError, and what loading its base raises.
        """
        async with self._changing:
            if not is_name(name):
                raise InvalidRequestError(
                    "{name} is not a name: letters, digits, dots, dashes and underscores, as in smollm2:135m or ORG/NAME.",
                    param="lora_name",
                    code="invalid_value",
                    name=repr(name[:200]),
                )
            if any(model.name == name for model in self._models):
                raise InvalidRequestError(
                    "A model or adapter called {name} is served already: choose another name, or unload it first.",
                    param="lora_name",
                    code="name_taken",
                    name=name,
                )
            path = await asyncio.to_thread(self._folders.resolve, source)
            adapter = await asyncio.to_thread(open_adapter, path)
            base = self._base(adapter.base_name, base_name, name)
            opened = await asyncio.to_thread(open_model, base.path, name, self._settings, path)
            await base.engine.load_adapter(name, str(path))
            model = opened.with_engine(base.engine)
            self._models.append(model)
            self._sources[name] = source
            self._opened[name] = opened
            return model

    def base_called(self, name: str) -> TextModel | None:
        """The model of that name that is served as it is, with no adapter in its place."""
        return next((model for model in self._models if model.name == name and model.adapter is None), None)

    def path_of(self, base: TextModel) -> Path | None:
        """Where its files lie; None where that was not said."""
        return next((known.path for known in self._bases.values() if known.engine is base.engine), None)

    async def put_beside(self, base: TextModel, name: str, folder: Path) -> TextModel:
        """The base with the adapter in a folder, as a model that is in no list: who knows of it is the caller's business.

        Raises InvalidModelError, ModelNotFoundError, and what loading the base raises.
        """
        path = self.path_of(base)
        assert path is not None
        async with self._changing:
            opened = await asyncio.to_thread(open_model, path, name, self._settings, folder)
            await base.engine.load_adapter(name, str(folder))
            return opened.with_engine(base.engine)

    async def unload(self, name: str) -> None:
        """Serve it no more; answers under way end with it. Raises ModelNotFoundError, InvalidRequestError for what is no adapter,
        or the only thing served."""
        async with self._changing:
            model = next((model for model in self._models if model.name == name), None)
            if model is None:
                raise ModelNotFoundError("The adapter {name} is not loaded.", name=name[:100])
            if model.adapter is None:
                raise InvalidRequestError(
                    "{name} is a model, not an adapter: models are chosen when the server starts.",
                    param="lora_name",
                    code="invalid_value",
                    name=name,
                )
            if len(self._models) == 1:
                raise InvalidRequestError(
                    "{name} is the only model served: nothing would be left to answer.",
                    param="lora_name",
                    code="invalid_value",
                    name=name,
                )
            await model.engine.unload_adapter(model.adapter)
            self._models.remove(model)
            self._sources.pop(name, None)
            self._opened.pop(name, None)

    def _base(self, written: str, asked: str | None, name: str) -> _Base:
        """The base asked for; the only one there is, whatever the adapter calls it; of several the one that it names."""
        bases = list(self._bases.values())
        if asked is not None:
            named = [base for base in bases if base.name == asked]
        elif len(bases) == 1:
            named = bases
        else:
            named = [base for base in bases if is_called(written, base.name, base.path)]
        if len(named) != 1:
            raise InvalidRequestError(
                "Which of the models is the base of the adapter {name}? It was made for {base}. Name one in base_model_name:"
                " {served}.",
                param="base_model_name",
                code="invalid_value",
                name=name,
                base=repr(written[:200]),
                served=", ".join(base.name for base in bases),
            )
        return named[0]
