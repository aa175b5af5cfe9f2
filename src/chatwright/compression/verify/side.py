"""What is compared: anything that turns text into ids and ids into logits, or a server of which only answers are seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
Logits = npt.NDArray[np.float32]  # (T, V)
Message = Mapping[str, str]


def precision_of(kind: str) -> Precision:
    """How coarse numbers are that a file keeps in this format: a type of GGUF's, or of safetensors."""
    known: dict[str, Precision] = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
    return known.get(kind, "int8" if kind.startswith("Q8") else "int4" if kind.startswith(("Q", "IQ")) else "fp32")


class Side(Protocol):
    """A model whose logits can be seen. `normalised`: they are log probabilities, equal to logits but for a constant a row."""

    label: str
    precision: Precision
    normalised: bool

    @property
    def vocab_size(self) -> int:
        """Numbers in a row of logits."""
        ...

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together."""
        ...

    @property
    def has_template(self) -> bool:
        """Whether it can chat."""
        ...

    def pieces(self) -> Sequence[bytes]:
        """What every token stands for, as bytes; b"" where it stands for nothing or that is not known."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text, control tokens in it as ordinary text."""
        ...

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation that asks for an answer."""
        ...

    def logits(self, ids: Sequence[int]) -> Logits:
        """Of every token."""
        ...

    def greedy(self, ids: Sequence[int], n: int) -> list[int]:
        """The likeliest tokens one after the other, as this side makes them when it answers (with its cache); fewer where it
        stops by itself."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


BROKEN = "\ufffd"


@dataclass(frozen=True)
class Token:
    """A token as a server tells it: its text, its log probability, and the likeliest at its place, by text.

    A token that is no whole character is told as "", as U+FFFD or as escaped bytes: all are `BROKEN` here.
    """

    text: str
    logprob: float | None
    top: Mapping[str, float]

    @classmethod
    def told(cls, text: str, logprob: float | None, top: Iterable[tuple[str, float]]) -> Token:
        """Of texts as they are told."""
        best: dict[str, float] = {}
        for other, value in top:
            best[_whole(other)] = max(value, best.get(_whole(other), -math.inf))
        return cls(_whole(text), logprob, best)


def _whole(text: str) -> str:
    return BROKEN if not text or BROKEN in text or text.startswith("bytes:") else text


@dataclass(frozen=True)
class Answered:
    """`prompt`: tokens of the prompt where the server told them, else their number alone."""

    n_prompt: int | None
    prompt: tuple[Token, ...]
    answer: tuple[Token, ...]


class AnswerSide(Protocol):
    """A server of which only answers with the likeliest tokens are seen."""

    label: str

    def complete(self, text: str, n: int) -> Answered:
        """The greedy continuation of a text."""
        ...

    def chat(self, messages: Sequence[Message], n: int) -> Answered:
        """The greedy answer to a conversation."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def likeliest(row: Logits) -> int:
    """The largest logit; the lowest id of equals."""
    return int(np.argmax(row))
