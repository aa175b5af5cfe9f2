"""Bytes of tokens, decoding all at once and token by token, and the early bound on long texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwright.tokenizer import load_tokenizer

UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture(scope="module")
def tokenizer(reference):
    return load_tokenizer(reference.folder)


@settings(deadline=None)
@given(text=UNICODE)
def test_any_text_comes_back_from_byte_level_tokenizers(byte_level_reference, text):
    tokenizer = load_once(byte_level_reference)
    expected = (
        text if byte_level_reference.kind != "qwen2" else byte_level_reference.backend.normalizer.normalize_str(text)
    )
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(map(tokenizer.token_bytes, ids)) == expected.encode()
    assert tokenizer.decode(ids) == expected


_loaded: dict[Path, object] = {}


def load_once(reference):
    return _loaded.setdefault(reference.folder, load_tokenizer(reference.folder))


@settings(deadline=None)
@given(data=st.data())
def test_streaming_says_what_decoding_says(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    stream = tokenizer.stream()
    pieces = [stream.push(token_id) for token_id in ids]
    assert "".join(pieces) + stream.flush() == tokenizer.decode(ids)


@settings(deadline=None)
@given(text=UNICODE)
def test_a_stream_of_valid_text_never_shows_half_a_character(tokenizer, text):
    stream = tokenizer.stream()
    ids = tokenizer.encode(text)
    shown = "".join(stream.push(token_id) for token_id in ids) + stream.flush()
    assert shown.count("\ufffd") == tokenizer.decode(ids).count("\ufffd") == text.count("\ufffd")


def byte_id(tokenizer, byte):
    return next(i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == bytes([byte]))


def test_an_incomplete_last_character_is_dropped_and_broken_bytes_in_the_middle_are_shown(tokenizer):
    a, lead, rest = byte_id(tokenizer, ord("a")), byte_id(tokenizer, 0xE4), byte_id(tokenizer, 0xBD)
    assert tokenizer.decode([a, lead, rest]) == "a"
    assert tokenizer.decode([a, lead, rest, a]) == "a\ufffda"
    stream = tokenizer.stream()
    assert [stream.push(i) for i in (lead, rest, byte_id(tokenizer, 0xA0), lead)] == ["", "", "你", ""]
    assert stream.flush() == ""


def test_special_tokens_stand_for_no_text_and_shown_ones_for_their_own(references):
    tokenizer = load_tokenizer(references["qwen2"].folder)
    assert tokenizer.token_bytes(tokenizer.special_ids["<|im_end|>"]) == b""
    assert tokenizer.token_bytes(tokenizer.special_ids["<think>"]) == b"<think>"
    assert tokenizer.decode([tokenizer.special_ids["<|im_end|>"], *tokenizer.encode("Hi")]) == "Hi"


def test_a_continuation_keeps_its_leading_space(references):
    tokenizer = load_tokenizer(references["sentencepiece-first"].folder)
    ids = tokenizer.encode("Paris", add_special_tokens=False)
    assert tokenizer.decode(ids) == "Paris"
    assert tokenizer.decode(ids, continuing=True) == " Paris"


@settings(deadline=None)
@given(text=st.text(st.sampled_from(" \n\tat-=1中🎉é\u0301▁<"), max_size=200))
def test_the_bound_is_never_above_the_truth(tokenizer, text):
    assert tokenizer.min_tokens_lower_bound(text) <= len(tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("character", ["a", "-", " ", "中"])
def test_the_bound_grows_with_the_text(tokenizer, character):
    assert tokenizer.min_tokens_lower_bound(character * 1_000_000) > 10_000


@pytest.mark.parametrize("character", ["a", " ", "中"])
def test_a_long_text_without_a_word_boundary_comes_back_whole(tokenizer, character):
    text = "x" + character * 100_000
    assert tokenizer.decode(tokenizer.encode(text)) == text
