"""SIGTERM in mid-stream: answers end by themselves, or with an error that says why; nothing new is taken; exit code 0."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import httpx
import pytest

from tests.server.harness import MODEL, PATIENCE_S, RunningServer, assert_error, events_of, http_request, read_all

LONG = {"model": MODEL, "prompt": "The", "logit_bias": {"2": -100}, "seed": 1}
PROGRAM = """
import logging, socket, sys
from pathlib import Path
from chatwright.engine.load import load_text_model
from chatwright.server.app import create_app
from chatwright.server.run import run_server
from chatwright.settings import Settings
from tests.server.harness import MODEL, slow_down

logging.basicConfig(level=logging.DEBUG)
folder, step_s, grace_s = sys.argv[1:]
settings = Settings(threads=1, device="cpu", log_level="debug", graceful_timeout_s=float(grace_s))
model = load_text_model(Path(folder), MODEL, settings)
slow_down(model, float(step_s))
sock = socket.socket()
sock.bind(("127.0.0.1", 0))
run_server(create_app(settings, [model]), settings, sock, lambda: print(sock.getsockname()[1], flush=True))
"""


class ServerProcess:
    """A server as a program of its own, which hears signals."""

    def __init__(self, folder: Path, step_s: float, grace_s: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(step_s), str(grace_s)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    @cached_property
    def port(self) -> int:
        """Where it listens, once it does."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def begin_stream(self, max_tokens: int) -> socket.socket:
        """A stream whose first piece has come."""
        sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        body = json.dumps({**LONG, "max_tokens": max_tokens, "stream": True}).encode()
        sock.sendall(http_request("POST", "/v1/completions", body, {"Connection": "close"}))
        assert sock.recv(1)
        return sock

    def begin_answer(self, max_tokens: int) -> socket.socket:
        """A request whose answer is under way."""
        sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        sock.sendall(http_request("POST", "/v1/completions", json.dumps({**LONG, "max_tokens": max_tokens}).encode()))
        deadline = time.monotonic() + PATIENCE_S
        while httpx.get(f"{self.url}/health", trust_env=False).json()["running"] < 2:
            assert time.monotonic() < deadline
        return sock

    def ended(self) -> tuple[int, str]:
        """(exit code, what it logged), when it is over."""
        _, log = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, log


@dataclass(frozen=True)
class Processes:
    """One server for each end: patient with running answers, impatient, and idle."""

    patient: ServerProcess
    impatient: ServerProcess
    idle: ServerProcess


@pytest.fixture(scope="module")
def processes(model_folder: Path) -> Iterator[Processes]:
    """All started at once, as starting takes seconds."""
    started = Processes(
        patient=ServerProcess(model_folder, step_s=0.05, grace_s=20),
        impatient=ServerProcess(model_folder, step_s=0.05, grace_s=0.5),
        idle=ServerProcess(model_folder, step_s=0, grace_s=2 * PATIENCE_S),
    )
    yield started
    for server in (started.patient, started.impatient, started.idle):
        server.process.kill()
        server.process.communicate()


def stream_text(received: bytes) -> str:
    """The events of a chunked response, without HTTP's own framing."""
    body = b"x" + received.partition(b"\r\n\r\n")[2]
    pieces = []
    rest = body[1:]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        pieces.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return b"".join(pieces).decode()


def test_answers_under_way_are_finished(processes: Processes) -> None:
    server = processes.patient
    stream, whole = server.begin_stream(40), server.begin_answer(40)
    server.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            response = httpx.get(f"{server.url}/ready", trust_env=False)
        except httpx.TransportError:
            break  # no new connections
        assert time.monotonic() < deadline
        if response.status_code != 200:
            assert response.status_code == 503
    events = events_of(stream_text(b"H" + read_all(stream)))
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    assert sum(len(event["choices"][0]["text"]) > 0 for event in events) > 10
    answer = json.loads(read_all(whole).partition(b"\r\n\r\n")[2])
    assert answer["usage"]["completion_tokens"] == 40
    code, log = server.ended()
    assert code == 0
    assert "Traceback" not in log


