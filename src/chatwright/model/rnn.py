"""The recurrent language model, plain or LSTM: what the Transformer replaced, trained on the same loop to see why.

One token at a time a state of fixed size is read and rewritten (Elman 1990; Hochreiter & Schmidhuber 1997), so that a token
costs the same however long the text is, and whatever is to be remembered must fit into the state.

Letters in names are axes: B sequences, T tokens of each, D d_model, V vocabulary, L layers.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from chatwright.model.first_call import settle_mkl
from chatwright.model.rnn_config import RNNConfig

# h (L, B, D), and an LSTM's cell beside it, of the same shape
State = Tensor | tuple[Tensor, Tensor]


class RNN(nn.Module):
    """Token ids in, logits out. `dropout` as Zaremba et al. (2014): between layers, at the input and output, never through time."""

    def __init__(self, config: RNNConfig, dropout: float = 0.0) -> None:
        super().__init__()
        settle_mkl()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.dropout = nn.Dropout(dropout)
        cells = nn.LSTM if config.cell == "lstm" else nn.RNN
        between = dropout if config.n_layer > 1 else 0.0
        self.cells = cells(config.d_model, config.d_model, config.n_layer, batch_first=True, dropout=between)

    def advance(self, ids_BT: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x_BTD of every token, and the state after the last; without a state the text begins here."""
        x_BTD, state = self.cells(self.dropout(self.embed(ids_BT)), state)
        assert state is not None
        return self.dropout(x_BTD), state

    def hidden(self, ids_BT: Tensor, state: State | None = None) -> Tensor:
        """x_BTD: what comes before the output head."""
        return self.advance(ids_BT, state)[0]

    def logits(self, x: Tensor) -> Tensor:
        """The output head, (..., d_model) → (..., V); it is the embedding."""
        return F.linear(x, self.embed.weight)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits of every token, (B, T, V)."""
        return self.logits(self.hidden(ids_BT))
