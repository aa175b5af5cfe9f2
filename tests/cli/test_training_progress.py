"""What the progress of a run says where it is not a terminal."""

from __future__ import annotations

import pytest

from chatwright.cli.output import Output
from chatwright.cli.training_progress import TrainingProgress


@pytest.mark.parametrize(
    ("unit", "rate", "said"),
    [
        ("answer_tokens", 0.31, "0.31 tokens of answers/s"),
        ("tokens", 12345.6, "12,346 tokens/s"),
        ("texts", 4.04, "4 texts/s"),
        ("pairs", 0.004, "0.004 pairs/s"),
    ],
)
def test_a_slow_run_does_not_look_as_if_it_stood_still(
    capsys: pytest.CaptureFixture[str], unit: str, rate: float, said: str
) -> None:
    with TrainingProgress(Output()) as progress:
        progress.begin(0, 2)
        progress.step(1, {"loss": 1.0, f"{unit}_per_s": rate})
    assert f"loss 1.000  {said}\n" in capsys.readouterr().err
