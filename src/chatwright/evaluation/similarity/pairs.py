"""The pairs of sentences, graded by hand."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Literal


@dataclass(frozen=True)
class SentencePair:
    """Two sentences; `grade`: 0 (different topics) to 5 (the same)."""

    grade: float
    first: str
    second: str


def sentence_pairs(language: Literal["en", "zh"]) -> list[SentencePair]:
    """All pairs in one language; the same ones, in the same order, as in the other."""
    text = (files("chatwright.evaluation.similarity") / "pairs.tsv").read_text(encoding="utf-8")
    start = {"en": 1, "zh": 3}[language]
    rows = [line.split("\t") for line in text.splitlines()]
    return [SentencePair(float(row[0]), row[start], row[start + 1]) for row in rows]
