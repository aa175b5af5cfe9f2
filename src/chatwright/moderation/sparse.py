"""Products with a sparse matrix, in NumPy: a sentence has some sixty of ten thousand features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Sparse:
    """(N, F) from the columns and values of each row. Every row and every column must hold something."""

    def __init__(self, columns: Sequence[Sequence[int]], values: Sequence[Sequence[float]], n_columns: int) -> None:
        lengths = [len(row) for row in columns]
        row_K = np.repeat(np.arange(len(columns)), lengths)
        column_K = np.array([column for row in columns for column in row], dtype=np.intp)
        value_K = np.array([value for row in values for value in row], dtype=np.float32)
        assert min(lengths) > 0
        assert len(np.unique(column_K)) == n_columns
        self.shape = (len(columns), n_columns)
        order = np.argsort(column_K, kind="stable")
        self._by_row = (column_K, value_K[:, None], _starts(row_K))
        self._by_column = (row_K[order], value_K[order, None], _starts(column_K[order]))

    def times(self, w_FC: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, C)"""
        return _sums(w_FC, *self._by_row)

    def transposed_times(self, e_NC: NDArray[np.float32]) -> NDArray[np.float32]:
        """(F, C)"""
        return _sums(e_NC, *self._by_column)


def _starts(sorted_K: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.flatnonzero(np.diff(sorted_K, prepend=-1))


def _sums(
    m: NDArray[np.float32], places_K: NDArray[np.intp], value_K1: NDArray[np.float32], starts: NDArray[np.intp]
) -> NDArray[np.float32]:
    sums: NDArray[np.float32] = np.add.reduceat(m[places_K] * value_K1, starts, axis=0)
    return sums
