"""Two sides of which at least one is a server: greedy answers and the log probabilities of their tokens, all that is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from chatwright.compression.progress import Progress, Silent
from chatwright.compression.verify.report import Compared, Greedy, Report, finding, parted
from chatwright.compression.verify.server import TOP
from chatwright.compression.verify.side import BROKEN, Answered, AnswerSide, Logits, Message, Side, Token
from chatwright.compression.verify.texts import CHATS, CONTROL, TEXTS
from chatwright.i18n import _

# Of log probabilities: rms up to which rounding may explain a difference. Measured on the default model against its float32
# (LOG.md): 1e-5 through our server in float32, 0.21 with weights and activations of eight bits, 0.65 with weights of four;
# two seeds of a small model 1.2. What a server computes in is not known, and eight bits is what ours does with a GGUF.
_ROUNDING = 0.3
_ROUNDING_4_BITS = 1.0  # where a side is known to be that coarse
_SAME = 2e-3


class Answering:
    """A side with logits in the place of a server."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.label = side.label
        self._pieces = side.pieces()

    def complete(self, text: str, n: int) -> Answered:
        """See AnswerSide."""
        return self._answer(self.side.encode(text), n)

    def chat(self, messages: Sequence[Message], n: int) -> Answered:
        """See AnswerSide."""
        return self._answer(self.side.encode_chat(messages), n)

    def _answer(self, ids: list[int], n: int) -> Answered:
        made = self.side.greedy(ids, n)
        log = _log_softmax(self.side.logits([*ids, *made][:-1]))  # what comes after the last one nobody asks
        prompt = [self._token(log[i - 1] if i else None, token) for i, token in enumerate(ids)]
        answer = [self._token(log[len(ids) + i - 1], token) for i, token in enumerate(made)]
        return Answered(len(ids), tuple(prompt), tuple(answer))

    def _token(self, row: Logits | None, token: int) -> Token:
        if row is None:
            return Token.told(self._text(token), None, ())
        best = np.argsort(-row)[: 4 * TOP]  # several that are no whole characters count as one
        return Token.told(self._text(token), float(row[token]), [(self._text(int(i)), float(row[i])) for i in best])

    def _text(self, token: int) -> str:
        return self._pieces[token].decode("utf-8", errors="replace")

    def room_after(self, asked: str | Sequence[Message]) -> int:
        """Tokens that fit into the context behind a text or a conversation."""
        ids = self.side.encode(asked) if isinstance(asked, str) else self.side.encode_chat(asked)
        return self.side.context_length - len(ids)

    def close(self) -> None:
        """See AnswerSide."""
        self.side.close()


def compare_answers(
    a: AnswerSide,
    b: AnswerSide,
    *,
    n_greedy: int = 24,
    tie: float = 0.1,
    chats: bool = True,
    progress: Progress | None = None,
) -> Report:
    """A is the reference. `chats`: whether both have a template."""
    progress = progress or Silent()
    report = Report(a.label, b.label, "answers")
    report.findings.append(
        finding(
            "left out",
            False,
            "Of a server only answers are seen: the likeliest tokens and their log probabilities were compared, not all logits.",
        )
    )
    progress.begin(_("comparing answers"), len(TEXTS) + (len(CHATS) if chats else 0))
    deltas: list[float] = []
    coarse = any(isinstance(side, Answering) and side.side.precision == "int4" for side in (a, b))
    rounding = _ROUNDING_4_BITS if coarse else _ROUNDING
    asked: list[tuple[str, str | Sequence[Message]]] = [*TEXTS.items(), *(CHATS.items() if chats else ())]
    too_long = []
    for done, (name, text) in enumerate(asked, 1):
        room = min((side.room_after(text) for side in (a, b) if isinstance(side, Answering)), default=n_greedy)
        if room < 1:
            too_long.append(name)
            continue
        n = min(n_greedy, room)
        said = [side.complete(text, n) if isinstance(text, str) else side.chat(text, n) for side in (a, b)]
        deltas += _one(report, name, said[0], said[1], tie, rounding, chat=not isinstance(text, str))
        progress.advance(done)
    if too_long:
        report.findings.append(
            finding("left out", False, "Too long for the context of the model: {names}.", names=", ".join(too_long))
        )
    if deltas:
        rms = float(np.sqrt(np.mean(np.square(deltas))))
        most = float(np.max(np.abs(deltas)))
        if rms > rounding:
            report.findings.append(
                finding(
                    "logits",
                    True,
                    "The log probabilities of the same tokens differ by {rms:.2g} (rms of {n}; at most {most:.2g}), more than"
                    " rounding explains.",
                    rms=rms,
                    n=len(deltas),
                    most=most,
                )
            )
        elif rms > _SAME:
            report.findings.append(
                finding(
                    "rounding",
                    False,
                    "The log probabilities of the same tokens differ by {rms:.2g} (rms of {n}; at most {most:.2g}), as rounding"
                    " would.",
                    rms=rms,
                    n=len(deltas),
                    most=most,
                )
            )
    return report


