"""Renders chat templates in a child process that can be killed: a thread that loops can not."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chatwright.errors import EngineError

START_LIMIT_S = 30.0
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "PATH", "PYTHONHOME", "PYTHONPATH", "TZ", "VIRTUAL_ENV")


class TemplateFailedError(Exception):
    """A template did not render. `kind`: "raised", "refused" or "failed", as `template_worker.answer` says."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class TemplateRenderer:
    """The one renderer of chat templates. Starts its worker at the first use, again after it had to be killed.

    time_limit_s: for one rendering. Safe to use from several threads; they take turns.
    """

    def __init__(self, *, time_limit_s: float = 2.0) -> None:
        self.time_limit_s = time_limit_s
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[bytes] | None = None

    def render(self, source: str, variables: Mapping[str, Any]) -> str:
        """The template `source` rendered with JSON-like `variables`.

        Raises TemplateFailedError when the template does not render, takes too long, or needs too much memory.
        """
        return self.render_cuts(source, variables, [None])[0]

    def render_cuts(
        self, source: str, variables: Mapping[str, Any], cuts: Sequence[tuple[int, bool] | None]
    ) -> list[str]:
        """`render` once for each cut (n, add_generation_prompt), with the first n of variables["messages"]; in one exchange
        with the worker, as thousands of conversations are rendered before a training.
        """
        encoded = json.dumps(variables)
        # No honest template repeats its messages more than a few times.
        max_chars = 2**20 + 4 * (len(encoded) + len(source))
        limit_s = self.time_limit_s * len(cuts)
        settings = json.dumps({"source": source, "cuts": cuts, "time_limit_s": limit_s, "max_chars": max_chars})
        line = f'{settings[:-1]}, "variables": {encoded}}}\n'.encode()
        with self._lock:
            worker = self._started()
            try:
                replies = json.loads(_exchange(worker, line, limit_s, max_bytes=12 * max_chars * len(cuts)))
                texts = [reply["text"] for reply in replies if "text" in reply]
            except TimeoutError as error:
                self._kill()
                raise TemplateFailedError("refused", f"it takes longer than {limit_s:g} s") from error
            except (OSError, ValueError, TypeError) as error:  # the worker died, or was made to write something else
                self._kill()
                raise TemplateFailedError("refused", "it broke the process that renders it") from error
        if len(texts) < len(cuts):
            raise TemplateFailedError(replies[-1]["kind"], replies[-1]["error"])
        return texts

    def close(self) -> None:
        """End the worker; the next `render` would start another."""
        with self._lock:
            self._kill()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._worker is not None and self._worker.poll() is None:
            return self._worker
        self._kill()
        # The file is run by path, not as a module: importing the package would load what a template must not reach.
        # -P: its folder stays out of the import path. The environment may hold keys, so little of it is passed on.
        worker = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", str(Path(__file__).with_name("template_worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        )
        try:
            _exchange(worker, b"", START_LIMIT_S, max_bytes=100)
        except (OSError, ValueError) as error:
            _end(worker)
            raise EngineError("The process that renders chat templates does not start.") from error
        self._worker = worker
        self._finalizer = weakref.finalize(self, _end, worker)
        return worker

    def _kill(self) -> None:
        if self._worker is not None:
            self._finalizer()
            self._worker = None


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            pipe.close()
    worker.wait()


def _exchange(worker: subprocess.Popen[bytes], line: bytes, limit_s: float, *, max_bytes: int) -> bytes:
    """Write `line` and read one line, within `limit_s`. TimeoutError when late; OSError or ValueError when broken."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    stdin, stdout = worker.stdin.fileno(), worker.stdout.fileno()
    deadline = time.monotonic() + limit_s
    unsent, received = memoryview(line), bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        if unsent:
            os.set_blocking(stdin, False)
            selector.register(stdin, selectors.EVENT_WRITE)
        while not received.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            ready = selector.select(left_s) if left_s > 0 else []
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if key.fd == stdin:
                    unsent = unsent[os.write(stdin, unsent[:65536]) :]
                    if not unsent:
                        selector.unregister(stdin)
                else:
                    chunk = os.read(stdout, 1 << 20)
                    if not chunk or len(received) + len(chunk) > max_bytes:
                        raise ValueError("no answer")
                    received += chunk
    return bytes(received)
