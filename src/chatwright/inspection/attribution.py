"""Which input tokens mattered for a prediction, by two ways that can disagree, and then neither is the truth.

Occlusion (Zeiler & Fergus 2014; Li et al. 2016): each token in turn is replaced by the mean of all embeddings, a token that is
none in particular, and the model reads the text again; how much the log probability falls is the token's score. It measures what
really happens, to the model with an input that it never saw in training.

Gradient x (embedding - mean): gradient x input (Shrikumar et al. 2016) with that same mean as its origin (as in attribution
patching, Nanda 2023): the fall to first order, one backward pass a prediction. It misses what is saturated. Without the mean it
would say nothing here: a norm comes first in every layer, and what is normed does not change with the length of x.

In both a positive score means that the token spoke for the prediction.

B rows of a batch, T tokens, D d_model, N predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from chatwright.inspection.recording import embedded_as
from chatwright.inspection.subject import Subject
from chatwright.inspection.tokens import check_logits
from chatwright.model.encoder import Encoder
from chatwright.model.gpt import GPT
from chatwright.model.heads import TextClassifier
from chatwright.model.rnn import RNN

Method = Literal["gradient", "occlusion"]
METHODS: tuple[Method, ...] = ("gradient", "occlusion")

# Texts with one token replaced that are read at a time, and the logits that they may have together: with a large vocabulary 16
# texts of 64 predictions each would have a gigabyte of them.
_BATCH, _MOST_LOGITS = 16, 1 << 24


@dataclass(frozen=True)
class Prediction:
    """What is to be explained: token `target` after the tokens before `position`. A classifier's label: position is the length of
    the text, target the label's number. An encoder's vector: target is -1."""

    position: int
    target: int
    text: str


@dataclass(frozen=True)
class Attribution:
    """A score for every token that the prediction could see, in nats (an encoder's: cosine distance)."""

    method: Method
    position: int
    text: str
    scores: Sequence[float]


def attribute(
    subject: Subject, ids: Sequence[int], predictions: Sequence[Prediction], method: Method
) -> list[Attribution]:
    """Scores for each prediction. A gradient needs something that is a number: of an encoder's vector there is only occlusion."""
    if not predictions:
        return []
    assert method == "occlusion" or can_have_gradient(subject)
    scores_NT = (
        _gradients(subject, ids, predictions) if method == "gradient" else _occlusions(subject, ids, predictions)
    )
    return [
        Attribution(method, prediction.position, prediction.text, row[: prediction.position])
        for prediction, row in zip(predictions, scores_NT.tolist(), strict=True)
    ]


def can_have_gradient(subject: Subject) -> bool:
    """Whether a prediction is one number."""
    return subject.kind != "encoder"


def _gradients(subject: Subject, ids: Sequence[int], predictions: Sequence[Prediction]) -> Tensor:
    held: list[Tensor] = []
    nothing_D = subject.base.embed.weight.mean(0)

    def as_leaf(x_BTD: Tensor) -> Tensor:
        held.append(x_BTD.detach().requires_grad_(True))
        return held[0]

    ids_1T = torch.tensor([list(ids)], device=subject.device)
    with torch.enable_grad(), embedded_as(subject.base.embed, as_leaf):
        values_N = _values(subject, ids_1T, predictions)[0]
        rows = []
        for n in range(len(predictions)):
            [gradient_1TD] = torch.autograd.grad(values_N[n], held[0], retain_graph=n + 1 < len(predictions))
            rows.append((gradient_1TD * (held[0] - nothing_D)).sum(-1)[0].detach())
    return torch.stack(rows).float().cpu()


@torch.no_grad()
def _occlusions(subject: Subject, ids: Sequence[int], predictions: Sequence[Prediction]) -> Tensor:
    nothing_D = subject.base.embed.weight.mean(0)
    ids_1T = torch.tensor([list(ids)], device=subject.device)
    whole_1N = _values(subject, ids_1T, predictions)
    columns = []
    batch = max(1, min(_BATCH, _MOST_LOGITS // (len(predictions) * subject.base.config.vocab_size)))
    for first in range(0, len(ids), batch):
        replaced = torch.arange(first, min(first + batch, len(ids)), device=subject.device)

        def without(x_BTD: Tensor, replaced: Tensor = replaced) -> Tensor:
            x_BTD = x_BTD.clone()
            x_BTD[torch.arange(len(replaced), device=x_BTD.device), replaced] = nothing_D.to(x_BTD.dtype)
            return x_BTD

        with embedded_as(subject.base.embed, without):
            values_BN = _values(subject, ids_1T.expand(len(replaced), -1), predictions)
        if can_have_gradient(subject):
            columns.append(whole_1N - values_BN)
        else:
            columns.append(1 - F.cosine_similarity(whole_1N, values_BN)[:, None])
    return torch.cat(columns).T.float().cpu()


def _values(subject: Subject, ids_BT: Tensor, predictions: Sequence[Prediction]) -> Tensor:
    """(B, N): log probabilities of the predictions. Of an encoder (B, D): the mean of what it makes of each text."""
    model = subject.model
    if isinstance(model, GPT | RNN):
        positions = torch.tensor([prediction.position - 1 for prediction in predictions], device=subject.device)
        targets = torch.tensor([prediction.target for prediction in predictions], device=subject.device)
        logits_BNV = model.logits(model.hidden(ids_BT)[:, positions])
        check_logits(logits_BNV)
        logprobs_BNV = F.log_softmax(logits_BNV.float(), dim=-1)
        return logprobs_BNV.gather(-1, targets.expand(len(ids_BT), -1)[..., None])[..., 0]
    if isinstance(model, TextClassifier):
        logits_BC = model(ids_BT)
        check_logits(logits_BC)
        return F.log_softmax(logits_BC.float(), dim=-1)[:, [prediction.target for prediction in predictions]]
    assert isinstance(model, Encoder)
    return model.hidden(ids_BT).mean(1)
