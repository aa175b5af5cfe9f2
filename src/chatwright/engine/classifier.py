"""Models that label texts, above an engine whose vectors are logits: they have names and tokenizers as models that talk have."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from chatwright.engine.protocol import Engine
from chatwright.engine.text import (
    Admission,
    Embeddings,
    TextEvent,
    TextModel,
    TextRequest,
    TextTokenizer,
    admit_all,
)
from chatwright.errors import InvalidRequestError
from chatwright.tokenizer.encoder_text import EncoderTokenizer


@dataclass(frozen=True, slots=True)
class Labelled:
    """For each text the probability of every label, and how many tokens the texts had together."""

    probabilities: tuple[list[float], ...]
    n_tokens: int


class ClassifierModel(TextModel):
    """A model which gives texts labels. `several`: a text can have several of them, each with a probability of its own; otherwise
    the probabilities of a text add up to 1. With a single label it scores texts, or pairs of them."""

    writes_text = False
    embeds = False

    def __init__(
        self,
        name: str,
        engine: Engine,
        tokenizer: TextTokenizer,
        *,
        labels: tuple[str, ...],
        several: bool = False,
        languages: tuple[str, ...] = (),
        created: int = 0,
        fingerprint: str = "",
    ) -> None:
        super().__init__(name, engine, tokenizer, None, languages=languages, created=created, fingerprint=fingerprint)
        self.labels = labels
        self.several = several

    @property
    def scores_pairs(self) -> bool:
        """Whether it says how well two texts go together: a cross-encoder (Nogueira & Cho 2019)."""
        return len(self.labels) == 1 and isinstance(self.tokenizer, EncoderTokenizer)

    async def classify(
        self,
        inputs: Sequence[str | Sequence[int]],
        *,
        max_tokens: int | None = None,
        admitted: Admission = admit_all,
    ) -> Labelled:
        """Labels of texts, or of texts in token ids. Raises InvalidRequestError as `embed` does."""
        logits = await self._embedded(inputs, max_tokens, admitted)
        # Of a single label alone a softmax would always say 1.
        probabilities = _sigmoid if self.several or len(self.labels) == 1 else _softmax
        return Labelled(tuple(map(probabilities, logits.vectors)), logits.n_tokens)

    async def embed(
        self,
        inputs: Sequence[str | Sequence[int]],
        *,
        max_tokens: int | None = None,
        admitted: Admission = admit_all,
    ) -> Embeddings:
        """Refused. Raises InvalidRequestError."""
        raise self._only_labels()

    def _as_encoded(self, ids: Sequence[int]) -> list[int]:
        return self.tokenizer.marked(ids) if isinstance(self.tokenizer, EncoderTokenizer) else list(ids)

    def _chat_template(self) -> NoReturn:
        raise self._only_labels()

    async def encode_between(self, prompt: str | Sequence[int], suffix: str) -> list[int]:
        """Refused. Raises InvalidRequestError."""
        raise self._only_labels()

    async def generate(self, request: TextRequest) -> AsyncGenerator[TextEvent, None]:
        """Refused. Raises InvalidRequestError."""
        raise self._only_labels()
        yield  # makes this a generator, as that of other models is

    def _only_labels(self) -> InvalidRequestError:
        return InvalidRequestError(
            "The model {name} gives texts labels and does nothing else. Use /v1/classify, or name another model.",
            name=self.name,
            param="model",
            code="unsupported_model",
        )


def _softmax(logits: Sequence[float]) -> list[float]:
    largest = max(logits)
    weights = [math.exp(logit - largest) for logit in logits]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _sigmoid(logits: Sequence[float]) -> list[float]:
    # by the half of tanh, which overflows nowhere
    return [0.5 * (1 + math.tanh(logit / 2)) for logit in logits]
