"""Tuning on labelled texts and on labelled spans, as tasks: a new head over a decoder or an encoder, all of it trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from chatwright.model.gpt import GPT
from chatwright.model.head_folder import check_can_tag, save_head
from chatwright.model.heads import TextClassifier, TokenTagger
from chatwright.text.manifest import Split
from chatwright.training.base_model import BaseModel
from chatwright.training.chat_rows import Notes
from chatwright.training.head_rows import (
    class_labels,
    entity_labels,
    label_counts,
    labelled_texts,
    tagged_texts,
    without_unseen,
)
from chatwright.training.head_tuning import ClassTuning, TagTuning
from chatwright.training.objective import Objective
from chatwright.training.spans import tag_names
from chatwright.training.tune_card import model_card
from chatwright.training.tune_recipe import Shape
from chatwright.training.tune_task import Items, Rows


class _ForHeads:
    """What both heads share."""

    def __init__(self, base: BaseModel, context_length: int, device: torch.device) -> None:
        self.base, self.context_length, self.device = base, context_length, device
        self.encode = base.encode_text()
        self.notes: dict[Split, Notes] = {"train": Notes(), "held_out": Notes()}

    def head(
        self,
        kind: type[TextClassifier] | type[TokenTagger],
        labels: Sequence[str],
        tune: Mapping[str, Any],
        seed: int,
        run: Path,
    ) -> tuple[TextClassifier | TokenTagger, Callable[[Path], None]]:
        """A fresh head over the base, all of it to be trained, and what writes it. `run`: whose figures the card says."""
        dropout = tune["dropout"]
        base = self.base.load(self.device, dropout)
        if isinstance(base, GPT) and base.head is not None:
            base.head.requires_grad_(False)  # the head for words: no label comes of it
        head = kind(base, labels, pad_id=self.base.pad_id(), dropout=dropout, seed=seed)

        def write(folder: Path) -> None:
            card = model_card(base=self.base, tune=tune, adapter=False, run=run)
            save_head(head, folder, write_tokenizer=self.base.write_tokenizer, card=card)

        return head, write


class ClassTask(_ForHeads):
    """Labelled texts: classify."""

    def __init__(self, base: BaseModel, rows: Rows, context_length: int, device: torch.device) -> None:
        super().__init__(base, context_length, device)
        self.train = labelled_texts(rows.read("train"), self.encode, context_length, self.notes["train"])
        self.names = class_labels(self.train) if self.train else ()
        held_out = labelled_texts(rows.read("held_out"), self.encode, context_length, self.notes["held_out"])
        self.held_out = without_unseen(held_out, self.names, self.notes["held_out"])

    def settings(self) -> dict[str, Any]:
        """See Task."""
        return {"labels": list(self.names), "label_counts": label_counts(self.train)}

    def shape(self, train: Items, held_out: Items, packed: bool) -> Shape:
        """See Task."""
        return Shape(len(train), max(len(text.ids) for text in train), len(held_out), self.base.config.d_model)

    def labels(self) -> Sequence[str]:
        """See Task."""
        return [text.label for text in self.train]

    def sizes(self) -> Sequence[int]:
        """See Task."""
        return [1] * len(self.train)

    def objective(
        self,
        train: Items,
        held_out: Items,
        tune: Mapping[str, Any],
        seed: int,
        folder: Path,
    ) -> Objective:
        """See Task."""
        model, write = self.head(TextClassifier, tune["labels"], tune, seed, folder)
        return ClassTuning(
            model,
            train,
            held_out,
            tune["labels"],
            encode=self.encode,
            context_length=self.context_length,
            augmentations=tune["augmentations"],
            seed=seed,
            write=write,
        )


class TagTask(_ForHeads):
    """Labelled spans: tag."""

    def __init__(self, base: BaseModel, rows: Rows, context_length: int, device: torch.device) -> None:
        check_can_tag(base.config)
        super().__init__(base, context_length, device)
        self.train = tagged_texts(rows.read("train"), self.encode, context_length, self.notes["train"])
        self.names = entity_labels(self.train) if self.train else ()
        self.held_out = tagged_texts(rows.read("held_out"), self.encode, context_length, self.notes["held_out"])

    def settings(self) -> dict[str, Any]:
        """See Task."""
        return {"labels": list(self.names), "label_counts": label_counts(self.train)}

    def shape(self, train: Items, held_out: Items, packed: bool) -> Shape:
        """See Task."""
        lengths = [len(window.ids) for text in train for window in text.windows]
        return Shape(len(lengths), max(lengths), len(held_out), self.base.config.d_model)

    def labels(self) -> Sequence[str] | None:
        """See Task: a text has many."""
        return None

    def sizes(self) -> Sequence[int]:
        """See Task."""
        return [text.n_tokens for text in self.train]

    def objective(
        self,
        train: Items,
        held_out: Items,
        tune: Mapping[str, Any],
        seed: int,
        folder: Path,
    ) -> Objective:
        """See Task."""
        model, write = self.head(TokenTagger, tag_names(tune["labels"]), tune, seed, folder)
        return TagTuning(
            model,
            train,
            held_out,
            tune["labels"],
            encode=self.encode,
            context_length=self.context_length,
            augmentations=tune["augmentations"],
            seed=seed,
            write=write,
        )
