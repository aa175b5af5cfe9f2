"""Answers are compared by what they say, in English and Chinese."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwright.evaluation.text_metrics import exact_match, text_tokens, token_f1


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The cat's  hat, 42 times!", ["the", "cat's", "hat", "42", "times"]),
        ("我们在用Python3写代码。", ["我", "们", "在", "用", "python3", "写", "代", "码"]),
        ("ＡＢＣ　Straße naïve don’t", ["abc", "strasse", "naïve", "don't"]),
        ("snake_case --- 🙂", ["snake", "case"]),
        ("𠮷野家", ["𠮷", "野", "家"]),
    ],
)
def test_tokens_are_words_and_chinese_characters(text: str, tokens: list[str]) -> None:
    assert text_tokens(text) == tokens


def test_f1_counts_what_both_have() -> None:
    assert token_f1("Press the red button", "press the button twice") == pytest.approx(0.75)
    assert token_f1("请按红色按钮", "请按按钮") == pytest.approx(2 * 4 / 10)
    assert token_f1("a a a", "a") == pytest.approx(0.5), "a word said three times is right once"
    assert token_f1("no", "yes") == 0.0
    assert token_f1("", "yes") == 0.0
    assert token_f1("...", "!") == 1.0


@given(st.text(), st.text())
def test_f1_is_symmetric_and_one_exactly_for_the_same_tokens(a: str, b: str) -> None:
    assert 0 <= token_f1(a, b) == token_f1(b, a) <= 1
    assert (token_f1(a, b) == 1) == (sorted(text_tokens(a)) == sorted(text_tokens(b)))
    assert exact_match(a, a)


def test_exact_match_ignores_case_width_and_punctuation_but_not_order() -> None:
    assert exact_match("Yes, it is!", "yes it is")
    assert exact_match("可以，请稍等。", "可以 请稍等")
    assert not exact_match("it is yes", "yes it is")
