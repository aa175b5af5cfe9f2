"""Several short texts in one row, each as if it were alone: no token attends to another text, positions start anew.

Shared rows of conversations waste no padding; the test holds losses and gradients to those of unpacked rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = -1  # the segment of positions that hold no text


@dataclass(frozen=True)
class Bin:
    """One packed row: which items lie in it, in order, and how many positions they fill."""

    items: tuple[int, ...]
    length: int


def pack(lengths: Sequence[int], capacity: int) -> list[Bin]:
    """Items into rows of `capacity` by best fit of decreasing length: every item in exactly one row.

    Rows come in an order that does not depend on the items' lengths (that of their first items). An item longer than a row is a
    mistake of the caller, who cuts or drops: such items clogged nanochat's packing for good (#486, #811).
    """
    assert all(0 < length <= capacity for length in lengths)
    free: list[tuple[int, int]] = []  # (room left, number of the row), kept sorted
    rows: list[list[int]] = []
    from bisect import bisect_left, insort

    for item in sorted(range(len(lengths)), key=lambda item: (-lengths[item], item)):
        place = bisect_left(free, (lengths[item], -1))
        if place == len(free):
            rows.append([])
            room, row = capacity, len(rows) - 1
        else:
            room, row = free.pop(place)
        rows[row].append(item)
        insort(free, (room - lengths[item], row))
    bins = (Bin(tuple(sorted(row)), sum(lengths[item] for item in row)) for row in rows)
    return sorted(bins, key=lambda bin_: bin_.items[0])


def segment_positions(segments_BT: Tensor) -> Tensor:
    """0, 1, 2… within each segment, (B, T): what rotary and learned positions are given."""
    length = segments_BT.shape[1]
    t_T = torch.arange(length, device=segments_BT.device)
    begins_BT = torch.ones_like(segments_BT, dtype=torch.bool)
    begins_BT[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    start_BT = torch.where(begins_BT, t_T, torch.zeros_like(segments_BT)).cummax(dim=1).values
    return t_T - start_BT


class SegmentAttention:
    """An `Attend` (see `model.gpt`): causal within a segment, nothing across.

    segments: (B, T), equal numbers in one run of positions are one text, PADDING where there is none. The mask is made once
    a batch, not once a layer.
    """

    def __init__(self, segments_BT: Tensor, dropout: float = 0.0) -> None:
        t_T = torch.arange(segments_BT.shape[1], device=segments_BT.device)
        self.distance_TT = t_T[:, None] - t_T[None, :]
        same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]
        real_B1T = (segments_BT != PADDING)[:, None, :]
        # padding sees itself: a row with nothing to see would be NaN
        self.seen_B1TT = ((same_BTT & real_B1T & (self.distance_TT >= 0)) | (self.distance_TT == 0))[:, None]
        self.dropout = dropout

    def __call__(self, layer_index: int, q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, window: int | None) -> Tensor:
        seen_B1TT = self.seen_B1TT
        if window is not None and window < seen_B1TT.shape[-1]:
            seen_B1TT = seen_B1TT & (self.distance_TT < window)
        return F.scaled_dot_product_attention(
            q_BHTD,
            k_BGTD,
            v_BGTD,
            attn_mask=seen_B1TT,
            dropout_p=self.dropout,
            enable_gqa=q_BHTD.shape[1] != k_BGTD.shape[1],
        )
