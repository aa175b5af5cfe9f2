"""The engine's runner over the kernels: a step of many sequences is one call into C++, over a paged cache.

What a token gets does not depend on the batch, the chunk, the cache's history or the number of threads (see the header of the
kernels); that is where P10 and P11 come from.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping
from collections.abc import Sequence as Ids
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from chatwright.engine.blocks import BLOCK_TOKENS, blocks_for
from chatwright.engine.kernels.library import Cache, Format, Kernels, LoRA, Op, Shape, Span, Step
from chatwright.engine.kernels.packed import PackedWeights
from chatwright.engine.kernels.program import PRODUCTS, Kind, compile_program
from chatwright.engine.kernels.weights import Quantization, load_weights
from chatwright.engine.low_rank import LowRank, read_adapter
from chatwright.engine.scheduler import Chunk
from chatwright.engine.sequence import Sequence
from chatwright.errors import StorageError
from chatwright.i18n import _
from chatwright.model.checkpoint import open_checkpoint
from chatwright.model.config import ModelConfig
from chatwright.model.first_call import settle_mkl
from chatwright.model.gpt import fixed_positions, rotary_frequencies

# Rows of logits whose memory is kept from step to step; scores of a prompt can be hundreds of megabytes.
MOST_KEPT_ROWS = 64
# Packed rows of a step's sequences: cw_sequence as numpy fills it.
_SPAN = np.dtype(Span)


def unsupported(config: ModelConfig) -> str | None:
    """What in a configuration the operations cannot express, as a sentence, if anything."""
    if config.positions == "rotary" and config.head_dim % 2:
        return _("its heads have an odd number of channels.")
    return None


class KernelRunner:
    """Runs steps on one model and owns its working space and the memory of its cache."""

    def __init__(
        self, kernels: Kernels, config: ModelConfig, weights: PackedWeights, *, max_step_tokens: int, n_threads: int
    ) -> None:
        settle_mkl()  # the tables of positions are PyTorch's
        self.kernels = kernels
        self.config = config
        self.weights = weights
        self.max_step_tokens = max_step_tokens
        self.n_threads = n_threads
        self._engine: int | None = None
        self._logits = np.empty((0, 0), np.float32)
        self._position_tables: dict[tuple[object, ...], NDArray[np.float32]] = {}
        # Each sequence's blocks as C reads them.
        self._tables: dict[Sequence, NDArray[np.int32]] = {}
        self._adapters: dict[str, int] = {}
        self._factors: dict[int, tuple[list[LoRA], list[NDArray[np.float32]]]] = {}

    @classmethod
    def load(
        cls,
        kernels: Kernels,
        path: Path,
        quantization: Quantization,
        *,
        max_step_tokens: int,
        n_threads: int,
        store: Path | None,
    ) -> KernelRunner:
        """The model at `path`. `store`: the folder in which packed weights are kept.

        Raises InvalidModelError, ModelNotFoundError.
        """
        checkpoint = open_checkpoint(path)
        weights = load_weights(kernels, checkpoint, quantization, store)
        return cls(kernels, checkpoint.config, weights, max_step_tokens=max_step_tokens, n_threads=n_threads)

    @property
    def described(self) -> str:
        """What computes, in a line for the log."""
        sizes = self.weights.formats()
        weights = ", ".join(f"{100 * n / sum(sizes.values()):.0f} % {name}" for name, n in sizes.items())
        return f"kernels ({self.kernels.isa_name}), {self.n_threads} threads, weights {weights}"

    def free_bytes(self) -> int:
        """Memory that the cache may come out of."""
        return psutil.virtual_memory().available

    def cache_bytes_per_token(self) -> int:
        """Memory of one cached token, in bytes."""
        return sum(self._block_bytes(values) for values in (False, True)) // BLOCK_TOKENS

    @property
    def _cache(self) -> Cache:
        """Keys and values are kept as precisely as activations are."""
        formats = {Format[name] for name in self.weights.formats()}
        if any(each >= Format.I8 for each in formats):
            return Cache.I8
        return Cache.F32 if formats == {Format.F32} else Cache.F16

    def _block_bytes(self, values: bool) -> int:
        """Of a block's keys, or of its values."""
        of_a_head: int = self.kernels.c.cw_cache_bytes(self._cache, self.config.head_dim, values)
        return of_a_head * self.config.n_layer * self.config.n_kv_head

    def allocate(self, n_blocks: int) -> None:
        """Make the cache (its memory is taken as blocks are first used) and the working space. Once, before the first step."""
        n_positions = min(self.config.context_length, n_blocks * BLOCK_TOKENS)
        self._n_blocks = n_blocks
        n_blocks += blocks_for(n_positions)  # for `embed`; without it they take no memory
        self.program = compile_program(self.config, self.weights, lambda layer: self._positions(layer, n_positions))
        self._memory = [
            np.frombuffer(mmap.mmap(-1, n_blocks * self._block_bytes(values)), np.uint8) for values in (False, True)
        ]
        widths = np.array(self.program.widths, np.int32)
        shape = Shape(
            n_ops=len(self.program.ops),
            n_buffers=len(widths),
            max_tokens=self.max_step_tokens,
            n_layers=self.config.n_layer,
            n_kv_heads=self.config.n_kv_head,
            head_dim=self.config.head_dim,
            n_cache_blocks=n_blocks,
            n_threads=self.n_threads,
            cache=self._cache,
            ops=(Op * len(self.program.ops))(*self.program.ops),
            widths=widths.ctypes.data,
            keys=self._memory[0].ctypes.data,
            values=self._memory[1].ctypes.data,
        )
        self._engine = self.kernels.c.cw_create(ctypes.byref(shape), self.kernels.isa)
        if not self._engine:
            raise StorageError(
                "There is not enough memory for the working space of a step of {n} tokens.", n=self.max_step_tokens
            )
        for index in self._factors:
            self._set_adapter(index)

    def close(self) -> None:
        """Give the working space and the threads back. The runner is of no use afterwards."""
        if self._engine:
            self.kernels.c.cw_destroy(self._engine)
            self._engine = None

    def __del__(self) -> None:
        if hasattr(self, "_engine"):
            self.close()

    def free(self, sequence: Sequence) -> None:
        """Forget a sequence that is over or preempted."""
        self._tables.pop(sequence, None)

    def step(self, chunks: list[Chunk]) -> list[NDArray[np.float32]]:
        """Compute all chunks. For each: logits (n, V) of its last token (n = 1), of all its tokens where the prompt is scored
        (n = t), or of none (n = 0) where the prompt goes on. The next step may write over them."""
        ids: list[int] = []
        wanted: list[int] = []
        counts = []
        spans = np.zeros(len(chunks), _SPAN)
        positions = []
        for i, chunk in enumerate(chunks):
            sequence = chunk.sequence
            first = len(ids)
            ids += sequence.token_ids[chunk.start : chunk.end]
            positions.append(np.arange(chunk.start, chunk.end, dtype=np.int32))
            adapter = sequence.group.request.adapter
            spans[i] = (
                first,
                chunk.end - chunk.start,
                chunk.start,
                -1 if adapter is None else self._adapters[adapter],
                self._block_table(sequence).ctypes.data,
            )
            if sequence.wants_prompt_scores and chunk.start < sequence.n_prompt:
                rows = range(first, len(ids))
            else:
                rows = range(len(ids) - 1, len(ids)) if chunk.reaches_end else range(0)
            wanted += rows
            counts.append(len(rows))
        logits = self._room_for_logits(len(wanted))
        self._run(ids, np.concatenate(positions), spans, wanted, logits=logits)
        return np.split(logits[:, : self.config.vocab_size], np.cumsum(counts)[:-1])

    def _room_for_logits(self, n_rows: int) -> NDArray[np.float32]:
        # Fresh memory is zeroed by the system page by page, which takes half as long as the head's product that fills it.
        if n_rows > MOST_KEPT_ROWS:
            return np.empty((n_rows, self.program.logits_stride), np.float32)
        if n_rows > len(self._logits):
            self._logits = np.empty((n_rows, self.program.logits_stride), np.float32)
        return self._logits[:n_rows]

    def embed(self, ids: Ids[int]) -> list[float]:
        """Mean of the final hidden states over the tokens, (d_model,); computed in blocks that the scheduler does not know."""
        table = np.arange(self._n_blocks, self._n_blocks + blocks_for(len(ids)), dtype=np.int32)
        states = np.empty((len(ids), self.config.d_model), np.float32)
        for start in range(0, len(ids), self.max_step_tokens):
            some = ids[start : start + self.max_step_tokens]
            spans = np.zeros(1, _SPAN)
            spans[0] = (0, len(some), start, -1, table.ctypes.data)
            positions = np.arange(start, start + len(some), dtype=np.int32)
            self._run(list(some), positions, spans, list(range(len(some))), hidden=states[start:])
        mean: list[float] = states.mean(axis=0, dtype=np.float64).tolist()
        return mean

    def profile(self) -> dict[str, float]:
        """Seconds of each kind of operation since the last call; counting begins with the first."""
        times = np.zeros(len(self.program.ops), np.int64)
        self.kernels.c.cw_profile(self._engine, times.ctypes.data)
        totals: dict[str, float] = {}
        for op, nanoseconds in zip(self.program.ops, times, strict=True):
            name = Kind(op.kind).name.lower() if op.kind != Kind.MATMUL else f"matmul {op.n_in}x{op.n_out}"
            totals[name] = totals.get(name, 0.0) + float(nanoseconds) / 1e9
        return totals

    def _run(
        self,
        ids: list[int],
        positions: NDArray[np.int32],
        spans: NDArray[np.void],
        wanted: list[int],
        logits: NDArray[np.float32] | None = None,
        hidden: NDArray[np.float32] | None = None,
    ) -> None:
        ids_array, rows = np.array(ids, np.int32), np.array(wanted, np.int32)
        step = Step(
            n_tokens=len(ids),
            n_sequences=len(spans),
            n_wanted=len(wanted),
            logits_stride=self.program.logits_stride,
            ids=ids_array.ctypes.data,
            positions=positions.ctypes.data,
            sequences=spans.ctypes.data,
            wanted=rows.ctypes.data,
            logits=logits.ctypes.data if logits is not None and wanted else None,
            hidden=None if hidden is None else hidden.ctypes.data,
        )
        failed = self.kernels.c.cw_run(self._engine, ctypes.byref(step))
        if failed:
            raise RuntimeError(f"the kernels refused a step of {len(ids)} tokens in {len(spans)} sequences")

    def _block_table(self, sequence: Sequence) -> NDArray[np.int32]:
        table = self._tables.get(sequence)
        if table is None or len(table) != len(sequence.blocks):
            table = self._tables[sequence] = np.array(sequence.blocks, np.int32)
        return table

    def _positions(self, layer: int, n_positions: int) -> NDArray[np.float32]:
        """The layer's table of positions; layers that share one get the same array."""
        c = self.config
        n = torch.arange(n_positions)
        if c.positions == "learned":
            start = self.weights.index["position_embed.weight"].offset
            size = c.context_length * c.d_model * 4
            return self.weights.bytes[start : start + size].view(np.float32).reshape(-1, c.d_model)
        if c.positions == "sinusoidal":
            return self._position_tables.setdefault((), fixed_positions(n, c.d_model).numpy())
        theta, scaling = c.layer_rope(layer)
        if (theta, scaling) not in self._position_tables:
            angles = n[:, None].float() * rotary_frequencies(c.head_dim, theta, scaling)
            table = torch.cat((angles.cos(), angles.sin()), dim=1).contiguous().numpy()
            self._position_tables[theta, scaling] = table
        return self._position_tables[theta, scaling]

    def read_adapter(self, path: Path) -> Mapping[str, LowRank]:
        """See `Runner.read_adapter`."""
        return read_adapter(path, self.config)

    def add_adapter(self, name: str, adapter: Mapping[str, LowRank]) -> None:
        """See `Runner.add_adapter`."""
        index = next(i for i in range(len(self._adapters) + 1) if i not in self._adapters.values())
        parts, arrays = self._low_rank_parts(adapter)
        self._adapters[name], self._factors[index] = index, (parts, arrays)
        if self._engine:
            self._set_adapter(index)

    def remove_adapter(self, name: str) -> None:
        """See `Runner.remove_adapter`."""
        index = self._adapters.pop(name)
        self.kernels.c.cw_set_adapter(self._engine, index, None, 0)
        del self._factors[index]

    def _set_adapter(self, index: int) -> None:
        parts, __ = self._factors[index]
        failed = self.kernels.c.cw_set_adapter(self._engine, index, (LoRA * len(parts))(*parts), len(parts))
        assert not failed

    def _low_rank_parts(self, adapter: Mapping[str, LowRank]) -> tuple[list[LoRA], list[NDArray[np.float32]]]:
        """An adapter as additions to the fused products, and the arrays that these point into."""
        c = self.config
        rows = {
            "attention.q": ("qkv", 0),
            "attention.k": ("qkv", c.n_head * c.head_dim),
            "attention.v": ("qkv", (c.n_head + c.n_kv_head) * c.head_dim),
            "attention.out": ("out", 0),
            "feed_forward.gate": ("up", 0),
            "feed_forward.up": ("up", c.d_ff if c.gated else 0),
            "feed_forward.down": ("down", 0),
        }
        parts, arrays = [], []
        for layer, low_rank in adapter.items():
            __, number, place = layer.split(".", 2)
            product, row = rows[place]
            a, b = low_rank.a.numpy(), low_rank.b.T.contiguous().numpy()
            arrays += [a, b]
            parts.append(
                LoRA(
                    product=4 * int(number) + PRODUCTS.index(product),
                    row=row,
                    n_in=a.shape[1],
                    n_out=b.shape[1],
                    rank=a.shape[0],
                    scale=low_rank.scale,
                    a=a.ctypes.data,
                    b=b.ctypes.data,
                )
            )
        return parts, arrays
