"""The KV cache of PyTorch's runner: keys and values of all blocks, and one block more that belongs to nobody.

A token's place is the number of its block times BLOCK_TOKENS, plus where it stands in the block.

Shapes: L layers, G key heads, b blocks, t tokens of a block, D head dimension, S tokens, N places.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chatwright.engine.blocks import BLOCK_TOKENS
from chatwright.model.config import ModelConfig


class PagedCache:
    """Blocks 0 … n_blocks - 1, and `scratch_block` behind them, whose first place holds zeros and is never written to.

    On the CPU the system hands out the memory as blocks are first used.
    """

    def __init__(self, config: ModelConfig, n_blocks: int, dtype: torch.dtype, device: torch.device) -> None:
        self.scratch_block = n_blocks
        self.zero_place = n_blocks * BLOCK_TOKENS
        shape = (config.n_layer, config.n_kv_head, n_blocks + 1, BLOCK_TOKENS, config.head_dim)
        self.keys_LGbtD = torch.empty(shape, dtype=dtype, device=device)
        self.values_LGbtD = torch.empty_like(self.keys_LGbtD)
        self.keys_LGbtD[:, :, self.scratch_block, 0] = 0
        self.values_LGbtD[:, :, self.scratch_block, 0] = 0

    def write(self, layer: int, places_N: Tensor, k_GND: Tensor, v_GND: Tensor) -> None:
        """Keys and values of new tokens, each to its place."""
        self.keys_LGbtD[layer].flatten(1, 2).index_copy_(1, places_N, k_GND)
        self.values_LGbtD[layer].flatten(1, 2).index_copy_(1, places_N, v_GND)

    def read_blocks(self, layer: int, blocks_b: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (G, S, D) of all tokens in blocks, one after the other."""
        k_GbtD = self.keys_LGbtD[layer].index_select(1, blocks_b)
        v_GbtD = self.values_LGbtD[layer].index_select(1, blocks_b)
        return k_GbtD.flatten(1, 2), v_GbtD.flatten(1, 2)

    def read_places(self, layer: int, places_N: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (G, N, D) that lie at places."""
        k_GND = self.keys_LGbtD[layer].flatten(1, 2).index_select(1, places_N)
        v_GND = self.values_LGbtD[layer].flatten(1, 2).index_select(1, places_N)
        return k_GND, v_GND
