"""Running the app: limits on connections, and leaving in good order on SIGTERM."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from chatwright.settings import Settings

MAX_HEADER_BYTES = 64 * 1024
MAX_CONNECTIONS = 1000


def timed_protocol(header_timeout_s: float) -> type[H11Protocol]:
    """HTTP/1.1 that hangs up on clients which open a connection and do not finish their headers in time."""

    class TimedH11Protocol(H11Protocol):
        _header_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._start_timer()

        def handle_events(self) -> None:
            before = self.cycle
            super().handle_events()
            if self.cycle is not before:
                self._stop_timer()

        def data_received(self, data: bytes) -> None:
            # Between two requests of a kept connection: the first bytes of the next one start the clock again.
            idle = self.cycle is None or self.cycle.response_complete
            if idle and self._header_timer is None:
                self._start_timer()
            super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def _start_timer(self) -> None:
            self._header_timer = self.loop.call_later(header_timeout_s, self._give_up)

        def _stop_timer(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

        def _give_up(self) -> None:
            self._header_timer = None
            if not self.transport.is_closing():
                self.transport.abort()

    return TimedH11Protocol


def run_server(
    app: FastAPI, settings: Settings, sock: socket.socket, on_started: Callable[[], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; blocking. `sock` is bound already, so that a taken port was found early."""
    config = uvicorn.Config(
        app,
        http=timed_protocol(settings.header_timeout_s),
        ws="none",
        log_level=settings.log_level,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=round(settings.graceful_timeout_s),
    )
    server = DrainingServer(config, app, on_started)
    server.run(sockets=[sock])


class DrainingServer(uvicorn.Server):
    """Tells the app's state that it is leaving, and whoever started it that it listens."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, on_started: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._app = app
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then call back."""
        await super().startup(sockets)
        if self.started and self._on_started:
            self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> Any:
        """SIGTERM or SIGINT: `/ready` turns 503, no new connections, running answers end; a second SIGINT ends them."""
        self._app.state.server.draining = True
        return super().handle_exit(sig, frame)
