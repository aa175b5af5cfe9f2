"""Supervised chat tuning, of all weights or of a LoRA adapter: the loss is on what the assistant says, and nothing else.

A row is a pack: conversations that together fill the context (best fit), each attending only to itself, with positions from 0, so
that the losses are those of the same conversations unpacked. The sum over supervised tokens goes to the loop, which divides by
the supervised tokens of the whole step: a long answer weighs more than a short one, whatever micro-batch it falls into.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from chatwright.model.gpt import GPT
from chatwright.model.lora import lora_layers
from chatwright.training.chat_rows import EncodeChat, Example, arrays_of, reworded
from chatwright.training.loss import chunked_cross_entropy
from chatwright.training.objective import Sample
from chatwright.training.packing import PADDING, SegmentAttention, pack, segment_positions

# Inputs of held-out conversations looked at while training, and in one forward pass.
GLANCE_TOKENS = 1 << 15
EVALUATION_TOKENS = 4096


@dataclass(frozen=True)
class ChatBatch:
    """Packs side by side, padded to the longest: `ids` (B, T). `learned` (B, T): the places whose hidden state predicts a
    supervised token, which is `targets` (N,) in their order. `segments` (B, T) numbers the conversations of a pack; None where
    each pack is one conversation.
    """

    ids: Tensor
    segments: Tensor | None
    learned: Tensor
    targets: Tensor


def collate(packs: Sequence[Sequence[Example]], device: torch.device) -> ChatBatch:
    """Packs of at least one conversation each as one batch."""
    shape = (len(packs), max(sum(map(len, examples)) for examples in packs))
    ids, targets = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    segments = np.full(shape, PADDING, dtype=np.int64)
    learned = np.zeros(shape, dtype=np.bool_)
    for row, examples in enumerate(packs):
        start = 0
        for number, example in enumerate(examples):
            place = slice(start, start + len(example))
            ids[row, place], targets[row, place] = example.inputs, example.targets
            learned[row, place] = example.learned
            segments[row, place] = number
            start += len(example)
    packed = any(len(examples) > 1 for examples in packs)
    return ChatBatch(
        torch.from_numpy(ids).to(device),
        torch.from_numpy(segments).to(device) if packed else None,
        torch.from_numpy(learned).to(device),
        torch.from_numpy(targets[learned]).to(device),
    )


def answer_loss(model: GPT, batch: ChatBatch) -> Tensor:
    """Sum over the supervised tokens of a batch, in nats."""
    positions_BT = attend = None
    if batch.segments is not None:
        positions_BT = segment_positions(batch.segments)
        attend = SegmentAttention(batch.segments, model.attention_dropout)
    x_BTD = model.hidden(batch.ids, positions_BT, attend)
    head = model.embed.weight if model.head is None else model.head.weight
    return chunked_cross_entropy(x_BTD[batch.learned], model.logits, batch.targets, head=[head])


class ChatTuning:
    """An `Objective`. `encode` encodes messages again for an augmentation; `ask` answers a few held-out questions;
    `write` saves what is trained; `strength` is the share of the adapter that is kept.
    """

    metric = "bits_per_byte"
    unit = "answer_tokens"

    def __init__(
        self,
        model: GPT,
        train: Sequence[Example],
        held_out: Sequence[Example],
        *,
        context_length: int,
        packed: bool,
        augmentations: Sequence[str],
        seed: int,
        encode: EncodeChat,
        ask: Callable[[], Sequence[Sample]],
        write: Callable[[Path], None],
        result_name: str,
        strength: float = 1.0,
        answer_f1: Callable[[], float] | None = None,
    ) -> None:
        self.model, self.strength, self.answer_f1 = model, strength, answer_f1
        self.train, self.held_out = train, held_out
        self.context_length = context_length
        self.augmentations, self.seed = tuple(augmentations), seed
        self.encode, self.ask, self.write = encode, ask, write
        self.result_name = result_name
        lengths = [len(example) for example in train]
        self.packs: list[tuple[int, ...]] = [(index,) for index in range(len(train))]
        if packed:
            self.packs = [each.items for each in pack(lengths, context_length)]
        self.device = next(model.parameters()).device

    @property
    def n_rows(self) -> int:
        """Packs."""
        return len(self.packs)

    def batch(self, rows: Sequence[int], epoch: int) -> ChatBatch:
        """See Objective."""
        return collate([self._pack(row, epoch) for row in rows], self.device)

    def weight(self, batch: ChatBatch) -> int:
        """Supervised tokens."""
        return len(batch.targets)

    def loss(self, batch: ChatBatch) -> Tensor:
        """See Objective."""
        return answer_loss(self.model, batch)

    def documents(self, rows: Sequence[int], epoch: int) -> list[str]:
        """See Objective."""
        return list(dict.fromkeys(self.train[index].name for row in rows for index in self.packs[row]))

    @torch.no_grad()
    def evaluate(self, *, full: bool) -> Mapping[str, float]:
        """`loss`: nats a supervised token; `bits_per_byte`: bits of the answers and their ends over the bytes of the answers;
        a full one also `token_f1` of greedy answers, where that was asked for.
        """
        nats, n_tokens, n_bytes = 0.0, 0, 0
        for examples in evaluation_batches(self.held_out, None if full else GLANCE_TOKENS):
            batch = collate([[example] for example in examples], self.device)
            nats += float(answer_loss(self.model, batch))
            n_tokens += len(batch.targets)
            n_bytes += sum(example.n_bytes for example in examples)
        if not n_tokens:
            return {}
        figures = {"bits_per_byte": nats / math.log(2) / max(1, n_bytes), "loss": nats / n_tokens}
        if full and self.answer_f1 is not None:
            figures["token_f1"] = self.answer_f1()
        return figures

    def finish(self) -> None:
        """See Objective: from here on the adapter counts for its strength."""
        for layer in lora_layers(self.model).values():
            layer.scale *= self.strength

    def samples(self) -> Sequence[Sample]:
        """See Objective."""
        return self.ask()

    def save_model(self, folder: Path) -> None:
        """See Objective."""
        self.write(folder)

    def _pack(self, row: int, epoch: int) -> list[Example]:
        examples = [self.train[index] for index in self.packs[row]]
        if not self.augmentations:
            return examples
        # Other words may need more tokens; what then has no room in the pack stays as it was.
        room = self.context_length - sum(map(len, examples))
        changed = []
        for example in examples:
            other = self._reworded(example, epoch)
            if len(other) - len(example) > room:
                other = example
            room -= len(other) - len(example)
            changed.append(other)
        return changed

    def _reworded(self, example: Example, epoch: int) -> Example:
        if example.messages is None:
            return example
        messages = reworded(example.messages, self.augmentations, self.seed, epoch, example.id)
        rows = [row for row in self.encode(messages, tools=example.tools) if any(row.supervised[1:])]
        if example.index >= len(rows):
            return example
        values: dict[str, Any] = arrays_of(rows[example.index])
        return Example(example.name, example.id, example.cluster, **values, n_bytes=example.n_bytes)


def evaluation_batches(examples: Sequence[Example], most_tokens: int | None) -> list[list[Example]]:
    """Examples of like length together; the first ones only, up to `most_tokens` inputs, where that is given."""
    if most_tokens is not None:
        kept, n_tokens = 0, 0
        while kept < len(examples) and (kept == 0 or n_tokens + len(examples[kept]) <= most_tokens):
            n_tokens += len(examples[kept])
            kept += 1
        examples = examples[:kept]
    batches: list[list[Example]] = []
    for example in sorted(examples, key=len, reverse=True):
        if not batches or (len(batches[-1]) + 1) * len(batches[-1][0]) > EVALUATION_TOKENS:
            batches.append([])
        batches[-1].append(example)
    return batches
