"""What a run's precision follows from: products in float32 and bfloat16."""

from __future__ import annotations

import itertools

import pytest
import torch

from chatwright.training import speed
from chatwright.training.recipe import precision_for


def test_a_busy_moment_does_not_tip_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 takes four times as long here; for the first half of the measurement everything takes fifty times as long."""
    durations = itertools.chain([0.5, 2.0] * 3, itertools.repeat(None))
    quiet = itertools.cycle([0.01, 0.04])
    now, ends = 0.0, itertools.cycle([False, True])

    def clock() -> float:
        nonlocal now
        if next(ends):
            now += next(durations) or next(quiet)
        return now

    monkeypatch.setattr(speed.time, "perf_counter", clock)
    machine = speed.measure_machine(torch.device("cpu"), 1)
    assert machine.fp32_flops == pytest.approx(4 * machine.bf16_flops)
    assert machine.fp32_flops == pytest.approx(2 * 1024**3 / 0.01)
    assert precision_for(machine)[0] == "fp32"
