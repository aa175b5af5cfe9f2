"""PyTorch's runner: one forward pass over the chunks of a step, over a cache in blocks.

Recurrent models have a runner of their own (`engine.recurrent`), and so have the compiled kernels.

A step is one flat batch: the tokens of all chunks one after the other, B = 1. Linear layers see them together; attention
goes sequence by sequence over that sequence's own blocks, so what a sequence attends to never depends on the batch.

Shapes: T tokens of the step, t of one chunk or of a block, b blocks, S cached tokens, H query heads, G key heads, D head
dimension, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from collections.abc import Sequence as Ids
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from chatwright.engine.blocks import BLOCK_TOKENS, blocks_for
from chatwright.engine.cache import PagedCache
from chatwright.engine.decode import CudaGraphs, Graphs, StaticDecoder
from chatwright.engine.device import find_device, free_bytes, weights_dtype
from chatwright.engine.low_rank import AdapterHooks, LowRank, read_adapter
from chatwright.engine.scheduler import Chunk
from chatwright.engine.sequence import Sequence
from chatwright.errors import EngineError
from chatwright.model.gpt import GPT
from chatwright.model.load import load_model

log = logging.getLogger(__name__)


class ModelRunner:
    """Runs steps on one model and owns the memory of the cache's blocks.

    With `graphs`, the tokens of up to `max_batch` choices that are decoding are computed by recorded graphs (`engine.decode`).
    """

    def __init__(self, model: GPT, graphs: Graphs | None = None, max_batch: int = 1) -> None:
        self.model = model
        self.config = model.config
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.cache: PagedCache | None = None
        self.adapters = AdapterHooks(model)
        self.graphs, self.max_batch = graphs, max_batch
        self.decoder: StaticDecoder | None = None

    @classmethod
    def load(cls, path: Path, *, device: str, n_threads: int, quantization: str, max_batch: int) -> ModelRunner:
        """The model at `path` on the device of that name ("auto", "cpu", "cuda:0", "mps"), its weights as `weights_dtype` says.

        Raises InvalidModelError, ModelNotFoundError, UsageError for a device that is not there.
        """
        torch.set_num_threads(n_threads)
        place = find_device(device)
        model = load_model(path, device=place, dtype=weights_dtype(place, quantization))
        return cls(model, CudaGraphs(place) if place.type == "cuda" else None, max_batch)

    @property
    def described(self) -> str:
        """What computes, in a line for the log."""
        graphs = ", decoding in graphs" if self.graphs else ""
        return f"PyTorch on {self.device}, {str(self.dtype).removeprefix('torch.')}{graphs}"

    def free_bytes(self) -> int:
        """Memory that is free where the model lies."""
        return free_bytes(self.device)

    def cache_bytes_per_token(self) -> int:
        """Memory of one cached token, in bytes."""
        return 2 * self.config.n_layer * self.config.n_kv_head * self.config.head_dim * self.dtype.itemsize

    def allocate(self, n_blocks: int) -> None:
        """Make the cache: blocks 0 … n_blocks - 1. Once, before the first step."""
        self.cache = PagedCache(self.config, n_blocks, self.dtype, self.device)
        if self.graphs:
            self.decoder = StaticDecoder(self.model, self.cache, self.graphs, self.max_batch)

    def read_adapter(self, path: Path) -> Mapping[str, LowRank]:
        """See `Runner.read_adapter`."""
        return read_adapter(path, self.config)

    def add_adapter(self, name: str, adapter: Mapping[str, LowRank]) -> None:
        """See `Runner.add_adapter`."""
        self.adapters.add(name, adapter)

    def remove_adapter(self, name: str) -> None:
        """See `Runner.remove_adapter`."""
        self.adapters.remove(name)

    def free(self, sequence: Sequence) -> None:
        """Nothing to drop: what a sequence has lies in its blocks, and those are the scheduler's."""

    @torch.inference_mode()
    def step(self, chunks: list[Chunk]) -> list[NDArray[np.float32]]:
        """Compute all chunks. For each: logits (n, V) of its last token (n = 1), of all its tokens where the prompt is
        scored (n = t), or of none (n = 0) where the prompt goes on. Raises EngineError where the device is lost."""
        try:
            decoding, logits = self._decode(chunks)
            others = [chunk for chunk in chunks if chunk not in decoding]
            if others:
                logits.append(self._forward(others))
            # All that leaves the device in a step, at once.
            logits_NV = (torch.cat(logits) if len(logits) > 1 else logits[0]).cpu().numpy()
        except torch.AcceleratorError as failure:
            # After an error of CUDA itself nothing works in this process any more: it must not stay up failing everybody.
            raise EngineError(
                "The device {device} failed ({reason}).",
                device=str(self.device),
                reason=str(failure).partition("\n")[0],
            ) from failure
        computed = [*decoding, *others]
        parts = np.split(logits_NV, np.cumsum([_n_wanted(chunk) for chunk in computed])[:-1])
        by_chunk = dict(zip(computed, parts, strict=True))
        return [by_chunk[chunk] for chunk in chunks]

    def _decode(self, chunks: list[Chunk]) -> tuple[list[Chunk], list[torch.Tensor]]:
        """Those chunks that graphs compute, and their logits (n, V), if any. Without graphs, none."""
        if self.decoder is None:
            return [], []
        decoding = [chunk for chunk in chunks if self.decoder.takes(chunk)][: self.decoder.max_batch]
        if not decoding:
            return [], []
        self.adapters.spans = []
        try:
            return decoding, [self.decoder.step(decoding)]
        except RuntimeError as failure:
            log.warning("decoding goes on without graphs: %s", str(failure).partition("\n")[0])
            self.decoder = None
            return [], []

    def _forward(self, chunks: list[Chunk]) -> torch.Tensor:
        """Whatever is wanted of chunks of any lengths, with adapters or without: (n, V)."""
        assert self.cache is not None, "allocate comes first"
        ids = [i for chunk in chunks for i in chunk.sequence.token_ids[chunk.start : chunk.end]]
        positions = [i for chunk in chunks for i in range(chunk.start, chunk.end)]
        ids_1T = torch.tensor([ids], device=self.device)
        positions_1T = torch.tensor([positions], device=self.device)
        self.adapters.spans = _adapter_spans(chunks)
        x_TD = self.model.hidden(ids_1T, positions_1T, _PagedAttention(chunks, self.cache))[0]
        rows: list[int] = []
        end = 0
        for chunk in chunks:
            end += chunk.end - chunk.start
            rows += range(end - _n_wanted(chunk), end)
        return self.model.logits(x_TD[rows]).float()

    @torch.inference_mode()
    def embed(self, ids: Ids[int]) -> list[float]:
        """Mean of the final hidden states over the tokens: (d_model,)."""
        self.adapters.spans = []
        x_TD = self.model.hidden(torch.tensor([list(ids)], device=self.device))[0]
        mean: list[float] = x_TD.float().mean(dim=0).tolist()
        return mean


