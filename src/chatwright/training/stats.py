"""What there is to learn from: the running text of a dataset, in bytes and languages."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from chatwright.errors import InvalidDatasetError
from chatwright.text.dataset import Dataset
from chatwright.text.manifest import Kind

# What is pretrained on: running text, and conversations as the text they are. Not preferences: half of them are answers not wanted.
TEXT_KINDS: tuple[Kind, ...] = ("documents", "conversations", "labelled", "tagged")


@dataclass(frozen=True)
class TextStats:
    """Bytes are UTF-8 bytes; `languages` has those of the training split."""

    kinds: tuple[Kind, ...]
    n_bytes: int
    held_out_bytes: int
    languages: Mapping[str, int]

    def bytes_per_token(self, vocab_size: int) -> float:
        """An estimate before any tokenizer is trained: what Qwen-pattern vocabularies reached on manuals in both languages."""
        doublings = math.log2(max(vocab_size, 512) / 512)
        chinese = sum(n for language, n in self.languages.items() if language.startswith("zh")) / max(1, self.n_bytes)
        return chinese * (1.6 + 0.3 * doublings) + (1 - chinese) * (2.2 + 0.42 * doublings)


def text_stats(dataset: Dataset) -> TextStats:
    """Raises InvalidDatasetError when there is no text to pretrain on."""
    kinds = tuple(kind for kind in TEXT_KINDS if dataset.n_bytes("train", kind))
    if not kinds:
        raise InvalidDatasetError("The dataset {path} has no text to train on.", path=dataset.path)
    languages: Counter[str] = Counter()
    for kind in kinds:
        languages.update(dataset.languages("train", kind))
    return TextStats(
        kinds,
        sum(dataset.n_bytes("train", kind) for kind in kinds),
        sum(dataset.n_bytes("held_out", kind) for kind in kinds),
        dict(languages),
    )
