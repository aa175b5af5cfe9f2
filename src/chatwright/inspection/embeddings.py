"""What the embedding matrix holds: the nearest tokens of a token, and a map in two dimensions.

V vocabulary, D d_model, N tokens shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from chatwright.inspection.subject import Subject

# Tokens whose neighbours are looked for at a time: a product with the whole vocabulary each.
_AT_ONCE = 32


@dataclass(frozen=True)
class Neighbour:
    """A token near another; `cosine` between -1 and 1."""

    id: int
    text: str
    cosine: float


@dataclass(frozen=True)
class Neighbourhood:
    """A token and those nearest to it, the nearest first."""

    id: int
    text: str
    nearest: Sequence[Neighbour]


@dataclass(frozen=True)
class MapPoint:
    """A token on the map. seen: in the text; near: a neighbour of one that is; other: any, so that there is a background."""

    id: int
    text: str
    x: float
    y: float
    kind: Literal["seen", "near", "other"]


@dataclass(frozen=True)
class EmbeddingMap:
    """Two principal components of the points' directions. `explained`: the share of the variance that each shows. Where it is
    small, what lies close on the map may be far apart."""

    points: Sequence[MapPoint]
    explained: tuple[float, float]


@torch.no_grad()
def nearest_tokens(subject: Subject, ids: Sequence[int], top: int = 5) -> list[Neighbourhood]:
    """The neighbours of each different token, in the order in which they first stand in the text."""
    weight_VD = subject.base.embed.weight.float()
    n_known = min(len(weight_VD), subject.tokenizer.vocab_size)  # rows beyond fill the matrix up, and stand for nothing
    length_V = weight_VD.norm(dim=1).clamp(min=1e-12)
    distinct = list(dict.fromkeys(ids))
    found = []
    for first in range(0, len(distinct), _AT_ONCE):
        some = distinct[first : first + _AT_ONCE]
        cosine_NV = (weight_VD[some] @ weight_VD.T) / length_V / length_V[some][:, None]
        cosine_NV[torch.arange(len(some)), some] = -torch.inf
        cosine_NV[:, n_known:] = -torch.inf
        best = cosine_NV.topk(min(top, n_known - 1))
        for token_id, near, cosines in zip(some, best.indices.tolist(), best.values.tolist(), strict=True):
            nearest = [Neighbour(i, subject.text_of(i), cosine) for i, cosine in zip(near, cosines, strict=True)]
            found.append(Neighbourhood(token_id, subject.text_of(token_id), nearest))
    return found


@torch.no_grad()
def embedding_map(subject: Subject, neighbourhoods: Sequence[Neighbourhood], n_others: int = 250) -> EmbeddingMap:
    """The text's tokens, their neighbours, and others from all over the vocabulary. Directions only: how long a vector is tells
    how common its token is, and would be all that the map shows."""
    seen = [each.id for each in neighbourhoods]
    near = [neighbour.id for each in neighbourhoods for neighbour in each.nearest]
    n_known = min(len(subject.base.embed.weight), subject.tokenizer.vocab_size)
    others = range(0, n_known, max(1, n_known // n_others))[:n_others]
    kinds: dict[int, Literal["seen", "near", "other"]] = dict.fromkeys(others, "other")
    kinds |= dict.fromkeys(near, "near")
    kinds |= dict.fromkeys(seen, "seen")
    ids = list(kinds)
    x_ND = F.normalize(subject.base.embed.weight[ids].float(), dim=1)
    xy_N2, explained = principal_components(x_ND)
    points = [
        MapPoint(token_id, subject.text_of(token_id), x, y, kinds[token_id])
        for token_id, (x, y) in zip(ids, xy_N2.tolist(), strict=True)
    ]
    return EmbeddingMap(points, explained)


def principal_components(x_ND: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """(N, 2): the centred rows on their two directions of most variance, and the share of it that each has. Signs are chosen so
    that the same rows always give the same map."""
    centred_ND = (x_ND - x_ND.mean(0)).double().cpu()
    u_NK, s_K, _ = torch.linalg.svd(centred_ND, full_matrices=False)
    xy_N2 = torch.zeros(len(x_ND), 2, dtype=torch.float64)
    k = min(2, len(s_K))
    xy_N2[:, :k] = u_NK[:, :k] * s_K[:k]
    largest = xy_N2.abs().argmax(0)
    signs = xy_N2[largest, torch.arange(2)].sign()
    xy_N2 = xy_N2 * torch.where(signs == 0, 1, signs)
    variance = s_K.square()
    total = float(variance.sum()) or 1.0
    shares = [float(variance[i]) / total if i < len(variance) else 0.0 for i in range(2)]
    return xy_N2, (shares[0], shares[1])
