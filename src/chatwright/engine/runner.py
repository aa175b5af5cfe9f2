"""What touches tensors in the engine: one forward pass over the chunks of a step, and the KV cache.

Recurrent models have a runner of their own (`engine.recurrent`); nothing else in the engine knows torch.

A step is one flat batch: the tokens of all chunks one after the other, B = 1. Linear layers see them together; attention
goes sequence by sequence over that sequence's own blocks, so what a sequence attends to never depends on the batch.

Shapes: T tokens of the step, t of one chunk or of a block, b blocks, S cached tokens, H query heads, G key heads, D head
dimension, L layers, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Ids
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from chatwright.engine.blocks import BLOCK_TOKENS, blocks_for
from chatwright.engine.low_rank import AdapterHooks, LowRank, read_adapter
from chatwright.engine.scheduler import Chunk
from chatwright.engine.sequence import Sequence
from chatwright.errors import UsageError
from chatwright.model.config import ModelConfig
from chatwright.model.gpt import GPT
from chatwright.model.load import load_model


class PagedCache:
    """Keys and values of all blocks: two tensors (L, G, n_blocks, BLOCK_TOKENS, D).

    On the CPU the system hands out the memory as blocks are first written to.
    """

    def __init__(self, config: ModelConfig, n_blocks: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (config.n_layer, config.n_kv_head, n_blocks, BLOCK_TOKENS, config.head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty_like(self.keys)


class ModelRunner:
    """Runs steps on one model and owns the memory of the cache's blocks."""

    def __init__(self, model: GPT) -> None:
        self.model = model
        self.config = model.config
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.cache: PagedCache | None = None
        self.adapters = AdapterHooks(model)

    @classmethod
    def load(cls, path: Path, *, device: str, n_threads: int, bfloat16: bool = False) -> ModelRunner:
        """The model at `path` on the device of that name ("auto", "cpu", "cuda:0", "mps"), in fp32 or bfloat16.

        Raises InvalidModelError, ModelNotFoundError, UsageError for a device that is not there.
        """
        torch.set_num_threads(n_threads)
        model = load_model(path, device=find_device(device), dtype=torch.bfloat16 if bfloat16 else torch.float32)
        return cls(model)

    @property
    def described(self) -> str:
        """What computes, in a line for the log."""
        return f"PyTorch on {self.device}, {str(self.dtype).removeprefix('torch.')}"

    def free_bytes(self) -> int:
        """Memory that is free where the model lies."""
        return free_bytes(self.device)

    def cache_bytes_per_token(self) -> int:
        """Memory of one cached token, in bytes."""
        return 2 * self.config.n_layer * self.config.n_kv_head * self.config.head_dim * self.dtype.itemsize

    def allocate(self, n_blocks: int) -> None:
        """Make the cache: blocks 0 … n_blocks - 1. Once, before the first step."""
        self.cache = PagedCache(self.config, n_blocks, self.dtype, self.device)

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
        scored (n = t), or of none (n = 0) where the prompt goes on."""
        assert self.cache is not None, "allocate comes first"
        ids = [i for chunk in chunks for i in chunk.sequence.token_ids[chunk.start : chunk.end]]
        positions = [i for chunk in chunks for i in range(chunk.start, chunk.end)]
        ids_1T = torch.tensor([ids], device=self.device)
        positions_1T = torch.tensor([positions], device=self.device)
        self.adapters.spans = _adapter_spans(chunks)
        x_TD = self.model.hidden(ids_1T, positions_1T, _PagedAttention(chunks, self.cache))[0]

        rows: list[int] = []
        counts = []
        offset = 0
        for chunk in chunks:
            n_tokens = chunk.end - chunk.start
            if chunk.sequence.wants_prompt_scores and chunk.start < chunk.sequence.n_prompt:
                wanted = range(offset, offset + n_tokens)
            else:
                wanted = range(offset + n_tokens - 1, offset + n_tokens) if chunk.reaches_end else range(0)
            rows.extend(wanted)
            counts.append(len(wanted))
            offset += n_tokens
        logits = self.model.logits(x_TD[rows]).float().cpu().numpy()
        return np.split(logits, np.cumsum(counts)[:-1])

    @torch.inference_mode()
    def embed(self, ids: Ids[int]) -> list[float]:
        """Mean of the final hidden states over the tokens: (d_model,)."""
        self.adapters.spans = []
        x_TD = self.model.hidden(torch.tensor([list(ids)], device=self.device))[0]
        mean: list[float] = x_TD.float().mean(dim=0).tolist()
        return mean


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


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def find_device(wanted: str) -> torch.device:
    """The device of that name; "auto" takes a CUDA device where there is one, else the CPU. Raises UsageError."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present[device.type]:
        raise UsageError(
            "The device {device} is not there, or this build of PyTorch can not use it. Use --device cpu.",
            device=wanted,
        )
    return device


class _PagedAttention:
    """How the model's layers attend in a step: store the new keys and values, then look back over each sequence's own blocks."""

    def __init__(self, chunks: list[Chunk], cache: PagedCache) -> None:
        self.cache = cache
        self.spans = []
        slots: list[int] = []
        offset = 0
        for chunk in chunks:
            n_tokens = chunk.end - chunk.start
            blocks = chunk.sequence.blocks[: blocks_for(chunk.end)]
            slots += [
                blocks[i // BLOCK_TOKENS] * BLOCK_TOKENS + i % BLOCK_TOKENS for i in range(chunk.start, chunk.end)
            ]
            blocks_b = torch.tensor(blocks, device=cache.keys.device)
            self.spans.append((slice(offset, offset + n_tokens), chunk.start, chunk.end, blocks_b))
            offset += n_tokens
        self.slots_T = torch.tensor(slots, device=cache.keys.device)

    def __call__(
        self,
        layer_index: int,
        q_BHTD: torch.Tensor,
        k_BGTD: torch.Tensor,
        v_BGTD: torch.Tensor,
        window: int | None,
    ) -> torch.Tensor:
        """B = 1: (1, H, T, D) queries, (1, G, T, D) keys and values of the new tokens → (1, H, T, D)."""
        keys_GbtD, values_GbtD = self.cache.keys[layer_index], self.cache.values[layer_index]
        keys_GbtD.flatten(1, 2).index_copy_(1, self.slots_T, k_BGTD[0])
        values_GbtD.flatten(1, 2).index_copy_(1, self.slots_T, v_BGTD[0])
        outputs = []
        for tokens, start, end, blocks_b in self.spans:
            # The first query sees this far back; what lies before need not be fetched.
            first = max(0, start + 1 - window) // BLOCK_TOKENS if window else 0
            blocks, offset = blocks_b[first:], first * BLOCK_TOKENS
            keys_GSD = keys_GbtD.index_select(1, blocks).flatten(1, 2)[:, : end - offset]
            values_GSD = values_GbtD.index_select(1, blocks).flatten(1, 2)[:, : end - offset]
            outputs.append(_attend(q_BHTD[0, :, tokens], keys_GSD, values_GSD, start - offset, window))
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
        query, key = torch.arange(start, n_keys)[:, None], torch.arange(n_keys)[None, :]
        mask_tS = key <= query
        if window:
            mask_tS &= key > query - window
        mask_tS = mask_tS.to(q_HtD.device)
    return F.scaled_dot_product_attention(
        q_HtD[None], k_GSD[None], v_GSD[None], attn_mask=mask_tS, is_causal=mask_tS is None, enable_gqa=True
    )[0]
