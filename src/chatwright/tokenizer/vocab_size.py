"""How many tokens a vocabulary should have: as many as the model can afford and the text can teach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

# Share of the parameters that the (tied) embedding takes; the output head is the same share of the time. It gives 10 million
# parameters 7k tokens, and minimind's 6,400 for 64 million is of the same order.
EMBEDDING_SHARE = 0.25
# With less, most Chinese characters would be two or three tokens, and models of 1.5 million parameters got 2 % worse in equal time
# (2,048 against 3,264: LOG.md).
LEAST_FOR_A_MODEL = 3072
# A token that was seen less often than this has a vector that is mostly its initial noise.
MIN_OCCURRENCES = 20
BYTES_PER_TOKEN = 4
SMALLEST, LARGEST = 512, 32_768
# Without a model in mind: the middle of what small models want.
UNKNOWN_MODEL = 8192


@dataclass(frozen=True)
class VocabChoice:
    """A vocabulary size, and which bound set it. by_model is None when no model size was given."""

    size: int
    by_text: int
    by_model: int | None

    @property
    def bound(self) -> Literal["text", "model", "limits"]:
        """What the size follows from."""
        if self.size == self.by_text:
            return "text"
        return "model" if self.size == self.by_model else "limits"


def choose_vocab_size(n_bytes: int, n_parameters: int | None) -> int:
    """The size for `n_bytes` of training text and a model of `n_parameters`; a multiple of 64."""
    return explain_vocab_size(n_bytes, n_parameters).size


def explain_vocab_size(n_bytes: int, n_parameters: int | None) -> VocabChoice:
    """The same with its reasons."""
    by_text = _taught_by(n_bytes)
    by_model = None if n_parameters is None else _afforded_by(n_parameters)
    wanted = min(by_text, UNKNOWN_MODEL if by_model is None else by_model)
    return VocabChoice(min(max(wanted, SMALLEST), LARGEST), by_text, by_model)


def _taught_by(n_bytes: int) -> int:
    """By Zipf's law the rarest of V tokens makes up 1 / (V ln V) of the text."""
    rarest = n_bytes / BYTES_PER_TOKEN / MIN_OCCURRENCES
    low, high = 2.0, float(2**24)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * math.log(middle) <= rarest else (low, middle)
    return _multiple_of_64(low)


def _afforded_by(n_parameters: int) -> int:
    """A model of depth width / 64 has about 12 * width**3 / 64 parameters; its embedding width * V more."""
    width = (n_parameters * (1 - EMBEDDING_SHARE) * 64 / 12) ** (1 / 3)
    return max(_multiple_of_64(EMBEDDING_SHARE * n_parameters / width), LEAST_FOR_A_MODEL)


def _multiple_of_64(size: float) -> int:
    return int(size) // 64 * 64
