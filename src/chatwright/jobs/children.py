"""Workers as the server sees them: started, found again after a restart, asked to stop, gone some day."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

import chatwright
from chatwright.errors import StorageError
from chatwright.jobs.budget import Budget, Phase
from chatwright.jobs.folder import LOG, JobFolder
from chatwright.machine import share_cores

# A worker that was asked to stop may save first: of a large model that takes a while. Whoever cancels waits for nothing.
PAUSE_S, CANCEL_S = 300.0, 10.0
# The server's own; a worker reads no settings, and what it does not have it can not tell.
HIDDEN_VARIABLES = ("CHATWRIGHT_", "OPENAI_")


@dataclass
class Child:
    """A living worker, ours or that of the server before. `phase`: None where that server knew it and we do not."""

    folder: JobFolder
    process: psutil.Process | subprocess.Popen[bytes]
    phase: Phase | None = None
    asked_at: float | None = field(default=None)

    @classmethod
    def start(cls, folder: JobFolder, phase: Phase, budget: Budget) -> Self:
        """In a session of its own: neither Ctrl-C nor the end of the server ends it. Raises StorageError."""
        root = str(Path(chatwright.__file__).resolve().parents[1])
        search = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(HIDDEN_VARIABLES)}
        share_cores(inherited)
        try:
            with (folder.path / LOG).open("ab") as log:
                popen = subprocess.Popen(  # noqa: S603  our own program
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        "chatwright.jobs.worker",
                        phase,
                        str(folder.path),
                        budget.to_json(),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=folder.path,
                    start_new_session=True,
                    env={
                        **inherited,
                        "PYTHONPATH": search,
                        # Events and errors on the wire are English.
                        "CHATWRIGHT_LANGUAGE": "en",
                        "OMP_NUM_THREADS": str(budget.n_threads),
                    },
                )
        except OSError as error:
            raise StorageError(
                "The process of the job {id} cannot be started: {reason}.", id=folder.id, reason=error.strerror
            ) from error
        return cls(folder, popen, phase)

    @classmethod
    def found(cls, folder: JobFolder) -> Self | None:
        """The worker that somebody else started, if there is one."""
        process = folder.worker()
        return None if process is None else cls(folder, process)

    def is_alive(self) -> bool:
        """Whether it is there; reaped when it is not."""
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll() is None
        try:
            return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    @property
    def exit_code(self) -> int | None:
        """Of one of ours that is gone; negative: the number of the signal that ended it."""
        return self.process.returncode if isinstance(self.process, subprocess.Popen) else None

    def stop(self, *, to_keep: bool) -> None:
        """Ask it to end, again and again until it has: it saves first where what it has done is to be kept, and is killed where it
        takes too long."""
        now = time.monotonic()
        if self.asked_at is None:
            self.asked_at = now
            self._send(signal.SIGTERM)
        elif now - self.asked_at > (PAUSE_S if to_keep else CANCEL_S):
            self.kill()

    def kill(self) -> None:
        """At once: what it was writing is not whole, and is not taken for it."""
        self._send(getattr(signal, "SIGKILL", signal.SIGTERM))

    def _send(self, number: int) -> None:
        with suppress(psutil.Error, OSError):
            if self.is_alive():
                self.process.send_signal(number)
