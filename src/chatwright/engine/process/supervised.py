"""The engine as the server holds it: a process that is started when it is needed, again when it dies, and not for ever."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from chatwright.engine.opened import OpenedModel
from chatwright.engine.process.ending import EndedWhileLoadingError, Ending
from chatwright.engine.process.link import HANG_S, EngineProcess, Launch, Spawned
from chatwright.engine.process.memory import MemoryBudget, MemoryNeed
from chatwright.engine.protocol import EngineEvent, EngineStats, GenerateRequest, TokenLogprobs
from chatwright.engine.text import TextModel
from chatwright.errors import (
    ChatwrightError,
    EngineError,
    InvalidModelError,
    ModelNotFoundError,
    OverloadedError,
    StorageError,
    UsageError,
)
from chatwright.settings import Settings

log = logging.getLogger(__name__)

# That many ends within that time, and it is not started again: something is wrong that a restart does not mend.
MAX_CRASHES = 3
CRASH_WINDOW_S = 60.0
# Between a failed restart and the next one.
RESTART_PAUSE_S = 0.5
# After `ready` a request is being prepared for so long: the model is not taken away from under it.
PREPARATION_S = 2.0
# What will not be otherwise when the same files are loaded once more.
LASTING = (InvalidModelError, ModelNotFoundError, UsageError)


class ProcessEngine:
    """An `Engine` in a process of its own (see there for what each call does).

    `max_context` is what the model and the settings allow, until it is loaded: then what the memory allows as well.
    """

    def __init__(
        self, launch: Launch, *, max_context: int, need: MemoryNeed, budget: MemoryBudget, hang_s: float = HANG_S
    ) -> None:
        """Nothing is started yet. Raises UsageError for a model that the budget never allows."""
        self.name = launch.name
        self.need = need
        self.used_at = time.monotonic()
        self._launch = launch
        self._max_context = max_context
        self._budget = budget
        self._hang_s = hang_s
        self._process: EngineProcess | None = None
        self._spawned: Spawned | None = None
        self._starting: asyncio.Task[None] | None = None
        self._crashes: deque[float] = deque(maxlen=MAX_CRASHES)
        # Why it does not answer: for now, while it is started again, or for good.
        self._problem: ChatwrightError | None = None
        self._given_up = False
        self._closed = False
        # It was loaded before; and adapters of then that this time could not be.
        self._was_loaded = False
        self._lost: set[str] = set()
        budget.add(self)

    @property
    def max_context(self) -> int:
        """Tokens that one choice can hold, prompt and answer together."""
        return self._max_context

    @property
    def idle(self) -> bool:
        """Whether it is loaded, and nobody would miss it this moment."""
        if self._starting is not None or self._process is None or self._process.busy:
            return False
        return time.monotonic() - self.used_at > PREPARATION_S

    @property
    def pid(self) -> int | None:
        """Its process id while it is loaded."""
        return self._process.pid if self._process is not None else None

    def warm_up(self) -> None:
        """Start the process without a model: it gets ready for one while the server does. Raises EngineError."""
        self._spawned = Spawned.of(self._launch)

    async def ready(self) -> None:
        """See `Engine.ready`."""
        await self._loaded()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        """See `Engine.generate`."""
        process = await self._loaded()
        if request.adapter in self._lost:
            raise EngineError(
                "The adapter {name} could not be loaded again with its model: the log of the server says why. Unload it, and"
                " load it anew.",
                name=request.adapter,
            )
        try:
            async with aclosing(process.generate(request)) as events:
                async for event in events:
                    yield event
        finally:
            self.used_at = time.monotonic()

    async def score(self, prompt_ids: Sequence[int], top: int = 0) -> list[TokenLogprobs | None]:
        """See `Engine.score`."""
        scores: list[TokenLogprobs | None] = await self._call("score", list(prompt_ids), top)
        return scores

    async def embed(self, prompt_ids: Sequence[int]) -> list[float]:
        """See `Engine.embed`."""
        embedding: list[float] = await self._call("embed", list(prompt_ids))
        return embedding

    async def probe(self) -> float:
        """See `Engine.probe`: here with the way through the socket."""
        start = time.monotonic()
        await self._call("probe")
        return time.monotonic() - start

    async def load_adapter(self, name: str, path: str) -> None:
        """See `Engine.load_adapter`. A process that is started again has it too."""
        await self._call("load_adapter", name, path)
        self._launch = replace(self._launch, adapters={**self._launch.adapters, name: Path(path)})

    async def unload_adapter(self, name: str) -> None:
        """See `Engine.unload_adapter`."""
        await self._loaded()
        if name not in self._lost:
            await self._call("unload_adapter", name)
        self._lost.discard(name)
        self._launch = replace(
            self._launch, adapters={other: path for other, path in self._launch.adapters.items() if other != name}
        )

    def abort(self, request_id: str, index: int | None = None) -> None:
        """See `Engine.abort`."""
        if self._process is not None:
            self._process.abort(request_id, index)

    def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        problem = str(self._problem) if self._problem is not None else ""
        if self._process is None:
            alive = self._problem is None and not self._closed
            return EngineStats(0, 0, 0, 0.0, alive=alive, loaded=False, problem=problem)
        return self._process.stats()

    async def close(self) -> None:
        """See `Engine.close`."""
        self._closed = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        await self.unload()

    async def unload(self) -> None:
        """End the process; the next request starts it again."""
        process, self._process = self._process, None
        if process is not None:
            await process.close()
        if self._spawned is not None:
            self._spawned.discard()
            self._spawned = None
        self._budget.give_back(self)

    async def _call(self, name: str, *arguments: object) -> Any:
        process = await self._loaded()
        try:
            return await process.call(name, *arguments)
        finally:
            self.used_at = time.monotonic()

    async def _loaded(self) -> EngineProcess:
        """The process, started where it is not. All who ask meanwhile wait for the same one."""
        while self._process is None or not self._process.running:
            if self._closed:
                raise EngineError("The engine has stopped. Restart the server.")
            if self._given_up:
                assert self._problem is not None
                raise self._problem
            if self._starting is None:
                self._starting = asyncio.create_task(self._start())
                self._starting.add_done_callback(self._started)
            await asyncio.shield(self._starting)
        self.used_at = time.monotonic()
        return self._process

    def _started(self, task: asyncio.Task[None]) -> None:
        """However it went. Whoever waits raises what it raised; a restart may have nobody who does."""
        self._starting = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s is not loaded: %s", self.name, error)

    async def _start(self) -> None:
        """Make room and load. Raises what that raises; what will not be otherwise next time is kept."""
        began = time.monotonic()
        n_tokens = await self._budget.take(self)
        settings = self._launch.settings.model_copy(update={"kv_cache_tokens": n_tokens})
        process = None
        try:
            spawned, self._spawned = self._spawned, None
            # Adapters to begin with are part of what shall be served: where one is broken, nothing starts. Later one whose
            # files are gone must not take its model, and all the others, with it.
            adapters = {} if self._was_loaded else self._launch.adapters
            launch = replace(self._launch, settings=settings, adapters=adapters)
            starting = await EngineProcess.start(launch, self._ended, self._hang_s, spawned)
            if self._was_loaded:
                await self._load_adapters_again(starting)
            process = starting
        except LASTING as error:
            self._problem, self._given_up = error, True
            raise
        except EndedWhileLoadingError as error:
            problem = error.ending.cut_loading(self.name)
            self._count_crash(problem, error.ending.how)
            raise problem from None
        finally:
            if process is None:
                self._budget.give_back(self)
        self._process, self._problem, self._was_loaded = process, None, True
        self._max_context = process.max_context
        self._budget.correct(self, process.memory_bytes)
        log.info(
            "%s is loaded in %.1f s (process %d, %d MB)",
            self.name,
            time.monotonic() - began,
            process.pid,
            process.memory_bytes // 10**6,
        )

    async def _load_adapters_again(self, process: EngineProcess) -> None:
        """Those that it had before. One that cannot be loaded any more is lost. Raises EndedWhileLoadingError; whatever it raises,
        the process is gone then."""
        self._lost = set()
        try:
            for name, path in self._launch.adapters.items():
                try:
                    await process.call("load_adapter", name, str(path))
                except (InvalidModelError, ModelNotFoundError, StorageError) as error:
                    self._lost.add(name)
                    log.error("the adapter %s of %s could not be loaded again: %s", name, self.name, error)
        except EngineError:
            raise EndedWhileLoadingError(await process.close()) from None
        except BaseException:
            await process.close()
            raise

    def _ended(self, process: EngineProcess, ending: Ending) -> None:
        """It ended without being asked to: start another one, unless that has been done too often."""
        log.error("the engine of %s ended: %s", self.name, ending.how)
        if process is not self._process:
            return
        self._process = None
        problem = EngineError(
            "The engine of {name} ended ({how}) and is being started again.", name=self.name, how=ending.how
        )
        self._count_crash(problem, ending.how)
        if not self._closed and not self._given_up and self._starting is None:
            self._starting = asyncio.create_task(self._restart())
            self._starting.add_done_callback(self._started)

    async def _restart(self) -> None:
        while True:
            try:
                await self._start()
                return
            except OverloadedError:
                # Others need the memory meanwhile. It is loaded again when it is asked for.
                self._problem = None
                return
            except ChatwrightError as error:
                if self._given_up:
                    raise
                log.warning("the engine of %s could not be started again: %s", self.name, error)
            await asyncio.sleep(RESTART_PAUSE_S)

    def _count_crash(self, problem: EngineError, how: str) -> None:
        now = time.monotonic()
        self._crashes.append(now)
        self._problem = problem
        if len(self._crashes) == MAX_CRASHES and now - self._crashes[0] < CRASH_WINDOW_S:
            self._given_up = True
            self._problem = EngineError(
                "The engine of {name} is not started again: it ended {n} times within {seconds} s, the last time with {how}. The "
                "log of the server has its last words.",
                name=self.name,
                n=MAX_CRASHES,
                seconds=round(CRASH_WINDOW_S),
                how=how,
            )
            self._budget.give_back(self)
            log.error("%s", self._problem)


def in_processes(models: Sequence[OpenedModel], settings: Settings, budget: MemoryBudget) -> list[TextModel]:
    """The models, each with an engine in a process of its own that is started by `ready` or by the first request; adapters are
    answered by the engine of their base. The first model's process gets ready for it at once.

    Raises UsageError for a model that the budget never allows.
    """
    engines: dict[Path, ProcessEngine] = {}
    for model in models:
        if model.path not in engines:
            same = [other for other in models if other.path == model.path]
            bases = [other.name for other in same if other.adapter is None]
            engines[model.path] = ProcessEngine(
                Launch(
                    model.path,
                    bases[0] if bases else model.name,
                    settings,
                    {other.name: other.adapter for other in same if other.adapter is not None},
                ),
                max_context=min(model.info.context_length, settings.kv_cache_tokens),
                need=MemoryNeed.of(model.info, settings),
                budget=budget,
            )
    if models:
        engines[models[0].path].warm_up()
    return [model.with_engine(engines[model.path]) for model in models]
