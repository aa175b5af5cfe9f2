"""The encoder of the Transformer, BERT-shaped (Devlin et al. 2018): every token sees every other; the base of heads and embeddings.

As Vaswani et al. (2017) draw it, the norm comes after each branch: norm(x + attention(x)), then norm(x + feed_forward(x)).

Letters in names are axes: B sequences, T tokens of each, D d_model in x_BTD and head_dim in q_BHTD, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chatwright.model.encoder_config import EncoderConfig
from chatwright.model.first_call import settle_mkl
from chatwright.model.gpt import ACTIVATIONS
from chatwright.model.pooling import Pooling


class Encoder(nn.Module):
    """Token ids in, one vector a token out. `dropout` as BERT's, at the input, the attention weights and each branch."""

    def __init__(self, config: EncoderConfig, dropout: float = 0.0) -> None:
        super().__init__()
        settle_mkl()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embed = nn.Embedding(config.context_length, config.d_model)
        self.type_embed = nn.Embedding(config.n_token_types, config.d_model)
        self.norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(EncoderLayer(config, dropout) for _ in range(config.n_layer))
        self.pooler = nn.Linear(config.d_model, config.d_model) if config.pooler else None

    def hidden(self, ids_BT: Tensor, mask_BT: Tensor | None = None, types_BT: Tensor | None = None) -> Tensor:
        """The last layer's output, x_BTD. `mask_BT` is True at real tokens; what comes out at padding is meaningless.

        Tokens stand at 0, 1, 2… whatever the mask says, as in BERT; without `types_BT` all are of the first type.
        """
        positions_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        types_BT = torch.zeros_like(ids_BT) if types_BT is None else types_BT
        x_BTD: Tensor = self.embed(ids_BT) + self.type_embed(types_BT) + self.position_embed(positions_T)
        x_BTD = self.dropout(self.norm(x_BTD))
        seen_B11T = None
        if mask_BT is not None:
            mask_BT = mask_BT.bool()
            # a row of padding only sees it all: with nothing to see it would be NaN
            seen_B11T = (mask_BT | ~mask_BT.any(-1, keepdim=True))[:, None, None, :]
        for layer in self.layers:
            x_BTD = layer(x_BTD, seen_B11T)
        return x_BTD

    def forward(self, ids_BT: Tensor, mask_BT: Tensor | None = None, types_BT: Tensor | None = None) -> Tensor:
        """`hidden`."""
        return self.hidden(ids_BT, mask_BT, types_BT)

    def pooled(self, x_BTD: Tensor) -> Tensor:
        """BERT's vector of a sequence, (B, D): a layer and tanh over the first token."""
        assert self.pooler is not None, "this encoder has no pooler"
        return torch.tanh(self.pooler(x_BTD[:, 0]))


def mean_pooled(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean over the real tokens of each row, (B, D): the sentence embedding of Reimers & Gurevych (2019)."""
    weights_BT1 = mask_BT.bool()[..., None].to(x_BTD.dtype)
    return (x_BTD * weights_BT1).sum(1) / weights_BT1.sum(1).clamp(min=1)


def pooled(x_BTD: Tensor, mask_BT: Tensor, pooling: Pooling) -> Tensor:
    """One vector a row, (B, D), as the encoder's folder says. Each row has a real token, and its first one is real."""
    match pooling.mode:
        case "mean":
            x_BD = mean_pooled(x_BTD, mask_BT)
        case "cls":
            x_BD = x_BTD[:, 0]
        case "max":
            x_BD = x_BTD.masked_fill(~mask_BT.bool()[..., None], -torch.inf).amax(1)
    return F.normalize(x_BD, dim=-1) if pooling.normalize else x_BD


class EncoderLayer(nn.Module):
    """norm(x + attention(x)), then norm(x + feed_forward(x))."""

    def __init__(self, config: EncoderConfig, dropout: float) -> None:
        super().__init__()
        self.attention = EncoderAttention(config, dropout)
        self.attention_norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.feed_forward = EncoderFeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, seen_B11T: Tensor | None) -> Tensor:
        x_BTD = self.attention_norm(x_BTD + self.dropout(self.attention(x_BTD, seen_B11T)))
        y_BTD: Tensor = self.feed_forward_norm(x_BTD + self.dropout(self.feed_forward(x_BTD)))
        return y_BTD


class EncoderAttention(nn.Module):
    """Multi-head attention without a direction (Vaswani et al. 2017, 3.2)."""

    def __init__(self, config: EncoderConfig, dropout: float) -> None:
        super().__init__()
        self.head_dim = config.d_model // config.n_head
        self.drop = dropout
        self.q, self.k, self.v, self.out = (nn.Linear(config.d_model, config.d_model) for _ in range(4))

    def forward(self, x_BTD: Tensor, seen_B11T: Tensor | None) -> Tensor:
        q_BHTD, k_BHTD, v_BHTD = (
            project(x_BTD).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for project in (self.q, self.k, self.v)
        )
        drop = self.drop if self.training else 0.0
        o_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, attn_mask=seen_B11T, dropout_p=drop)
        projected_BTD: Tensor = self.out(o_BHTD.transpose(1, 2).flatten(2))
        return projected_BTD


class EncoderFeedForward(nn.Module):
    """Two matrices around an activation."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_ff)
        self.down = nn.Linear(config.d_ff, config.d_model)
        self.activate = ACTIVATIONS[config.activation]

    def forward(self, x_BTD: Tensor) -> Tensor:
        down_BTD: Tensor = self.down(self.activate(self.up(x_BTD)))
        return down_BTD
