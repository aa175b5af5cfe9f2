"""The decoder: one definition for every family, for training and for serving.

Read from top to bottom it is the paper (Vaswani et al. 2017; Radford et al. 2019 for pre-norm), with the later choices
that `ModelConfig` names: RMSNorm (Zhang & Sennrich 2019), rotary positions (Su et al. 2021), grouped-query attention
(Ainslie et al. 2023), gated feed-forward (Shazeer 2020), q/k-norm (Henry et al. 2020), windows (Beltagy et al. 2020), norms
after the branches too and rotary frequencies of their own for windowed layers (Gemma Team 2025).

Letters in names are axes: B sequences, T tokens of each, V vocabulary, H query heads, G key/value heads (which divide
H), F d_ff; D is d_model in x_BTD and head_dim in q_BHTD, k_BGTD, v_BGTD, o_BHTD; R is head_dim / 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chatwright.model.config import Activation, ModelConfig, RopeScaling
from chatwright.model.first_call import settle_mkl

# Tokens of a row. Forward and backward of 4,096 tokens and 4 heads of 64 on one core, products against torch's flash kernel: 37 and
# 62 ms in rows of 256, 75 and 99 in rows of 512; in rows of 1,024 (8 heads) 309 and 252.
LONGEST_BY_PRODUCTS = 512


class Attend(Protocol):
    """How queries meet keys, those of earlier calls included: the place where an engine keeps its KV cache."""

    def __call__(
        self, layer_index: int, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, window: int | None
    ) -> Tensor:  # o_BHTD
        """q and k come after q/k-norm and rotary; scores are q · k / √head_dim, whatever the family. `window`: how many positions
        back, itself included; None is all.
        """


class GPT(nn.Module):
    """Token ids in, logits out. Parameters are those of `config.parameter_shapes`.

    `dropout` is a probability (Srivastava et al. 2014), at GPT-2's three places: the embedded input, the attention weights
    and the output of each residual branch; only in train mode.
    """

    def __init__(self, config: ModelConfig, dropout: float = 0.0) -> None:
        super().__init__()
        settle_mkl()
        self.config = config
        self.dropout = nn.Dropout(dropout)
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        if config.positions == "learned":
            self.position_embed = nn.Embedding(config.context_length, config.d_model)
        elif config.positions == "rotary":
            self.rotary = Rotary(config, config.rope_theta, config.rope_scaling)
            if config.local_rope_theta is not None:
                self.local_rotary = Rotary(config, config.local_rope_theta)
        self.layers = nn.ModuleList(Layer(config, index, dropout) for index in range(config.n_layer))
        self.norm = make_norm(config, config.d_model)
        self.head = None if config.tied else nn.Linear(config.d_model, config.vocab_size, bias=False)

    @property
    def attention_dropout(self) -> float:
        """The probability that an `Attend` drops an attention weight with, now: 0 outside of train mode."""
        return self.dropout.p if self.training else 0.0

    def hidden(self, ids_BT: Tensor, positions_BT: Tensor | None = None, attend: Attend | None = None) -> Tensor:
        """The last layer's output after the final norm, x_BTD.

        Without `positions_BT` tokens stand at 0, 1, 2…; without `attend` each sequence attends causally to itself.
        """
        attend = attend or CausalAttention(dropout=self.attention_dropout)
        if positions_BT is None:
            positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand_as(ids_BT)
        x_BTD: Tensor = self.embed(ids_BT)
        if self.config.embed_scale != 1:
            x_BTD = x_BTD * self.config.embed_scale
        rotation: Rotation | None = None
        local_rotation: Rotation | None = None
        match self.config.positions:
            case "learned":
                x_BTD = x_BTD + self.position_embed(positions_BT)
            case "sinusoidal":
                x_BTD = x_BTD + fixed_positions(positions_BT, self.config.d_model).to(x_BTD.dtype)
            case "rotary":
                rotation = local_rotation = self.rotary(positions_BT, x_BTD.dtype)
                if self.config.local_rope_theta is not None:
                    local_rotation = self.local_rotary(positions_BT, x_BTD.dtype)
        x_BTD = self.dropout(x_BTD)
        for layer, window in zip(self.layers, self.config.windows, strict=True):
            x_BTD = layer(x_BTD, rotation if window is None else local_rotation, attend)
        normed_BTD: Tensor = self.norm(x_BTD)
        return normed_BTD

    def logits(self, x: Tensor) -> Tensor:
        """The output head, (..., d_model) → (..., V); ask only for the rows you need: it is the widest matrix."""
        return F.linear(x, self.embed.weight if self.head is None else self.head.weight)

    def forward(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor | None = None,
        mask_BT: Tensor | None = None,
        attend: Attend | None = None,
    ) -> Tensor:
        """Logits of every token, (B, T, V).

        `mask_BT` is True at real tokens and False at padding, left or right; positions then count real tokens only, and
        what comes out at padding is finite and meaningless.
        """
        if mask_BT is not None:
            mask_BT = mask_BT.bool()
            attend = attend or CausalAttention(mask_BT, self.attention_dropout)
            if positions_BT is None:
                positions_BT = (mask_BT.long().cumsum(-1) - 1).clamp(min=0)
        return self.logits(self.hidden(ids_BT, positions_BT, attend))


class Layer(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)); with `post_norms` the branches are normed once more."""

    def __init__(self, config: ModelConfig, index: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention_norm = make_norm(config, config.d_model)
        self.attention = Attention(config, index)
        self.attention_post_norm = make_norm(config, config.d_model) if config.post_norms else None
        self.feed_forward_norm = make_norm(config, config.d_model)
        self.feed_forward = FeedForward(config)
        self.feed_forward_post_norm = make_norm(config, config.d_model) if config.post_norms else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, rotation: Rotation | None, attend: Attend) -> Tensor:
        branch_BTD = self.attention(self.attention_norm(x_BTD), rotation, attend)
        if self.attention_post_norm is not None:
            branch_BTD = self.attention_post_norm(branch_BTD)
        x_BTD = x_BTD + self.dropout(branch_BTD)
        branch_BTD = self.feed_forward(self.feed_forward_norm(x_BTD))
        if self.feed_forward_post_norm is not None:
            branch_BTD = self.feed_forward_post_norm(branch_BTD)
        x_BTD = x_BTD + self.dropout(branch_BTD)
        return x_BTD


