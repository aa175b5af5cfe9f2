"""Fill-in-the-middle: documents rearranged so that a left-to-right model learns to write what belongs between two texts.

Prefix, suffix, middle, each behind its control token (PSM; Bavarian et al. 2022, "Efficient Training of Language Models to
Fill in the Middle"). The cuts fall between characters, not tokens, since that is where a user's cursor stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from chatwright.tokenizer.special import END_OF_TEXT, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX
from chatwright.tokenizer.tokenizer import Tokenizer

# Tokens: some sentences, and less than the context of the smallest models.
SHORTEST_PIECE, LONGEST_PIECE = 32, 192


class Random(Protocol):
    """`random.Random` or `numpy.random.Generator`."""

    def random(self) -> float:
        """A number in [0, 1)."""
        ...


@dataclass(frozen=True)
class FimTokens:
    """The ids of the three control tokens, and of the one between documents."""

    prefix: int
    suffix: int
    middle: int
    separator: int | None = None

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self | None:
        """Those of a tokenizer; None when it has not all three."""
        prefix, suffix, middle = (tokenizer.special_ids.get(text) for text in (FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE))
        if prefix is None or suffix is None or middle is None:
            return None
        return cls(prefix, suffix, middle, tokenizer.special_ids.get(END_OF_TEXT))

    @property
    def all(self) -> frozenset[int]:
        """The three ids, each of which ends an answer: a model that writes one is past the middle."""
        return frozenset((self.prefix, self.suffix, self.middle))

    def arrange(self, prefix: Sequence[int], suffix: Sequence[int], middle: Sequence[int] = ()) -> list[int]:
        """The order of training."""
        return [self.prefix, *prefix, self.suffix, *suffix, self.middle, *middle]

    def prompt(self, prefix: Sequence[int], suffix: Sequence[int]) -> list[int]:
        """What asks for the middle. A separator comes first, as every rearranged piece follows one in training."""
        start = [] if self.separator is None else [self.separator]
        return start + self.arrange(prefix, suffix)


def fim_permute(
    ids: Sequence[int],
    rng: Random,
    rate: float,
    tokens: FimTokens,
    tokenizer: Tokenizer | None = None,
    separator: int | None = None,
) -> list[int]:
    """One document's ids (no control tokens, no separator), rearranged with probability `rate`, else as they are.

    With `tokenizer` the cuts fall between characters, and the three parts are encoded as they are when served; without it,
    between tokens, which is faster and three tokens longer exactly, but never leaves half a word before the cursor.

    With `separator` (the token between documents) long documents are rearranged piece by piece, each piece with probability
    `rate`, as a model whose context ends before the middle learns nothing from it; a rearranged piece is set off by separators,
    since the model must learn where a middle ends.
    """
    if separator is None or len(ids) <= LONGEST_PIECE:
        return _rearranged(ids, rng, rate, tokens, tokenizer) or list(ids)
    result: list[int] = []
    start = 0
    while start < len(ids):
        end = start + SHORTEST_PIECE + int(rng.random() * (LONGEST_PIECE - SHORTEST_PIECE + 1))
        piece = ids[start:end]
        start = end
        rearranged = _rearranged(piece, rng, rate, tokens, tokenizer)
        if rearranged is None:
            result += piece
            continue
        if result and result[-1] != separator:
            result.append(separator)
        result += rearranged
        if start < len(ids):
            result.append(separator)
    return result


def _rearranged(
    ids: Sequence[int], rng: Random, rate: float, tokens: FimTokens, tokenizer: Tokenizer | None
) -> list[int] | None:
    """None when the draw is against it."""
    if rng.random() >= rate or not ids:
        return None
    first, last = sorted((rng.random(), rng.random()))
    if tokenizer is not None and (text := _exact_text(ids, tokenizer)):
        cuts = (int(first * (len(text) + 1)), int(last * (len(text) + 1)))
        parts = (text[: cuts[0]], text[cuts[1] :], text[cuts[0] : cuts[1]])
        return tokens.arrange(*(tokenizer.encode(part, add_special_tokens=False) for part in parts))
    a, b = int(first * (len(ids) + 1)), int(last * (len(ids) + 1))
    return tokens.arrange(ids[:a], ids[b:], ids[a:b])


def _exact_text(ids: Sequence[int], tokenizer: Tokenizer) -> str | None:
    """The text of `ids`; None where that is not all of it, as in a window that begins inside a character."""
    try:
        return b"".join(map(tokenizer.token_bytes, ids)).decode()
    except UnicodeDecodeError:
        return None
