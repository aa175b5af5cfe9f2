"""What touches tensors for models with a head: texts in token ids, padded to one batch, become one logit a label each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from chatwright.engine.device import find_device
from chatwright.errors import InvalidModelError
from chatwright.model.encoder import Encoder
from chatwright.model.head_folder import load_head
from chatwright.model.heads import TextClassifier
from chatwright.tokenizer.wordpiece import load_wordpiece


class HeadRunner:
    """A head over its base. `separator`: of an encoder, the token behind which a second text begins."""

    def __init__(self, head: TextClassifier, separator: int | None) -> None:
        self.head, self.separator = head, separator
        self.pad_id = head.pad_id or 0
        self.device = next(head.parameters()).device

    @classmethod
    def load(cls, path: Path, *, device: str, n_threads: int) -> HeadRunner:
        """The model in a folder on the device of that name, in fp32. Raises InvalidModelError, UsageError."""
        torch.set_num_threads(n_threads)
        head = load_head(path, device=find_device(device))
        if not isinstance(head, TextClassifier):
            raise InvalidModelError(
                "{path} labels the tokens of texts, which cannot be served yet: only models that label whole texts can.",
                path=path,
            )
        separator = load_wordpiece(path).id_of("[SEP]") if isinstance(head.base, Encoder) else None
        return cls(head, separator)

    @torch.inference_mode()
    def embed(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """The logits of each text, (labels,). A text may be a pair: what stands behind the first separator is its second."""
        longest = max(len(ids) for ids in batch)
        ids_BT = torch.full((len(batch), longest), self.pad_id, dtype=torch.long)
        mask_BT = torch.zeros((len(batch), longest), dtype=torch.bool)
        types_BT = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, ids in enumerate(batch):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            mask_BT[row, : len(ids)] = True
            if self.separator in ids:
                types_BT[row, ids.index(self.separator) + 1 : len(ids)] = 1
        logits: list[list[float]] = (
            self.head(ids_BT.to(self.device), mask_BT.to(self.device), types_BT.to(self.device)).float().cpu().tolist()
        )
        return logits
