"""MinHash signatures of texts, from shingles of words (of characters in Chinese, Japanese and Thai), and their LSH bands.

Broder 1997; bands as in Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4. The shingles are hashed over arrays
(see `characters`), rensa takes the minima.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chatwright.text.characters import N_CLASSES, CharacterTexts, Class

N_PERMUTATIONS = 128
N_BANDS = 32  # of 4 minima each: finds 87 % of the pairs with half of their shingles in common, all with 80 %
_ROWS_PER_BAND = N_PERMUTATIONS // N_BANDS
_SINGLE = (Class.HAN, Class.RARE_HAN, Class.KANA, Class.THAI)
_IN_WORDS = (
    *(Class.DIGIT, Class.VOWEL, Class.CONSONANT, Class.HANGUL, Class.CYRILLIC, Class.GREEK),
    *(Class.ARABIC, Class.HEBREW, Class.DEVANAGARI, Class.LETTER),
)
_LETTER_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_LETTER_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
_USUAL_CHARS = 1 << 20
_TOKEN_MULTIPLIER = np.uint64(0xC2B2AE3D27D4EB4F)
_FINAL_MULTIPLIER = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT = np.uint64(32)

Array64 = NDArray[np.uint64]


@dataclass(frozen=True)
class Shingles:
    """The hashes of all texts' shingles, laid end to end; those of text t lie at offsets[t]:offsets[t + 1]."""

    hashes: Array64
    offsets: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """(texts,) how many shingles each has; 0 where it has no letter or digit."""
        return np.diff(self.offsets)

    def repeated_share(self, text: int) -> float:
        """The share of a text's shingles that already stood in it."""
        own = np.sort(self.hashes[self.offsets[text] : self.offsets[text + 1]])
        return float(np.count_nonzero(own[1:] == own[:-1]) / len(own)) if len(own) else 0.0


@dataclass(frozen=True)
class Signatures:
    """What is kept of texts to find their near duplicates."""

    low_bytes: NDArray[np.uint8]  # (texts, N_PERMUTATIONS): enough to estimate the similarity of two texts
    bands: Array64  # (N_BANDS, texts)


def shingle(texts: CharacterTexts, length: int) -> Shingles:
    """Shingles of `length` tokens; a text with fewer tokens has one of all its tokens."""
    kinds = _kind_table()[texts.classes]
    is_word = kinds == 1
    follows_word = np.empty_like(is_word)
    follows_word[:1] = False
    follows_word[1:] = is_word[:-1]
    follows_word[texts.starts[texts.starts < len(kinds)]] = False
    begins = (is_word & ~follows_word) | (kinds == 2)
    tokens, token_text = _hash_tokens(texts, np.flatnonzero(kinds), begins)
    n_tokens = np.bincount(token_text, minlength=len(texts.ends))
    ends = np.cumsum(n_tokens)
    index = np.arange(len(tokens))
    end_of = ends[token_text]
    padded = np.concatenate([tokens, np.zeros(length, np.uint64)])
    hashes = tokens.copy()
    factor = _TOKEN_MULTIPLIER
    for step in range(1, length):
        ahead = padded[step : step + len(tokens)] * factor
        hashes += np.where(index + step < end_of, ahead, np.uint64(0))
        factor = np.multiply(factor, _TOKEN_MULTIPLIER, dtype=np.uint64)
    kept = (index + length <= end_of) | (index == (ends - n_tokens)[token_text])
    counts = np.where(n_tokens > 0, np.maximum(n_tokens - length + 1, 1), 0)
    return Shingles(_finish(hashes[kept]), np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]))


def sign(shingles: Shingles) -> Signatures:
    """The signatures of texts by their shingles. Texts without shingles get one that must not be compared."""
    n = len(shingles.offsets) - 1
    minima = _minima(shingles)
    grouped = minima.astype(np.uint64).reshape(n, N_BANDS, _ROWS_PER_BAND)
    bands = np.zeros((n, N_BANDS), np.uint64)
    for row in range(_ROWS_PER_BAND):
        bands = (bands ^ grouped[:, :, row]) * _LETTER_MULTIPLIER
        bands ^= bands >> _SHIFT
    return Signatures((minima & np.uint32(0xFF)).astype(np.uint8), np.ascontiguousarray(bands.T))


def similarity(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(pairs,) the estimated Jaccard similarity of texts by their `low_bytes`; ± 0.035 (one sigma) at 0.8.

    One minimum in 256 agrees by chance (b-bit minwise hashing, Li and König 2010).
    """
    agreeing = (left == right).mean(axis=1)
    return np.asarray((agreeing - 1 / 256) / (1 - 1 / 256))


def _minima(shingles: Shingles) -> NDArray[np.uint32]:
    from rensa import RMinHash

    n = len(shingles.offsets) - 1
    if n == 0:
        return np.zeros((0, N_PERMUTATIONS), np.uint32)
    matrix: Any = RMinHash.digest_matrix_from_flat_token_hashes(
        shingles.hashes, shingles.offsets.astype(np.uint64), num_perm=N_PERMUTATIONS, seed=1
    )
    return np.array(matrix.to_rows(), np.uint32)


def _hash_tokens(
    texts: CharacterTexts, inside: NDArray[np.int64], begins: NDArray[np.bool_]
) -> tuple[Array64, NDArray[np.int32]]:
    """(hash of each token, the text it belongs to). `inside`: positions of characters that belong to tokens."""
    if not len(inside):
        return np.zeros(0, np.uint64), np.zeros(0, np.int32)
    starts = np.flatnonzero(begins[inside])
    codes = texts.lowered[inside]
    letters = _spread_table()[codes & np.uint32(0xFFFF)]
    letters ^= codes
    # By its place in all of the text first: to count the places within each token takes half as long again.
    powers, inverses = _powers(len(inside))
    letters *= powers
    sums = np.add.reduceat(letters, starts) * inverses[starts]
    return _finish(sums), texts.text_of[inside[starts]]


def _finish(hashes: Array64) -> Array64:
    hashes = (hashes ^ (hashes >> _SHIFT)) * _FINAL_MULTIPLIER
    return hashes ^ (hashes >> _SHIFT)


@cache
def _kind_table() -> NDArray[np.uint8]:
    """(N_CLASSES,) 0: between tokens, 1: part of a word, 2: a token of its own."""
    table = np.zeros(N_CLASSES, np.uint8)
    table[list(_IN_WORDS)] = 1
    table[list(_SINGLE)] = 2
    return table


def _powers(n: int) -> tuple[Array64, Array64]:
    """(n,) the powers of an odd number, so that the order of letters counts, and (n,) their inverses modulo 2**64."""
    powers, inverses = _usual_powers()
    if n > len(powers):
        return _powers_of(_LETTER_MULTIPLIER, n), _powers_of(_LETTER_INVERSE, n)
    return powers[:n], inverses[:n]


@cache
def _usual_powers() -> tuple[Array64, Array64]:
    return _powers_of(_LETTER_MULTIPLIER, _USUAL_CHARS), _powers_of(_LETTER_INVERSE, _USUAL_CHARS)


def _powers_of(base: np.uint64, n: int) -> Array64:
    factors = np.full(n, base, np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


@cache
def _spread_table() -> Array64:
    """(65536,) a random 64-bit number for each code point: sums of plain code points would collide."""
    return np.random.default_rng(0).integers(0, 2**64, size=1 << 16, dtype=np.uint64)
