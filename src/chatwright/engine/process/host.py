"""The engine's side of the socket: loads a model when told to, and serves its engine to the one server that started it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import msgspec
import psutil

from chatwright.engine.process import wire
from chatwright.engine.process.failures import failure_of
from chatwright.engine.protocol import Engine, EngineEvent, EngineStats, GenerateRequest

log = logging.getLogger(__name__)

Load = Callable[[wire.Start], Engine]

# A change shows in /health this much later at most.
BEAT_S = 0.25
# Without a change, too, so that silence means that this process hangs.
LONGEST_SILENCE_S = 1.0
# The last answers' ends are written before the engine's process leaves.
CLOSE_TIMEOUT_S = 5.0
DEAD_ENGINE_EXIT_CODE = 70


class _Asked:
    """A request whose events the server asked for."""

    def __init__(self, request: GenerateRequest) -> None:
        self.request = request
        self.welcome = asyncio.Event()  # cleared while its reader is slow
        self.welcome.set()
        self.task: asyncio.Task[None] | None = None


class EngineHost(asyncio.Protocol):
    """One connection; `ended` resolves to the exit code of this process, when everything is written or the server is gone."""

    def __init__(self, load: Load) -> None:
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._load = load
        self._code = 0
        self._engine: Engine | None = None
        self._reader: wire.FrameReader[wire.ToEngine] = wire.FrameReader(wire.ToEngine)
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._asked: dict[int, _Asked] = {}
        self._outbox: list[tuple[int, EngineEvent]] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        for message in self._reader.feed(data):
            self._take(message)

    def connection_lost(self, error: Exception | None) -> None:
        """The server is gone: nobody needs this process any more."""
        if not self.ended.done():
            self.ended.set_result(self._code)

    def pause_writing(self) -> None:
        """The server reads more slowly than tokens come: the engine's own queues hold them, which know what to do."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable.set()

    def _take(self, message: wire.ToEngine) -> None:
        match message:
            case wire.Start():
                self._spawn(self._start(message))
            case wire.Generate(number, request):
                self._asked[number] = asked = _Asked(request)
                asked.task = self._spawn(self._generate(number, asked))
            case wire.Call(number, name, arguments):
                self._spawn(self._call(number, name, arguments))
            case wire.Close():
                self._spawn(self._close())
            case _:
                # Of a request that may just have ended by itself.
                if asked_before := self._asked.get(message.number):
                    self._steer(asked_before, message)

    def _steer(self, asked: _Asked, message: wire.Abort | wire.Drop | wire.Pause | wire.Resume) -> None:
        match message:
            case wire.Abort(_, index):
                self._loaded().abort(asked.request.id, index)
            case wire.Drop():
                if asked.task:
                    asked.task.cancel()
            case wire.Pause():
                asked.welcome.clear()
            case wire.Resume():
                asked.welcome.set()

    async def _start(self, start: wire.Start) -> None:
        try:
            self._engine = await asyncio.to_thread(self._load, start)
        except Exception as error:  # noqa: BLE001  the edge of this process: the server raises it again
            self._send(wire.NotLoaded(failure_of(error)))
            self._end(0)
            return
        memory = psutil.Process().memory_info().rss
        self._send(wire.Ready(self._engine.max_context, memory))
        self._spawn(self._beat(self._engine))

    async def _generate(self, number: int, asked: _Asked) -> None:
        try:
            async with aclosing(self._loaded().generate(asked.request)) as events:
                async for event in events:
                    self._queue(number, event)
                    await asked.welcome.wait()
                    await self._writable.wait()
        except Exception as error:  # noqa: BLE001  carried over to the server, which raises it
            self._flush()
            self._send(wire.Failed(number, failure_of(error)))
        finally:
            self._asked.pop(number, None)

    async def _call(self, number: int, name: str, arguments: list[Any]) -> None:
        try:
            assert name in wire.CALLS, "the server and its engine are of one version"
            value = await getattr(self._loaded(), name)(*arguments)
            self._send(wire.Returned(number, msgspec.Raw(msgspec.msgpack.encode(value))))
        except Exception as error:  # noqa: BLE001  carried over to the server, which raises it
            self._send(wire.Failed(number, failure_of(error)))

    async def _beat(self, engine: Engine) -> None:
        """Tell how the engine is. One whose loop ended by a bug has told its readers; a new process does better."""
        told, told_at = None, 0.0
        while True:
            stats = engine.stats()
            counts = (stats.running, stats.waiting, stats.cached_tokens)
            if counts != told or time.monotonic() - told_at >= LONGEST_SILENCE_S:
                told, told_at = counts, time.monotonic()
                self._send(wire.Beat(stats))
            if not stats.alive:
                log.error("the engine's loop has ended")
                self._flush()
                self._end(DEAD_ENGINE_EXIT_CODE)
                return
            await asyncio.sleep(BEAT_S)

    async def _close(self) -> None:
        if self._engine is not None:
            try:
                await asyncio.wait_for(self._engine.close(), CLOSE_TIMEOUT_S)
            except TimeoutError:
                log.warning("the engine did not end within %.0f s", CLOSE_TIMEOUT_S)
            # Its last events are on their way through the tasks that read them.
            if readers := [asked.task for asked in self._asked.values() if asked.task]:
                await asyncio.wait(readers, timeout=1)
            self._flush()
        self._end(0)

    def _loaded(self) -> Engine:
        assert self._engine is not None, "the server waits until the model is loaded"
        return self._engine

    def _queue(self, number: int, event: EngineEvent) -> None:
        """All events of a step come before the event loop's next turn, so that one frame takes them all."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append((number, event))

    def _flush(self) -> None:
        if self._outbox:
            stats: EngineStats = self._loaded().stats()
            self._send(wire.Events(stats, self._outbox))
            self._outbox = []

    def _send(self, message: wire.FromEngine) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(wire.frame(message))

    def _end(self, code: int) -> None:
        """Leave when everything is written."""
        self._code = code
        if self._transport is not None:
            self._transport.close()

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself keeps only weak references
        task.add_done_callback(self._tasks.discard)
        return task
