"""The model as an engine in this process sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from chatwright.engine.scheduler import Chunk
from chatwright.engine.sequence import Sequence as Choice


class Runner(Protocol):
    """`kernels.runner.KernelRunner`, `runner.ModelRunner` or `recurrent.RecurrentRunner`."""

    def allocate(self, n_blocks: int) -> None:
        """Make room for blocks 0 … n_blocks - 1 of BLOCK_TOKENS tokens. Called once, before the first step."""

    def step(self, chunks: list[Chunk]) -> list[NDArray[np.float32]]:
        """Keys and values of the chunks go to the blocks of their sequences. Logits of each chunk: (n, V) of its last token, of
        all its tokens where the prompt is scored, or of none; valid until the next step."""

    def embed(self, ids: Sequence[int]) -> list[float]:
        """One vector for a text."""

    def read_adapter(self, path: Path) -> Any:
        """A LoRA adapter as `add_adapter` takes it; called beside steps. Raises ModelNotFoundError, InvalidModelError."""

    def add_adapter(self, name: str, adapter: Any) -> None:
        """Requests may name it from now on; called between two steps, like all that follows."""

    def remove_adapter(self, name: str) -> None:
        """No request names it any more."""

    def free(self, sequence: Choice) -> None:
        """Drop what is kept for a sequence beside its blocks: it is over, or preempted and begins again."""
