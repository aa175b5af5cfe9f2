"""Pretraining as an objective: predict the next token of running text, measured in bits per byte of held-out documents."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from chatwright.evaluation.bits_per_byte import LanguageModel, score_documents
from chatwright.evaluation.documents import EncodedDocument, encode_documents
from chatwright.evaluation.generate import generate_answers
from chatwright.text.dataset import Dataset
from chatwright.text.manifest import Kind
from chatwright.text.rows import row_text
from chatwright.tokenizer.tokenizer import Tokenizer
from chatwright.training.loss import chunked_cross_entropy
from chatwright.training.objective import Sample
from chatwright.training.tokens import TokenFile

PROMPT_TOKENS, SAMPLE_TOKENS, SAMPLES_PER_LANGUAGE = 12, 48, 2


@dataclass(frozen=True)
class HeldOut:
    """Documents that training never sees. `part`: how many of them, from the first, are looked at on the way. `n_all`: how many the
    dataset holds out."""

    documents: Sequence[EncodedDocument]
    languages: Sequence[str]
    part: int
    n_all: int


class Pretraining:
    """Rows are `context_length` tokens and the one after; each epoch cuts the text at other places, so that a small text is not
    learned by its cuts. Attention reaches over the ends of documents within a row: masking it was worth nothing (nanochat)."""

    metric = "bits_per_byte"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        tokens: TokenFile,
        held_out: HeldOut,
        *,
        context_length: int,
        seed: int,
        name_documents: Callable[[Sequence[int]], list[str]],
        write_model: Callable[[nn.Module, Path], None],
    ) -> None:
        self.model = model
        self.language_model = cast(LanguageModel, model)
        self.tokenizer, self.tokens, self.held_out = tokenizer, tokens, held_out
        self.context_length, self.seed = context_length, seed
        self.name_documents, self.write_model = name_documents, write_model
        self.device = next(model.parameters()).device
        # the only parameters of the output head, which is the embedding where they are tied
        head = getattr(model, "head", None)
        self.head = [cast(Tensor, (model.get_submodule("embed") if head is None else head).weight)]
        # room for a shift by any part of a row; a text of a single row stays where it is
        self.shifts = tokens.n_tokens > 2 * context_length
        self.n_rows = (tokens.n_tokens - (context_length if self.shifts else 1)) // context_length
        assert self.n_rows > 0, "the recipe sees to it that a row fits"

    def batch(self, rows: Sequence[int], epoch: int) -> Tensor:
        """(rows, context_length + 1) ids."""
        n = self.context_length + 1
        ids = np.stack([self.tokens.read(start, n) for start in self._starts(rows, epoch)])
        return torch.from_numpy(ids).to(self.device)

    def weight(self, batch: Tensor) -> int:
        """Predicted tokens."""
        return batch.shape[0] * (batch.shape[1] - 1)

    def loss(self, batch: Tensor) -> Tensor:
        """See Objective."""
        hidden_BTD = self.language_model.hidden(batch[:, :-1])
        return chunked_cross_entropy(hidden_BTD, self.language_model.logits, batch[:, 1:], head=self.head)

    def documents(self, rows: Sequence[int], epoch: int) -> list[str]:
        """The sources of the documents that these rows are cut from."""
        numbers: set[int] = set()
        for start in self._starts(rows, epoch):
            numbers.update(self.tokens.documents(start, self.context_length + 1))
        return self.name_documents(sorted(numbers))

    @property
    def measured(self) -> tuple[int, int]:
        """See Objective."""
        return len(self.held_out.documents), self.held_out.n_all

    def evaluate(self, *, full: bool) -> Mapping[str, float]:
        """Bits per byte, also by language where there are several, and the perplexity of a token."""
        documents = self.held_out.documents if full else self.held_out.documents[: self.held_out.part]
        if not documents:
            return {}
        scores = score_documents(self.language_model, documents, self.context_length)
        figures = {"bits_per_byte": scores.bits_per_byte, "perplexity": scores.perplexity}
        by_language: dict[str, list[int]] = defaultdict(list)
        for number, language in enumerate(self.held_out.languages[: len(documents)]):
            by_language[language].append(number)
        if len(by_language) > 1:
            for language, numbers in sorted(by_language.items()):
                bits = scores.nats[numbers].sum() / np.log(2)
                figures[f"bits_per_byte_{language}"] = float(bits / scores.n_bytes[numbers].sum())
        return figures

    def samples(self) -> Sequence[Sample]:
        """The beginnings of a few held-out documents, continued; the same prompts each time."""
        prompts: dict[str, list[Sequence[int]]] = defaultdict(list)
        for document, language in zip(self.held_out.documents, self.held_out.languages, strict=True):
            prompt = document.ids[: 1 + PROMPT_TOKENS]
            if len(document.ids) > 2 * PROMPT_TOKENS and len(prompts[language]) < SAMPLES_PER_LANGUAGE:
                prompts[language].append(prompt)
        chosen = [(language, prompt) for language, some in sorted(prompts.items()) for prompt in some]
        if not chosen:
            return []
        answers = generate_answers(
            self.language_model,
            [prompt for _, prompt in chosen],
            max_tokens=min(SAMPLE_TOKENS, max(1, self.context_length - PROMPT_TOKENS - 1)),
            stop_ids=frozenset(self.tokenizer.eos_ids),
            context_length=self.context_length,
            temperature=0.8,
            seed=self.seed,
        )
        return [
            Sample(self.tokenizer.decode(prompt), self.tokenizer.decode(answer.ids, continuing=True), language)
            for (language, prompt), answer in zip(chosen, answers, strict=True)
        ]

    def save_model(self, folder: Path) -> None:
        """See Objective."""
        self.write_model(self.model, folder)

    def _starts(self, rows: Sequence[int], epoch: int) -> list[int]:
        shift = 0
        if self.shifts and epoch:
            shift = random.Random(f"{self.seed} {epoch}").randrange(self.context_length)  # noqa: S311
        return [shift + row * self.context_length for row in rows]


def read_held_out(
    dataset: Dataset, kinds: Sequence[Kind], tokenizer: Tokenizer, separator: int, *, part_bytes: int, most_bytes: int
) -> HeldOut:
    """The held-out documents in an order of their own (shuffled once, the same for every run on this dataset), at most
    `most_bytes` of them; the first of them, about `part_bytes` together, are the part looked at on the way."""
    rows = [(row_text(kind, row), str(row["language"])) for kind in kinds for row in dataset.rows("held_out", kind)]
    random.Random(0).shuffle(rows)  # noqa: S311
    documents: list[EncodedDocument] = []
    languages: list[str] = []
    n_bytes = n_bytes_of_part = part = 0
    for text, language in rows:
        if n_bytes >= most_bytes:
            break
        for document in encode_documents(tokenizer, [text], start_id=separator, end_id=separator):
            documents.append(document)
            languages.append(language)
            n_bytes += document.n_bytes
            # Rather twice as much than a few short ones that stand before a longer one.
            most = part_bytes if n_bytes_of_part > part_bytes / 2 else 2 * part_bytes
            if part == len(documents) - 1 and (n_bytes <= most or part == 0):
                part, n_bytes_of_part = len(documents), n_bytes
    return HeldOut(documents, languages, part, sum(bool(text) for text, _language in rows))


def document_names(dataset: Dataset, kinds: Sequence[Kind]) -> Callable[[Sequence[int]], list[str]]:
    """From numbers of training documents to what the user calls them; reads the dataset when asked, which is hardly ever."""

    def names(numbers: Sequence[int]) -> list[str]:
        wanted = set(numbers)
        rows = (row for kind in kinds for row in dataset.rows("train", kind))
        found = enumerate(islice(rows, max(wanted, default=-1) + 1))
        return [f"{row['source'] or row['id']} ({row['id']})" for number, row in found if number in wanted]

    return names
