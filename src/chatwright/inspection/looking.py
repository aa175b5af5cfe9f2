"""Looking inside a served model without torch in the server: one process for all of it, started when somebody looks, ended when
nobody does.

The engine's process could not do it: its weights may have 8 or 4 bits and lie in the kernels' order, and what is shown is
attention, gradients and layers of the model itself in float32. So the model is loaded a second time. That costs memory, which is
taken out of the budget of the served models and given back a minute after the last look; one model, one question at a time.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from chatwright.engine.opened import OpenedModel
from chatwright.engine.process import wire
from chatwright.engine.process.ending import Ending
from chatwright.engine.process.failures import error_of
from chatwright.engine.process.link import Launch, Spawned, forwarded_log
from chatwright.engine.process.memory import OVERHEAD_BYTES, MemoryBudget, MemoryNeed
from chatwright.errors import (
    EngineError,
    InvalidModelError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
)
from chatwright.i18n import format_size
from chatwright.inspection.wire import Look, Looked, NotLooked
from chatwright.settings import Settings

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-P", "-m", "chatwright.inspection.child")
# The time and the numbers of a look grow with the square of its length.
MOST_TOKENS = 256
# Logits of all places, their log probabilities, and what comes between.
COPIES_OF_LOGITS = 4
# The one that is answered, and those that wait for it.
MOST_ASKED = 4


@dataclass(frozen=True)
class Patience:
    """Seconds: for a place, for an answer (loading included), and until a process that nobody asks is ended."""

    queue_s: float = 60.0
    answer_s: float = 120.0
    idle_s: float = 60.0


class Looking:
    """The looks of one server."""

    def __init__(
        self,
        settings: Settings,
        budget: MemoryBudget,
        patience: Patience | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """Nothing is started yet. `command` is run with two arguments more (see `child`)."""
        self._settings = settings
        self._budget = budget
        self._patience = patience or Patience()
        self._command = command
        self._turn = asyncio.Lock()
        self._n_asked = 0
        self._looker: _Looker | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process that looks just now, or waits for the next question."""
        return self._looker.pid if self._looker is not None else None

    async def look(self, opened: OpenedModel, look: Look) -> bytes:
        """The answer as JSON. Whoever cancels ends the process: the next one to ask waits until another has loaded the model.

        Raises OverloadedError where too many ask or there is no memory just now, InvalidRequestError for what takes too long or too
        much memory, EngineError.
        """
        if self._n_asked >= MOST_ASKED:
            raise OverloadedError(
                "{n} requests to look inside a model are being answered or waiting. Try again in a moment.",
                n=self._n_asked,
            )
        self._n_asked += 1
        try:
            try:
                async with asyncio.timeout(self._patience.queue_s):
                    await self._turn.acquire()
            except TimeoutError:
                raise OverloadedError("Others are still looking inside a model. Try again in a moment.") from None
            try:
                return await self._answer(opened, look)
            finally:
                self._turn.release()
        finally:
            self._n_asked -= 1

    async def close(self) -> None:
        """End the process, whatever it does."""
        self._closed = True
        await self._end()
        if self._ending is not None:
            await self._ending

    async def _answer(self, opened: OpenedModel, look: Look) -> bytes:
        if self._closed:
            raise OverloadedError("The server is shutting down. Send the request again in a moment.")
        if self._idle is not None:
            self._idle.cancel()
        try:
            async with asyncio.timeout(self._patience.answer_s):
                looker = await self._looker_for(opened)
                answer = await looker.ask(look)
        except TimeoutError:
            await self._end()
            raise InvalidRequestError(
                "Looking inside {name} took longer than {seconds} s and was ended. Shorten the text, or choose attribution gradient"
                " or none.",
                name=opened.name,
                seconds=round(self._patience.answer_s),
                param="prompt",
                code="took_too_long",
            ) from None
        except (InvalidModelError, ModelNotFoundError) as error:
            await self._end()
            log.error("%s cannot be looked into: %s", opened.name, error)
            raise EngineError(
                "The model {name} cannot be looked into: the log of the server says why.", name=opened.name
            ) from error
        except BaseException:
            await self._end()
            raise
        self._idle = asyncio.get_running_loop().call_later(self._patience.idle_s, self._leave)
        return answer

    async def _looker_for(self, opened: OpenedModel) -> _Looker:
        """The process with this model in it."""
        # The same path may hold other weights than when it was loaded: adapters are trained and loaded again.
        subject = (opened.path, opened.adapter, opened.fingerprint)
        if self._looker is not None:
            if self._looker.running and self._looker.subject == subject:
                return self._looker
            await self._end()
        need = need_of(opened)
        if self._budget.firm and need.least_bytes > self._budget.limit_bytes:
            raise InvalidRequestError(
                "Looking inside {name} needs about {need} of memory, but memory_limit allows {limit}.",
                name=opened.name,
                need=format_size(need.least_bytes),
                limit=format_size(self._budget.limit_bytes),
                param="model",
                code="not_enough_memory",
            )
        adapters = {opened.name: opened.adapter} if opened.adapter is not None else {}
        launch = Launch(opened.path, opened.name, self._settings, adapters, self._command)
        looker = _Looker(launch, subject, need, self._budget)
        await self._budget.enter(looker)
        try:
            await looker.start()
        except BaseException:
            self._budget.leave(looker)
            raise
        self._looker = looker
        return looker

    def _leave(self) -> None:
        """Nobody has asked for a while."""
        if not self._turn.locked():
            log.info("nobody looks inside a model any more: its process ends")
            self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        looker, self._looker = self._looker, None
        if self._idle is not None:
            self._idle.cancel()
        if looker is not None:
            await looker.unload()


