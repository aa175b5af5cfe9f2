"""Augmentations change wording and nothing else: not labels, spans, numbers, placeholders, code; and are reproducible."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwright.errors import UsageError
from chatwright.training.augmentation import AUGMENTATIONS, augment, parse_names

ENGLISH = "Where can I find the invoice for the order that arrived yesterday evening, please? It should have been here already."
CHINESE = "请问昨天晚上收到的订单的发票在哪里可以找到？按道理现在应该已经开好了，麻烦您帮我查一下。"
NAMES = list(AUGMENTATIONS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_a_text_changes_a_little(name: str, text: str) -> None:
    results = {augment(text, [name], (0, epoch, "row"))[0] for epoch in range(20)}
    assert len(results) > 5
    for result in results:
        assert abs(len(result) - len(text)) < 0.5 * len(text)
        assert result.strip()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_epoch_and_row_give_the_same_text(name: str) -> None:
    def versions(seed: int) -> list[str]:
        return [augment(ENGLISH, [name], (seed, epoch, row))[0] for epoch in range(5) for row in "abc"]

    assert versions(1) == versions(1) != versions(2)


def test_words_that_are_dropped_or_swapped_leave_the_others_whole() -> None:
    words = re.findall(r"\w+", ENGLISH)
    for epoch in range(20):
        dropped = augment(ENGLISH, ["word-dropout"], (0, epoch, ""))[0]
        assert "  " not in dropped
        assert set(re.findall(r"\w+", dropped)) <= set(words)
        swapped = augment(ENGLISH, ["word-swap"], (0, epoch, ""))[0]
        assert sorted(re.findall(r"\w+", swapped)) == sorted(words)


@pytest.mark.parametrize(
    "kept", ["#A-4711", "12.50", "[EMAIL]", "`rm file name`", "https://example.com/a/b", "ann@example.com", "2024"]
)
def test_numbers_placeholders_code_and_addresses_stay(kept: str) -> None:
    text = f"Please look at {kept} again and tell me about it"
    for epoch in range(200):
        assert kept in augment(text, NAMES, (0, epoch, ""))[0]


@given(
    st.text(alphabet="ab cde中文字。, \n1é🙂", max_size=80),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), max_size=3),
    st.integers(0, 5),
)
def test_spans_stay_aligned_with_their_text(text: str, ends: list[tuple[int, int]], epoch: int) -> None:
    spans, at = [], 0
    for start, length in sorted(ends):
        start, end = max(start, at), max(start, at) + length % 5
        if end <= len(text) and start < end:
            spans.append((start, end))
            at = end
    changed, moved = augment(text, NAMES, (0, epoch, "row"), spans)
    assert [changed[start:end] for start, end in moved] == [text[start:end] for start, end in spans]
    assert len(moved) == len(spans)


def test_a_text_of_one_word_or_none_survives() -> None:
    for text in ("", "Hi", "好", "???", " \n", "7"):
        for epoch in range(50):
            assert bool(augment(text, NAMES, (0, epoch, ""))[0].strip()) == bool(text.strip())


def seconds(text: str) -> float:
    start = time.process_time()
    augment(text, NAMES, (0, 0, ""))
    return time.process_time() - start


@pytest.mark.parametrize("unit", ["中", "a", "`", "a ", "[A", "```x", "`" * 3 + "x" * 50])
def test_a_long_text_takes_time_in_proportion(unit: str) -> None:
    short, long = unit * (6_000 // len(unit)), unit * (48_000 // len(unit))
    # A machine that others use has its moments: the ratio counts only where it can be measured.
    for _ in range(3):
        if seconds(long) < max(24 * seconds(short), 0.05):
            return
    pytest.fail(f"{seconds(short):.4f} s for {len(short)} characters, {seconds(long):.4f} s for {len(long)}")


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    assert parse_names("typos, word-swap,typos") == ("typos", "word-swap")
    with pytest.raises(UsageError, match="word-dropout, word-swap, typos"):
        parse_names("typos,synonyms")
