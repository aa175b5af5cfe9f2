"""A model in memory as the functions that bias, toxicity and memorisation are measured by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from chatwright.evaluation.bias import Scorer
from chatwright.evaluation.bits_per_byte import LanguageModel, score_documents
from chatwright.evaluation.documents import EncodedDocument, document_boundary
from chatwright.evaluation.generate import generate_answers
from chatwright.tokenizer.tokenizer import Tokenizer


def text_scorer(model: LanguageModel, tokenizer: Tokenizer, context_length: int) -> Scorer:
    """Log probability of each text as the beginning of a document; what may come after it does not count.

    A text longer than the context is scored in windows (`bits_per_byte`).
    """

    def score(texts: Sequence[str]) -> list[float]:
        start = document_boundary(tokenizer)
        bodies = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        documents = [EncodedDocument((start, *ids), 1) for ids in bodies]
        return [-float(nats) for nats in score_documents(model, documents, context_length).nats]

    return score


def text_continuer(
    model: LanguageModel,
    tokenizer: Tokenizer,
    context_length: int,
    *,
    max_tokens: int = 48,
    temperature: float = 1.0,
    seed: int = 0,
) -> Callable[[Sequence[str]], list[str]]:
    """What the model writes behind each text: drawn by chance (a model's likeliest words are its tamest), the same for the same
    seed."""

    def go_on(prompts: Sequence[str]) -> list[str]:
        start = document_boundary(tokenizer)
        answers = generate_answers(
            model,
            [[start, *tokenizer.encode(prompt, add_special_tokens=False)] for prompt in prompts],
            max_tokens=max_tokens,
            stop_ids=tokenizer.eos_ids | {start},
            context_length=context_length,
            temperature=temperature,
            seed=seed,
        )
        return [tokenizer.decode(answer.ids, continuing=True) for answer in answers]

    return go_on


def ids_continuer(
    model: LanguageModel, context_length: int
) -> Callable[[Sequence[Sequence[int]], int], list[tuple[int, ...]]]:
    """The likeliest tokens behind each prompt."""
    assert isinstance(model, nn.Module)

    def go_on(prompts: Sequence[Sequence[int]], n: int) -> list[tuple[int, ...]]:
        return [answer.ids for answer in generate_answers(model, prompts, max_tokens=n, context_length=context_length)]

    return go_on
