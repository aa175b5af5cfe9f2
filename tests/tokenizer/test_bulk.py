"""Bulk encoding gives the ids of the `tokenizers` library, for all vocabularies that it takes and for whatever text."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwright.errors import InvalidRequestError
from chatwright.tokenizer.bulk import BYTES_PER_VOCAB_ENTRY, BulkEncoder
from chatwright.tokenizer.patterns import PRE_TOKENIZERS, byte_level_split
from chatwright.tokenizer.pipeline import AddedToken, BpeFile, bytes_to_characters
from chatwright.tokenizer.tokenizer import Tokenizer
from chatwright.tokenizer.train import Pattern, train_tokenizer
from tests.tokenizer.conftest import TEXTS

DOCS = Path(__file__).parents[2] / "docs"
LETTER = bytes_to_characters()
PATTERNS = ("gpt-2", "qwen2", "llama3", "tekken", "gpt-4o")


def spelled(text: bytes) -> str:
    return "".join(LETTER[byte] for byte in text)


def make(merges: Sequence[tuple[bytes, bytes]], name: str = "qwen2", **changes: Any) -> Tokenizer:
    """All bytes, and what these merges make, in their order."""
    tokens = dict.fromkeys([bytes([byte]) for byte in range(256)] + [left + right for left, right in merges])
    choice = PRE_TOKENIZERS[name]
    file = BpeFile(
        "a test",
        {spelled(token): number for number, token in enumerate(tokens)},
        [(spelled(left), spelled(right)) for left, right in merges],
        normalizer={"type": "NFC"} if choice.nfc else None,
        pre_tokenizer=byte_level_split(choice),
        ignore_merges=choice.ignore_merges,
    )
    return Tokenizer(replace(file, **changes))


def bulk(tokenizer: Tokenizer) -> BulkEncoder:
    return BulkEncoder(tokenizer, sys.maxsize)


def assert_same(tokenizer: Tokenizer, encoder: BulkEncoder, texts: Iterable[str]) -> None:
    for text in texts:
        assert encoder.encode(text) == tokenizer.encode(text, add_special_tokens=False), repr(text[:200])


@pytest.mark.parametrize("pattern", get_args(Pattern))
def test_a_trained_tokenizer_is_fast_and_the_same(pattern: Pattern) -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*/*.md"))]
    tokenizer = train_tokenizer(texts[::2], 3000, pattern).tokenizer
    encoder = bulk(tokenizer)
    assert encoder.is_fast
    assert_same(tokenizer, encoder, [*texts, *TEXTS, "\n".join(TEXTS)])


def test_little_text_is_not_worth_the_look_through_the_vocabulary() -> None:
    tokenizer = train_tokenizer(TEXTS, 300, "qwen2").tokenizer
    least = BYTES_PER_VOCAB_ENTRY * tokenizer.vocab_size
    few, enough = BulkEncoder(tokenizer, least - 1), BulkEncoder(tokenizer, least)
    assert (few.is_fast, enough.is_fast) == (False, True)
    assert_same(tokenizer, few, TEXTS)


@pytest.fixture(scope="module")
def pairs_of_bytes() -> list[tuple[bytes, bytes]]:
    """Merges that show where a text is cut: what is not cut grows together two by two, whatever it is."""
    singles = [bytes([byte]) for byte in range(256)]
    return list(product(singles, singles))


@pytest.mark.parametrize("name", PATTERNS)
def test_every_character_is_the_same_to_both(name: str, pairs_of_bytes: list[tuple[bytes, bytes]]) -> None:
    """Both have tables of their own of what is a letter, a digit, a blank, a mark; of small and capital letters; and of NFC."""
    tokenizer = make(pairs_of_bytes, name)
    encoder = bulk(tokenizer)
    assert encoder.is_fast
    contexts = ["a{0}b ", "A{0}b", " {0}{0}x", "'{0} ", "x'{0}e", "1{0}2", "\n{0}\n", "  {0}", ".{0}/", "'l{0} "]
    if name == "qwen2":  # what combines, on both sides of it
        contexts += ["a\u0334{0}\u0323\u0301 ", "\u1100{0}\u11a8{0} ", "{0}\u0300\u302a{0}\u0338 "]
    named = [chr(n) for n in range(sys.maxunicode + 1) if unicodedata.category(chr(n)) not in ("Cs", "Co")]
    unnamed = [c for c in named if unicodedata.category(c) == "Cn"]
    characters = (
        [c for c in named if unicodedata.category(c) != "Cn"] + unnamed[:2000] + unnamed[:: len(unnamed) // 2000]
    )
    for start in range(0, len(characters), 500):
        texts = ["".join(context.format(c) for context in contexts) for c in characters[start : start + 500]]
        if encoder.encode("\n".join(texts)) != tokenizer.encode("\n".join(texts)):
            assert_same(tokenizer, encoder, texts)


def test_pairs_that_the_list_does_not_have() -> None:
    """Of "abc", "bc" is merged first, and then no pair of the list is left; by the bytes "a" and "bc" would make a token."""
    tokenizer = make([(b"b", b"c"), (b"a", b"b"), (b"ab", b"c")])
    assert tokenizer.encode("abc") == [ord("a"), 256]
    assert not bulk(tokenizer).is_fast
    assert bulk(make([(b"b", b"c"), (b"a", b"bc")])).is_fast


@pytest.mark.parametrize(
    "changes",
    [
        {"vocab": {LETTER[byte]: byte for byte in range(256)} | {"ab": 256, "Ġa": 257, "abc": 258}},  # not in the list
        {"vocab": {LETTER[byte]: byte for byte in range(256)} | {"ab": 257, "Ġa": 256}},  # not in the list's order
        {"vocab": {LETTER[byte]: byte for byte in range(255)} | {"ab": 257, "Ġa": 258}},  # a byte less
        {"vocab": {LETTER[byte]: byte for byte in range(256)} | {"ab": 256, "Ġa": 257, "中": 258}},  # not of bytes
        {"added_tokens": [AddedToken("<b>", 300, special=False)]},
        {"normalizer": {"type": "NFKC"}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, {"type": "NFC"}]}},
        {"pre_tokenizer": byte_level_split(PRE_TOKENIZERS["smollm"])},
        {"pre_tokenizer": byte_level_split(PRE_TOKENIZERS["qwen2"], add_prefix_space=True)},
        {"pre_tokenizer": byte_level_split(replace(PRE_TOKENIZERS["qwen2"], regex=r"\p{N}{1,3}|\P{N}+"))},
    ],
)
def test_what_is_not_known_to_be_the_same_is_left_to_the_library(changes: dict[str, Any]) -> None:
    tokenizer = make([(b"a", b"b"), (b" ", b"a")], **changes)
    encoder = bulk(tokenizer)
    assert not encoder.is_fast
    assert_same(tokenizer, encoder, [*TEXTS, "abc ab <b> ABC 中 a 1234"])


def test_every_vocabulary_that_is_taken_gives_the_same() -> None:
    """Merges that no training would make, in any order."""
    taken = []
    pairs = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), min_size=1, max_size=9)

    @settings(max_examples=600, deadline=None)
    @given(pairs=pairs, texts=st.lists(st.text("abc", max_size=40), min_size=20, max_size=20))
    def check(pairs: list[tuple[int, int]], texts: list[str]) -> None:
        known, merges = [b"a", b"b", b"c"], dict[tuple[bytes, bytes], None]()
        for left, right in pairs:
            pair = known[left % len(known)], known[right % len(known)]
            merges[pair] = None
            if b"".join(pair) not in known:
                known.append(b"".join(pair))
        tokenizer = make(list(merges))
        encoder = bulk(tokenizer)
        taken.append(encoder.is_fast)
        assert_same(tokenizer, encoder, texts)

    check()
    assert 50 < sum(taken) < len(taken) - 50


@pytest.mark.parametrize("blank", [" ", "\t", "\u3000"])
def test_a_million_blanks(blank: str) -> None:
    tokenizer = make([(b" ", b" "), (b"  ", b"  ")])
    encoder = bulk(tokenizer)
    assert encoder.is_fast
    assert_same(tokenizer, encoder, [f"x{blank * n}y" for n in (199_999, 1_000_001)])


def test_half_of_a_pair() -> None:
    with pytest.raises(InvalidRequestError, match=r"U\+D83D at character 3"):
        bulk(make([(b"a", b"b")])).encode("abc\ud83d")
