"""Every figure that an objective measures has a name for people, in both languages."""

from __future__ import annotations

import pytest

from chatwright.training.curves import curves_svg
from chatwright.training.figures import figure_name
from chatwright.training.history import History

MEASURED = ("bits_per_byte", "perplexity", "loss", "accuracy", "margin", "macro_f1", "token_f1", "precision", "recall")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_report_says_no_keys(monkeypatch: pytest.MonkeyPatch, language: str) -> None:
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", language)
    every = [*MEASURED, *(f"{name}_before" for name in MEASURED)]
    names = {name: figure_name(name) for name in every}
    assert len(set(names.values())) == len(every)
    assert not [name for name in names.values() if "_" in name]
    if language == "zh":
        assert not [name for name in names.values() if name.isascii()]


def test_curves_are_titled_as_people_call_them_and_say_which_line_is_which_language(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = [(1, 2.0), (2, 1.0)]
    history = History(series=dict.fromkeys(("macro_f1", "bits_per_byte", "bits_per_byte_zh"), points))
    english = "".join(curves_svg(history))
    assert "<figcaption>Held-out macro F1</figcaption>" in english
    assert "bits per byte (zh)" in english
    assert "bits_per_byte" not in english
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    chinese = "".join(curves_svg(history))
    assert "宏平均 F1（留出集）" in chinese
    assert "每字节比特数 (zh)" in chinese
    assert "Held-out" not in chinese
