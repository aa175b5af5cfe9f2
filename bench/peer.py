"""Systems beside each other, each in a process (and where it needs one, a Python environment) of its own.

A line of JSON asks one of them to measure something, a line of JSON answers. The clock runs in the process that is measured.

Nothing here but Python's own library: the environment of a peer has Chatwright's source tree and the peer's package, no more.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).parents[1]
# Threads that waited for the last measurement in another process may spin for a while yet.
SETTLE_S = 0.2


@dataclass(frozen=True)
class Opening:
    """What a system is asked to load. `kind`: the precision, where it is not the file's. `context`: tokens of all streams."""

    model: str
    kind: str
    threads: int
    max_streams: int
    context: int


class CannotError(Exception):
    """The system has no way to measure this."""


class Peer(Protocol):
    """What is compared. Every system chooses the likeliest token itself, as for an answer. Which tokens a prompt has changes no
    time, so anything will do."""

    def decode(self, n_streams: int, n_prompt: int, n_tokens: int) -> float:
        """Tokens per second of all streams together, each behind a prompt of its own."""

    def prompt(self, n_tokens: int) -> float:
        """Prompt tokens per second, until the first token of an answer."""

    def first_token(self, n_tokens: int) -> tuple[float, float]:
        """Seconds to the first token behind a new prompt, and behind one that differs from it in the last two tokens only."""

    def perplexity(self, windows: Sequence[Sequence[int]]) -> float:
        """Over all tokens but each window's first."""


def serve(load: Callable[[Opening], Peer], packages: Sequence[str]) -> None:
    """The process of a peer: loads what the first line says, then measures until its standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is not an answer
    peer: Peer | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if peer is None:
                peer = load(Opening(**request))
                peer.prompt(1)
                reply: dict[str, Any] = {"value": {package: _version(package) for package in packages}}
            else:
                reply = {"value": getattr(peer, request["measure"])(*request["arguments"])}
        except CannotError as reason:
            reply = {"cannot": str(reason)}
        except Exception as error:  # noqa: BLE001  the edge of the process: the other side says what happened
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


class PeerProcess:
    """A peer as the benchmark sees it; a context manager, which ends the process. `start_s`: from the start of its process until
    its first token."""

    def __init__(self, name: str, module: str, opening: Opening, python: str = sys.executable) -> None:
        """`module`: one whose `main` calls `serve`. Raises RuntimeError when the peer cannot load the model."""
        self.name = name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [python, "-m", module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        try:
            self.versions: dict[str, str] = self._ask(asdict(opening))
        except BaseException:
            self.close()
            raise
        self.start_s = time.perf_counter() - start

    def decode(self, n_streams: int, n_prompt: int, n_tokens: int) -> float:
        """See Peer."""
        return float(self._measure("decode", n_streams, n_prompt, n_tokens))

    def prompt(self, n_tokens: int) -> float:
        """See Peer."""
        return float(self._measure("prompt", n_tokens))

    def first_token(self, n_tokens: int) -> tuple[float, float]:
        """See Peer."""
        cold_s, cached_s = self._measure("first_token", n_tokens)
        return cold_s, cached_s

    def perplexity(self, windows: Sequence[Sequence[int]]) -> float:
        """See Peer."""
        return float(self._measure("perplexity", windows))

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self._log.close()

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _measure(self, what: str, *arguments: Any) -> Any:
        time.sleep(SETTLE_S)
        return self._ask({"measure": what, "arguments": arguments})

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            line = ""
        else:
            line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended: {self._last_words()}")
        reply = json.loads(line)
        if "cannot" in reply:
            raise CannotError(f"{self.name}: {reply['cannot']}")
        if "error" in reply:
            raise RuntimeError(f"{self.name}: {reply['error']}\n{self._last_words()}")
        return reply["value"]

    def _last_words(self) -> str:
        self._log.seek(0)
        return self._log.read()[-2000:]


def has_package(python: str, package: str) -> bool:
    """Whether that environment has a package."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "?"
