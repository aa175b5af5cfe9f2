"""Fill-in-the-middle: no text is lost, and the parts are encoded as the server encodes them."""

from __future__ import annotations

import random
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwright.tokenizer import Tokenizer
from chatwright.tokenizer.fim import LONGEST_PIECE, FimTokens, fim_permute
from chatwright.tokenizer.train import train_tokenizer
from tests.tokenizer.conftest import CORPUS, Reference

SEEDS = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(CORPUS, 400).tokenizer


def parts(ids: list[int], tokens: FimTokens) -> tuple[list[int], list[int], list[int]]:
    assert ids[0] == tokens.prefix
    suffix, middle = ids.index(tokens.suffix), ids.index(tokens.middle)
    assert suffix < middle
    return ids[1:suffix], ids[suffix + 1 : middle], ids[middle + 1 :]


@given(text=st.text(), seed=SEEDS, by_characters=st.booleans())
def test_prefix_middle_and_suffix_are_the_document(
    tokenizer: Tokenizer, text: str, seed: int, by_characters: bool
) -> None:
    tokens = FimTokens.of(tokenizer)
    assert tokens is not None
    ids = tokenizer.encode(text)
    permuted = fim_permute(ids, random.Random(seed), 1.0, tokens, tokenizer if by_characters else None)
    if not ids:
        assert permuted == []
        return
    prefix, suffix, middle = parts(permuted, tokens)
    joined = b"".join(tokenizer.token_bytes(i) for i in [*prefix, *middle, *suffix])
    assert joined == b"".join(tokenizer.token_bytes(i) for i in ids)
    if by_characters:
        for part in (prefix, suffix, middle):
            decoded = b"".join(tokenizer.token_bytes(i) for i in part).decode()
            assert part == tokenizer.encode(decoded)
    else:
        assert len(permuted) == len(ids) + 3


def test_only_the_asked_share_is_rearranged(tokenizer: Tokenizer) -> None:
    tokens = FimTokens.of(tokenizer)
    assert tokens is not None
    rng = random.Random(1)
    ids = tokenizer.encode("今天天气很好 and so on")
    n = sum(fim_permute(ids, rng, 0.5, tokens) != ids for _ in range(2000))
    assert 900 < n < 1100
    assert fim_permute(ids, rng, 0.0, tokens, tokenizer) == ids


def test_a_window_that_begins_inside_a_character_is_cut_between_tokens(tokenizer: Tokenizer) -> None:
    tokens = FimTokens.of(tokenizer)
    assert tokens is not None
    ids = tokenizer.encode("🦜" * 3)[1:]
    prefix, suffix, middle = parts(fim_permute(ids, random.Random(0), 1.0, tokens, tokenizer), tokens)
    assert [*prefix, *middle, *suffix] == ids


def test_the_cuts_reach_both_ends(tokenizer: Tokenizer) -> None:
    tokens = FimTokens.of(tokenizer)
    assert tokens is not None
    ids, rng = tokenizer.encode("ab"), random.Random(0)
    lengths = {tuple(map(len, parts(fim_permute(ids, rng, 1.0, tokens, tokenizer), tokens))) for _ in range(200)}
    assert {(2, 0, 0), (0, 2, 0), (0, 0, 2), (1, 1, 0), (1, 0, 1), (0, 1, 1)} >= lengths
    assert len(lengths) >= 5


@given(n=st.integers(0, 1500), seed=SEEDS, rate=st.sampled_from([0.0, 0.3, 1.0]))
def test_long_documents_are_rearranged_in_pieces_that_fit_a_small_context(
    tokenizer: Tokenizer, n: int, seed: int, rate: float
) -> None:
    tokens = FimTokens.of(tokenizer)
    assert tokens is not None
    end = tokenizer.special_ids["<|endoftext|>"]
    ids = (tokenizer.encode("今天天气很好 and so on, 123\n") * (n // 10 + 1))[:n]
    permuted = fim_permute(ids, random.Random(seed), rate, tokens, tokenizer, end)
    assert permuted[:1] != [end]
    assert permuted[-1:] != [end]
    whole = b""
    for is_end, group in groupby(permuted, lambda token: token == end):
        piece = list(group)
        if is_end:
            assert len(piece) == 1
            continue
        if piece[0] == tokens.prefix:
            assert len(piece) <= 2 * LONGEST_PIECE
            prefix, suffix, middle = parts(piece, tokens)
            piece = [*prefix, *middle, *suffix]
        assert tokens.all.isdisjoint(piece)
        whole += b"".join(map(tokenizer.token_bytes, piece))
    assert whole == b"".join(map(tokenizer.token_bytes, ids))
    if rate == 0:
        assert permuted == ids


def test_a_tokenizer_without_the_tokens_says_so(references: dict[str, Reference]) -> None:
    from chatwright.tokenizer import load_tokenizer

    assert FimTokens.of(load_tokenizer(references["smollm"].folder)) is None
