"""Which row is seen when: every row once an epoch, whatever the steps, micro-batches and processes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatwright.training.order import MicroBatch, RowOrder


def samples(micro_batches: list[MicroBatch]) -> list[tuple[int, int]]:
    return [(each.epoch, row) for each in micro_batches for row in each.rows]


@given(
    n_rows=st.integers(1, 40),
    batch_rows=st.integers(1, 50),
    micro_rows=st.integers(1, 20),
    world_size=st.integers(1, 5),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_row_is_seen_once_an_epoch(
    n_rows: int, batch_rows: int, micro_rows: int, world_size: int, seed: int
) -> None:
    order = RowOrder(seed, n_rows)
    n_steps = -(-3 * n_rows // batch_rows)
    seen = []
    for step in range(n_steps):
        for rank in range(world_size):
            share = order.micro_batches(step, batch_rows, micro_rows, rank, world_size)
            assert all(0 < len(each.rows) <= micro_rows for each in share)
            seen += samples(share)
    assert len(seen) == n_steps * batch_rows
    for epoch in range(3):
        assert sorted(row for of, row in seen if of == epoch) == list(range(n_rows))


@given(step=st.integers(0, 30), micro_rows=st.integers(1, 9), world_size=st.integers(1, 4))
def test_cutting_a_step_differently_changes_no_row(step: int, micro_rows: int, world_size: int) -> None:
    whole = samples(RowOrder(1, 7).micro_batches(step, 8, 8))
    parts = [
        row
        for rank in range(world_size)
        for row in samples(RowOrder(1, 7).micro_batches(step, 8, micro_rows, rank, world_size))
    ]
    assert parts == whole


def test_a_step_in_a_later_epoch_needs_nothing_from_earlier_ones() -> None:
    """nanochat 72a7cf2: after a resume in the second epoch its loader stood at the wrong place."""
    gone_through = RowOrder(3, 5)
    for step in range(40):
        expected = gone_through.micro_batches(step, 4, 2)
        assert RowOrder(3, 5).micro_batches(step, 4, 2) == expected


def test_epochs_differ() -> None:
    order = RowOrder(0, 50)
    assert samples(order.micro_batches(0, 50, 50))[0:50] != [
        (0, row) for _, row in samples(order.micro_batches(1, 50, 50))
    ]
