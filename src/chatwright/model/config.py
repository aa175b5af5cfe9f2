"""What a decoder is, as one frozen value: the choices that turn one definition into GPT-2, Llama, Mistral, Qwen or Gemma."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from chatwright.errors import InvalidModelError

Family = Literal["gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma3"]
Norm = Literal["layernorm", "rmsnorm"]
Positions = Literal["learned", "sinusoidal", "rotary"]
Activation = Literal["gelu", "gelu_tanh", "silu", "relu"]
RopeScalingKind = Literal["linear", "llama3", "factors"]

# Far above every published model, far below what would exhaust memory before the shapes in the file are looked at.
_LARGEST = {
    "vocab_size": 1 << 24,
    "n_layer": 1 << 10,
    "d_model": 1 << 18,
    "n_head": 1 << 12,
    "n_kv_head": 1 << 12,
    "head_dim": 1 << 12,
    "d_ff": 1 << 22,
    "context_length": 1 << 28,
}


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched for contexts longer than those first trained on.

    linear: all frequencies are divided by `factor` (Chen et al. 2023). llama3: low frequencies are divided by `factor`,
    high ones kept, those between interpolated (Llama 3.1). factors: frequency i is divided by `factors[i]` (GGUF).
    """

    kind: RopeScalingKind
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context_length: int = 8192
    factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_choice("rope_scaling.kind", self.kind, get_args(RopeScalingKind))
        _check_float("rope_scaling.factor", self.factor, 1e-6, 1e6)
        _check_float("rope_scaling.low_freq_factor", self.low_freq_factor, 1e-6, 1e6)
        _check_float("rope_scaling.high_freq_factor", self.high_freq_factor, 1e-6, 1e6)
        _check_int("rope_scaling.original_context_length", self.original_context_length, _LARGEST["context_length"])
        for factor in self.factors:
            _check_float("rope_scaling.factors", factor, 1e-6, 1e6)
        if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise InvalidModelError(
                "In the model's configuration, high_freq_factor ({high}) must be greater than low_freq_factor ({low}).",
                high=self.high_freq_factor,
                low=self.low_freq_factor,
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A pre-norm decoder. Raises InvalidModelError when a number is of the wrong type, out of range or inconsistent.

    `windows` has one entry a layer: how many positions back a token sees, itself included, or None for all; an empty
    tuple means None everywhere. `qkv_bias` and `out_bias` belong to attention's projections into and out of its heads.
    `post_norms`: whether the output of attention and of the feed-forward is normed before it is added to the residual stream.
    `embed_scale`: what embeddings are multiplied with on their way in (the head that shares them does not see it).
    `query_scale`: what the products of queries and keys are multiplied with; None is 1 / √head_dim. `local_rope_theta`: the
    base of the rotary frequencies, never stretched, of layers with a window; None: `rope_theta` and `rope_scaling` as all have.
    """

    family: Family
    vocab_size: int
    n_layer: int
    d_model: int
    n_head: int
    n_kv_head: int
    head_dim: int
    d_ff: int
    context_length: int
    norm: Norm
    norm_eps: float
    positions: Positions
    activation: Activation
    gated: bool
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    local_rope_theta: float | None = None
    qk_norm: bool = False
    query_scale: float | None = None
    post_norms: bool = False
    embed_scale: float = 1.0
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    windows: tuple[int | None, ...] = ()
    tied: bool = False

    def __post_init__(self) -> None:
        _check_choice("family", self.family, get_args(Family))
        for name, largest in _LARGEST.items():
            _check_int(name, getattr(self, name), largest)
        _check_choice("norm", self.norm, get_args(Norm))
        _check_choice("positions", self.positions, get_args(Positions))
        _check_choice("activation", self.activation, get_args(Activation))
        _check_float("norm_eps", self.norm_eps, 0.0, 1.0)
        _check_float("rope_theta", self.rope_theta, 1.0, 1e15)
        if self.local_rope_theta is not None:
            _check_float("local_rope_theta", self.local_rope_theta, 1.0, 1e15)
        if self.query_scale is not None:
            _check_float("query_scale", self.query_scale, 1e-6, 1e6)
        _check_float("embed_scale", self.embed_scale, 1e-6, 1e6)
        if self.n_head % self.n_kv_head:
            raise InvalidModelError(
                "In the model's configuration, n_head ({n_head}) is not a multiple of n_kv_head ({n_kv_head}).",
                n_head=self.n_head,
                n_kv_head=self.n_kv_head,
            )
        if self.positions == "rotary" and self.head_dim % 2:
            raise InvalidModelError(
                "In the model's configuration, head_dim ({head_dim}) is odd; rotary positions need an even one.",
                head_dim=self.head_dim,
            )
        if self.rope_scaling and self.rope_scaling.kind == "factors":
            _check_count("rope_scaling.factors", len(self.rope_scaling.factors), self.head_dim // 2)
        if not self.windows:
            object.__setattr__(self, "windows", (None,) * self.n_layer)
        _check_count("windows", len(self.windows), self.n_layer)
        for window in self.windows:
            if window is not None:
                _check_int("window", window, _LARGEST["context_length"])

    def layer_rope(self, index: int) -> tuple[float, RopeScaling | None]:
        """The base of a layer's rotary frequencies, and how they are stretched."""
        if self.local_rope_theta is not None and self.windows[index] is not None:
            return self.local_rope_theta, None
        return self.rope_theta, self.rope_scaling


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every parameter of `GPT(config)`, without building it (matrices are (out, in))."""
    c = config
    d_q, d_kv = c.n_head * c.head_dim, c.n_kv_head * c.head_dim
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (c.vocab_size, c.d_model)}

    def add_norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = (width,)
        if c.norm == "layernorm":
            shapes[f"{name}.bias"] = (width,)

    def add_linear(name: str, d_out: int, d_in: int, bias: bool) -> None:
        shapes[f"{name}.weight"] = (d_out, d_in)
        if bias:
            shapes[f"{name}.bias"] = (d_out,)

    if c.positions == "learned":
        shapes["position_embed.weight"] = (c.context_length, c.d_model)
    for i in range(c.n_layer):
        layer = f"layers.{i}"
        add_norm(f"{layer}.attention_norm", c.d_model)
        add_linear(f"{layer}.attention.q", d_q, c.d_model, c.qkv_bias)
        add_linear(f"{layer}.attention.k", d_kv, c.d_model, c.qkv_bias)
        add_linear(f"{layer}.attention.v", d_kv, c.d_model, c.qkv_bias)
        add_linear(f"{layer}.attention.out", c.d_model, d_q, c.out_bias)
        if c.qk_norm:
            shapes[f"{layer}.attention.q_norm.weight"] = (c.head_dim,)
            shapes[f"{layer}.attention.k_norm.weight"] = (c.head_dim,)
        if c.post_norms:
            add_norm(f"{layer}.attention_post_norm", c.d_model)
        add_norm(f"{layer}.feed_forward_norm", c.d_model)
        if c.gated:
            add_linear(f"{layer}.feed_forward.gate", c.d_ff, c.d_model, c.mlp_bias)
        add_linear(f"{layer}.feed_forward.up", c.d_ff, c.d_model, c.mlp_bias)
        add_linear(f"{layer}.feed_forward.down", c.d_model, c.d_ff, c.mlp_bias)
        if c.post_norms:
            add_norm(f"{layer}.feed_forward_post_norm", c.d_model)
    add_norm("norm", c.d_model)
    if not c.tied:
        shapes["head.weight"] = (c.vocab_size, c.d_model)
    return shapes


def parameter_count(config: ModelConfig) -> int:
    """Numbers that training would change; a tied head counts once."""
    return sum(math.prod(shape) for shape in parameter_shapes(config).values())


def shown(value: object) -> str:
    """A value from a file as it may stand in a sentence: short, whatever the file holds."""
    try:
        text = repr(value)
    except RecursionError:
        text = "a deeply nested value"
    return text if len(text) <= 60 else text[:57] + "..."


def _check_int(field: str, value: object, largest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
        raise InvalidModelError(
            "In the model's configuration, {field} is {value}; it must be a whole number from 1 to {largest}.",
            field=field,
            value=shown(value),
            largest=largest,
        )


def _check_float(field: str, value: object, smallest: float, largest: float) -> None:
    # the comparison is false for NaN
    if not isinstance(value, int | float) or isinstance(value, bool) or not smallest <= value <= largest:
        raise InvalidModelError(
            "In the model's configuration, {field} is {value}; it must be a number from {smallest} to {largest}.",
            field=field,
            value=shown(value),
            smallest=smallest,
            largest=largest,
        )


def _check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidModelError(
            "In the model's configuration, {field} is {value}, which is not supported (supported: {choices}).",
            field=field,
            value=shown(value),
            choices=", ".join(choices),
        )


def _check_count(field: str, count: int, expected: int) -> None:
    if count != expected:
        raise InvalidModelError(
            "In the model's configuration, {field} has {count} entries where {expected} are needed.",
            field=field,
            count=count,
            expected=expected,
        )
