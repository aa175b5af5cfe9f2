"""Text that must wait: a stop string can be split over several tokens, so what might be its beginning is held back."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Looks for stop strings in a growing text. `push` says how much of what was pushed so far is safe to show; `found` is the stop
    string that came."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        # Only the end of the text can begin a match that is not complete yet; nothing before it is kept.
        self._longest = max((len(stop) for stop in self._stops), default=1)
        self._tail = ""
        self._n_before_tail = 0
        self.found: str | None = None

    def push(self, text: str) -> tuple[int, bool]:
        """Add text. Returns (n, stopped): the first n characters of the whole text are safe, and whether a stop came,
        which then begins at n. Of several stop strings the one that begins first counts."""
        self._tail += text
        starts = [(start, stop) for stop in self._stops if (start := self._tail.find(stop)) >= 0]
        if starts:
            start, self.found = min(starts)
            return self._n_before_tail + start, True
        n_held = self._n_held()
        n_safe = self._n_before_tail + len(self._tail) - n_held
        cut = max(0, len(self._tail) - self._longest + 1)
        self._n_before_tail += cut
        self._tail = self._tail[cut:]
        return n_safe, False

    def _n_held(self) -> int:
        """Length of the longest end of the text that begins some stop string."""
        return max(
            (
                n
                for stop in self._stops
                for n in range(1, min(len(stop), len(self._tail) + 1))
                if self._tail.endswith(stop[:n])
            ),
            default=0,
        )
