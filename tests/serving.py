"""Starting `chatwright serve` as a user does: a process of its own, on a free port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass(frozen=True)
class Server:
    """A running server. `log`: what it prints."""

    url: str
    process: subprocess.Popen[str]
    log: Path


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def serve(
    model_home: Path,
    *arguments: str,
    start_timeout_s: float = 90,
    python: str | Path = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Run `chatwright serve` on the models of `model_home` until the block ends. Its own home is empty and thrown away:
    one home has one server. What it printed is shown when it does not start. `python`: where Chatwright is installed, if not
    here; `environment`: settings beside those."""
    port = free_port()
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CHATWRIGHT_", "OPENAI_", "PYTHONPATH"))
    }
    with tempfile.TemporaryDirectory() as home, (Path(home) / "log").open("w+") as output:
        process = subprocess.Popen(
            [python, "-m", "chatwright", "serve", "--port", str(port), *arguments],
            env={
                **inherited,
                "CHATWRIGHT_HOME": home,
                "CHATWRIGHT_MODELS_DIR": str(model_home / "models"),
                "LANG": "C.UTF-8",
                **(environment or {}),
            },
            cwd=home,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + start_timeout_s
            while not _is_ready(url):
                said = (Path(home) / "log").read_text()
                assert process.poll() is None, f"the server ended with {process.returncode}: {said}"
                assert time.monotonic() < deadline, f"the server did not start: {said}"
                time.sleep(0.1)
            yield Server(url, process, Path(home) / "log")
        finally:
            process.terminate()
            process.wait(60)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
