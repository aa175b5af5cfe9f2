"""Connected components over arrays: which rows belong together, given pairs that do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class Components:
    """A forest over n rows in which every root is the smallest row of its component, whatever the order of the pairs."""

    def __init__(self, n: int) -> None:
        self.parent = np.arange(n, dtype=np.uint32 if n < 2**32 else np.uint64)

    def roots(self, rows: Rows) -> Rows:
        """The root of each of some rows."""
        found = self.parent[rows].astype(np.int64)
        while True:
            above = self.parent[found].astype(np.int64)
            if np.array_equal(above, found):
                return found
            found = above

    def join(self, left: Rows, right: Rows) -> None:
        """Join the components of left[i] and right[i], for every i."""
        while len(left):
            left, right = self.roots(left), self.roots(right)
            apart = left != right
            left, right = left[apart], right[apart]
            low, high = np.minimum(left, right), np.maximum(left, right)
            # Of several pairs with the same root above, the smallest one wins; the others come round again.
            np.minimum.at(self.parent, high, low.astype(self.parent.dtype))

    def labels(self) -> NDArray[Any]:
        """(n,) the root of every row."""
        while True:
            above = self.parent[self.parent]
            if np.array_equal(above, self.parent):
                return self.parent
            self.parent = above