class _Looker:
    """One process with one model in it; a tenant of the memory budget, which ends it where others need its room."""

    def __init__(self, launch: Launch, subject: object, need: MemoryNeed, budget: MemoryBudget) -> None:
        self.name = f"looking inside {launch.name}"  # with blanks: no model has that name
        self.subject = subject
        self.need = need
        self.used_at = time.monotonic()
        self.running = False
        self._model = launch.name
        self._launch = launch
        self._budget = budget
        self._asked = False

    @property
    def idle(self) -> bool:
        """See `memory.Tenant`."""
        return self.running and not self._asked

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def start(self) -> None:
        """Start the process, which begins to load when it is asked. Raises EngineError."""
        # In this thread, which lives as long as the server does: the process dies with it.
        spawned = Spawned.of(self._launch)
        self._process = spawned.process
        self._watcher = threading.Thread(target=self._watch, name="looking", daemon=True)
        self._watcher.start()
        self.running = self._asked = True
        try:
            spawned.sock.setblocking(False)
            self._reader, self._writer = await asyncio.open_unix_connection(sock=spawned.sock)
        except BaseException:
            self.running = False
            self._process.kill()
            spawned.sock.close()
            raise
        self._writer.write(wire.frame(self._launch.message()))

    async def ask(self, look: Look) -> bytes:
        """The answer as JSON. Raises what came over there, EngineError where the process ended."""
        self._asked = True
        try:
            self._writer.write(wire.frame(look))
            message = _answers.decode(await self._read())
        except (OSError, EOFError):
            raise await self._cut() from None
        finally:
            self._asked = False
            self.used_at = time.monotonic()
        if isinstance(message, NotLooked):
            raise error_of(message.failure)
        return message.json

    async def unload(self) -> None:
        """End it and give its memory back. See `memory.Tenant`."""
        self.running = False
        self._process.kill()
        self._writer.close()
        try:
            await asyncio.to_thread(self._watcher.join)
        finally:
            self._budget.leave(self)

    async def _read(self) -> bytes:
        length = int.from_bytes(await self._reader.readexactly(wire.LENGTH_BYTES), "big")
        if length > wire.MAX_FRAME_BYTES:
            raise EOFError
        return await self._reader.readexactly(length)

    async def _cut(self) -> EngineError:
        """What whoever asked is told when it ended."""
        self._process.kill()
        await asyncio.to_thread(self._watcher.join)
        ending = Ending(self._process.returncode)
        log.error("the process that looked inside %s ended: %s", self._model, ending.how)
        return EngineError(
            "The process that looked inside {name} ended ({how}). Try again, with a shorter text.",
            name=self._model,
            how=ending.how,
        )

    def _watch(self) -> None:
        """In a thread: its log is ours, and it leaves no zombie."""
        for _ in forwarded_log(self._process):
            pass
        self._process.wait()
        self.running = False
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


_answers: msgspec.msgpack.Decoder[Looked | NotLooked] = msgspec.msgpack.Decoder(Looked | NotLooked)


def need_of(opened: OpenedModel) -> MemoryNeed:
    """What looking inside a model takes: its weights in float32, and the logits of the longest text."""
    info = opened.info
    logits = COPIES_OF_LOGITS * MOST_TOKENS * info.config.vocab_size
    return MemoryNeed(4 * (info.n_parameters + logits) + OVERHEAD_BYTES, 1, 0, 0)
