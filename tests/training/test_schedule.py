"""The learning rate: up, constant, down, and never nothing before the end."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwright.errors import TrainingError
from chatwright.training.config import TrainingConfig
from chatwright.training.schedule import rate_scale


def config(**values: float) -> TrainingConfig:
    return TrainingConfig(**{"n_steps": 100, "batch_rows": 1, "micro_rows": 1} | values)  # type: ignore[arg-type]


def test_up_constant_down() -> None:
    rates = [rate_scale(step, config(warmup_steps=9, warmdown_share=0.4)) for step in range(100)]
    assert rates[:9] == [pytest.approx(i / 10) for i in range(1, 10)]
    assert set(rates[9:60]) == {1.0}
    assert all(later < earlier for earlier, later in pairwise(rates[60:]))
    assert 0 < rates[-1] < 0.03


@given(
    n_steps=st.integers(1, 300),
    warmup=st.integers(0, 400),
    share=st.floats(0, 1),
    final=st.floats(0, 1),
)
def test_every_step_has_a_rate(n_steps: int, warmup: int, share: float, final: float) -> None:
    settings = config(n_steps=n_steps, warmup_steps=warmup, warmdown_share=share, final_lr_share=final)
    for step in range(n_steps):
        assert 0 < rate_scale(step, settings) <= 1
        assert rate_scale(step, settings) >= min(final, 1 / (warmup + 1)) - 1e-12


def test_a_setting_that_there_is_not_is_named() -> None:
    with pytest.raises(TrainingError, match="unknown setting: cautious"):
        TrainingConfig.from_dict(config().to_dict() | {"cautious": False})
