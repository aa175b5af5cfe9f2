"""Bits per byte to expect of a run that has not begun, and what that is based on.

Basis: the text itself, measured (`difficulty`: n-grams of bytes on this dataset's own held-out part), and a law of how far models
of the recipe get beyond or stay behind those n-grams, in the form of Hoffmann et al. (2022):

    bits per byte = large x (floor + a / P^alpha + b / X^beta'),   beta' = beta x (slope / 0.15)^gamma

`large` and `slope` are the dataset's difficulty; P millions of parameters of hidden layers; X megabytes of text that the model
learns from. Reading a text again teaches less than new text: R readings count as 1 + 15.4 (1 - exp(-(R - 1) / 15.4)).
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
_USUAL_SLOPE = 0.15


@dataclass(frozen=True)
class Constants:
    """Of the law; from `bench/plan_calibration.py`."""

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    gamma: float


CONSTANTS = Constants(floor=0.6, a=0.1, alpha=0.3, b=0.7, beta=0.4, gamma=0.5)


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


def expect(difficulty: Difficulty, run: Expected, constants: Constants = CONSTANTS, spread: float = 0.1) -> Expectation:
    """See the module. `spread`: the relative half-width of the range."""
    c = constants
    beta = c.beta * (max(difficulty.slope, 0.01) / _USUAL_SLOPE) ** c.gamma
    value = difficulty.large * (
        c.floor + c.a / (run.n_hidden / 1e6) ** c.alpha + c.b / (run.bytes_learnt_from / 1e6) ** beta
    )
    value = min(value, 8.0)
    return Expectation(value, value * (1 - spread), value * (1 + spread))