class Attention(nn.Module):
    """Multi-head attention; G < H is grouped-query attention."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.index = index
        self.window = config.windows[index]
        self.head_dim = config.head_dim
        # an `Attend` divides by √head_dim; a family that scales otherwise has the difference in its queries
        self.query_factor = 1.0 if config.query_scale is None else config.query_scale * math.sqrt(config.head_dim)
        d_q, d_kv = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
        self.q = nn.Linear(config.d_model, d_q, bias=config.qkv_bias)
        self.k = nn.Linear(config.d_model, d_kv, bias=config.qkv_bias)
        self.v = nn.Linear(config.d_model, d_kv, bias=config.qkv_bias)
        self.out = nn.Linear(d_q, config.d_model, bias=config.out_bias)
        self.q_norm = RMSNorm(config.head_dim, eps=config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, eps=config.norm_eps) if config.qk_norm else None

    def forward(self, x_BTD: Tensor, rotation: Rotation | None, attend: Attend) -> Tensor:
        q_BTHD, k_BTGD, v_BTGD = (
            project(x_BTD).unflatten(-1, (-1, self.head_dim)) for project in (self.q, self.k, self.v)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q_BTHD, k_BTGD = self.q_norm(q_BTHD), self.k_norm(k_BTGD)
        q_BHTD, k_BGTD, v_BGTD = (heads.transpose(1, 2) for heads in (q_BTHD, k_BTGD, v_BTGD))
        if rotation is not None:
            q_BHTD, k_BGTD = rotate(q_BHTD, rotation), rotate(k_BGTD, rotation)
        if self.query_factor != 1:
            q_BHTD = q_BHTD * self.query_factor
        o_BHTD = attend(self.index, q_BHTD, k_BGTD, v_BGTD, self.window)
        projected_BTD: Tensor = self.out(o_BHTD.transpose(1, 2).flatten(2))
        return projected_BTD


class FeedForward(nn.Module):
    """Two matrices around an activation, or three when gated (SwiGLU, GeGLU)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=config.mlp_bias) if config.gated else None
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.mlp_bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.mlp_bias)
        self.activate = ACTIVATIONS[config.activation]

    def forward(self, x_BTD: Tensor) -> Tensor:
        up_BTF = self.up(x_BTD)
        h_BTF = self.activate(up_BTF) if self.gate is None else self.activate(self.gate(x_BTD)) * up_BTF
        down_BTD: Tensor = self.down(h_BTF)
        return down_BTD


