"""Bits per byte to expect of a run that has not begun, and what that is based on.

Basis: the text itself, measured (`difficulty`: n-grams of tokens on this dataset's own held-out documents), and a law of how far
models of the recipe get from the unigrams towards the trigrams and beyond, as power laws of parameters and text (Kaplan et al.
2020):

    ln(bits per byte / trigram) = (rise x structure + excess) / (X^beta P^alpha) - gain

`trigram` and `structure` = ln(unigram / trigram) are the dataset's difficulty; P millions of parameters of hidden layers; X
megabytes of text that the model learns from. Reading a text again teaches less than new text: R readings count as
1 + 15.4 (1 - exp(-(R - 1) / 15.4)).

The constants are fitted by `bench/plan_calibration.py` to runs of the recipe; see CONSTANTS for which, and how far off they were.
Outside of what was run (other recipes, a thousand times more text) the law is a guess, and the range says nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from chatwright.model.rnn_config import RNNConfig
from chatwright.training.difficulty import Difficulty
from chatwright.training.recipe import Recipe

# After so many readings beyond the first, a text has taught 63 % of what repeating it ever will (Muennighoff et al. 2023, table 2).
_REPEATS = 15.4


@dataclass(frozen=True)
class Constants:
    """Of the law; from `bench/plan_calibration.py`."""

    rise: float
    excess: float
    beta: float
    alpha: float
    gain: float


# 46 runs: manuals in English and Chinese, each and both, and Python source; 0.1 to 3 million hidden parameters, 1 to 20 MB read.
# Off by 4 % in the mean and 13 % at most; on a dataset that was left out of the fit by 2 to 12 % in the mean, 17 % at most.
CONSTANTS = Constants(rise=0.2697, excess=0.4594, beta=0.3167, alpha=0.0596, gain=0.4991)
# The half-width of the range, from that.
SPREAD = 0.1


@dataclass(frozen=True)
class Expected:
    """What of a run the law needs: numbers in the matrices of hidden layers, bytes read in all, bytes of the text."""

    n_hidden: int
    bytes_read: float
    text_bytes: float

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Of a resolved run."""
        embedding = recipe.vocab_size * recipe.model.d_model
        if not isinstance(recipe.model, RNNConfig) and recipe.model.positions == "learned":
            embedding += recipe.context_length * recipe.model.d_model
        return cls(
            recipe.n_parameters - embedding,
            recipe.training.n_steps * recipe.tokens_per_step * recipe.bytes_per_token,
            recipe.n_tokens * recipe.bytes_per_token,
        )

    @property
    def bytes_learnt_from(self) -> float:
        """Bytes read, repeated ones at a discount."""
        again = max(0.0, self.bytes_read / self.text_bytes - 1)
        if again == 0:
            return self.bytes_read
        return self.text_bytes * (1 + _REPEATS * (1 - math.exp(-again / _REPEATS)))


@dataclass(frozen=True)
class Expectation:
    """`low` to `high`: the range that nine of ten runs of the calibration lay in."""

    bits_per_byte: float
    low: float
    high: float


def expect(difficulty: Difficulty, run: Expected, constants: Constants = CONSTANTS) -> Expectation:
    """See the module."""
    c = constants
    progress = (run.bytes_learnt_from / 1e6) ** c.beta * (run.n_hidden / 1e6) ** c.alpha
    above = (c.rise * difficulty.structure + c.excess) / progress - c.gain
    # nobody is worse than the unigrams for long, and no byte has more than 8 bits
    value = min(difficulty.trigram * math.exp(min(above, difficulty.structure + 0.5)), 8.0)
    return Expectation(value, value * (1 - SPREAD), value * (1 + SPREAD))
