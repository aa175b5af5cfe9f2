"""The curves of a run as TensorBoard reads them.

tensorboardX's writer of files is used without its thread and queue: those waited for each other forever where a memory limit kept
the thread from starting, and lost the last minutes when the run was killed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from chatwright.errors import StorageError
from chatwright.training.run import TENSORBOARD, Run

_FLUSH_EVERY_S = 5.0


class Curves:
    """Writes scalars. `step`: where the run goes on; what an earlier process wrote beyond it is hidden by TensorBoard."""

    def __init__(self, run: Run, step: int) -> None:
        folder = run.path / TENSORBOARD
        try:
            folder.mkdir(exist_ok=True)
            self.writer = EventsWriter(str(folder / "events"), filename_suffix=f".{os.getpid()}")
        except OSError as error:
            raise StorageError("{path} cannot be written: {reason}", path=folder, reason=error.strerror) from error
        self.flushed = time.monotonic()
        if step:
            start = SessionLog(status=SessionLog.START)
            self.writer.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """One point on each curve. Raises StorageError."""
        try:
            for name, value in figures.items():
                self.writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
            if time.monotonic() - self.flushed > _FLUSH_EVERY_S:
                self.flush()
        except OSError as error:
            raise StorageError("{path} cannot be written: {reason}", path=TENSORBOARD, reason=error.strerror) from error

    def flush(self) -> None:
        """Puts what was added into the file."""
        self.writer.flush()
        self.flushed = time.monotonic()
