"""All that can be seen of one text in one model, as dataclasses, and as JSON.

`explain(subject, prompt, …)` and `Explanation.to_json` are the command; a server looks by a process of its own (`looking`).

L layers, H heads, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from chatwright.errors import UsageError
from chatwright.evaluation.generate import generate_answers
from chatwright.inspection.attribution import Attribution, Method, Prediction, attribute, can_have_gradient
from chatwright.inspection.embeddings import EmbeddingMap, Neighbourhood, embedding_map, nearest_tokens
from chatwright.inspection.lens import LensRow, has_lens, logit_lens
from chatwright.inspection.recording import record
from chatwright.inspection.subject import Kind, Subject
from chatwright.inspection.tokens import (
    Alternative,
    ExplainedToken,
    check_logits,
    explained_tokens,
    likeliest,
    seen_tokens,
)
from chatwright.model.gpt import GPT
from chatwright.model.heads import TextClassifier, TokenTagger
from chatwright.model.rnn import RNN
from chatwright.tokenizer.tokenizer import Tokenizer

# Attention is a square for every head: at this length and 30 layers of 9 heads it is 280 MB.
MAX_TOKENS = 512
# Predictions whose inputs are weighed: with gradients each is a backward pass.
MAX_ATTRIBUTIONS = 64

# Why something is missing; keys of the translation.
NO_ATTENTION = "A recurrent model has no attention: what it remembers is one state, rewritten at every token."
NO_LENS_RECURRENT = (
    "A recurrent model's layers do not share one stream that its head could read, so there is no view by layer."
)
NO_LENS_ENCODER = "An encoder predicts no next token, so there is nothing that its layers would have said."
NO_PROBABILITIES = "This model reads text and writes none, so its tokens have no probabilities."
NO_GRADIENT = "An encoder's result is a vector, not one number: its tokens are weighed by occlusion."
NO_TAG_ATTRIBUTION = "A model that labels tokens has a label for each: input tokens are not weighed for all of them."
FEWER_ATTRIBUTIONS = "Input tokens were weighed for the first predictions only; each takes a pass through the model."
MEAN_ATTENTION = "Attention is the mean of each layer's heads: that of all heads would be too large to send."
ATTENTION_LEFT_OUT = "Attention is left out: even the mean of each layer's heads would be too large to send."
NOTES = (
    MEAN_ATTENTION,
    ATTENTION_LEFT_OUT,
    NO_ATTENTION,
    NO_LENS_RECURRENT,
    NO_LENS_ENCODER,
    NO_PROBABILITIES,
    NO_GRADIENT,
    NO_TAG_ATTRIBUTION,
    FEWER_ATTRIBUTIONS,
)


# All heads, one mean for each layer, or nothing of it.
ShownAttention = Literal["heads", "mean", "none"]


@dataclass(frozen=True)
class LabelProbability:
    """A label of a model that has a head for them."""

    label: str
    probability: float


@dataclass(frozen=True)
class Explanation:
    """Everything, for one text. `n_prompt`: tokens before the answer. `next`: what the model would say after the last token.

    `attention`: (L, H, T, T), each row of a query sums to one; empty where there is none. `labels`: of a text, or one list a
    token. `notes`: why something is missing, as templates of the translation.
    """

    model: str
    kind: Kind
    tokens: Sequence[ExplainedToken]
    n_prompt: int
    next: Sequence[Alternative] = ()
    attention: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0, 0), dtype=np.float32))
    lens: Sequence[LensRow] = ()
    attributions: Sequence[Attribution] = ()
    neighbours: Sequence[Neighbourhood] = ()
    map: EmbeddingMap | None = None
    labels: Sequence[LabelProbability] = ()
    token_labels: Sequence[LabelProbability] = ()
    notes: Sequence[str] = ()

    @property
    def answer_bits(self) -> float | None:
        """What the answer cost the model, in bits; None without one."""
        costs = [-token.logprob / math.log(2) for token in self.tokens if token.is_answer and token.logprob is not None]
        return sum(costs) if costs else None

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers; attention rounded to four places."""
        return {
            "model": self.model,
            "kind": self.kind,
            "n_prompt": self.n_prompt,
            "tokens": [asdict(token) | {"probability": token.probability} for token in self.tokens],
            "next": [asdict(each) for each in self.next],
            "attention": np.round(self.attention.astype(np.float64), 4).tolist(),
            "lens": [asdict(row) for row in self.lens],
            "attributions": [asdict(each) for each in self.attributions],
            "neighbours": [asdict(each) for each in self.neighbours],
            "map": asdict(self.map) if self.map is not None else None,
            "labels": [asdict(each) for each in self.labels],
            "token_labels": [asdict(each) for each in self.token_labels],
            "notes": list(self.notes),
        }