def _n_wanted(chunk: Chunk) -> int:
    """Of how many tokens of a chunk, the last ones, logits are wanted."""
    if chunk.sequence.wants_prompt_scores and chunk.start < chunk.sequence.n_prompt:
        return chunk.end - chunk.start
    return int(chunk.reaches_end)


def _adapter_spans(chunks: list[Chunk]) -> list[tuple[slice, str]]:
    """The rows of a step whose sequences have an adapter."""
    spans = []
    first = 0
    for chunk in chunks:
        end = first + chunk.end - chunk.start
        if (adapter := chunk.sequence.group.request.adapter) is not None:
            spans.append((slice(first, end), adapter))
        first = end
    return spans


class _PagedAttention:
    """How the model's layers attend in a step: store the new keys and values, then look back over each sequence's own blocks."""

    def __init__(self, chunks: list[Chunk], cache: PagedCache) -> None:
        self.cache = cache
        self.spans = []
        places: list[int] = []
        offset = 0
        for chunk in chunks:
            n_tokens = chunk.end - chunk.start
            blocks = chunk.sequence.blocks[: blocks_for(chunk.end)]
            places += [
                blocks[i // BLOCK_TOKENS] * BLOCK_TOKENS + i % BLOCK_TOKENS for i in range(chunk.start, chunk.end)
            ]
            blocks_b = torch.tensor(blocks, device=cache.keys_LGbtD.device)
            self.spans.append((slice(offset, offset + n_tokens), chunk.start, chunk.end, blocks_b))
            offset += n_tokens
        self.places_T = torch.tensor(places, device=cache.keys_LGbtD.device)

    def __call__(
        self,
        layer_index: int,
        q_BHTD: torch.Tensor,
        k_BGTD: torch.Tensor,
        v_BGTD: torch.Tensor,
        window: int | None,
    ) -> torch.Tensor:
        """B = 1: (1, H, T, D) queries, (1, G, T, D) keys and values of the new tokens → (1, H, T, D)."""
        self.cache.write(layer_index, self.places_T, k_BGTD[0], v_BGTD[0])
        outputs = []
        for tokens, start, end, blocks_b in self.spans:
            # The first query sees this far back; what lies before need not be fetched.
            first = max(0, start + 1 - window) // BLOCK_TOKENS if window else 0
            blocks, offset = blocks_b[first:], first * BLOCK_TOKENS
            k_GSD, v_GSD = (x_GSD[:, : end - offset] for x_GSD in self.cache.read_blocks(layer_index, blocks))
            outputs.append(_attend(q_BHTD[0, :, tokens], k_GSD, v_GSD, start - offset, window))
        return torch.cat(outputs, dim=1)[None] if len(outputs) > 1 else outputs[0][None]


def _attend(
    q_HtD: torch.Tensor, k_GSD: torch.Tensor, v_GSD: torch.Tensor, start: int, window: int | None
) -> torch.Tensor:
    """Causal attention of tokens `start`.. over all S cached ones: (H, t, D), (G, S, D), (G, S, D) → (H, t, D)."""
    n_head, n_query, head_dim = q_HtD.shape
    n_kv_head, n_keys, _ = k_GSD.shape
    if n_query == 1:
        # All cached tokens are visible, so the query heads of one key head can be rows of one product: no repeated keys.
        first = max(0, n_keys - window) if window else 0
        q_GRD = q_HtD.reshape(n_kv_head, n_head // n_kv_head, head_dim)
        o_GRD = F.scaled_dot_product_attention(q_GRD[None], k_GSD[None, :, first:], v_GSD[None, :, first:])[0]
        return o_GRD.reshape(n_head, 1, head_dim)
    mask_tS = None
    if start or window:
        query = torch.arange(start, n_keys, device=q_HtD.device)[:, None]
        key = torch.arange(n_keys, device=q_HtD.device)[None, :]
        mask_tS = key <= query
        if window:
            mask_tS &= key > query - window
    return F.scaled_dot_product_attention(
        q_HtD[None], k_GSD[None], v_GSD[None], attn_mask=mask_tS, is_causal=mask_tS is None, enable_gqa=True
    )[0]
