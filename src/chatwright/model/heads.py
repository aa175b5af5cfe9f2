"""Heads over a decoder or an encoder: one label a text (classification, sentiment), one label a token (named entities).

The maps are Transformers': of a decoder the last real token tells about the text, of an encoder BERT's pooled first token.
Letters in names are axes: B texts, T tokens of each, D d_model, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from chatwright.errors import UsageError
from chatwright.model.encoder import Encoder
from chatwright.model.gpt import GPT, CausalAttention
from chatwright.model.head_checkpoint import MAX_LABELS
from chatwright.model.init import STD


class Head(nn.Module):
    """What both heads share: the base, its dropout and one matrix. `pad_id` is the token that fills rows of a batch.

    The matrix is drawn from `seed`, as BERT's. Raises UsageError for labels that are too few, too many or not distinct.
    """

    def __init__(
        self,
        base: GPT | Encoder,
        labels: Sequence[str],
        *,
        pad_id: int | None = None,
        dropout: float = 0.1,
        seed: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= len(labels) <= MAX_LABELS or len(set(labels)) != len(labels):
            raise UsageError(
                "A head needs from 1 to {most} labels, each once; these are {n}.", most=MAX_LABELS, n=len(labels)
            )
        self.base = base
        self.labels = tuple(labels)
        self.pad_id = base.config.pad_id if isinstance(base, Encoder) else pad_id
        self.dropout = nn.Dropout(dropout)
        weight = next(base.parameters())
        self.score = nn.Linear(base.config.d_model, len(labels), bias, device=weight.device, dtype=weight.dtype)
        generator = torch.Generator("cpu").manual_seed(seed)
        with torch.no_grad():
            self.score.weight.copy_(torch.randn(self.score.weight.shape, generator=generator) * STD)
            if bias:
                self.score.bias.zero_()

    def hidden(self, ids_BT: Tensor, mask_BT: Tensor | None, types_BT: Tensor | None) -> Tensor:
        """The base's x_BTD; a decoder's positions count from 0 at the left, as Transformers has them for its heads."""
        if isinstance(self.base, Encoder):
            return self.base.hidden(ids_BT, mask_BT, types_BT)
        attend = None if mask_BT is None else CausalAttention(mask_BT.bool(), self.base.attention_dropout)
        return self.base.hidden(ids_BT, attend=attend)


class TextClassifier(Head):
    """One label a text. Decoder: a matrix over the last real token. Encoder: pooler, dropout, a matrix with bias."""

    def __init__(
        self,
        base: GPT | Encoder,
        labels: Sequence[str],
        *,
        pad_id: int | None = None,
        dropout: float = 0.1,
        seed: int = 0,
    ) -> None:
        is_encoder = isinstance(base, Encoder)
        super().__init__(base, labels, pad_id=pad_id, dropout=dropout, seed=seed, bias=is_encoder)
        if isinstance(base, Encoder) and base.pooler is None:
            base.pooler = nn.Linear(base.config.d_model, base.config.d_model).to(self.score.weight)
            base.config = replace(base.config, pooler=True)
            generator = torch.Generator("cpu").manual_seed(seed + 1)
            with torch.no_grad():
                base.pooler.weight.copy_(torch.randn(base.pooler.weight.shape, generator=generator) * STD)
                base.pooler.bias.zero_()

    def forward(self, ids_BT: Tensor, mask_BT: Tensor | None = None, types_BT: Tensor | None = None) -> Tensor:
        """Logits (B, C). Rows are padded on the right, with `pad_id` where Transformers is to agree; the mask is True at text.

        A decoder's last real token is the rightmost one that is neither masked nor `pad_id`: a text must not end in padding.
        """
        x_BTD = self.hidden(ids_BT, mask_BT, types_BT)
        if isinstance(self.base, Encoder):
            pooled_BC: Tensor = self.score(self.dropout(self.base.pooled(x_BTD)))
            return pooled_BC
        real_BT = torch.ones_like(ids_BT, dtype=torch.bool) if mask_BT is None else mask_BT.bool()
        if self.pad_id is not None:
            real_BT = real_BT & (ids_BT != self.pad_id)
        last_B = (torch.arange(ids_BT.shape[1], device=ids_BT.device) * real_BT).argmax(-1)
        logits_BC: Tensor = self.score(self.dropout(x_BTD[torch.arange(len(ids_BT), device=ids_BT.device), last_B]))
        return logits_BC


class TokenTagger(Head):
    """One label a token: dropout, then a matrix with bias over every token."""

    def forward(self, ids_BT: Tensor, mask_BT: Tensor | None = None, types_BT: Tensor | None = None) -> Tensor:
        """Logits (B, T, C); what comes out at padding is meaningless."""
        logits_BTC: Tensor = self.score(self.dropout(self.hidden(ids_BT, mask_BT, types_BT)))
        return logits_BTC
