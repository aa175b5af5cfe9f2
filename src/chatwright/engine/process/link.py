"""One engine process as the server sees it: started, asked, listened to, and gone some day."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

import chatwright
from chatwright.engine.process import wire
from chatwright.engine.process.ending import EndedWhileLoadingError, Ending
from chatwright.engine.process.failures import error_of
from chatwright.engine.protocol import EngineEvent, EngineStats, FinishEvent, GenerateRequest
from chatwright.errors import EngineError, OverloadedError
from chatwright.settings import Settings

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-P", "-m", "chatwright.engine.process.child")
# Of these the server takes care; they would reach the engine's process too where they mean a whole group.
SERVERS_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
# Events that wait for a slow reader before its engine is told to stop, and when it may go on.
HIGH_WATER, LOW_WATER = 256, 64
# With a step of the engine silent for longer than this while requests run, it hangs. The longest step known is a prompt's part
# with a model of 7 billion parameters on two cores: 20 s.
HANG_S = 120.0
WATCH_EVERY_S = 1.0
CLOSE_TIMEOUT_S = 8.0
N_LAST_LINES = 40


@dataclass(frozen=True)
class Launch:
    """What a process is started with. `command` is run with two arguments more (see `child`)."""

    path: Path
    name: str
    settings: Settings
    adapters: Mapping[str, Path] = field(default_factory=dict)
    command: Sequence[str] = COMMAND

    def message(self) -> wire.Start:
        """The first message. The server's secrets are none of the engine's business."""
        return wire.Start(
            str(self.path),
            self.name,
            {name: str(path) for name, path in self.adapters.items()},
            self.settings.model_dump(
                mode="json", exclude={"api_key", "api_key_file", "admin_token", "oidc_client_secret"}
            ),
            logging.getLogger().getEffectiveLevel(),
        )


@dataclass(frozen=True)
class Spawned:
    """A process that was started and not told what to load yet, and our end of its socket. It imports what it will need meanwhile:
    PyTorch takes seconds."""

    process: subprocess.Popen[bytes]
    sock: socket.socket

    @classmethod
    def of(cls, launch: Launch) -> Spawned:
        """To be called in a thread that lives as long as the process shall (Linux ends it with that thread). Raises EngineError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                return cls(_popen(launch, theirs), ours)
            except OSError as error:
                ours.close()
                raise EngineError("The engine's process cannot be started: {reason}.", reason=error.strerror) from error

    def discard(self) -> None:
        """It is not needed after all."""
        self.sock.close()
        self.process.kill()
        self.process.wait()


