"""A model's configuration as the flat list of operations that the kernels run (kernels/include/chatwright_kernels.h has them)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatwright.engine.kernels.library import GROUP, PANEL, Format, Op
from chatwright.engine.kernels.packed import PackedWeights
from chatwright.engine.kernels.weights import parts_of
from chatwright.model.config import ModelConfig


class Kind(IntEnum):
    """cw_kind."""

    EMBED = 0
    ADD = 1
    NORM = 2
    MATMUL = 3
    QKV = 4
    ATTEND = 5
    ACT = 6
    GATHER = 7
    QUANT = 8


class Flag(IntFlag):
    """cw_flags."""

    ACCUMULATE = 1
    QUANTISE = 2
    GATED = 4
    WANTED = 8
    LOGITS = 16


_ACTIVATIONS = {"gelu": 0, "gelu_tanh": 1, "silu": 2, "relu": 3}

# The weights of a layer that adapters can change, by what they are called in `fused_matrices`.
PRODUCTS = ("qkv", "out", "up", "down")


@dataclass
class Program:
    """Operations, the widths of the buffers that they use (floats a row), and what must stay alive while they run."""

    ops: list[Op] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)
    tables: list[NDArray[np.float32]] = field(default_factory=list)
    logits_stride: int = 0

    def buffer(self, width: int) -> int:
        """A new buffer; rows are padded to whole groups."""
        self.widths.append(-(-width // GROUP) * GROUP)
        return len(self.widths) - 1


def compile_program(
    config: ModelConfig, weights: PackedWeights, positions: Callable[[int], NDArray[np.float32]]
) -> Program:
    """The operations of one step. `positions(layer)`: the table of a layer's positions, (positions, head_dim) cosines and sines, or
    what is added to the embeddings, (positions, d_model).
    """
    return _Compiler(config, weights, positions).compile()


class _Compiler:
    def __init__(
        self, config: ModelConfig, weights: PackedWeights, positions: Callable[[int], NDArray[np.float32]]
    ) -> None:
        self.config = config
        self.weights = weights
        self.positions = positions
        self.program = Program()

    def compile(self) -> Program:
        """All operations."""
        c, program = self.config, self.program
        d_q, d_kv = c.n_head * c.head_dim, c.n_kv_head * c.head_dim
        x = program.buffer(c.d_model)
        h = program.buffer(c.d_model)
        qkv = program.buffer(-(-(d_q + 2 * d_kv) // PANEL) * PANEL)
        o = program.buffer(d_q)
        up = program.buffer(-(-(c.d_ff * (2 if c.gated else 1)) // PANEL) * PANEL)
        act = program.buffer(c.d_ff)
        last = program.buffer(c.d_model)
        embed = self.weights.matrix("embed")
        self.op(
            Kind.EMBED,
            dst=x,
            n_out=c.d_model,
            format=embed.format,
            weights=self.weights.address("embed"),
            f0=c.embed_scale,
        )
        if c.positions != "rotary":
            self.op(Kind.ADD, dst=x, n_out=c.d_model, table=self.table(0))
        for i in range(c.n_layer):
            layer = f"layers.{i}"
            self.norm(f"{layer}.attention_norm", x, h, self.reads_bytes(f"{layer}.qkv"))
            self.product(f"{layer}.qkv", h, qkv, lora=4 * i)
            self.op(
                Kind.QKV,
                dst=qkv,
                **self.heads(i),
                weights=self.optional(f"{layer}.attention.q_norm.weight"),
                bias=self.optional(f"{layer}.attention.k_norm.weight"),
                f0=c.norm_eps,
                table=self.table(i) if c.positions == "rotary" else None,
            )
            scale = c.query_scale if c.query_scale is not None else 1 / math.sqrt(c.head_dim)
            self.op(Kind.ATTEND, src=qkv, dst=o, **self.heads(i), i4=c.windows[i] or 0, f0=scale)
            self.branch(f"{layer}.out", o, x, h, f"{layer}.attention_post_norm", lora=4 * i + 1)
            self.norm(f"{layer}.feed_forward_norm", x, h, self.reads_bytes(f"{layer}.up"))
            self.product(f"{layer}.up", h, up, lora=4 * i + 2)
            flags = Flag.GATED if c.gated else Flag(0)
            if quantised := self.reads_bytes(f"{layer}.down"):
                flags |= Flag.QUANTISE
            self.op(Kind.ACT, flags, src=up, dst=act, n_out=c.d_ff, i0=_ACTIVATIONS[c.activation])
            self.branch(
                f"{layer}.down", act, x, h, f"{layer}.feed_forward_post_norm", lora=4 * i + 3, quantised=quantised
            )
        self.op(Kind.GATHER, Flag.WANTED, src=x, dst=last, n_out=c.d_model)
        head = "embed" if c.tied else "head"
        self.norm("norm", last, last, self.reads_bytes(head), Flag.WANTED)
        matrix = self.weights.matrix(head)
        self.op(
            Kind.MATMUL,
            Flag.WANTED | Flag.LOGITS,
            src=last,
            n_in=matrix.columns,
            n_out=matrix.rows,
            format=matrix.format,
            weights=self.weights.address(head),
        )
        program.logits_stride = -(-matrix.rows // PANEL) * PANEL
        return program

    def op(self, kind: Kind, flags: Flag = Flag(0), **fields: int | float | None) -> None:
        """Append an operation."""
        self.program.ops.append(Op(kind=kind, flags=flags, **({"src": -1, "dst": -1, "lora": -1} | fields)))

    def heads(self, layer: int) -> dict[str, Any]:
        """The fields of operations over heads."""
        c = self.config
        return {"i0": c.n_head, "i1": c.n_kv_head, "i2": c.head_dim, "i3": layer}

    def norm(self, name: str, src: int, dst: int, quantise: bool, flags: Flag = Flag(0)) -> None:
        """A norm; `quantise`: what comes next is an integer product."""
        c = self.config
        self.op(
            Kind.NORM,
            flags | (Flag.QUANTISE if quantise else Flag(0)),
            src=src,
            dst=dst,
            n_out=c.d_model,
            i0=int(c.norm == "layernorm"),
            f0=c.norm_eps,
            weights=self.weights.address(f"{name}.weight"),
            bias=self.optional(f"{name}.bias"),
        )

    def branch(self, name: str, src: int, x: int, h: int, post_norm: str, lora: int, quantised: bool = False) -> None:
        """The last product of a branch, added to the residual stream, through a norm where the family has one there."""
        if self.reads_bytes(name) and not quantised:
            self.op(Kind.QUANT, src=src, n_in=self.program.widths[src])
        if not self.config.post_norms:
            self.product(name, src, x, Flag.ACCUMULATE, lora)
            return
        self.product(name, src, h, lora=lora)
        self.norm(post_norm, h, x, False, Flag.ACCUMULATE)

    def product(self, name: str, src: int, dst: int, flags: Flag = Flag(0), lora: int = -1) -> None:
        """A product, in as many parts as it has formats. Adapters add to the last part, when all of them are there."""
        bias = self.optional(f"{name}.bias")
        parts = list(parts_of(self.weights, name))
        for i, (part, column) in enumerate(parts):
            matrix = self.weights.matrix(part)
            self.op(
                Kind.MATMUL,
                flags,
                src=src,
                dst=dst,
                i0=column,
                n_in=matrix.columns,
                n_out=matrix.rows,
                format=matrix.format,
                weights=self.weights.address(part),
                bias=None if bias is None else bias + 4 * column,
                lora=lora if i == len(parts) - 1 else -1,
            )

    def reads_bytes(self, name: str) -> bool:
        """Whether a product takes quantised activations."""
        return any(self.weights.matrix(part).format >= Format.I8 for part, _ in parts_of(self.weights, name))

    def optional(self, name: str) -> int | None:
        """Where a vector lies, if the model has it."""
        return self.weights.address(name) if name in self.weights.index else None

    def table(self, layer: int) -> int:
        """The address of a layer's table of positions; layers that share one share its memory."""
        values = self.positions(layer)
        self.program.tables.append(values)
        return int(values.ctypes.data)
