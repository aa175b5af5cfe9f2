"""Decoding in fixed shapes: a step that a CUDA graph records once and replays with other numbers.

One token of every choice is little work in a few hundred small operations: a GPU is done with each before Python has sent the
next. A graph sends them all at once, but it repeats what it saw: the same operations on the same addresses. So nothing may
depend on the step but the numbers in one buffer: a batch is filled up to a power of two, the blocks looked back at are too, and
there is one graph for each pair, recorded when it is first needed.

Experimental: its arithmetic is tested on a CPU, by operations recorded and replayed (tests/engine/test_decode.py); on a GPU it
never ran (tests/engine/test_cuda.py waits for one).

Shapes: B rows, b blocks of a row, S tokens looked back at, H query heads, G key heads, R = H / G, D head dimension, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from chatwright.engine.blocks import BLOCK_TOKENS, blocks_for
from chatwright.engine.cache import PagedCache
from chatwright.engine.scheduler import Chunk
from chatwright.model.gpt import GPT

# Fewer blocks would save little and cost a graph each.
FEWEST_BLOCKS = 16


class Graphs(Protocol):
    """What records operations and repeats them: `CudaGraphs`; in tests, something that needs no GPU."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Run `function`, perhaps more than once. Returns what repeats its operations, on the same memory."""


