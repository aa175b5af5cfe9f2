"""A process that ends when its parent does, however that ended and whatever this one is doing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int) -> None:
    """Bind this process's life to the process that started it, whose end of our standard input stays open while it lives.

    Where the kernel can, it kills this process (Linux: when the thread that started it ends); elsewhere, and where that thread
    is not the last one, the end of standard input does.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # It may have died before that, or before there was a pipe to break.
    if hasattr(os, "getppid") and os.getppid() != parent_pid:
        os._exit(0)
    threading.Thread(target=_exit_at_end_of_input, name="lifeline", daemon=True).start()


def _exit_at_end_of_input() -> None:
    """Blocks in a thread of its own, as the event loop may be busy loading a model."""
    while os.read(0, 4096):
        pass
    os._exit(0)