class CausalAttention:
    """Attention of a batch to itself (Vaswani et al. 2017, eq. 1): a token sees earlier real tokens and itself."""

    def __init__(self, mask_BT: Tensor | None = None, dropout: float = 0.0) -> None:
        self.mask_BT = mask_BT
        self.dropout = dropout

    def __call__(self, layer_index: int, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, window: int | None) -> Tensor:
        length = q_BHTD.shape[2]
        grouped = q_BHTD.shape[1] != k_BGTD.shape[1]
        if self.mask_BT is None and (window is None or window >= length):
            if _short_in_bfloat16_on_cpu(q_BHTD):
                return attend_by_products(q_BHTD, k_BGTD, v_BGTD, self.dropout)
            return F.scaled_dot_product_attention(
                q_BHTD, k_BGTD, v_BGTD, dropout_p=self.dropout, is_causal=True, enable_gqa=grouped
            )
        t = torch.arange(length, device=q_BHTD.device)
        distance_TT = t[:, None] - t[None, :]
        seen_BHTT = (distance_TT >= 0)[None, None]
        if window is not None:
            seen_BHTT = seen_BHTT & (distance_TT < window)
        if self.mask_BT is not None:
            # padding sees itself: a row with nothing to see would be NaN
            seen_BHTT = seen_BHTT & self.mask_BT[:, None, None, :] | (distance_TT == 0)
        return F.scaled_dot_product_attention(
            q_BHTD, k_BGTD, v_BGTD, attn_mask=seen_BHTT, dropout_p=self.dropout, enable_gqa=grouped
        )


def _short_in_bfloat16_on_cpu(q_BHTD: Tensor) -> bool:
    return q_BHTD.device.type == "cpu" and torch.is_autocast_enabled("cpu") and q_BHTD.shape[2] <= LONGEST_BY_PRODUCTS


