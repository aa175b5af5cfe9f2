"""Texts that share a row are as if alone."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from chatwright.model.gpt import GPT
from chatwright.model.init import initialise
from chatwright.model.presets import config_for_size
from chatwright.training.packing import PADDING, SegmentAttention, pack, segment_positions


@given(lengths=st.lists(st.integers(1, 20), max_size=60))
def test_every_text_lies_in_one_row_that_holds_it(lengths: list[int]) -> None:
    bins = pack(lengths, 20)
    assert sorted(item for each in bins for item in each.items) == list(range(len(lengths)))
    assert all(each.length == sum(lengths[item] for item in each.items) <= 20 for each in bins)
    if lengths:
        half_empty = sum(each.length <= 10 for each in bins)
        assert half_empty <= 1  # best fit: two such rows would be one


def test_positions_start_anew_in_each_segment() -> None:
    segments = torch.tensor([[0, 0, 0, 1, 1, 2, PADDING, PADDING]])
    assert segment_positions(segments).tolist() == [[0, 1, 2, 0, 1, 0, 0, 1]]


def test_packed_equals_unpacked() -> None:
    for arch in ("qwen3", "gpt2"):
        model = GPT(config_for_size(60_000, 100, 64, arch))  # type: ignore[arg-type]
        initialise(model, 0)
        torch.nn.init.normal_(model.layers[0].attention.out.weight, std=0.3)  # type: ignore[union-attr, arg-type]
        texts = [torch.randint(0, 100, (n,)) for n in (5, 9, 2, 7)]
        row = torch.cat([*texts, torch.zeros(3, dtype=torch.long)])[None]
        segments = torch.tensor([[n for n, text in enumerate(texts) for _ in text] + [PADDING] * 3])
        packed = model.hidden(row, segment_positions(segments), SegmentAttention(segments))[0]
        alone = torch.cat([model.hidden(text[None])[0] for text in texts])
        torch.testing.assert_close(packed[: len(alone)], alone, rtol=1e-4, atol=1e-5)
        assert packed.isfinite().all()
