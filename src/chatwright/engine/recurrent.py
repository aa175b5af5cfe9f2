"""The runner of recurrent models: a state of fixed size for each sequence, where the Transformer's runner keeps keys and values.

Beside the newest state, that of the beginning of the last chunk is kept, so that a step that failed can be computed again. There
are no blocks to find a beginning in, so every choice computes its prompt: the scheduler's prefix cache must be off.
"""

from __future__ import annotations

from collections.abc import Sequence as Ids
from pathlib import Path
from typing import Never, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from chatwright.engine.device import find_device, free_bytes
from chatwright.engine.scheduler import Chunk
from chatwright.engine.sequence import Sequence
from chatwright.errors import InvalidModelError
from chatwright.model.rnn import RNN, State
from chatwright.model.rnn_folder import load_rnn

KEPT_STATES = 2


class RecurrentRunner:
    """Runs steps on one recurrent model and owns the states of its sequences (see `ModelRunner` for what each call does)."""

    def __init__(self, model: RNN) -> None:
        self.model = model
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        # sequence → number of tokens read → state after them; None before the first
        self.caches: dict[Sequence, dict[int, State | None]] = {}

    @classmethod
    def load(cls, path: Path, *, device: str, n_threads: int) -> RecurrentRunner:
        """The model at `path` on the device of that name, in fp32. Raises InvalidModelError, UsageError."""
        torch.set_num_threads(n_threads)
        return cls(load_rnn(path, device=find_device(device)))

    @property
    def described(self) -> str:
        """What computes, in a line for the log."""
        return "PyTorch, a recurrent model"

    def free_bytes(self) -> int:
        """Memory that is free where the model lies."""
        return free_bytes(self.device)

    def cache_bytes_per_token(self) -> int:
        """The states of a sequence, spread over the tokens that it may have: they do not grow."""
        config = self.model.config
        n_parts = 2 if config.cell == "lstm" else 1
        state_bytes = n_parts * config.n_layer * config.d_model * self.dtype.itemsize
        return max(1, KEPT_STATES * state_bytes // config.context_length)

    def allocate(self, n_blocks: int) -> None:
        """Nothing to make: a state is there as soon as its sequence is. The scheduler's blocks bound how many there are."""

    def read_adapter(self, path: Path) -> NoReturn:
        """See `Runner.read_adapter`."""
        raise InvalidModelError("A recurrent model cannot have the adapter in {folder}.", folder=path)

    def add_adapter(self, name: str, adapter: Never) -> None:
        """See `Runner.add_adapter`: there never is one."""

    def remove_adapter(self, name: str) -> None:
        """See `Runner.remove_adapter`."""

    def free(self, sequence: Sequence) -> None:
        """Drop the states of a sequence that is over or preempted."""
        self.caches.pop(sequence, None)

    @torch.inference_mode()
    def step(self, chunks: list[Chunk]) -> list[NDArray[np.float32]]:
        """Compute all chunks, one sequence after the other; logits as `ModelRunner.step` gives them."""
        return [self._run(chunk) for chunk in chunks]

    @torch.inference_mode()
    def embed(self, ids: Ids[int]) -> list[float]:
        """Mean of the final hidden states over the tokens: (d_model,)."""
        x_TD = self.model.hidden(torch.tensor([list(ids)], device=self.device))[0]
        mean: list[float] = x_TD.float().mean(dim=0).tolist()
        return mean

    def _run(self, chunk: Chunk) -> NDArray[np.float32]:
        sequence = chunk.sequence
        states = self.caches.setdefault(sequence, {0: None})
        state = states[chunk.start]
        ids_1T = torch.tensor([sequence.token_ids[chunk.start : chunk.end]], device=self.device)
        x_1TD, new_state = self.model.advance(ids_1T, state)
        self.caches[sequence] = {chunk.start: state, chunk.end: new_state}
        x_TD = x_1TD[0]
        if not (sequence.wants_prompt_scores and chunk.start < sequence.n_prompt):
            x_TD = x_TD[-1:] if chunk.reaches_end else x_TD[:0]
        return self.model.logits(x_TD).float().cpu().numpy()