def attend_by_products(q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, dropout: float = 0.0) -> Tensor:
    """Causal attention with all scores in memory, in bfloat16: for short rows twice as fast as torch's flash kernel for processors.

    The heads of a group lie one after the other, so that its keys are not repeated.
    """
    batch, n_head, length, head_dim = q_BHTD.shape
    n_group, dtype = k_BGTD.shape[1], torch.bfloat16
    q = (q_BHTD * head_dim**-0.5).to(dtype).reshape(batch * n_group, -1, head_dim)
    k, v = (x_BGTD.to(dtype).reshape(batch * n_group, length, head_dim) for x_BGTD in (k_BGTD, v_BGTD))
    later_TT = torch.full((length, length), -math.inf, dtype=dtype).triu(1)
    scores = torch.baddbmm(later_TT.repeat(n_head // n_group, 1), q, k.mT)
    weights = F.dropout(scores.softmax(-1), dropout)  # summed in float32 inside
    return torch.bmm(weights, v).view(batch, n_head, length, head_dim)


Rotation = tuple[Tensor, Tensor]  # cos_B1TR, sin_B1TR


class Rotary(nn.Module):
    """Positions as rotations of q and k (Su et al. 2021); channel r is paired with channel r + R, as in Llama."""

    frequencies: Tensor  # (R,)

    def __init__(self, config: ModelConfig, theta: float, scaling: RopeScaling | None = None) -> None:
        super().__init__()
        self.head_dim, self.theta, self.scaling = config.head_dim, theta, scaling
        # on the CPU even while parameters are being built on the meta device: no file holds these numbers
        self.register_buffer("frequencies", self.exact_frequencies(), persistent=False)

    def forward(self, positions_BT: Tensor, dtype: torch.dtype) -> Rotation:
        angles_B1TR = positions_BT[:, None, :, None].float() * self.frequencies
        return angles_B1TR.cos().to(dtype), angles_B1TR.sin().to(dtype)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        # `.to(torch.bfloat16)` must not round the frequencies: at position 10,000 that is whole turns
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.frequencies = self.exact_frequencies().to(self.frequencies.device)
        return self

    def exact_frequencies(self) -> Tensor:
        """See `rotary_frequencies`."""
        return rotary_frequencies(self.head_dim, self.theta, self.scaling)


def rotate(x_BHTD: Tensor, rotation: Rotation) -> Tensor:
    """Turns each pair (r, r + R) of channels by its angle."""
    cos_B1TR, sin_B1TR = rotation
    a, b = x_BHTD.chunk(2, dim=-1)
    return torch.cat((a * cos_B1TR - b * sin_B1TR, b * cos_B1TR + a * sin_B1TR), dim=-1)


def rotary_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """Radians a position, (head_dim / 2,), float32 on the CPU, scaling included."""
    r = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu")
    return scale_frequencies(1.0 / theta ** (r / head_dim), scaling)


def scale_frequencies(frequencies_R: Tensor, scaling: RopeScaling | None) -> Tensor:
    """`RopeScaling` applied."""
    if scaling is None:
        return frequencies_R
    if scaling.kind == "linear":
        return frequencies_R / scaling.factor
    if scaling.kind == "factors":
        return frequencies_R / torch.tensor(scaling.factors, device="cpu")
    # turns made within the context first trained on decide how much of the unscaled frequency is kept
    turns_R = scaling.original_context_length * frequencies_R / (2 * math.pi)
    kept_R = (turns_R - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return torch.lerp(frequencies_R / scaling.factor, frequencies_R, kept_R.clamp(0, 1))


def sinusoids(positions_BT: Tensor, d_model: int) -> Tensor:
    """Fixed positions (Vaswani et al. 2017, section 3.5), (B, T, d_model): sines at even channels, cosines at odd."""
    channel = torch.arange(0, d_model, 2, device=positions_BT.device, dtype=torch.float32)
    angles = positions_BT[..., None].float() / 10_000 ** (channel / d_model)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)[..., :d_model]


def fixed_positions(positions_BT: Tensor, d_model: int) -> Tensor:
    """The sinusoids as they are added to embeddings, (B, T, d_model): divided by √d_model.

    The paper multiplies the embeddings by that (section 3.4) instead, which is the same to the norms; but the head shares the
    embedding, GPT-2's layout has no such factor, and beside sinusoids of size 1 a small model hardly sees its tokens: after
    160 steps it had not got beyond bigrams.
    """
    return sinusoids(positions_BT, d_model) / math.sqrt(d_model)


def make_norm(config: ModelConfig, width: int) -> nn.Module:
    """The family's norm over the last axis."""
    if config.norm == "layernorm":
        return nn.LayerNorm(width, eps=config.norm_eps)
    return RMSNorm(width, eps=config.norm_eps)


class RMSNorm(nn.RMSNorm):
    """x / rms(x) · weight. Under autocast x may be bfloat16 while the weight is float32, for which torch has no fused kernel, and
    says so in a warning.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation (Hendrycks & Gimpel 2016), as GPT-2 was trained with."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "silu": F.silu,
    "relu": F.relu,
}
