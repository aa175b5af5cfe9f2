"""Who waits for the events of a request, and the place in the queue that the request takes."""

from __future__ import annotations

import asyncio
from collections import Counter

from chatwright.engine.protocol import EngineEvent, FinishEvent


class Subscriber:
    """Where the events of one request go: a queue on the event loop that asked.

    `n_running` choices are not over; when the last is, the request leaves its place to the next, whether its events were read
    or not.
    """

    def __init__(self, n: int, places: Counter[str], owner: str) -> None:
        self.loop = asyncio.get_running_loop()
        # Bounded by n x max_tokens: a reader that stalls delays nobody, the engine does not wait for it.
        self.events: asyncio.Queue[EngineEvent] = asyncio.Queue()
        self.n_running = n
        self.places, self.owner, self.has_place = places, owner, True
        places[owner] += 1

    def put(self, event: EngineEvent) -> None:
        """Hand an event to the reader."""
        self.events.put_nowait(event)
        if isinstance(event, FinishEvent):
            self.n_running -= 1
            if not self.n_running:
                self.leave()

    def leave(self) -> None:
        """Give the place back, once."""
        if self.has_place:
            self.has_place = False
            self.places[self.owner] -= 1
            if not self.places[self.owner]:
                del self.places[self.owner]
