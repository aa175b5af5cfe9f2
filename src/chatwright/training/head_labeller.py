"""A model with a head as evaluation asks it: the label of each text, or the entities in it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from chatwright.errors import InvalidModelError
from chatwright.evaluation.labels import Entity
from chatwright.model.encoder import Encoder
from chatwright.model.head_folder import load_head
from chatwright.model.heads import TextClassifier, TokenTagger
from chatwright.training.base_model import BaseModel
from chatwright.training.head_rows import Frame, windows_of
from chatwright.training.head_tuning import groups_of, padded
from chatwright.training.spans import OUTSIDE, Range, spans_of


class HeadLabeller:
    """A `Labeller` over a folder that `chatwright tune --method classify` or `tag` made, or Transformers."""

    def __init__(self, path: Path, name: str, device: torch.device | str = "cpu") -> None:
        self.head: TextClassifier | TokenTagger = load_head(path, device=device)
        self.name, self.device = name, torch.device(device)
        self.tags = isinstance(self.head, TokenTagger)
        self.classes = self.head.labels
        labels = {tag.partition("-")[2] for tag in self.classes if tag != OUTSIDE} if self.tags else set(self.classes)
        self.labels: Sequence[str] = sorted(labels)
        base = self.head.base
        kind = "encoder" if isinstance(base, Encoder) else "decoder"
        files = BaseModel(path, name, "encoder" if kind == "encoder" else "decoder", base.config)
        self.encode, self.context_length = files.encode_text(), files.context_length
        self.frame = Frame.of(self.encode)
        parts = f"{files.text_fingerprint()} {files.fingerprint()}"
        self.fingerprint = "head " + hashlib.sha256(parts.encode()).hexdigest()[:16]

    @torch.no_grad()
    def classify(self, texts: Sequence[str]) -> list[str]:
        """See Labeller; a text longer than the context keeps its beginning."""
        rows = [self.frame.cut(self.encode(text)[0], self.context_length) for text in texts]
        found = [""] * len(rows)
        for numbers in groups_of([len(ids) for ids in rows]):
            logits_BC = self.head(*padded([rows[number] for number in numbers], self.device)).float()
            self._check(logits_BC)
            for number, label in zip(numbers, logits_BC.argmax(-1).tolist(), strict=True):
                found[number] = self.classes[label]
        return found

    @torch.no_grad()
    def find(self, texts: Sequence[str]) -> list[list[Entity]]:
        """See Labeller; a text longer than the context is read in parts. Nothing is found in one that the tokenizer does not
        spell.
        """
        return [self._find(text) for text in texts]

    def _find(self, text: str) -> list[Entity]:
        ids, ranges = self.encode(text)
        if not ids or ranges is None:
            return []
        tags: list[str] = []
        places: list[Range] = []
        for window in windows_of(ids, ranges, [OUTSIDE] * len(ids), self.frame, self.context_length):
            logits_TC = self.head(*padded([window.ids], self.device))[0].float()
            self._check(logits_TC)
            tags += [self.classes[number] for number in logits_TC.argmax(-1).tolist()]
            places += window.ranges
        return spans_of(text, places, tags)

    def _check(self, logits: torch.Tensor) -> None:
        if torch.isnan(logits).any():
            raise InvalidModelError(
                "{name} says something that is not a number (NaN): its weights are damaged.", name=self.name
            )
