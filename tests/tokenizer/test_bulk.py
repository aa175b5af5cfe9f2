"""Bulk encoding gives the ids of the `tokenizers` library, for all vocabularies that it takes and for whatever text."""

from __future__ import annotations

import random
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
from tokenizers import normalizers

from chatwright.errors import InvalidRequestError
from chatwright.tokenizer.bulk import MOST_WORK, BulkEncoder
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
    tokenizer = make([(b"a", b"b"), (b"ab", b"ab")])
    least = 256 + 2**2 + 4**2
    few, enough = BulkEncoder(tokenizer, least - 1), BulkEncoder(tokenizer, least)
    assert (few.is_fast, enough.is_fast) == (False, True)
    assert few.encode("ababab") == [257, 256]


def test_very_long_tokens_are_not_looked_through() -> None:
    """A ruler in a log is one word to the pre-tokeniser, and training makes tokens of it, each twice as long as the one before."""
    text = "log\n" + "=" * 40_000 + "\nend"
    tokenizer = train_tokenizer([text, *TEXTS], 600, "qwen2").tokenizer
    assert sum(len(tokenizer.token_bytes(i)) ** 2 for i in range(tokenizer.vocab_size)) > MOST_WORK
    encoder = bulk(tokenizer)
    assert not encoder.is_fast
    assert_same(tokenizer, encoder, [text])


@pytest.mark.parametrize("pattern", get_args(Pattern))
def test_long_words(pattern: Pattern) -> None:
    """Of 500 bytes and more tiktoken merges with a heap."""
    rng = random.Random(0)
    texts = [
        "".join(rng.choices(letters, k=n)) for letters in ("ab", "abcd =", "中文字", "=-", "é😀") for n in (700, 5000)
    ]
    tokenizer = train_tokenizer([*TEXTS, *(text[:400] for text in texts)], 900, pattern).tokenizer
    encoder = bulk(tokenizer)
    assert encoder.is_fast
    assert_same(tokenizer, encoder, [*texts, "=" * 3000, "a" * 100_000, "中" * 30_000])


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
    plain = ["a{0}b ", "A{0}b", " {0}{0}x", "'{0} ", "x'{0}e", "1{0}2", "\n{0}\n", "  {0}", ".{0}/", "'l{0} "]
    marks = ["a\u0334{0}\u0323\u0301 ", "\u1100{0}\u11a8{0} ", "{0}\u0300\u302a{0}\u0338 "]
    # Of the two large blocks, of which every character is like the others, every sixteenth.
    large = [*range(0x3400, 0xA000), *range(0xAC00, 0xD7A4), *range(0x17000, 0x18D00), *range(0x20000, 0x31350)]
    skipped = {n for n in large if n % 16} | set(range(0xD800, 0xF900)) | set(range(0xF0100, 0x110000))
    characters = [chr(n) for n in range(0x110000) if n not in skipped]
    unnamed = {c for c in characters if unicodedata.category(c) == "Cn"}
    characters = [c for c in characters if c not in unnamed or ord(c) % 128 == 0]
    for contexts, at_once in ((plain, 500), (plain, 1), (marks, 500)) if PRE_TOKENIZERS[name].nfc else ((plain, 500),):
        for start in range(0, len(characters), at_once):
            texts = ["".join(context.format(c) for context in contexts) for c in characters[start : start + at_once]]
            if encoder.encode("\n".join(texts)) != tokenizer.encode("\n".join(texts)):
                assert_same(tokenizer, encoder, texts)


def test_what_combines_is_sent_through_the_librarys_nfc(pairs_of_bytes: list[tuple[bytes, bytes]]) -> None:
    """Each canonical decomposition that the library knows, part by part and whole, with nothing else in the text."""
    tokenizer = make(pairs_of_bytes)
    encoder = bulk(tokenizer)
    nfd = normalizers.NFD()
    whole = [chr(n) for n in range(0x30000) if not 0xD800 <= n < 0xE000]
    decomposed = {c: parts for c in whole if (parts := nfd.normalize_str(c)) != c}
    assert len(decomposed) > 13_000
    assert_same(
        tokenizer, encoder, [*decomposed, *decomposed.values(), *(parts[::-1] for parts in decomposed.values())]
    )
    # Marks that are part of no character, but have an order.
    assert_same(
        tokenizer, encoder, ["a\u0363\u0334", *(f"a{c}\u0334 \u0363{c}" for c in whole if unicodedata.combining(c))]
    )
    assert_same(tokenizer, encoder, ["\u2126 \uf900", "\u1100\u1161", "\u0bc6\u0bbe", "\uac00\u11a8", "a\u0323\u0301"])


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


@pytest.mark.parametrize("blanks", [" ", "\u3000", " \n", "\t \u00a0"])
def test_a_million_blanks(blanks: str) -> None:
    """199,998 of them, the first and the last not whole, are the most that tiktoken gets."""
    tokenizer = make([(b" ", b" "), (b"  ", b"  ")])
    encoder = bulk(tokenizer)
    assert encoder.is_fast
    assert_same(tokenizer, encoder, [f"x{(blanks * n)[:n]}y" for n in (199_998, 1_000_001)])


def test_half_of_a_pair() -> None:
    with pytest.raises(InvalidRequestError, match=r"U\+D83D at character 3"):
        bulk(make([(b"a", b"b")])).encode("abc\ud83d")
