"""Which clusters are held out: chosen by a hash of their first row's content and the seed, kind by kind, up to a share.

The same row falls on the same side however many workers there were, and mostly so when other rows are added. A cluster that is
larger than the whole share stays in train: held-out text should be varied. Where rows of several kinds are in one cluster, what is
held out for one kind counts for the others.
"""

from __future__ import annotations

import numpy as np
import xxhash
from numpy.typing import NDArray

from chatwright.text.manifest import Kind

DEFAULT_SHARE = 0.05
_MAX_DEFAULT_BYTES = 20_000_000  # more tells no more, and takes its time at every evaluation
_MAX_DEFAULT_ROWS = 5_000
_MIN_DEFAULT_ROWS = 20  # while that is no more than a fifth


def target(kind: Kind, share: float | None, n_rows: int, n_bytes: int) -> tuple[float, bool]:
    """(how much to hold out, whether that is in bytes). Documents are counted in bytes, examples in rows."""
    by_bytes = kind == "documents"
    total = n_bytes if by_bytes else n_rows
    if share is not None:
        return share * total, by_bytes
    wanted = DEFAULT_SHARE * n_rows
    least = min(_MIN_DEFAULT_ROWS, n_rows / 5)
    fraction = max(wanted, least, 1.0 if n_rows > 1 else 0.0) / max(n_rows, 1)
    most = _MAX_DEFAULT_BYTES if by_bytes else _MAX_DEFAULT_ROWS
    return min(fraction * total, most), by_bytes


def held_out_clusters(
    sizes: NDArray[np.int64],
    keys: NDArray[np.uint64],
    wanted: float,
    seed: int,
    taken: NDArray[np.bool_] | None = None,
    too_large: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """(clusters,) which are held out. sizes: (clusters,) rows or bytes; keys: (clusters, 2) the hash of each one's first row.

    taken: held out already for another kind; these stay. too_large: for the share of another kind; they are avoided. At least one
    where anything is wanted and two clusters exist; never all, unless all are taken.
    """
    chosen = np.zeros(len(sizes), np.bool_) if taken is None else taken.copy()
    already = int(sizes[chosen].sum())
    if wanted <= already or len(sizes) < 2:
        return chosen
    salt = np.uint64(xxhash.xxh3_64_intdigest(f"held out {seed}".encode()))
    mixed = (keys[:, 0] ^ salt) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    order = np.lexsort((keys[:, 1], keys[:, 0], mixed * np.uint64(0xBF58476D1CE4E5B9)))
    fits = (sizes <= wanted) & ~chosen
    if too_large is not None:
        fits &= ~too_large
    order = order[fits[order]]
    if len(order):
        chosen[order[np.cumsum(sizes[order]) <= wanted - already]] = True
    elif not already:
        chosen[np.argmin(sizes)] = True  # all are larger than what is wanted: the smallest
    if chosen.all():
        free = np.flatnonzero(np.ones(len(sizes), np.bool_) if taken is None else ~taken)
        chosen[free[np.argmax(sizes[free])]] = False
    return chosen