def test_answers_longer_than_the_grace_period_end_with_an_error(processes: Processes) -> None:
    server = processes.impatient
    stream, whole = server.begin_stream(480), server.begin_answer(480)
    server.process.send_signal(signal.SIGTERM)
    events = events_of(stream_text(b"H" + read_all(stream)))
    assert len(events) > 1
    error = events[-1]["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "shutting down" in error["message"]
    assert error["type"] == "engine_overloaded"
    head, _, body = read_all(whole).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    assert b"retry-after" in head.lower()
    assert "shutting down" in json.loads(body)["error"]["message"]
    code, log = server.ended()
    assert code == 0
    assert "Traceback" not in log


def test_logs_hold_no_content_and_an_idle_server_leaves_at_once(processes: Processes) -> None:
    """At the most talkative level, and also of what was refused or failed: no prompt, no answer, no key."""
    server = processes.idle
    canary = "Kanarienvogel"
    messages = [{"role": "user", "content": canary}, {"role": "system", "content": [{"type": "text", "text": canary}]}]
    headers = {"Authorization": f"Bearer {canary}", "X-Canary": canary, "Cookie": canary, "User-Agent": canary}
    with httpx.Client(base_url=server.url, trust_env=False, headers=headers) as http:
        for path, body in (
            ("/v1/completions", {"model": MODEL, "prompt": canary, "echo": True, "max_tokens": 3, "stop": [canary]}),
            ("/v1/completions", {"model": MODEL, "prompt": canary, "max_tokens": 3, "stream": True, "user": canary}),
            ("/v1/chat/completions", {"model": MODEL, "messages": messages, "max_tokens": 3}),
            ("/v1/edits", {"model": MODEL, "input": canary, "instruction": canary}),
            ("/v1/completions", {"model": MODEL, "prompt": [canary, 1]}),
            ("/v1/completions", {"model": MODEL, "prompt": canary, "temperature": canary}),
            ("/v1/completions", {"model": MODEL, "prompt": canary * 1000}),
            ("/v1/completions", {"model": canary, "prompt": canary}),
            ("/v1/chat/completions", {"model": MODEL, "messages": [{"role": canary, "content": canary}]}),
            (f"/v1/{canary}", {}),
            (f"/v1/completions?api_key={canary}", {"model": MODEL, "prompt": "x", "max_tokens": 1}),
        ):
            assert http.post(path, json=body).status_code < 500
        http.post(
            "/v1/completions", content=b'{"prompt": "' + canary.encode(), headers={"Content-Type": "application/json"}
        )
        http.get("/health", headers={"Host": canary})
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall(canary.encode() + b"\r\n\r\n")
        read_all(sock)
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        server.begin_stream(400).close()
        deadline = time.monotonic() + PATIENCE_S
        while http.get("/health").json()["running"]:
            assert time.monotonic() < deadline
        # The connection is kept open, and must not hold the server up.
        server.process.send_signal(signal.SIGINT)
        server.process.wait(PATIENCE_S)
    code, log = server.ended()
    assert code == 0
    assert "Shutting down" in log, "the log is on"
    assert canary not in log
    assert "Traceback" not in log


def test_a_draining_server_takes_nothing_new(server: RunningServer) -> None:
    state = server.app.state.server
    with server.http() as http:
        assert http.get("/ready").json() == {"status": "ready"}
        state.draining = True
        try:
            ready = http.get("/ready")
            assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
            assert http.get("/health").status_code == 200
            hello = [{"role": "user", "content": "x"}]
            for path, body in (
                ("/v1/completions", {"model": MODEL, "prompt": "x"}),
                ("/v1/completions", {"model": MODEL, "prompt": "x", "stream": True}),
                ("/v1/chat/completions", {"model": MODEL, "messages": hello}),
                ("/v1/edits", {"model": MODEL, "instruction": "x"}),
                (f"/engines/{MODEL}/completions", {"prompt": "x"}),
            ):
                response = http.post(path, json=body)
                assert_error(response, 503, code="engine_overloaded")
                assert int(response.headers["retry-after"]) >= 1
        finally:
            state.draining = False
    assert server.complete(prompt="x", max_tokens=1)