def _one(
    report: Report, name: str, a: Answered, b: Answered, tie: float, rounding: float, *, chat: bool
) -> list[float]:
    """Differences of log probabilities of tokens that both have at the same place."""
    same_prompt = a.n_prompt == b.n_prompt or None in (a.n_prompt, b.n_prompt)
    first = None
    if a.prompt and b.prompt:
        first = _first_difference(a.prompt, b.prompt)
    elif not same_prompt:
        first = 0
    (report.chats if chat else report.texts).append(Compared(name, a.n_prompt or 0, first))
    if first is not None:
        sizes = {"name": name, "x": a.n_prompt, "y": b.n_prompt}
        if name == CONTROL:
            found = finding(
                "control",
                False,
                "Not the models, the programs differ here: only one side takes the text of a control token, where a user wrote it,"
                " for the token itself ({name!r}: {x} tokens and {y}).",
                **sizes,
            )
        elif chat:
            found = finding(
                "template",
                True,
                "The chat templates differ: the conversation {name!r} is {x} tokens and {y}, or other ones.",
                **sizes,
            )
        else:
            found = finding(
                "tokenizer",
                True,
                "The tokenizers differ: the text {name!r} is {x} tokens and {y}, or other ones.",
                **sizes,
            )
        if not any(known.kind == found.kind for known in report.findings):
            report.findings.append(found)
        return []
    deltas = _deltas(a.prompt, b.prompt)
    place = _first_difference(a.answer, b.answer)
    whole = min(len(a.answer), len(b.answer))
    label = f"chat {name}" if chat else name
    if place is None or place >= whole:
        report.greedy.append(Greedy(label, whole, whole))
        return deltas + _deltas(a.answer, b.answer)
    told = a.answer[place].top
    other = told.get(b.answer[place].text)
    # a token that was not told is no likelier than the last one that was
    gap = max(told.values()) - (min(told.values()) if other is None else other) if len(told) > 1 else math.inf
    report.greedy.append(Greedy(label, whole, place, gap))
    real = other is None or gap > 4 * rounding
    report.findings.append(parted(real, name=label, place=place, gap=gap, tie=tie, least=other is None))
    return deltas + _deltas(a.answer[:place], b.answer[:place])


def _first_difference(a: Sequence[Token], b: Sequence[Token]) -> int | None:
    """A part of a character may be told as such or, with those before it, as the character: only whole ones differ."""
    for place, (x, y) in enumerate(zip(a, b, strict=False)):
        if x.text != y.text and BROKEN not in (x.text, y.text):
            return place
    return None if len(a) == len(b) else min(len(a), len(b))


def _deltas(a: Sequence[Token], b: Sequence[Token]) -> list[float]:
    return [
        y.logprob - x.logprob
        for x, y in zip(a, b, strict=False)
        if x.text == y.text != BROKEN and x.logprob is not None and y.logprob is not None
    ]


def _log_softmax(logits: Logits) -> Logits:
    shifted = logits - logits.max(1, keepdims=True)
    log: Logits = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return log
