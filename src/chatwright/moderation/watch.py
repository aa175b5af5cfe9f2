"""Looking at a text while it is written, before each piece of it goes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from chatwright.moderation.classifier import Classifier
from chatwright.moderation.windows import MAX_WORDS, SENTENCE
from chatwright.moderation.words import words_of

# A sentence that may turn out harmful ("How to kill…" before "…a process") is held back until it is decided: from this part of a
# category's threshold on, and for so many characters at most.
SUSPICIOUS = 0.6
MAX_HELD = 80
# Characters of a sentence that is never closed (code, lists) which are still looked at.
MAX_OPEN = 400

Look = Literal["send", "hold", "end"]


class TextWatch:
    """Of one text. Each piece is judged with all of its sentence so far and with the sentence before, so that it makes no
    difference where pieces are cut; nor where the text goes on from one that is there (`before`), which may end in a sentence that
    only becomes harmful."""

    def __init__(self, classifier: Classifier, before: str = "") -> None:
        self._classifier = classifier
        self._before: list[str] = []
        *closed, (self._open, is_closed) = _sentences(before[-2 * MAX_OPEN :])
        if is_closed:
            closed.append((self._open, True))
            self._open = ""
        for sentence, _ in closed:
            self._before = words_of(sentence)[-MAX_WORDS:] or self._before
        self._n_held = 0

    def look(self, piece: str, *, is_last: bool = False) -> Look:
        """What may happen to this piece and those that were held: "send"; "hold"; "end": they and all that follows are kept back.
        `is_last`: there is no more, so that it must be decided."""
        self._open += piece
        self._n_held += len(piece)
        *closed, (self._open, is_closed) = _sentences(self._open)
        for sentence, _ in closed:
            if self._finish(sentence):
                return "end"
        if is_closed or is_last:
            sentence, self._open = self._open, ""
            if self._finish(sentence):
                return "end"
        else:
            nearness = self._nearness(words_of(self._open)[-MAX_WORDS:])
            if self._n_held <= MAX_HELD and nearness >= SUSPICIOUS:
                return "hold"
            if nearness >= 1:
                return "end"
            if len(self._open) > 2 * MAX_OPEN:
                self._open = self._open[-MAX_OPEN:]
        self._n_held = 0
        return "send"

    def _finish(self, sentence: str) -> bool:
        """Whether a whole sentence is harmful; if not, it is the one before the next."""
        words = words_of(sentence)
        if not words:
            return False
        if self._nearness(words[-MAX_WORDS:]) >= 1:
            return True
        self._before = words[-MAX_WORDS:]
        return False

    def _nearness(self, words: Sequence[str]) -> float:
        """The highest share of its threshold that a category reaches."""
        if not words:
            return 0.0
        nearness = self._classifier.nearness(words)
        if self._before and len(self._before) + len(words) <= MAX_WORDS:
            nearness = max(nearness, self._classifier.nearness([*self._before, *words]))
        return nearness


def _sentences(text: str) -> list[tuple[str, bool]]:
    """At least one; each with whether it has an end. Only the last can have none."""
    found = [match[0] for match in SENTENCE.finditer(text) if match[0]]
    return [(sentence, sentence[-1] in ".!?。！？；;\n") for sentence in found] or [("", False)]
