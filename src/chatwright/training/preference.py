"""Learning from preferences (DPO, Rafailov et al. 2023): of two answers to the same, the chosen one is to become likelier.

The reference is the model as it was before the first step. It never changes, so its log probabilities are computed once for all
pairs and kept in the run: cheaper than a second model in memory, and than a second forward pass in every epoch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from chatwright.errors import Detail, InvalidRequestError, StorageError
from chatwright.model.gpt import GPT
from chatwright.tokenizer.supervision import Supervised
from chatwright.training.chat_rows import CUT, NO_ROOM, NOTHING_TO_LEARN, REFUSED, SPLIT, EncodeChat, Notes, row_name
from chatwright.training.dpo import dpo_losses
from chatwright.training.fitting import Message, split_turns
from chatwright.training.objective import Sample
from chatwright.training.token_nats import token_nats

SAME = "chosen equal to rejected"
# Pairs looked at while training, and tokens of one forward pass without gradients.
GLANCE_PAIRS = 64
FORWARD_TOKENS = 4096


@dataclass(frozen=True)
class Pair:
    """Two answers to the same conversation, each as rows with something to learn (one, or one an assistant turn)."""

    name: str
    cluster: int
    chosen: tuple[Supervised, ...]
    rejected: tuple[Supervised, ...]

    @property
    def n_inputs(self) -> int:
        """Inputs of the longest row."""
        return max(len(row.ids) for row in (*self.chosen, *self.rejected)) - 1


def pairs_of(rows: Iterable[Mapping[str, Any]], encode: EncodeChat, context_length: int, notes: Notes) -> list[Pair]:
    """Rows of kind preferences as pairs that fit: the oldest turns go first, then the ends of the answers, never all of one.

    Pairs whose answers are equal, or of which an answer is empty or has no room at all, are counted in `notes`.
    """
    pairs: list[Pair] = []
    for row in rows:
        name = row_name(row)
        if [_said(message) for message in row["chosen"]] == [_said(message) for message in row["rejected"]]:
            notes.add(SAME, name)
            continue
        try:
            chosen, rejected = _fitted(row, encode, context_length, notes, name)
        except InvalidRequestError as error:
            why = Detail(error.template, **error.params)
            notes.add(REFUSED, Detail("{name}: refused ({reason})", name=name, reason=why))
            continue
        if chosen and rejected:
            pairs.append(Pair(name, int(row["cluster"]), chosen, rejected))
    return pairs


def _said(message: Message) -> tuple[object, ...]:
    return message.get("role"), message.get("content"), message.get("tool_calls")


def _fitted(
    row: Mapping[str, Any], encode: EncodeChat, context_length: int, notes: Notes, name: str
) -> tuple[tuple[Supervised, ...], tuple[Supervised, ...]]:
    tools = row.get("tools") or None
    head, turns = split_turns(row["messages"])
    for first in range(max(1, len(turns))):
        # what is said before the two answers is context, not something to learn
        context = [{**message, "weight": 0} for turn in turns[first:] for message in turn]
        chosen, rejected = (
            tuple(r for r in encode([*head, *context, *row[side]], tools=tools) if any(r.supervised[1:]))
            for side in ("chosen", "rejected")
        )
        if not chosen or not rejected:
            notes.add(NOTHING_TO_LEARN, name)
            return (), ()
        if all(len(r.ids) <= context_length + 1 for r in (*chosen, *rejected)):
            if first:
                notes.add(SPLIT, name)
            return chosen, rejected
    chosen, rejected = (_cut(side, context_length) for side in (chosen, rejected))
    notes.add(CUT if chosen and rejected else NO_ROOM, name)
    return chosen, rejected


def _cut(rows: Sequence[Supervised], context_length: int) -> tuple[Supervised, ...]:
    cut = (Supervised(r.ids[: context_length + 1], r.supervised[: context_length + 1]) for r in rows)
    return tuple(r for r in cut if any(r.supervised[1:]))


def answer_log_probabilities(model: GPT, answers: Sequence[Sequence[Supervised]]) -> Tensor:
    """Sum of the log probabilities of the supervised tokens of each answer, (len(answers),), with its graph."""
    rows = [(index, row) for index, answer in enumerate(answers) for row in answer]
    device = next(model.parameters()).device
    length = max(len(row.ids) for _index, row in rows) - 1
    ids = np.zeros((len(rows), length + 1), dtype=np.int64)
    learned = np.zeros((len(rows), length), dtype=np.bool_)
    for number, (_index, row) in enumerate(rows):
        ids[number, : len(row.ids)] = row.ids
        learned[number, : len(row.ids) - 1] = row.supervised[1:]
    ids_BT = torch.from_numpy(ids).to(device)
    learned_BT = torch.from_numpy(learned).to(device)
    # padding stands right, where no real token looks
    x_BTD = model.hidden(ids_BT[:, :-1])
    nats_N = token_nats(x_BTD[learned_BT], model.logits, ids_BT[:, 1:][learned_BT], model.config.vocab_size)
    owners = np.repeat([index for index, _row in rows], learned.sum(axis=1))
    return torch.zeros(len(answers), device=device).index_add(0, torch.from_numpy(owners).to(device), -nats_N)


class PreferenceTuning:
    """An `Objective` over pairs. `reference_file`: where the reference's log probabilities are kept."""

    metric = "loss"
    unit = "pairs"

    def __init__(
        self,
        model: GPT,
        train: Sequence[Pair],
        held_out: Sequence[Pair],
        *,
        beta: float,
        reference_file: Path,
        ask: Callable[[], Sequence[Sample]],
        write: Callable[[Path], None],
        result_name: str,
    ) -> None:
        """The model must be as it was before the first step, unless `reference_file` is there already."""
        self.model, self.beta = model, beta
        self.train, self.held_out = train, held_out
        self.ask, self.write, self.result_name = ask, write, result_name
        self.device = next(model.parameters()).device
        self.reference = _reference(model, [*train, *held_out], reference_file)

    @property
    def n_rows(self) -> int:
        """Pairs."""
        return len(self.train)

    def batch(self, rows: Sequence[int], epoch: int) -> Sequence[int]:
        """Numbers of the pairs, which are numbers of rows."""
        return tuple(rows)

    def weight(self, batch: Sequence[int]) -> int:
        """Pairs."""
        return len(batch)

    def loss(self, batch: Sequence[int]) -> Tensor:
        """See Objective."""
        losses_N, _margins_N = self._losses([self.train[row] for row in batch], list(batch))
        return losses_N.sum()

    def documents(self, rows: Sequence[int], epoch: int) -> list[str]:
        """See Objective."""
        return list(dict.fromkeys(self.train[row].name for row in rows))

    @torch.no_grad()
    def evaluate(self, *, full: bool) -> Mapping[str, float]:
        """`loss` of a pair; `accuracy`: share of pairs whose chosen answer gained more on the reference; `margin`: by how much, as
        the mean difference of implicit rewards.
        """
        held_out = self.held_out if full else self.held_out[:GLANCE_PAIRS]
        if not held_out:
            return {}
        losses, margins = [], []
        for numbers in _groups(held_out):
            offset = len(self.train)
            losses_N, margins_N = self._losses([held_out[i] for i in numbers], [offset + i for i in numbers])
            losses += losses_N.tolist()
            margins += margins_N.tolist()
        wins = sum((margin > 0) + 0.5 * (margin == 0) for margin in margins)
        return {
            "loss": float(np.mean(losses)),
            "accuracy": wins / len(margins),
            "margin": float(np.mean(margins)),
        }

    def samples(self) -> Sequence[Sample]:
        """See Objective."""
        return self.ask()

    def save_model(self, folder: Path) -> None:
        """See Objective."""
        self.write(folder)

    def _losses(self, pairs: Sequence[Pair], numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        answers = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
        policy_chosen, policy_rejected = answer_log_probabilities(self.model, answers).chunk(2)
        reference_chosen, reference_rejected = torch.from_numpy(self.reference[numbers]).to(self.device).unbind(1)
        return dpo_losses(policy_chosen, policy_rejected, reference_chosen, reference_rejected, self.beta)


def _groups(pairs: Sequence[Pair]) -> Iterator[list[int]]:
    """Numbers of pairs of like length together, for one forward pass each."""
    group: list[int] = []
    for number in sorted(range(len(pairs)), key=lambda number: -pairs[number].n_inputs):
        if group and 2 * (len(group) + 1) * pairs[group[0]].n_inputs > FORWARD_TOKENS:
            yield group
            group = []
        group.append(number)
    if group:
        yield group


@torch.no_grad()
def _reference(model: GPT, pairs: Sequence[Pair], file: Path) -> NDArray[np.float32]:
    """(pairs, 2): log probabilities of chosen and rejected under the model as it is now, or as the file says."""
    digest = hashlib.sha256(repr([(pair.chosen, pair.rejected) for pair in pairs]).encode()).hexdigest()
    try:
        kept = load_file(file)
        if digest in kept:
            return kept[digest]
    except (OSError, SafetensorError):
        pass  # not computed yet, or a kill tore it
    was_training = model.training
    model.eval()
    reference = np.zeros((len(pairs), 2), dtype=np.float32)
    for numbers in _groups(pairs):
        answers = [*(pairs[number].chosen for number in numbers), *(pairs[number].rejected for number in numbers)]
        reference[numbers] = answer_log_probabilities(model, answers).reshape(2, -1).T.float().cpu().numpy()
    model.train(was_training)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        save_file({digest: reference}, temporary)
        temporary.replace(file)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(
            "The reference's log probabilities cannot be written to {path}: {reason}. Make room, then: chatwright runs resume"
            " {run}",
            path=file,
            reason=error,
            run=file.parent,
        ) from error
    return reference
