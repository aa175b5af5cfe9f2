"""Heads for labelled texts and for labelled tokens: what is trained, what a batch is, and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from chatwright.evaluation.labels import accuracy, confusion_matrix, entity_scores, f1_by_label, macro_f1
from chatwright.training.augmentation import augment
from chatwright.training.head_rows import EncodeText, Frame, LabelledText, TaggedText
from chatwright.training.loss import IGNORE
from chatwright.training.objective import Sample
from chatwright.training.spans import Span, spans_of, tag_names, tags_of
from chatwright.training.tune_task import spread

# Held-out texts looked at while training, texts shown with what was found, and tokens of one forward pass without gradients.
GLANCE_TEXTS = 512
SAMPLE_TEXTS = 5
FORWARD_TOKENS = 8192


@dataclass(frozen=True)
class HeadBatch:
    """`ids` and `mask` (B, T), padded right; `targets`: (B,) classes, or (B, T) tags with IGNORE at padding."""

    ids: Tensor
    mask: Tensor
    targets: Tensor


class ClassTuning:
    """An `Objective`: the label of a text."""

    metric = "loss"
    unit = "texts"
    result_name = "model"

    def __init__(
        self,
        model: nn.Module,
        train: Sequence[LabelledText],
        held_out: Sequence[LabelledText],
        labels: Sequence[str],
        *,
        encode: EncodeText,
        context_length: int,
        augmentations: Sequence[str],
        seed: int,
        write: Callable[[Path], None],
    ) -> None:
        self.model, self.train, self.held_out = model, train, held_out
        self.labels = tuple(labels)
        self.number = {label: number for number, label in enumerate(self.labels)}
        self.encode, self.frame, self.context_length = encode, Frame.of(encode), context_length
        self.augmentations, self.seed, self.write = tuple(augmentations), seed, write
        self.details: dict[str, Any] = {}
        self.device = next(model.parameters()).device

    @property
    def n_rows(self) -> int:
        """Texts."""
        return len(self.train)

    def batch(self, rows: Sequence[int], epoch: int) -> HeadBatch:
        """See Objective."""
        texts = [self.train[row] for row in rows]
        return self._collate([self._reworded(text, epoch) for text in texts], texts)

    def weight(self, batch: HeadBatch) -> int:
        """Texts."""
        return len(batch.targets)

    def loss(self, batch: HeadBatch) -> Tensor:
        """See Objective."""
        return F.cross_entropy(self.model(batch.ids, batch.mask).float(), batch.targets, reduction="sum")

    def documents(self, rows: Sequence[int], epoch: int) -> list[str]:
        """See Objective."""
        return [self.train[row].name for row in rows]

    @torch.no_grad()
    def evaluate(self, *, full: bool) -> Mapping[str, float]:
        """`loss`: nats a text; `accuracy`; `macro_f1`. A full one leaves the confusion matrix in `details`."""
        texts = self.held_out if full else self.held_out[:GLANCE_TEXTS]
        if not texts:
            return {}
        nats, predicted = self._predict(texts)
        matrix = confusion_matrix([self.number[text.label] for text in texts], predicted, len(self.labels))
        if full:
            by_label = dict(zip(self.labels, f1_by_label(matrix), strict=True))
            self.details = {"labels": list(self.labels), "confusion_matrix": matrix.tolist(), "f1_by_label": by_label}
        return {"loss": nats / len(texts), "accuracy": accuracy(matrix), "macro_f1": macro_f1(matrix)}

    def samples(self) -> Sequence[Sample]:
        """See Objective: a few held-out texts with the label they get."""
        texts = spread(self.held_out or self.train, SAMPLE_TEXTS)
        with torch.no_grad():
            _nats, predicted = self._predict(texts)
        return [
            Sample(text.text, f"{self.labels[number]} ({text.label})")
            for text, number in zip(texts, predicted, strict=True)
        ]

    def save_model(self, folder: Path) -> None:
        """See Objective."""
        self.write(folder)

    def _reworded(self, text: LabelledText, epoch: int) -> tuple[int, ...]:
        if not self.augmentations:
            return text.ids
        changed, _spans = augment(text.text, self.augmentations, (self.seed, epoch, text.id))
        return self.frame.cut(self.encode(changed)[0], self.context_length) or text.ids

    def _collate(self, ids: Sequence[Sequence[int]], texts: Sequence[LabelledText]) -> HeadBatch:
        ids_BT, mask = padded(ids, self.device)
        return HeadBatch(ids_BT, mask, torch.tensor([self.number[text.label] for text in texts], device=self.device))

    def _predict(self, texts: Sequence[LabelledText]) -> tuple[float, list[int]]:
        """Nats of all, and the number of the likeliest label of each."""
        nats = 0.0
        predicted = [0] * len(texts)
        for numbers in groups_of([len(text.ids) for text in texts]):
            group = [texts[number] for number in numbers]
            batch = self._collate([text.ids for text in group], group)
            logits_BC = self.model(batch.ids, batch.mask).float()
            nats += float(F.cross_entropy(logits_BC, batch.targets, reduction="sum"))
            for number, label in zip(numbers, logits_BC.argmax(-1).tolist(), strict=True):
                predicted[number] = label
        return nats, predicted


class TagTuning:
    """An `Objective`: the tag of every token. A text longer than the context is several windows, so that no entity is lost."""

    metric = "loss"
    result_name = "model"

    def __init__(
        self,
        model: nn.Module,
        train: Sequence[TaggedText],
        held_out: Sequence[TaggedText],
        labels: Sequence[str],
        *,
        encode: EncodeText,
        context_length: int,
        augmentations: Sequence[str],
        seed: int,
        write: Callable[[Path], None],
    ) -> None:
        self.model, self.train, self.held_out = model, train, held_out
        self.tags = tag_names(labels)
        self.number = {tag: number for number, tag in enumerate(self.tags)}
        self.encode, self.context_length = encode, context_length
        self.augmentations, self.seed, self.write = tuple(augmentations), seed, write
        self.details: dict[str, Any] = {}
        self.device = next(model.parameters()).device
        self.windows = [(text, window) for text in train for window in text.windows]

    @property
    def n_rows(self) -> int:
        """Windows."""
        return len(self.windows)

    def batch(self, rows: Sequence[int], epoch: int) -> HeadBatch:
        """See Objective."""
        parts = []
        for row in rows:
            text, window = self.windows[row]
            whole = len(text.windows) == 1
            parts.append(self._reworded(text, epoch) if self.augmentations and whole else (window.ids, window.tags))
        return self._collate(parts)

    def weight(self, batch: HeadBatch) -> int:
        """Tokens."""
        return int(batch.mask.sum())

    def loss(self, batch: HeadBatch) -> Tensor:
        """See Objective."""
        return self._nats(self.model(batch.ids, batch.mask), batch)

    def documents(self, rows: Sequence[int], epoch: int) -> list[str]:
        """See Objective."""
        return list(dict.fromkeys(self.windows[row][0].name for row in rows))

    @torch.no_grad()
    def evaluate(self, *, full: bool) -> Mapping[str, float]:
        """`loss`: nats a token; `precision`, `recall` and `f1` of entities by their exact place and label. A full one leaves those
        of each label in `details`.
        """
        texts = self.held_out if full else self.held_out[:GLANCE_TEXTS]
        if not texts:
            return {}
        nats, n_tokens, found = self._predict(texts)
        truth = [text.spans for text in texts]
        if full:
            labels = sorted({tag[2:] for tag in self.tags[1:]})
            by_label = {label: entity_scores(_only(label, truth), _only(label, found)) for label in labels}
            self.details = {"labels": labels, "by_label": by_label}
        return {"loss": nats / n_tokens, **entity_scores(truth, found)}

    def samples(self) -> Sequence[Sample]:
        """See Objective: a few held-out texts with the entities found in them."""
        texts = spread(self.held_out or self.train, SAMPLE_TEXTS)
        with torch.no_grad():
            _nats, _n_tokens, found = self._predict(texts)
        return [
            Sample(text.text, "\n".join(f"{text.text[start:end]}: {label}" for start, end, label in spans))
            for text, spans in zip(texts, found, strict=True)
        ]

    def save_model(self, folder: Path) -> None:
        """See Objective."""
        self.write(folder)

    def _reworded(self, text: TaggedText, epoch: int) -> tuple[Sequence[int], Sequence[str]]:
        places = [(start, end) for start, end, _label in text.spans]
        changed, moved = augment(text.text, self.augmentations, (self.seed, epoch, text.id), places)
        ids, ranges = self.encode(changed)
        if ranges is None or not 0 < len(ids) <= self.context_length:
            return text.windows[0].ids, text.windows[0].tags
        spans = [(start, end, label) for (start, end), (_s, _e, label) in zip(moved, text.spans, strict=True)]
        return ids, tags_of(changed, ranges, spans)

    def _collate(self, parts: Sequence[tuple[Sequence[int], Sequence[str]]]) -> HeadBatch:
        ids, mask = padded([ids for ids, _tags in parts], self.device)
        targets = torch.full_like(ids, IGNORE)
        for row, (_ids, tags) in enumerate(parts):
            targets[row, : len(tags)] = torch.tensor([self.number.get(tag, IGNORE) for tag in tags])
        return HeadBatch(ids, mask, targets)

    def _nats(self, logits_BTC: Tensor, batch: HeadBatch) -> Tensor:
        return F.cross_entropy(
            logits_BTC.float().flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE, reduction="sum"
        )

    def _predict(self, texts: Sequence[TaggedText]) -> tuple[float, int, list[list[Span]]]:
        """Nats and number of all tokens, and the entities found in each text."""
        nats, n_tokens = 0.0, 0
        windows = [window for text in texts for window in text.windows]
        tags: list[list[str]] = [[] for _ in windows]
        for numbers in groups_of([len(window.ids) for window in windows]):
            batch = self._collate([(windows[number].ids, windows[number].tags) for number in numbers])
            logits_BTC = self.model(batch.ids, batch.mask)
            nats += float(self._nats(logits_BTC, batch))
            n_tokens += int((batch.targets != IGNORE).sum())
            for number, best in zip(numbers, logits_BTC.argmax(-1).tolist(), strict=True):
                tags[number] = [self.tags[tag] for tag in best[: len(windows[number].ids)]]
        found, read = [], iter(tags)
        for text in texts:
            ranges = [each for window in text.windows for each in window.ranges]
            found.append(spans_of(text.text, ranges, [tag for _window in text.windows for tag in next(read)]))
        return nats, max(1, n_tokens), found


def _only(label: str, texts: Sequence[Sequence[Span]]) -> list[list[Span]]:
    return [[span for span in spans if span[2] == label] for spans in texts]


def padded(ids: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T) ids with zeros on the right, and where they are real."""
    shape = (len(ids), max(map(len, ids)))
    ids_BT, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.bool_)
    for row, own in enumerate(ids):
        ids_BT[row, : len(own)] = own
        mask[row, : len(own)] = True
    return torch.from_numpy(ids_BT).to(device), torch.from_numpy(mask).to(device)


def groups_of(lengths: Sequence[int]) -> list[list[int]]:
    """Numbers of texts of like length together, for one forward pass each."""
    groups: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if not groups or (len(groups[-1]) + 1) * lengths[groups[-1][0]] > FORWARD_TOKENS:
            groups.append([])
        groups[-1].append(number)
    return groups
