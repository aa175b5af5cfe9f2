"""Each check of an instruction passes what fulfils it and fails what does not."""

from __future__ import annotations

from typing import Any

import pytest

from chatwright.evaluation.instructions import CHECK_KINDS, check_specification, fulfilled

CASES: list[tuple[str, Any, str, str]] = [
    ("max_words", 2, "two words", "now three words"),
    ("min_words", 2, "two words", "one"),
    ("n_words", 2, "你好", "你好吗"),
    ("max_chars", 3, " abc ", "abcd"),
    ("min_chars", 3, "abc", "ab  "),
    ("n_lines", 2, "a\n\nb", "a"),
    ("max_lines", 1, "a\n", "a\nb"),
    ("min_lines", 2, "a\nb", "a"),
    ("n_paragraphs", 2, "a\nb\n\nc", "a\nb"),
    ("n_sentences", 2, 'He said "3.5 is it." Yes!', "One."),
    ("n_sentences", 2, "你好。再见！", "你好，再见。"),
    ("max_sentences", 1, "One.", "One. Two."),
    ("n_items", 2, "- a\n2. b\nc", "a\nb"),
    ("contains", ["Cat", "dog"], "cat and DOG", "cat"),
    ("not_contains", "cat", "dog", "Cat"),
    ("starts_with", "Yes", " yes, it is", "No"),
    ("ends_with", "done.", "It is done. ", "It is"),
    ("equals", "4", " 4\n", "14"),
    ("regex", r"^\d+$", "12", "12 a"),
    ("regex", ["a", "b"], "a b", "a"),
    ("not_regex", r"\d", "none", "1"),
    ("language", "zh", "你好 OK", "hello there, 你好"),
    ("language", "en", "hello", "你好"),
    ("json", None, '```json\n{"a": 1}\n```', "{'a': 1}"),
    ("json", ["a", "b"], '{"a": 1, "b": 2}', '{"a": 1}'),
    ("uppercase", None, "LOUD 1", "Loud"),
    ("lowercase", None, "quiet", "Quiet"),
    ("no_commas", None, "a and b", "a，b"),
]


@pytest.mark.parametrize(("kind", "value", "good", "bad"), CASES)
def test_a_check_tells_good_from_bad(kind: str, value: Any, good: str, bad: str) -> None:
    check = {"kind": kind} if value is None else {"kind": kind, "value": value}
    assert check_specification(check) is None
    assert fulfilled(good, check)
    assert not fulfilled(bad, check)


def test_every_check_is_tried() -> None:
    assert {kind for kind, *_rest in CASES} == set(CHECK_KINDS)


def test_an_empty_answer_fulfils_nothing() -> None:
    assert not fulfilled(" \n", {"kind": "not_contains", "value": "x"})
    assert not fulfilled("", {"kind": "max_words", "value": 5})


def test_a_value_may_have_another_name() -> None:
    assert fulfilled("one two", {"kind": "max_words", "n": 2})
    assert not fulfilled("one two", {"kind": "max_words", "n": 1})
