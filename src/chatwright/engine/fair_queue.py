"""Who is next: owners take turns, the choices of one owner come in their order, and what was interrupted goes on first."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterator

from chatwright.engine.sequence import Sequence

# A round ends when so many owners have had their turn in it, lest owners that nobody has seen before overtake for ever.
MOST_IN_A_ROUND = 64


class FairQueue:
    """Waiting choices. `next` looks, `take` takes: in between the scheduler sees whether there is room."""

    def __init__(self) -> None:
        self._interrupted: deque[Sequence] = deque()
        # In the order in which they came, or had their last turn. An owner without waiting choices is not here.
        self._by_owner: OrderedDict[str, deque[Sequence]] = OrderedDict()
        self._n = 0
        # Whose next turn is in a later round: they have had one, and may have nothing waiting now.
        self._had_turn: set[str] = set()

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[Sequence]:
        yield from self._interrupted
        for queue in self._by_owner.values():
            yield from queue

    def add(self, sequence: Sequence) -> None:
        """Queue behind what its owner already has waiting."""
        self._by_owner.setdefault(sequence.group.request.owner, deque()).append(sequence)
        self._n += 1

    def put_back(self, sequence: Sequence) -> None:
        """Queue what was running, before everything that has not started yet, and before what is put back earlier: those
        that came last are interrupted first."""
        self._interrupted.appendleft(sequence)
        self._n += 1

    def next(self, without: Collection[str] = ()) -> Sequence | None:
        """Whose turn it is, but for the owners `without`; None where all wait for a sibling that computes their prompt."""
        if self._interrupted:
            return self._interrupted[0]
        later = None
        for owner, queue in self._by_owner.items():
            if owner not in without and not queue[0].group.prompt_under_way():
                if owner not in self._had_turn:
                    return queue[0]
                later = later or queue[0]
        return later

    def take(self, sequence: Sequence) -> None:
        """Remove one that starts now; its owner has had this turn."""
        owner = sequence.group.request.owner
        interrupted = sequence in self._interrupted
        self.remove(sequence)
        if interrupted:  # its owner had the turn before
            return
        if owner in self._had_turn or len(self._had_turn) == MOST_IN_A_ROUND:
            self._had_turn.clear()  # the next round begins
        self._had_turn.add(owner)
        if owner in self._by_owner:
            self._by_owner.move_to_end(owner)

    def remove(self, sequence: Sequence) -> None:
        """Remove one, wherever it waits."""
        owner = sequence.group.request.owner
        queue = self._by_owner.get(owner)
        if queue is not None and sequence in queue:
            queue.remove(sequence)
            if not queue:
                del self._by_owner[owner]
        else:
            self._interrupted.remove(sequence)
        self._n -= 1