def explain(
    subject: Subject,
    prompt: str,
    *,
    answer: str | None = None,
    max_tokens: int = 16,
    chat: bool = False,
    method: Method | None = "gradient",
    top: int = 5,
) -> Explanation:
    """Looks at a prompt and its answer: the one given, or the likeliest of up to `max_tokens` tokens (0: the prompt alone).

    With `chat` the prompt is a user's message. Raises UsageError for an empty prompt, for one that is too long, for a message
    to a model without a chat template; InvalidModelError for a model that says NaN.
    """
    if not prompt:
        raise UsageError("The prompt is empty: give a text to look at.")
    ids = subject.encode_message(prompt) if chat else subject.encode(prompt)
    if not ids:
        raise UsageError("The prompt is empty: give a text to look at.")
    check_length(subject, len(ids))
    n_prompt = len(ids)
    if subject.writes:
        ids = ids + (likeliest_answer(subject, ids, max_tokens) if answer is None else subject.encode_answer(answer))
        check_length(subject, len(ids))
        return explain_ids(subject, ids, n_prompt, method=method, top=top)
    if answer is not None:
        raise UsageError(
            "{name} writes no text, so it cannot be given an answer: leave --answer out.", name=subject.name
        )
    return explain_ids(subject, ids, n_prompt, method=method, top=top)


def check_length(subject: Subject, n_tokens: int) -> None:
    """Raises UsageError when a text is longer than the model or this view can take."""
    if n_tokens > subject.context_length:
        raise UsageError(
            "The text has {n} tokens, more than the {most} that {name} can read. Shorten it.",
            n=n_tokens,
            most=subject.context_length,
            name=subject.name,
        )
    if n_tokens > MAX_TOKENS:
        raise UsageError(
            "The text has {n} tokens; looking inside takes at most {most}, since every head's attention is a square of that side."
            " Shorten it.",
            n=n_tokens,
            most=MAX_TOKENS,
        )


def explain_ids(
    subject: Subject, ids: Sequence[int], n_prompt: int, *, method: Method | None = "gradient", top: int = 5
) -> Explanation:
    """`explain` of token ids, the first `n_prompt` of which are the prompt. method: None weighs no input tokens."""
    recording = record(subject, ids)
    notes: list[str] = []
    attention = np.zeros((0, 0, 0, 0), dtype=np.float32)
    if recording.attention:
        attention = torch.stack(list(recording.attention)).float().cpu().numpy()
    else:
        notes.append(NO_ATTENTION)
    neighbours = nearest_tokens(subject, ids, top)
    shared: dict[str, Any] = {
        "model": subject.name,
        "kind": subject.kind,
        "n_prompt": n_prompt,
        "attention": attention,
        "neighbours": neighbours,
        "map": embedding_map(subject, neighbours),
    }
    if not subject.writes:
        return _of_reader(subject, ids, method, shared, notes)
    model = subject.model
    assert isinstance(model, GPT | RNN)
    logits_TV = model.logits(recording.output)
    check_logits(logits_TV)
    next_ = likeliest(subject, logits_TV[-1], top)
    lens: Sequence[LensRow] = ()
    if has_lens(subject):
        lens = logit_lens(subject, ids, recording)
    else:
        notes.append(NO_LENS_RECURRENT)
    predictions = [
        Prediction(position, ids[position], subject.text_of(ids[position])) for position in range(n_prompt, len(ids))
    ] or [Prediction(len(ids), next_[0].id, next_[0].text)]
    if method is not None and len(predictions) > MAX_ATTRIBUTIONS:
        predictions = predictions[:MAX_ATTRIBUTIONS]
        notes.append(FEWER_ATTRIBUTIONS)
    return Explanation(
        **shared,
        tokens=explained_tokens(subject, ids, n_prompt, logits_TV, top),
        next=next_,
        lens=lens,
        attributions=attribute(subject, ids, predictions, method) if method is not None else (),
        notes=notes,
    )