class _Stream:
    """Events of one request, between the socket and whoever reads them."""

    def __init__(self, request: GenerateRequest) -> None:
        self.id = request.id
        self.n_open = request.n
        self.events: deque[EngineEvent] = deque()
        self.error: Exception | None = None
        self.paused = False
        self.since = time.monotonic()
        self._waiter: asyncio.Future[None] | None = None

    def push(self, event: EngineEvent) -> None:
        self.events.append(event)
        self._wake()

    def fail(self, error: Exception) -> None:
        """After the events that came before."""
        self.error = error
        self._wake()

    async def wait(self) -> None:
        """Until there is an event or an error."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class EngineProcess(asyncio.Protocol):
    """A living process with its model loaded. `on_end` is called once when it ended without being asked to."""

    _process: subprocess.Popen[bytes]

    def __init__(self, launch: Launch, on_end: Callable[[EngineProcess, Ending], None], hang_s: float) -> None:
        self.launch = launch
        self.max_context = 0
        self.memory_bytes = 0
        self.running = False
        self._on_end = on_end
        self._hang_s = hang_s
        self._loop = asyncio.get_running_loop()
        self._reader: wire.FrameReader[wire.FromEngine] = wire.FrameReader(wire.FromEngine)
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[Ending] = self._loop.create_future()
        self._disconnected = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, _Stream] = {}
        self._numbers: dict[str, int] = {}
        self._calls: dict[int, tuple[float, asyncio.Future[Any]]] = {}
        self._last_number = 0
        self._stats = EngineStats(0, 0, 0, 0.0, True)
        self._heard_at = time.monotonic()
        self._closing = False
        self._hung = False
        self._watch: asyncio.TimerHandle | None = None
        self._max_streams = 4 * (launch.settings.max_batch + launch.settings.max_queue)
        self._log_thread: threading.Thread | None = None
        self.last_lines: deque[str] = deque(maxlen=N_LAST_LINES)

    @classmethod
    async def start(
        cls,
        launch: Launch,
        on_end: Callable[[EngineProcess, Ending], None],
        hang_s: float = HANG_S,
        spawned: Spawned | None = None,
    ) -> EngineProcess:
        """Start it, where it is not `spawned` yet, and wait until the model is loaded (see `Spawned.of` for the thread).

        Raises what `load_engine` raises, EndedWhileLoadingError, EngineError where there can be no process.
        """
        self = cls(launch, on_end, hang_s)
        spawned = spawned or Spawned.of(launch)
        self._process = spawned.process
        threading.Thread(target=self._wait_for_exit, name="engine-exit", daemon=True).start()
        self._log_thread = threading.Thread(target=self._forward_log, name="engine-log", daemon=True)
        self._log_thread.start()
        try:
            spawned.sock.setblocking(False)
            await self._loop.create_unix_connection(lambda: self, sock=spawned.sock)
            self._send(launch.message())
            either: set[asyncio.Future[Any]] = {self._ready, self._ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not self._ready.done():
                raise EndedWhileLoadingError(self._ended.result())
            self._ready.result()
        except BaseException:
            self._closing = True
            self._process.kill()
            raise
        self.running = True
        self._watch = self._loop.call_later(WATCH_EVERY_S, self._look)
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def busy(self) -> bool:
        """Whether anything is asked of it just now."""
        return bool(self._streams or self._calls)

    def stats(self) -> EngineStats:
        """What it last told. Choices that it has not heard of yet wait."""
        told = self._stats
        n_open = sum(stream.n_open for stream in self._streams.values())
        return msgspec.structs.replace(
            told,
            waiting=max(told.waiting, n_open - told.running),
            heartbeat_age_s=told.heartbeat_age_s + time.monotonic() - self._heard_at,
            alive=self.running and told.alive,
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[EngineEvent, None]:
        """See `Engine.generate`."""
        if len(self._streams) >= self._max_streams:
            # The engine refuses long before that, unless it hangs and reads nothing any more.
            raise OverloadedError(
                "The server is busy: {n} requests are being answered or waiting. Try again in a moment.",
                n=len(self._streams),
            )
        number = self._next_number()
        stream = self._streams[number] = _Stream(request)
        self._numbers[request.id] = number
        self._send(wire.Generate(number, request))
        events = stream.events
        try:
            while stream.n_open:
                if not events:
                    if stream.error is not None:
                        raise stream.error
                    await stream.wait()
                    continue
                event = events.popleft()
                if stream.paused and len(events) <= LOW_WATER:
                    stream.paused = False
                    self._send(wire.Resume(number))
                if isinstance(event, FinishEvent):
                    stream.n_open -= 1
                yield event
        finally:
            del self._streams[number]
            self._numbers.pop(request.id, None)
            if stream.n_open and stream.error is None:
                self._send(wire.Drop(number))

    def abort(self, request_id: str, index: int | None) -> None:
        """See `Engine.abort`."""
        if (number := self._numbers.get(request_id)) is not None:
            self._send(wire.Abort(number, index))

    async def call(self, name: str, *arguments: Any) -> Any:
        """Call a method of wire.CALLS over there. Raises what it raises."""
        number = self._next_number()
        future: asyncio.Future[msgspec.Raw] = self._loop.create_future()
        self._calls[number] = (time.monotonic(), future)
        self._send(wire.Call(number, name, list(arguments)))
        try:
            return msgspec.msgpack.decode(await future, type=wire.CALLS[name])
        finally:
            del self._calls[number]

    async def close(self) -> Ending:
        """End it: what runs is aborted. Killed where it does not leave by itself."""
        self._closing = True
        self.running = False
        self._send(wire.Close())
        try:
            return await asyncio.wait_for(asyncio.shield(self._ended), CLOSE_TIMEOUT_S)
        except TimeoutError:
            self._process.kill()
            return await self._ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            for message in self._reader.feed(data):
                self._take(message)
        except msgspec.DecodeError:
            log.exception("the engine of %s sent what is no message", self.launch.name)
            self._process.kill()

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing more will come; a process that lives on without its connection is of no use."""
        self._disconnected.set()
        self._loop.call_later(CLOSE_TIMEOUT_S, self._process.kill)

    def _take(self, message: wire.FromEngine) -> None:
        match message:
            case wire.Events(stats, events):
                self._hear(stats)
                streams = self._streams
                for number, event in events:
                    if stream := streams.get(number):
                        stream.push(event)
                        if len(stream.events) > HIGH_WATER and not stream.paused:
                            stream.paused = True
                            self._send(wire.Pause(number))
            case wire.Beat(stats):
                self._hear(stats)
            case wire.Failed(number, failure):
                if stream := self._streams.get(number):
                    stream.fail(error_of(failure))
                elif (call := self._calls.get(number)) and not call[1].done():
                    call[1].set_exception(error_of(failure))
            case wire.Returned(number, value):
                if (call := self._calls.get(number)) and not call[1].done():
                    call[1].set_result(value)
            case wire.Ready(max_context, memory_bytes):
                self.max_context, self.memory_bytes = max_context, memory_bytes
                self._heard_at = time.monotonic()
                if not self._ready.done():
                    self._ready.set_result(None)
            case wire.NotLoaded(failure):
                if not self._ready.done():
                    self._ready.set_exception(error_of(failure))

    def _hear(self, stats: EngineStats) -> None:
        self._stats = stats
        self._heard_at = time.monotonic()

    def _look(self) -> None:
        """Kill it where it hangs: requests run, and its loop has not turned for long. Both clocks must have run out: a machine that
        slept, or a process that was stopped while nobody asked, deserves another chance."""
        now = time.monotonic()
        asked_at = [stream.since for stream in self._streams.values()] + [since for since, _ in self._calls.values()]
        silent_s = self.stats().heartbeat_age_s
        if asked_at and min(silent_s, now - min(asked_at)) > self._hang_s:
            log.error("the engine of %s has not moved for %.0f s and is killed", self.launch.name, silent_s)
            self._hung = True
            self._process.kill()
            return
        self._watch = self._loop.call_later(WATCH_EVERY_S, self._look)

    def _send(self, message: wire.ToEngine) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(wire.frame(message))

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _exited(self, code: int) -> None:
        self._ending = self._loop.create_task(self._end(code))

    async def _end(self, code: int) -> None:
        """The process is gone. What it had written before is still read."""
        if self._transport is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._disconnected.wait(), 1)
            self._transport.close()
        if self._watch is not None:
            self._watch.cancel()
        was_running, self.running = self.running, False
        ending = Ending(code, self._hung)
        error = ending.cut_answer(self.launch.name)
        if self._closing:
            error = EngineError("The engine has stopped. Restart the server.")
        for stream in self._streams.values():
            stream.fail(error)
        for _, future in self._calls.values():
            if not future.done():
                future.set_exception(error)
        if not self._ended.done():
            self._ended.set_result(ending)
        if was_running and not self._closing:
            self._on_end(self, ending)

    # The threads of a process: both end with it.

    def _wait_for_exit(self) -> None:
        code = self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        if self._log_thread:
            self._log_thread.join(1)
        with suppress(RuntimeError):  # the event loop is closed: nobody waits for this any more
            self._loop.call_soon_threadsafe(self._exited, code)

    def _forward_log(self) -> None:
        """What it writes is lines for the log already; the last ones are kept for when it crashes."""
        for text in forwarded_log(self._process):
            self.last_lines.append(text.rstrip())


def forwarded_log(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """What a process writes, line by line, after it was written to our standard error too. Blocks until it ends."""
    assert process.stdout is not None
    for line in process.stdout:
        text = line.decode("utf-8", "replace")
        with suppress(ValueError, OSError):  # standard error may be closed or full
            sys.stderr.write(text)
            sys.stderr.flush()
        yield text


def _popen(launch: Launch, sock: socket.socket) -> subprocess.Popen[bytes]:
    """The process, with the code of this one: from the same folder, whatever lies in the working directory."""
    root = str(Path(chatwright.__file__).resolve().parents[1])
    search = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    with _blocked(SERVERS_SIGNALS):
        return subprocess.Popen(  # noqa: S603  our own program
            [*launch.command, str(sock.fileno()), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(sock.fileno(),),
            env={**os.environ, "PYTHONPATH": search},
        )


@contextmanager
def _blocked(names: Sequence[str]) -> Iterator[None]:
    """Signals that a process started in this block never hears: it inherits this thread's mask."""
    numbers = {getattr(signal, name) for name in names}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
