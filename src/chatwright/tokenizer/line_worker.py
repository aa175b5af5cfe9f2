"""A child process for work on what strangers send: it answers one line with one line, and can be killed where a thread can not."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

START_LIMIT_S = 30.0
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "PATH", "PYTHONHOME", "PYTHONPATH", "TZ", "VIRTUAL_ENV")


class WorkerStartError(Exception):
    """The child does not start."""


class WorkerBrokenError(Exception):
    """The child died, or wrote something that is no answer. `signal`: what killed it, if anything did."""

    def __init__(self, signal: int | None) -> None:
        super().__init__(f"signal {signal}" if signal else "no answer")
        self.signal = signal


class LineWorker:
    """Runs the Python file `script`: starts it at the first use, again after it had to be killed.

    first_line: what it is told when it starts, before it says that it is ready. Safe to use from several threads; they take turns.
    """

    def __init__(self, script: Path, *, first_line: Callable[[], bytes] = lambda: b"") -> None:
        self._script = script
        self._first_line = first_line
        self._lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, line: bytes, *, limit_s: float, max_bytes: int) -> bytes:
        """The answer to `line`, both with a line end. After an error the child is gone.

        Raises TimeoutError after `limit_s`, WorkerBrokenError, WorkerStartError.
        """
        with self._lock:
            process = self._started()
            try:
                return _exchange(process, line, limit_s, max_bytes=max_bytes)
            except TimeoutError:
                self._kill()
                raise
            except (OSError, ValueError) as error:
                signal = _signal_of(process)
                self._kill()
                raise WorkerBrokenError(signal) from error

    def close(self) -> None:
        """End the child; the next `ask` would start another."""
        with self._lock:
            self._kill()

    def _started(self) -> subprocess.Popen[bytes]:
        if self.process is not None and self.process.poll() is None:
            return self.process
        self._kill()
        # The file is run by path, not as a module: importing the package would load what strangers must not reach.
        # -P: its folder stays out of the import path. The environment may hold keys, so little of it is passed on.
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", str(self._script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        )
        try:
            _exchange(process, self._first_line(), START_LIMIT_S, max_bytes=100)
        except (OSError, ValueError) as error:
            _end(process)
            raise WorkerStartError from error
        self.process = process
        self._finalizer = weakref.finalize(self, _end, process)
        return process

    def _kill(self) -> None:
        if self.process is not None:
            self._finalizer()
            self.process = None


def _signal_of(process: subprocess.Popen[bytes]) -> int | None:
    """What killed the child, where it died by itself."""
    try:
        status = process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        return None
    return -status if status < 0 else None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.wait()


def _exchange(process: subprocess.Popen[bytes], line: bytes, limit_s: float, *, max_bytes: int) -> bytes:
    """Write `line` and read one line, within `limit_s`. TimeoutError when late; OSError or ValueError when broken."""
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin.fileno(), process.stdout.fileno()
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
