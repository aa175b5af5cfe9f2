"""Tuning on conversations and on preferences, as tasks: with an adapter or all weights, from a decoder that can chat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from chatwright.evaluation.generate import generate_answers
from chatwright.evaluation.text_metrics import token_f1
from chatwright.i18n import _
from chatwright.model.folder import write_model_folder
from chatwright.model.gpt import GPT
from chatwright.model.lora import LoraConfig, add_lora, load_adapter, save_adapter
from chatwright.text.manifest import Split
from chatwright.tokenizer.supervision import Supervised
from chatwright.tokenizer.tokenizer import Tokenizer
from chatwright.training.base_model import BaseModel
from chatwright.training.chat_rows import EncodeChat, Example, Notes, examples_of
from chatwright.training.objective import Objective, Sample
from chatwright.training.packing import pack
from chatwright.training.preference import PreferenceTuning, pairs_of
from chatwright.training.progress import Progress
from chatwright.training.sft import ChatTuning
from chatwright.training.tune_card import model_card
from chatwright.training.tune_recipe import Shape
from chatwright.training.tune_task import Items, Rows, spread

SAMPLE_QUESTIONS, SAMPLE_TOKENS = 4, 64
ANSWER_TOKENS = 128
SMALLEST_PACK = 256
REFERENCE = "reference.safetensors"


class _ForChat:
    """What chat tuning and preferences share: the tokenizer, the model with or without an adapter, and how it is written."""

    def __init__(self, base: BaseModel, device: torch.device, progress: Progress) -> None:
        self.base, self.device = base, device
        self.side = base.chat()
        self.tokenizer = self.side.tokenizer
        self.encode: EncodeChat = self.side.encode
        if self.side.lent is not None:
            progress.say(
                _(
                    "{name} is a base model without a chat template: it learns the format {format}, which its vocabulary has tokens"
                    " for.",
                    name=base.title,
                    format=self.side.lent.title,
                )
            )

    def model(self, tune: Mapping[str, Any], seed: int, run: Path) -> tuple[GPT, Callable[[Path], None], str]:
        """The model to train, what writes it, and the name of the result. `run`: the folder whose figures the card says."""
        card = partial(model_card, base=self.base, tune=tune, run=run)
        if not tune["rank"]:
            model = self.base.load_decoder(self.device, tune["dropout"], trainable=True)
            return model, partial(self._write_model, model, card), "model"
        model = self.base.load_decoder(self.device, 0.0, trainable=False)
        if "adapter" in tune:
            config = load_adapter(model, Path(tune["adapter"]), trainable=True)
        else:
            config = LoraConfig(r=tune["rank"], alpha=tune["alpha"], dropout=tune["dropout"])
            add_lora(model, config, seed)

        def write(folder: Path) -> None:
            kept = replace(config, alpha=config.alpha * tune.get("strength", 1.0))
            save_adapter(
                model, kept, folder, self.base.reference, card=card(adapter=True), write_more=self.side.write_lent
            )

        return model, write, "adapter"

    def _write_model(self, model: GPT, card: Callable[..., str], folder: Path) -> None:
        ends = {"eos_token_id": sorted(self.tokenizer.eos_ids), "bos_token_id": self.tokenizer.bos_id}
        write_model_folder(
            model,
            folder,
            write_tokenizer=self._write_text_side,
            generation={key: value for key, value in ends.items() if value not in (None, [])},
            card=card(adapter=False),
        )

    def _write_text_side(self, folder: Path) -> None:
        self.base.write_tokenizer(folder)
        self.side.write_lent(folder)

    def ask(self, model: GPT, prompts: Sequence[tuple[str, Sequence[int]]]) -> Sequence[Sample]:
        """Answers to a few prompts, each given as the user's words and as ids."""
        if not prompts:
            return []
        answers = generate_answers(
            model,
            [ids for _text, ids in prompts],
            max_tokens=min(SAMPLE_TOKENS, self.base.context_length - 1),
            stop_ids=self.tokenizer.eos_ids,
        )
        return [
            Sample(text, self.tokenizer.decode(answer.ids, continuing=True))
            for (text, _ids), answer in zip(prompts, answers, strict=True)
        ]


