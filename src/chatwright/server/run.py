"""Running the app: limits on connections, and leaving in good order on SIGTERM."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import orjson
import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from chatwright.server.errors import error_object, error_response
from chatwright.server.headers import MAX_HEADER_BYTES
from chatwright.settings import Settings

MAX_CONNECTIONS = 1000
# After the grace period answers are ended with an error; this long they may take to write it.
LAST_WORDS_S = 5
SIGNAL_POLL_S = 0.1


async def too_many_connections(scope: Scope, receive: Receive, send: Send) -> None:
    """The app of a connection too many."""
    message = "The server has too many open connections. Try again in a moment."
    headers = {"Retry-After": "2", "Connection": "close"}
    await error_response(503, message, code="engine_overloaded", headers=headers)(scope, receive, send)


def limited_protocol(header_timeout_s: float, write_timeout_s: float) -> type[H11Protocol]:
    """HTTP/1.1 that hangs up on clients which do not finish their headers, or do not read their answer, in time."""

    class LimitedH11Protocol(H11Protocol):
        _header_timer: asyncio.TimerHandle | None = None
        _write_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.access_log = (
                False  # uvicorn's own switch does nothing here: a handler on the root logger turns it on again
            )
            if len(self.connections) > MAX_CONNECTIONS:
                self.app = too_many_connections
            self._start_header_timer()

        def handle_events(self) -> None:
            before = self.cycle
            super().handle_events()
            if self.cycle is not before:
                self._stop_header_timer()

        def data_received(self, data: bytes) -> None:
            # Between two requests of a kept connection: the first bytes of the next one start the clock again.
            idle = self.cycle is None or self.cycle.response_complete
            if idle and self._header_timer is None:
                self._start_header_timer()
            super().data_received(data)

        def pause_writing(self) -> None:
            # The buffers are full. Timed here and not in the app: only an abort frees a connection whose reader stalls, as
            # closing would wait for the buffer to empty.
            super().pause_writing()
            self._write_timer = self.loop.call_later(write_timeout_s, self._abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_write_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_header_timer()
            super().connection_lost(exc)
            self._stop_write_timer()

        def send_400_response(self, msg: str) -> None:
            """What is no HTTP: as an error object too, and 431 where the headers were too large."""
            error = sys.exception()
            hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
            status = 431 if hint == 431 else 400
            if status == 431:
                msg = f"The request's headers are larger than {MAX_HEADER_BYTES // 1024} KiB, the limit of this server."
            if self.cycle is not None and not self.cycle.response_complete:
                # The nonsense came behind a request under way: nobody will hear its answer any more.
                started, self.cycle.disconnected = self.cycle.response_started, True
                self.cycle.message_event.set()
                if started:
                    self.transport.close()
                    return
            body = orjson.dumps(error_object(status, msg))
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            for event in (
                h11.Response(status_code=status, headers=headers, reason=b""),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def _start_header_timer(self) -> None:
            self._header_timer = self.loop.call_later(header_timeout_s, self._abort)

        def _stop_header_timer(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

        def _stop_write_timer(self) -> None:
            if self._write_timer is not None:
                self._write_timer.cancel()
                self._write_timer = None

        def _abort(self) -> None:
            self.transport.abort()

    return LimitedH11Protocol


def run_server(
    app: FastAPI,
    settings: Settings,
    sock: socket.socket,
    on_started: Callable[[], None] | None = None,
    on_draining: Callable[[int], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; blocking. `sock` is bound already, so that a taken port was found early.

    `on_started` is called when the server listens, `on_draining` with the number of running answers when it leaves.
    """
    make_server(app, settings, on_started, on_draining).run(sockets=[sock])


def make_server(
    app: FastAPI,
    settings: Settings,
    on_started: Callable[[], None] | None = None,
    on_draining: Callable[[int], None] | None = None,
) -> DrainingServer:
    """The server that `run_server` runs; `should_exit = True` ends it as a signal does."""
    config = uvicorn.Config(
        app,
        http=limited_protocol(settings.header_timeout_s, settings.write_timeout_s),
        ws="none",
        log_level=settings.log_level,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=math.ceil(settings.graceful_timeout_s) + LAST_WORDS_S,
    )
    return DrainingServer(config, app, settings.graceful_timeout_s, on_started, on_draining)


class DrainingServer(uvicorn.Server):
    """Leaves in good order: running answers end by themselves within the grace period, or with an error that says why."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        grace_s: float,
        on_started: Callable[[], None] | None,
        on_draining: Callable[[int], None] | None,
    ) -> None:
        super().__init__(config)
        self._state = app.state.server
        self._grace_s = grace_s
        self._on_started = on_started
        self._on_draining = on_draining

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Load the first model, listen, then call back. Raises what loading raises."""
        await self._load()
        if self.should_exit:
            return
        await super().startup(sockets)
        if self.started and self._on_started:
            self._on_started()

    async def _load(self) -> None:
        """Or be told to leave meanwhile."""
        first = self._state.models[0]
        loading = asyncio.ensure_future(first.engine.ready())
        while not loading.done() and not self.should_exit:
            await asyncio.wait({loading}, timeout=SIGNAL_POLL_S)
        if self.should_exit or loading.exception() is not None:
            loading.cancel()
            await asyncio.gather(*(model.close() for model in self._state.models), return_exceptions=True)
        if not self.should_exit:
            loading.result()

    def handle_exit(self, sig: int, frame: FrameType | None) -> Any:
        """SIGTERM or SIGINT: `/ready` turns 503, no new connections, running answers end; a second SIGINT cuts them off with
        an error, as the end of the grace period does.

        uvicorn would raise the signal again at the end; here leaving in good order is a success (exit code 0).
        """
        if self.should_exit and sig == signal.SIGINT:
            self._state.cut_off.set()
        elif not self._state.draining and self._on_draining:
            self._on_draining(sum(self._state.load()))
        self._state.draining = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for running answers; what runs longer than the grace period is cut off with an error."""
        self._state.draining = True
        cut_off = asyncio.get_running_loop().call_later(self._grace_s, self._state.cut_off.set)
        try:
            await super().shutdown(sockets)
        finally:
            cut_off.cancel()
