"""Spans of characters and tags of tokens say the same, also where a token holds a blank or a third of a Chinese character."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from chatwright.training.spans import compose, read_spans, spans_of, tag_names, tags_of, token_ranges

TEXT = "Ann Lee lives in 北京市 now."
SPANS = [(0, 7, "person"), (17, 20, "place")]


def cut(text: str, cuts: list[int]) -> list[bytes]:
    data = text.encode()
    edges = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


def test_words_with_their_blank_and_thirds_of_characters() -> None:
    pieces = [
        b"Ann",
        b" Lee",
        b" lives",
        b" in",
        b" \xe5",
        b"\x8c\x97",
        b"\xe4\xba\xac\xe5",
        b"\xb8\x82",
        b" now",
        b".",
    ]
    ranges = token_ranges(TEXT, pieces)
    assert ranges is not None
    tags = tags_of(TEXT, ranges, SPANS)
    assert tags == ["B-person", "I-person", "O", "O", "B-place", "I-place", "I-place", "I-place", "O", "O"]
    assert spans_of(TEXT, ranges, tags) == SPANS


@given(st.lists(st.integers(0, 200), max_size=40))
def test_spans_survive_any_tokens_that_do_not_join_them_to_their_neighbours(cuts: list[int]) -> None:
    text = "王小明 in 北京 and Zoë in Zürich"
    spans = [(0, 3, "person"), (7, 9, "place"), (14, 17, "person"), (21, 27, "place")]
    edges = [len(text[:edge].encode()) for start, end, _label in spans for edge in (start, end)]
    ranges = token_ranges(text, cut(text, cuts + edges))
    assert ranges is not None
    assert spans_of(text, ranges, tags_of(text, ranges, spans)) == spans


def test_neighbouring_entities_of_one_kind_stay_two() -> None:
    ranges = [(0, 1), (1, 2), (2, 3), (3, 4)]
    tags = tags_of("北京上海", ranges, [(0, 2, "place"), (2, 4, "place")])
    assert tags == ["B-place", "I-place", "B-place", "I-place"]
    assert spans_of("北京上海", ranges, tags) == [(0, 2, "place"), (2, 4, "place")]


def test_a_blank_that_the_tokenizer_puts_before_the_text_is_passed_over() -> None:
    assert token_ranges("ab c", [b" ab", b" c"]) == [(0, 2), (2, 4)]
    assert token_ranges("ab", [b"ab", b"x"]) is None
    assert token_ranges("ab", [b"a"]) is None


def test_tokens_of_no_bytes_have_no_characters() -> None:
    ranges = token_ranges("ab", [b"", b"ab", b""])
    assert ranges == [(0, 0), (0, 2), (2, 2)]
    assert tags_of("ab", ranges, [(0, 2, "x")]) == ["O", "B-x", "O"]


def test_an_inside_without_a_beginning_begins_one() -> None:
    ranges = [(0, 1), (1, 2), (2, 3)]
    assert spans_of("abc", ranges, ["O", "I-x", "I-y"]) == [(1, 2, "x"), (2, 3, "y")]


def test_composed_text_keeps_its_spans() -> None:
    text, spans = compose("Zu\u0308rich und Bu\u0308ro", [(0, 7, "place")])
    assert (text, spans) == ("Zürich und Büro", [(0, 6, "place")])
    across = "e\u0301"
    assert compose(across, [(0, 1, "x")]) == (across, [(0, 1, "x")])


def test_impossible_spans_of_a_hand_written_row_are_left_out() -> None:
    spans = [
        {"start": 2, "end": 4, "label": "b"},
        {"start": 0, "end": 3, "label": "a"},
        {"start": 3, "end": 99, "label": "c"},
    ]
    assert read_spans({"text": "abcd", "spans": spans}) == [(0, 3, "a")]
    assert tag_names(["a", "b"]) == ("O", "B-a", "I-a", "B-b", "I-b")


def test_long_texts_are_aligned_in_linear_time() -> None:
    text = "北京" * 20_000
    rng = random.Random(0)
    ranges = token_ranges(text, cut(text, [rng.randrange(10**6) for _ in range(60_000)]))
    assert ranges is not None
    spans = [(2 * i, 2 * i + 2, "place") for i in range(20_000)]
    assert len(tags_of(text, ranges, spans)) == len(ranges)
