"""Which conversations share a row: best-fit-decreasing bin packing, so that little of a fixed length is padding."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `lengths` in bins of at most `capacity` in total, every index in exactly one.

    The longest come first, each into the bin that it leaves least room in (Johnson 1973: at most 11/9 of the optimum + 6/9 of
    a bin). Lengths are from 1 to `capacity`: what is longer was cut before, or it would never fit and packing never end.
    """
    bins: list[list[int]] = []
    by_room: dict[int, list[int]] = {}  # room left → bins, the latest last
    rooms: list[int] = []  # keys of by_room, sorted
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        length = lengths[index]
        assert 1 <= length <= capacity
        at = bisect_left(rooms, length)
        if at == len(rooms):
            room, chosen = capacity, len(bins)
            bins.append([])
        else:
            room = rooms[at]
            chosen = by_room[room].pop()
            if not by_room[room]:
                del by_room[room], rooms[at]
        bins[chosen].append(index)
        if (left := room - length) not in by_room:
            by_room[left] = []
            insort(rooms, left)
        by_room[left].append(chosen)
    return bins
