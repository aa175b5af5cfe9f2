"""What the model expected at each token: probability, rank, entropy, and what it would rather have said.

T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from chatwright.errors import InvalidModelError
from chatwright.inspection.subject import Subject


@dataclass(frozen=True)
class Alternative:
    """A token that could stand at a place."""

    id: int
    text: str
    probability: float


@dataclass(frozen=True)
class ExplainedToken:
    """A token of the text. `logprob` is natural; `rank` 1 is the likeliest of the vocabulary; `entropy_bits` is how open the
    place was (0: certain). All are None, and `alternatives` empty, where the model expected nothing: at the first token, and in
    models that do not write."""

    position: int
    id: int
    text: str
    is_answer: bool = False
    is_control: bool = False
    logprob: float | None = None
    rank: int | None = None
    entropy_bits: float | None = None
    alternatives: Sequence[Alternative] = ()

    @property
    def probability(self) -> float | None:
        """Between 0 and 1."""
        return None if self.logprob is None else math.exp(self.logprob)


def check_logits(logits: Tensor) -> None:
    """Raises InvalidModelError where a model says NaN or infinity."""
    if not bool(logits.isfinite().all()):
        raise InvalidModelError("The model's output is not a number (NaN or infinity), so there is nothing to explain.")


def likeliest(subject: Subject, logits_V: Tensor, top: int) -> list[Alternative]:
    """The `top` likeliest tokens, best first."""
    probabilities_V = F.softmax(logits_V.float(), dim=-1)
    best = probabilities_V.topk(min(top, len(probabilities_V)))
    return [
        Alternative(token_id, subject.text_of(token_id), probability)
        for token_id, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def explained_tokens(
    subject: Subject, ids: Sequence[int], n_prompt: int, logits_TV: Tensor, top: int
) -> list[ExplainedToken]:
    """Every token of `ids`; row t of the logits is what the model expected at t + 1."""
    logprobs_TV = F.log_softmax(logits_TV.float(), dim=-1)
    entropy_T = -(logprobs_TV.exp() * logprobs_TV).sum(-1) / math.log(2)
    tokens = [_seen(subject, ids, 0, n_prompt)]
    for position in range(1, len(ids)):
        logprobs_V = logprobs_TV[position - 1]
        own = logprobs_V[ids[position]]
        seen = _seen(subject, ids, position, n_prompt)
        tokens.append(
            ExplainedToken(
                position,
                seen.id,
                seen.text,
                seen.is_answer,
                seen.is_control,
                logprob=float(own),
                rank=int((logprobs_V > own).sum()) + 1,
                entropy_bits=max(0.0, float(entropy_T[position - 1])),
                alternatives=likeliest(subject, logits_TV[position - 1], top),
            )
        )
    return tokens


def seen_tokens(subject: Subject, ids: Sequence[int]) -> list[ExplainedToken]:
    """The tokens as a model sees them that does not expect any."""
    return [_seen(subject, ids, position, len(ids)) for position in range(len(ids))]


def _seen(subject: Subject, ids: Sequence[int], position: int, n_prompt: int) -> ExplainedToken:
    token_id = ids[position]
    return ExplainedToken(
        position, token_id, subject.text_of(token_id), position >= n_prompt, subject.is_control(token_id)
    )


@torch.no_grad()
def logits_of(subject: Subject, ids: Sequence[int]) -> Tensor:
    """Logits of every token of one text, (T, V), of a model that writes."""
    assert subject.writes
    logits_1TV: Tensor = subject.model(torch.tensor([list(ids)], device=subject.device))
    return logits_1TV[0]
