"""Minutes and months in which usage is counted, both of UTC, and a clock that does not go back."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from chatwright.store import clock

MINUTE = 60
DAY = 86_400


def minute_of(now: int) -> int:
    """When the minute began."""
    return now - now % MINUTE


def month_of(now: int) -> int:
    """When the month began."""
    return int(datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())


def next_month(now: int) -> int:
    """When the next month begins."""
    return month_of(month_of(now) + 32 * DAY)


class SteadyClock:
    """Unix time that goes on while the process lives, also where somebody sets the machine's clock back.

    That would open no budget, as what was counted in the future counts too, but close those of a minute until the clock has caught
    up.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._at = monotonic()
        self._time = float(clock.now())

    def now(self) -> int:
        """This second."""
        at = self._monotonic()
        self._time = max(float(clock.now()), self._time + at - self._at)
        self._at = at
        return int(self._time)
