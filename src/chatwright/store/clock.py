"""The time, as the store writes it down: whole seconds of Unix time, as everywhere on OpenAI's wire."""

from __future__ import annotations

import time
from time import monotonic


def now() -> int:
    """This second. Called through the module (`clock.now()`), so that a test can set the clock."""
    return int(time.time())


class Expiry:
    """The time by which keys, sessions and links expire. While a process runs it does not go back with the machine's clock before
    what expired until then is closed for good: a clock that is set back would open what nobody had sent in between."""

    def __init__(self) -> None:
        self._wall, self._at = 0, monotonic()

    def now(self) -> int:
        """This second, or a later one: that which it would be, had nobody set the clock back."""
        wall, expected = now(), self._expected()
        if wall >= expected:
            self.follow()
        return max(wall, int(expected))

    @property
    def is_set_back(self) -> bool:
        """Whether the clock says an earlier time than it should: close what is over by `now`, and then `follow` it."""
        return now() + 1 < self._expected()  # whole seconds: it is always up to one behind

    def follow(self) -> None:
        """Go on from what the clock says, whatever it said before."""
        self._wall, self._at = now(), monotonic()

    def _expected(self) -> float:
        return self._wall + (monotonic() - self._at)
