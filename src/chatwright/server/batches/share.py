"""How much of the engine batches get: a few lines at once while nobody else asks, one beside others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

LOOK_EVERY_S = 0.05


class Share:
    """Places for lines, given in turn. `others`: how many answers are under way or waiting in the engine, ours not counted."""

    def __init__(self, most: int, others: Callable[[int], int]) -> None:
        self.most = most
        self.taken = 0
        self.n_choices = 0
        self._others = others
        self._turn = asyncio.Lock()  # first come, first served: all batches advance

    @asynccontextmanager
    async def place(self, n_choices: int) -> AsyncIterator[None]:
        """Wait for a place and keep it. `n_choices`: answers that the line asks for."""
        async with self._turn:
            # Nobody tells when others have been answered.
            while self.taken >= (1 if self._others(self.n_choices) > 0 else self.most):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_EVERY_S)
            self.taken += 1
            self.n_choices += n_choices
        try:
            yield
        finally:
            self.taken -= 1
            self.n_choices -= n_choices
