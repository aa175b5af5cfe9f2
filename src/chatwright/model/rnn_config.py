"""What a recurrent language model is, as one frozen value; without torch, so that a plan can count its parameters."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from chatwright.errors import InvalidModelError
from chatwright.model.config import shown

Cell = Literal["rnn", "lstm"]
RNN_MODEL_TYPE = "chatwright_rnn"
_LARGEST = {"vocab_size": 1 << 24, "n_layer": 64, "d_model": 1 << 16, "context_length": 1 << 28}


@dataclass(frozen=True, kw_only=True)
class RNNConfig:
    """An embedding, `n_layer` recurrent layers of width `d_model`, and the embedding again as output head.

    `cell`: "rnn" is Elman's network (1990, with tanh), "lstm" Hochreiter & Schmidhuber's (1997). `context_length` is how many
    tokens a training row has; the state itself has no end. Raises InvalidModelError when a number is out of range.
    """

    cell: Cell
    vocab_size: int
    n_layer: int
    d_model: int
    context_length: int

    def __post_init__(self) -> None:
        if self.cell not in get_args(Cell):
            raise InvalidModelError(
                "In the model's configuration, {field} is {value}, which is not supported (supported: {choices}).",
                field="cell",
                value=shown(self.cell),
                choices=", ".join(get_args(Cell)),
            )
        for field, largest in _LARGEST.items():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
                raise InvalidModelError(
                    "In the model's configuration, {field} is {value}; it must be a whole number from 1 to {largest}.",
                    field=field,
                    value=shown(value),
                    largest=largest,
                )

    @property
    def family(self) -> str:
        """What kind of model this is, as a decoder's configuration says it."""
        return self.cell

    def to_dict(self) -> dict[str, Any]:
        """As `config.json` holds it."""
        return {"model_type": RNN_MODEL_TYPE, **asdict(self)}


def rnn_parameter_shapes(config: RNNConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every parameter of `RNN(config)`; the four gates of an LSTM are stacked, as in torch."""
    c = config
    rows = c.d_model * (4 if c.cell == "lstm" else 1)
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (c.vocab_size, c.d_model)}
    for layer in range(c.n_layer):
        shapes[f"cells.weight_ih_l{layer}"] = (rows, c.d_model)
        shapes[f"cells.weight_hh_l{layer}"] = (rows, c.d_model)
        shapes[f"cells.bias_ih_l{layer}"] = (rows,)
        shapes[f"cells.bias_hh_l{layer}"] = (rows,)
    return shapes


def rnn_parameter_count(config: RNNConfig) -> int:
    """Numbers that training changes; the tied head counts once."""
    return sum(math.prod(shape) for shape in rnn_parameter_shapes(config).values())
