"""The curves of a run as TensorBoard reads them.

tensorboardX's writer of files is used without its thread and queue: those waited for each other forever where a memory limit kept
the thread from starting, and lost the last minutes when the run was killed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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
        self.folder = run.path / TENSORBOARD
        with self._a_sentence():
            self.folder.mkdir(exist_ok=True)
            self.writer = EventsWriter(str(self.folder / "events"), filename_suffix=f".{os.getpid()}")
            if step:
                start = SessionLog(status=SessionLog.START)
                self.writer.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))
        self.flushed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file. Raises StorageError, but never in place of the error that ends the block."""
        try:
            with self._a_sentence():
                self.writer.close()
        except StorageError:
            with suppress(OSError):  # its flush failed before it came to the file; closed, nothing is tried once more
                self.writer._py_recordio_writer.close()
            if error is None:
                raise

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """One point on each curve. Raises StorageError."""
        with self._a_sentence():
            for name, value in figures.items():
                self.writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        if time.monotonic() - self.flushed > _FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Puts what was added into the file. Raises StorageError."""
        with self._a_sentence():
            self.writer.flush()
        self.flushed = time.monotonic()

    @contextmanager
    def _a_sentence(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError("{path} cannot be written: {reason}", path=self.folder, reason=error.strerror) from error
