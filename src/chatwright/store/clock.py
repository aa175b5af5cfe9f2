"""The time, as the store writes it down: whole seconds of Unix time, as everywhere on OpenAI's wire."""

from __future__ import annotations

import time


def now() -> int:
    """This second. Called through the module (`clock.now()`), so that a test can set the clock."""
    return int(time.time())
