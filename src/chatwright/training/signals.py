"""SIGTERM and Ctrl-C ask a run to save and end; asked a second time, it ends at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self


class StopSignals:
    """While the block runs, `received` is the number of the first signal that asked to stop, or None.

    A second signal ends the process at once, with the last whole checkpoint on disk: whoever sends it has waited long enough.
    """

    def __init__(self, on_first: Callable[[int], None] | None = None) -> None:
        self.received: int | None = None
        self.on_first = on_first
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python does not let us, and nobody asks
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), b"\x1b[?25h\n")  # a progress bar has hidden the cursor
            os._exit(128 + number)
        self.received = number
        if self.on_first is not None:
            self.on_first(number)
