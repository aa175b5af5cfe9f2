"""What an evaluation asks of a model, whoever runs it.

A continuation is tokenised as lm-evaluation-harness does it: blanks at the end of the context move to the continuation,
context and continuation are encoded together, and the continuation's tokens are those after as many tokens as the context
has on its own. In a chat the continuation follows the template's ids, encoded by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from chatwright.errors import EvaluationError
from chatwright.evaluation.examples import Prompt
from chatwright.evaluation.labels import Entity


@dataclass(frozen=True)
class Likelihood:
    """Natural-log probability of all tokens of a continuation. `n_cut`: tokens of the context that there was no room for.
    `after_break`: it was asked behind a line break, because nobody told how likely the first token of a text is."""

    logprob: float
    n_tokens: int
    n_cut: int = 0
    after_break: bool = False


@dataclass(frozen=True)
class TextScore:
    """Nats of the scored tokens of a text, and the bytes and tokens that they are."""

    nats: float
    n_bytes: int
    n_tokens: int


class Writer(Protocol):
    """A model that writes."""

    name: str
    fingerprint: str
    concurrency: int

    @property
    def chats(self) -> bool:
        """Whether it has a chat template, as far as that is known."""
        ...

    @property
    def room(self) -> int | None:
        """Tokens of prompt and answer together, where that is known."""
        ...

    async def likelihoods(self, prompt: Prompt, continuations: Sequence[str]) -> list[Likelihood]:
        """Of each continuation of a prompt."""
        ...

    async def score_text(self, text: str) -> TextScore:
        """A whole text, after the token that begins a document."""
        ...

    async def answer(self, prompt: Prompt, max_tokens: int, stop: Sequence[str]) -> str:
        """The likeliest continuation, token by token, up to a stop string."""
        ...

    async def sample(self, text: str, max_tokens: int, seed: int) -> str:
        """A continuation of the beginning of a document, drawn at temperature 1: a model's likeliest words are its tamest. The same
        for the same seed.
        """
        ...

    async def recite(self, text: str, n_given: int) -> tuple[str, str]:
        """(what it says, what stands there): the likeliest continuation of the first `n_given` characters of a document, and the
        rest of `text`. A cut in the middle of a token is moved behind it.
        """
        ...

    async def close(self) -> None:
        """Free what it holds."""
        ...


class Labeller(Protocol):
    """A model with a head: it names texts or finds entities, and writes nothing."""

    name: str
    fingerprint: str
    labels: Sequence[str]
    tags: bool

    def classify(self, texts: Sequence[str]) -> list[str]:
        """The label of each text."""
        ...

    def find(self, texts: Sequence[str]) -> list[list[Entity]]:
        """The entities of each text."""
        ...


def split_tokens(ids: Sequence[int], decode: Callable[[Sequence[int]], str], n_given: int) -> int:
    """How many of the tokens of a text stand for its first `n_given` characters, whole ones."""
    for n in range(1, len(ids)):
        head = decode(ids[:n])
        if len(head) >= n_given and not head.endswith("\ufffd") and not decode(ids[n:]).startswith("\ufffd"):
            return n
    return max(0, len(ids) - 1)


def check_choice(n_scored: int, n_kept: int, name: str, context_length: int) -> None:
    """Raises EvaluationError where a choice leaves no token of what comes before it."""
    if n_scored >= n_kept:
        raise EvaluationError(
            "A choice has {n} tokens, more than the context of {name} ({room}).",
            n=n_scored,
            name=name,
            room=context_length,
        )


def room_for_prompt(max_tokens: int, name: str, context_length: int) -> int:
    """Tokens left for the prompt beside an answer. Raises EvaluationError where there are none."""
    if max_tokens >= context_length:
        raise EvaluationError(
            "The task asks for answers of {n} tokens, but {name} holds {room} of prompt and answer together. Take a task of shorter"
            " answers (max_tokens), or a model of a longer context.",
            n=max_tokens,
            name=name,
            room=context_length,
        )
    return context_length - max_tokens


def split_context(context: str, continuation: str) -> tuple[str, str]:
    """Blanks at the end of the context belong to the continuation: a tokenizer puts them before the next word."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation
