"""A running `chatwright serve` with its engine processes, as tests see it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest

from tests.cli.test_serve import Process, read_until

PATIENCE_S = 60.0


@dataclass
class Served:
    """A running `chatwright serve`."""

    process: subprocess.Popen[str]
    url: str
    said: str

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, trust_env=False, timeout=PATIENCE_S)

    def complete(self, model: str, max_tokens: int = 4, **body: Any) -> httpx.Response:
        sent = {"model": model, "prompt": "The", "max_tokens": max_tokens, "logit_bias": {"2": -100}, **body}
        return httpx.post(f"{self.url}/v1/completions", json=sent, trust_env=False, timeout=PATIENCE_S)

    def health(self) -> dict[str, Any]:
        health: dict[str, Any] = self.get("/health").json()
        return health

    def states(self) -> dict[str, str]:
        """Model → status of its engine."""
        return {engine["model"]: engine["status"] for engine in self.health()["engines"]}

    def engines(self) -> list[psutil.Process]:
        """Its engine processes."""
        children = psutil.Process(self.process.pid).children()
        living = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
        return [child for child in living if "chatwright.engine.process.child" in child.cmdline()]

    @property
    def engine(self) -> psutil.Process:
        (engine,) = self.engines()
        return engine


Serve = Callable[..., Served]


@pytest.fixture
def served(process: Process) -> Iterator[Serve]:
    """Starts servers, and ends them in good order."""
    started: list[Served] = []

    def serve(*args: str) -> Served:
        server = process("serve", *args, "--port", "0")
        said = read_until(server, "Ctrl-C stops the server")
        url = said.split("Chatwright is running: ")[1].split()[0]
        started.append(Served(server, url, said))
        return started[-1]

    yield serve
    for each in started:
        if each.process.poll() is None:
            engines = each.engines()
            each.process.send_signal(signal.SIGTERM)
            rest = each.process.communicate(timeout=PATIENCE_S)[1]
            assert each.process.returncode == 0, rest
            assert "Traceback" not in rest
            assert not any(engine.is_running() for engine in engines)


def until(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def begin_stream(server: Served, model: str) -> Iterator[str]:
    """A long answer whose first piece has come."""
    client = httpx.Client(trust_env=False, timeout=PATIENCE_S)
    body = {"model": model, "prompt": "The", "max_tokens": 480, "stream": True, "logit_bias": {"2": -100}}
    request = client.build_request("POST", f"{server.url}/v1/completions", json=body)
    response = client.send(request, stream=True)
    assert response.status_code == 200
    lines = response.iter_lines()
    assert next(lines).startswith("data: {")
    return lines


def events_after(lines: Iterator[str]) -> list[str]:
    return [line.removeprefix("data: ") for line in lines if line]