@torch.no_grad()
def _of_reader(
    subject: Subject, ids: Sequence[int], method: Method | None, shared: dict[str, Any], notes: list[str]
) -> Explanation:
    """A model that writes nothing: labels where it has a head for them."""
    notes += [NO_PROBABILITIES, NO_LENS_ENCODER] if subject.kind == "encoder" else [NO_PROBABILITIES]
    model, ids_1T = subject.model, torch.tensor([list(ids)], device=subject.device)
    labels: list[LabelProbability] = []
    token_labels: list[LabelProbability] = []
    predictions = [Prediction(len(ids), -1, "")]
    if isinstance(model, TextClassifier):
        logits_1C = model(ids_1T)
        check_logits(logits_1C)
        probabilities = logits_1C[0].float().softmax(-1).tolist()
        labels = sorted(
            map(LabelProbability, model.labels, probabilities), key=lambda each: each.probability, reverse=True
        )
        predictions = [Prediction(len(ids), model.labels.index(labels[0].label), labels[0].label)]
    elif isinstance(model, TokenTagger):
        logits_1TC = model(ids_1T)
        check_logits(logits_1TC)
        best = logits_1TC[0].float().softmax(-1).max(-1)
        token_labels = [
            LabelProbability(model.labels[index], probability)
            for index, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        predictions = []
        notes.append(NO_TAG_ATTRIBUTION)
    elif method == "gradient" and not can_have_gradient(subject):
        notes.append(NO_GRADIENT)
        method = "occlusion"
    return Explanation(
        **shared,
        tokens=seen_tokens(subject, ids),
        attributions=attribute(subject, ids, predictions, method) if method is not None else (),
        labels=labels,
        token_labels=token_labels,
        notes=notes,
    )


def with_attention(explanation: Explanation, shown: ShownAttention, most_weights: int) -> Explanation:
    """The explanation with so much of its attention, and no more than `most_weights` numbers of it; where that is less than was
    asked for, a note says so. The shape stays (L, H, T, T): a mean is one head."""
    attention, notes = explanation.attention, list(explanation.notes)
    if shown != "none" and attention.size:
        if shown == "mean" or attention.size > most_weights:
            if shown == "heads":
                notes.append(MEAN_ATTENTION)
            attention = attention.mean(axis=1, keepdims=True)
        if attention.size > most_weights:
            notes = [*explanation.notes, ATTENTION_LEFT_OUT]
            shown = "none"
    if shown == "none":
        attention = np.zeros((0, 0, 0, 0), dtype=np.float32)
    return replace(explanation, attention=attention, notes=notes)


def likeliest_answer(subject: Subject, prompt_ids: Sequence[int], max_tokens: int) -> list[int]:
    """The likeliest answer, token by token, as far as there is room."""
    room = min(subject.context_length, MAX_TOKENS) - len(prompt_ids)
    if max_tokens < 1 or room < 1:
        return []
    assert isinstance(subject.model, GPT | RNN)
    assert isinstance(subject.tokenizer, Tokenizer)
    [answer] = generate_answers(
        subject.model,
        [prompt_ids],
        max_tokens=min(max_tokens, room),
        stop_ids=subject.tokenizer.eos_ids,
        context_length=subject.context_length,
    )
    return list(answer.ids)