class CudaGraphs:
    """CUDA graphs that share one pool of memory: no two run at a time, and none keeps anything but what it writes to buffers."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """See `Graphs.record`. Raises RuntimeError for operations that can not be recorded, and without memory."""
        before = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(before)
        with torch.cuda.stream(self.stream):  # also leaves the stream when recording failed, which `graph` does not
            function()  # what libraries set up on first use can not be recorded
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the GPU meanwhile: only ours is watched.
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                function()
        before.wait_stream(self.stream)
        return graph.replay


class StaticDecoder:
    """The next token's logits of up to `max_batch` choices that have one token to compute.

    Rows without a choice read zeros and write into the scratch block; a row looks at its own tokens, and where it has fewer than
    S, at zeros. So no row ever meets what another left, not even a NaN, which a mask alone would let through.
    """

    def __init__(self, model: GPT, cache: PagedCache, graphs: Graphs, max_batch: int) -> None:
        self.model, self.cache, self.graphs = model, cache, graphs
        self.max_batch = max_batch
        self.max_blocks = min(blocks_for(model.config.context_length), cache.scratch_block)
        rows, device = power_of_two(max_batch), cache.keys_LGbtD.device
        # Of each row the token, its position, and the blocks.
        self.host_inputs = torch.zeros((rows, 2 + self.max_blocks), dtype=torch.long)
        self.inputs = torch.zeros_like(self.host_inputs, device=device)
        self.logits_BV = torch.zeros((rows, model.config.vocab_size), device=device)
        self.replays: dict[tuple[int, int], Callable[[], None]] = {}

    def takes(self, chunk: Chunk) -> bool:
        """Whether a chunk is of this kind. A choice with an adapter is not: a graph would repeat the adapter that it saw."""
        adapter = chunk.sequence.group.request.adapter
        return chunk.end - chunk.start == 1 and chunk.reaches_end and adapter is None

    def step(self, chunks: Sequence[Chunk]) -> Tensor:
        """Logits (n, V) of n ≤ max_batch chunks that it takes, float32 on the device. Raises RuntimeError where the first step of a
        shape can not be recorded."""
        n_rows = power_of_two(len(chunks))
        n_blocks = power_of_two(max(FEWEST_BLOCKS, *(blocks_for(chunk.end) for chunk in chunks)))
        shape = (n_rows, min(n_blocks, self.max_blocks))
        self._fill(chunks, n_rows)
        if shape not in self.replays:
            self.replays[shape] = self.graphs.record(partial(self._compute, *shape))
        self.replays[shape]()
        return self.logits_BV[: len(chunks)].clone()

    def _fill(self, chunks: Sequence[Chunk], n_rows: int) -> None:
        inputs = self.host_inputs[:n_rows]
        # Rows without a choice: at position 0 they would overwrite the zeros.
        inputs[:, 0], inputs[:, 1], inputs[:, 2:] = 0, 1, self.cache.scratch_block
        for row, chunk in zip(inputs.numpy(), chunks, strict=False):
            blocks = chunk.sequence.blocks[: blocks_for(chunk.end)]
            row[:2] = chunk.sequence.token_ids[chunk.start], chunk.start
            row[2 : 2 + len(blocks)] = blocks
        self.inputs[:n_rows].copy_(inputs)

    def _compute(self, n_rows: int, n_blocks: int) -> None:
        """What is recorded: from `inputs` to the cache and `logits_BV`, with nothing decided on the way."""
        ids_B1, positions_B1 = self.inputs[:n_rows, 0:1], self.inputs[:n_rows, 1:2]
        attend = _StaticAttention(self.cache, positions_B1, self.inputs[:n_rows, 2 : 2 + n_blocks])
        x_B1D = self.model.hidden(ids_B1, positions_B1, attend)
        self.logits_BV[:n_rows].copy_(self.model.logits(x_B1D[:, 0]))


class _StaticAttention:
    """How the model's layers attend: each row's one token to the last S of its own (see `model.gpt.Attend`)."""

    def __init__(self, cache: PagedCache, positions_B1: Tensor, blocks_Bb: Tensor) -> None:
        self.cache, self.positions_B1, self.blocks_Bb = cache, positions_B1, blocks_Bb
        self.new_places_B = self._places(positions_B1).flatten()
        self._seen: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer_index: int, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, window: int | None) -> Tensor:
        """T = 1: (B, H, 1, D) queries, (B, G, 1, D) keys and values → (B, H, 1, D)."""
        k_GBD, v_GBD = k_BGTD[:, :, 0].transpose(0, 1), v_BGTD[:, :, 0].transpose(0, 1)
        self.cache.write(layer_index, self.new_places_B, k_GBD, v_GBD)
        places_BS, visible_BS = self._looked_back_at(window)
        (n_group, n_rows, head_dim), n_seen = k_GBD.shape, places_BS.shape[1]
        k_BGSD, v_BGSD = (
            x_GND.view(n_group, n_rows, n_seen, head_dim).transpose(0, 1)
            for x_GND in self.cache.read_places(layer_index, places_BS.flatten())
        )
        # The query heads of a key head are rows of one product: no repeated keys.
        q_BGRD = q_BHTD.reshape(n_rows, n_group, -1, head_dim)
        o_BGRD = F.scaled_dot_product_attention(q_BGRD, k_BGSD, v_BGSD, attn_mask=visible_BS[:, None, None])
        return o_BGRD.reshape(q_BHTD.shape)

    def _looked_back_at(self, window: int | None) -> tuple[Tensor, Tensor]:
        """(B, S): the places of each row's last S tokens, and which of them there are. S is what the blocks hold, or the window
        where that is shorter; layers with the same S share them."""
        n_seen = BLOCK_TOKENS * self.blocks_Bb.shape[1]
        n_seen = min(n_seen, window) if window else n_seen
        if n_seen not in self._seen:
            first_B1 = (self.positions_B1 - n_seen + 1).clamp(min=0)
            tokens_BS = first_B1 + torch.arange(n_seen, device=first_B1.device)
            visible_BS = tokens_BS <= self.positions_B1
            places_BS = self._places(tokens_BS).masked_fill(~visible_BS, self.cache.zero_place)
            self._seen[n_seen] = places_BS, visible_BS
        return self._seen[n_seen]

    def _places(self, tokens_BN: Tensor) -> Tensor:
        blocks_BN = self.blocks_Bb.gather(1, tokens_BN // BLOCK_TOKENS)
        return blocks_BN * BLOCK_TOKENS + tokens_BN % BLOCK_TOKENS


def power_of_two(n: int) -> int:
    """The least that is not below `n`."""
    return 1 << (n - 1).bit_length()
