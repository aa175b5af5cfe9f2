"""Which rows a step sees: a pure function of the seed and the step, so that nothing else is needed to go on after a kill.

Sample i of the whole run is row `permutation(epoch)[i % n_rows]` with epoch i // n_rows: every row once an epoch, also when steps
straddle epochs (nanochat lost its place there, 72a7cf2). The ranks of a distributed run take contiguous shares of each step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MicroBatch:
    """Rows that pass through the model together, all of one epoch. `first`: the number of the first sample within the run."""

    epoch: int
    rows: tuple[int, ...]
    first: int


class RowOrder:
    """The order of `n_rows` rows under a seed."""

    def __init__(self, seed: int, n_rows: int) -> None:
        assert n_rows > 0
        self.seed, self.n_rows = seed, n_rows
        self._permutations: OrderedDict[int, NDArray[np.int64]] = OrderedDict()

    def micro_batches(
        self, step: int, batch_rows: int, micro_rows: int, rank: int = 0, world_size: int = 1
    ) -> list[MicroBatch]:
        """What one rank computes in one step, in order. All ranks' together are the step's `batch_rows` samples, each once."""
        first = step * batch_rows + rank * batch_rows // world_size
        last = step * batch_rows + (rank + 1) * batch_rows // world_size
        return list(self._cut(first, last, micro_rows))

    def _cut(self, first: int, last: int, micro_rows: int) -> Iterator[MicroBatch]:
        while first < last:
            epoch, position = divmod(first, self.n_rows)
            n = min(micro_rows, last - first, self.n_rows - position)
            rows = self._permutation(epoch)[position : position + n]
            yield MicroBatch(epoch, tuple(rows.tolist()), first)
            first += n

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._permutations:
            generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
            self._permutations[epoch] = generator.permutation(self.n_rows)
            if len(self._permutations) > 2:  # a step reaches into two epochs; more only where rows are few
                self._permutations.popitem(last=False)
        return self._permutations[epoch]
