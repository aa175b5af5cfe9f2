"""A text longer than the context in windows, as in `bits_per_byte`: every token once, with half a context before it at least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def windows(ids: Sequence[int], context_length: int) -> Iterator[tuple[Sequence[int], int]]:
    """(ids of a window, how many of them at its end are scored); `ids[0]` begins the document and is not scored."""
    stride = max(1, context_length // 2)
    start, scored = 0, 1
    while scored < len(ids):
        end = min(len(ids), start + context_length)
        if end > scored:
            yield ids[start:end], end - scored
            scored = end
        start += stride
