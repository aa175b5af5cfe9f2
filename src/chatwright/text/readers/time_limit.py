"""An end to parsers that a hostile or broken file would keep busy for ever."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chatwright.text.readers.unit import Refused
from chatwright.text.reasons import Detail

# Seconds of processor time, so that a busy machine drops nothing: ten times what the slowest good files here took.
SECONDS, SECONDS_PER_MB = 120.0, 60.0


@contextmanager
def time_limit(n_bytes: int) -> Iterator[None]:
    """Raises Refused inside the block when it has computed for too long for a file of `n_bytes`.

    By a timer of this process's own time (POSIX). Parsers catch everything and go on with half a file: it goes off again every
    second, and what they give after all is refused. Without effect off the main thread, where Python delivers no signals, and on
    Windows.
    """
    most = SECONDS + SECONDS_PER_MB * n_bytes / 1e6
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    refused: list[Refused] = []

    def stop(_number: int, _frame: Any) -> None:
        detail = Detail("not done after {n:.0f} seconds: open it and save a copy, or leave it out", n=most)
        refused.append(Refused("too slow", detail))
        raise refused[0]

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, most, 1.0)
    try:
        yield
        if refused:
            raise refused[0]
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