class ChatTask(_ForChat):
    """Conversations: full and lora."""

    def __init__(self, base: BaseModel, rows: Rows, context_length: int, device: torch.device) -> None:
        super().__init__(base, device, rows.progress)
        self.context_length = context_length
        self.notes: dict[Split, Notes] = {"train": Notes(), "held_out": Notes()}
        self.train, self.held_out = (
            examples_of(rows.read(split), self.encode, self._n_bytes, context_length, notes)
            for split, notes in self.notes.items()
        )
        # packs hold the longest conversation, and enough of the short ones; longer ones cost attention and buy nothing
        longest = max(map(len, [*self.train, *self.held_out]), default=1)
        self.pack_length = min(context_length, max(longest, SMALLEST_PACK))

    def settings(self) -> dict[str, Any]:
        """See Task."""
        return {"pack_length": self.pack_length, "n_tokens": sum(map(len, self.train))}

    def shape(self, train: Items, held_out: Items, packed: bool) -> Shape:
        """See Task."""
        lengths = [len(example) for example in train]
        n_rows = len(pack(lengths, self.pack_length)) if packed else len(train)
        longest = self.pack_length if packed else max(lengths)
        return Shape(n_rows, longest, len(held_out), self.base.config.d_model)

    def labels(self) -> Sequence[str] | None:
        """See Task."""
        return None

    def sizes(self) -> Sequence[int]:
        """See Task: supervised tokens."""
        return [int(example.learned.sum()) for example in self.train]

    def objective(self, train: Items, held_out: Items, tune: Mapping[str, Any], seed: int, folder: Path) -> Objective:
        """See Task."""
        model, write, result_name = self.model(tune, seed, folder)
        prompts = [_question(example, self.tokenizer) for example in spread(held_out or train, SAMPLE_QUESTIONS)]
        return ChatTuning(
            model,
            train,
            held_out,
            context_length=tune["pack_length"],
            packed=tune["packed"],
            augmentations=tune["augmentations"],
            seed=seed,
            encode=self.encode,
            ask=lambda: self.ask(model, prompts),
            write=write,
            result_name=result_name,
            strength=tune.get("strength", 1.0),
            answer_f1=self._answer_f1(model, spread(held_out, n))
            if held_out and (n := tune.get("answers", 0))
            else None,
        )

    def _answer_f1(self, model: GPT, examples: Sequence[Example]) -> Callable[[], float]:
        """Mean token F1 of greedy answers to the first question of each example, beside what was answered there."""
        eos_ids = self.tokenizer.eos_ids
        prompts, references = [], []
        for example in examples:
            first = int(np.argmax(example.learned))
            n = int(np.argmin(example.learned[first:])) or len(example.learned) - first
            prompts.append(example.inputs[: first + 1].tolist())
            references.append([id_ for id_ in example.targets[first : first + n].tolist() if id_ not in eos_ids])
        most = min(ANSWER_TOKENS, self.base.context_length - 1, 2 * max(map(len, references)) + 1)

        def measure() -> float:
            answers = generate_answers(model, prompts, max_tokens=most, stop_ids=eos_ids)
            return fmean(
                token_f1(
                    self.tokenizer.decode(answer.ids, continuing=True), self.tokenizer.decode(ids, continuing=True)
                )
                for answer, ids in zip(answers, references, strict=True)
            )

        return measure

    def _n_bytes(self, row: Supervised) -> int:
        pairs = zip(row.ids, row.supervised, strict=True)
        return sum(len(self.tokenizer.token_bytes(token_id)) for token_id, own in pairs if own)


class PreferenceTask(_ForChat):
    """Pairs of answers: dpo."""

    def __init__(self, base: BaseModel, rows: Rows, context_length: int, device: torch.device) -> None:
        super().__init__(base, device, rows.progress)
        self.notes: dict[Split, Notes] = {"train": Notes(), "held_out": Notes()}
        self.train, self.held_out = (
            pairs_of(rows.read(split), self.encode, context_length, notes) for split, notes in self.notes.items()
        )

    def settings(self) -> dict[str, Any]:
        """See Task."""
        rows = (row for pair in self.train for row in (*pair.chosen, *pair.rejected))
        return {"n_tokens": sum(len(row.ids) for row in rows)}

    def shape(self, train: Items, held_out: Items, packed: bool) -> Shape:
        """See Task."""
        return Shape(len(train), max(pair.n_inputs for pair in train), len(held_out), self.base.config.d_model)

    def labels(self) -> Sequence[str] | None:
        """See Task."""
        return None

    def sizes(self) -> Sequence[int]:
        """See Task."""
        return [1] * len(self.train)

    def objective(self, train: Items, held_out: Items, tune: Mapping[str, Any], seed: int, folder: Path) -> Objective:
        """See Task."""
        model, write, result_name = self.model(tune, seed, folder)
        prompts = []
        for pair in spread(held_out or train, SAMPLE_QUESTIONS):
            row = pair.chosen[0]
            prompt = row.ids[: row.supervised.index(True)]
            prompts.append((self.tokenizer.decode(prompt), prompt))
        return PreferenceTuning(
            model,
            train,
            held_out,
            beta=tune["beta"],
            reference_file=folder / REFERENCE,
            ask=lambda: self.ask(model, prompts),
            write=write,
            result_name=result_name,
        )


def _question(example: Example, tokenizer: Tokenizer) -> tuple[str, Sequence[int]]:
    """What stands before the first answer of an example: as the user said it, and as ids."""
    prompt = example.inputs[: int(np.argmax(example.learned)) + 1].tolist()
    for message in example.messages or ():
        if message.get("role") == "user" and isinstance(message.get("content"), str):
            return str(message["content"]), prompt
    return tokenizer.decode(prompt), prompt
