"""Measures of likeness against the libraries that everybody measures with, and on texts that would take others for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwright.evaluation.grading import MEASURES, common_subsequence, passes, similarity
from chatwright.evaluation.text_metrics import rouge_scorer, text_tokens

PAIRS = [
    ("the cat sat on the mat", "the cat is on the mat"),
    ("The cat, sat.", "the cat sat"),
    ("猫坐在垫子上", "猫在垫子上坐着"),
    (
        "It is a guide to action which ensures that the military obeys",
        "It is a guide that makes sure the military obeys",
    ),
    ("", "something"),
    ("a", "b"),
]
few = st.text(alphabet="ab 猫", max_size=12)


@pytest.mark.parametrize(("text", "reference"), PAIRS)
def test_rouge_l_is_rouge_scores(text: str, reference: str) -> None:
    known = rouge_scorer("rougeL").score(reference, text)["rougeL"].fmeasure
    assert similarity("rouge_l", text, reference) == pytest.approx(known)


@pytest.mark.parametrize(("text", "reference"), PAIRS)
def test_gleu_is_nltks(text: str, reference: str) -> None:
    from nltk.translate.gleu_score import sentence_gleu  # type: ignore[import-untyped]

    known = sentence_gleu([text_tokens(reference)], text_tokens(text))
    assert similarity("gleu", text, reference) == pytest.approx(known)


def test_bleu_is_sacrebleus() -> None:
    import sacrebleu

    for text, reference in PAIRS[:2]:
        known = sacrebleu.sentence_bleu(text, [reference]).score / 100
        assert similarity("bleu", text, reference) == pytest.approx(known)
    known = sacrebleu.sentence_bleu(PAIRS[2][0], [PAIRS[2][1]], tokenize="zh").score / 100
    assert similarity("bleu", *PAIRS[2]) == pytest.approx(known)


def test_rouge_n_counts_runs_of_n_words() -> None:
    # Two of four pairs are shared, on both sides; no run of four is.
    assert similarity("rouge_2", "a b c d e", "a b c x y") == pytest.approx(0.5)
    assert similarity("rouge_3", "a b c d e", "a b c x y") == pytest.approx(1 / 3)
    assert similarity("rouge_4", "a b c d e", "a b c x y") == 0
    assert similarity("rouge_5", "a b c d e f", "a b c d e x") == pytest.approx(0.5)


def _plain(first: str, second: str) -> int:
    row = [0] * (len(second) + 1)
    for a in first:
        before = 0
        for place, b in enumerate(second, start=1):
            before, row[place] = row[place], before + 1 if a == b else max(row[place], row[place - 1])
    return row[-1]


@given(few, few)
def test_rows_of_bits_find_what_the_table_finds(first: str, second: str) -> None:
    assert common_subsequence(first, second) == _plain(first, second)


@given(st.sampled_from(MEASURES), few, few)
def test_every_measure_lies_between_nothing_and_all(measure: str, first: str, second: str) -> None:
    found = similarity(measure, first, second)  # type: ignore[arg-type]
    assert 0 <= found <= 1.0000001
    assert similarity(measure, first, first) == 1  # type: ignore[arg-type]


def test_long_texts_are_measured_too() -> None:
    """A table of all pairs would have some thousand million places here."""
    first, second = "a b c " * 8_000, "c b a " * 8_000
    assert similarity("fuzzy_match", "ab" * 20_000, "ba" * 20_000) > 0.99
    assert 0.3 < similarity("rouge_l", first, second) < 1


def test_checks_say_what_their_names_say() -> None:
    assert passes("eq", "Cat", "Cat")
    assert not passes("eq", "Cat", "cat")
    assert passes("ne", "Cat", "cat")
    assert passes("like", "the Cat sat", "Cat")
    assert not passes("like", "the Cat sat", "cat")
    assert passes("ilike", "the Straße", "STRASSE")
    assert not passes("ilike", "cat", "the cat"), "the reference stands in the text, not the other way round"
