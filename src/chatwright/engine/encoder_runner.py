"""What touches tensors for encoders: texts in token ids, padded to one batch, become one vector each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from chatwright.engine.device import find_device
from chatwright.model.encoder import Encoder, pooled
from chatwright.model.encoder_hf import load_encoder
from chatwright.model.pooling import Pooling, read_pooling


class EncoderRunner:
    """An encoder and how its tokens' vectors become one."""

    def __init__(self, encoder: Encoder, pooling: Pooling) -> None:
        self.encoder, self.pooling = encoder, pooling
        self.device = next(encoder.parameters()).device

    @classmethod
    def load(cls, path: Path, *, device: str, n_threads: int) -> EncoderRunner:
        """The encoder in a folder on the device of that name, in fp32. Raises InvalidModelError, UsageError."""
        torch.set_num_threads(n_threads)
        return cls(load_encoder(path, device=find_device(device)), read_pooling(path))

    @torch.inference_mode()
    def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """One vector for each text, (d_model,)."""
        longest = max(len(ids) for ids in batch)
        ids_BT = torch.full((len(batch), longest), self.encoder.config.pad_id, dtype=torch.long)
        mask_BT = torch.zeros((len(batch), longest), dtype=torch.bool)
        for row, ids in enumerate(batch):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            mask_BT[row, : len(ids)] = True
        mask_BT = mask_BT.to(self.device)
        hidden_BTD = self.encoder.hidden(ids_BT.to(self.device), None if mask_BT.all() else mask_BT)
        vectors: list[list[float]] = pooled(hidden_BTD, mask_BT, self.pooling).float().cpu().tolist()
        return vectors
