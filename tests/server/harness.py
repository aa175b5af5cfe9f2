"""A real server in a thread: uvicorn on a loopback port, with a tiny model behind it."""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from chatwright.engine.load import load_engine
from chatwright.engine.opened import open_model
from chatwright.engine.text import TextModel
from chatwright.server.app import create_app
from chatwright.server.run import DrainingServer, make_server
from chatwright.settings import Settings
from chatwright.store.accounts.service import Accounts
from chatwright.store.database import Database
from chatwright.store.url import file_of

# Generous: other work may share the machine. Nothing waits this long unless it fails.
PATIENCE_S = 30.0
MODEL = "tiny"


@dataclass
class RunningServer:
    """A server that answers at `port`, and what is behind it."""

    port: int
    app: FastAPI
    model: TextModel
    uvicorn: DrainingServer
    thread: threading.Thread

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def http(self, **options: Any) -> httpx.Client:
        """A plain client with the server's address, blind to proxies of the environment."""
        return httpx.Client(base_url=self.url, trust_env=False, timeout=PATIENCE_S, **options)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """One POST of JSON."""
        with self.http() as client:
            return client.post(path, json=body, **options)

    def complete(self, **body: Any) -> dict[str, Any]:
        """One good completion."""
        response = self.post("/v1/completions", {"model": MODEL, **body})
        assert response.status_code == 200, response.text
        return response.json()

    def load(self) -> tuple[int, int]:
        """(running, waiting) choices in the engine."""
        stats = self.model.engine.stats()
        return stats.running, stats.waiting

    def is_idle(self) -> bool:
        """Nothing runs and nothing waits, as `/health` tells it."""
        with self.http() as client:
            health = client.get("/health").json()
        return health["status"] == "ok" and health["running"] == health["waiting"] == 0

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """A bare connection for rude clients."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(PATIENCE_S)
        sock.connect(("127.0.0.1", self.port))
        return sock

    def stop(self) -> None:
        self.uvicorn.should_exit = True
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


def start_server(
    folder: Path,
    *,
    slow_step_s: float = 0.0,
    send_buffer: int | None = None,
    accounts: Accounts | None = None,
    database: Database | None = None,
    beside: Mapping[str, Path] | None = None,
    **settings: Any,
) -> RunningServer:
    """Load the model and serve it. `slow_step_s` makes each step of the engine as slow as on a small machine. `beside`: models that
    are served after it. A server with a database has a home folder of its own too, as it keeps files there."""
    store = accounts.database if accounts is not None else database
    if store is not None and "home" not in settings:
        file = file_of(store.url)
        settings["home"] = file.parent if file is not None else Path(tempfile.mkdtemp(prefix="chatwright-test-"))
    sock = socket.socket()
    if send_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    sock.bind(("127.0.0.1", 0))
    port: int = sock.getsockname()[1]
    chosen = Settings(**{"threads": 1, "device": "cpu", "port": port, **settings})
    opened = [open_model(path, name, chosen) for name, path in {MODEL: folder, **(beside or {})}.items()]
    models = [files.with_engine(load_engine(files.path, files.name, chosen)) for files in opened]
    model = models[0]
    if slow_step_s:
        slow_down(model, slow_step_s)
    app = create_app(chosen, models, opened, accounts, database)
    started = threading.Event()
    server = make_server(app, chosen, started.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    assert started.wait(PATIENCE_S)
    return RunningServer(port, app, model, server, thread)


def slow_down(model: TextModel, seconds: float) -> None:
    """Make every step of the engine take this much longer."""
    runner: Any = model.engine._runner  # type: ignore[attr-defined]
    step = runner.step

    def slow_step(chunks: Any) -> Any:
        time.sleep(seconds)
        return step(chunks)

    runner.step = slow_step


def wait_until(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    """Wait for something that must happen soon."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def http_request(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """A request's bytes, with a Host and, for a body, a length and a JSON type unless given."""
    fields = {"Host": "127.0.0.1", "Content-Length": str(len(body)), "Content-Type": "application/json"}
    fields |= dict(headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def read_all(sock: socket.socket) -> bytes:
    """What comes until the other side closes."""
    received = b""
    try:
        while piece := sock.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def read_response(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One response that has a Content-Length: (status, headers, body)."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = sock.recv(65536)
        assert piece, f"closed before the end of the headers: {received!r}"
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    while len(body) < int(headers.get("content-length", "0")):
        piece = sock.recv(65536)
        assert piece, "closed before the end of the body"
        body += piece
    return int(lines[0].split()[1]), headers, body


def events_of(text: str) -> list[dict[str, Any]]:
    """The JSON events of a stream, which must end with [DONE]."""
    lines = [line for line in text.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def assert_error(response: httpx.Response, status: int, code: str | None = None, param: str | None = None) -> str:
    """The response is an error object of that status; returns its sentence."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    if code is not None:
        assert error["code"] == code, error
    if param is not None:
        assert error["param"] == param, error
    message: str = error["message"]
    return message
