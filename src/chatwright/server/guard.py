"""Moderation at run time, where it is switched on: what is said to a model is refused, what it answers is ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from chatwright.engine.text import Watch
from chatwright.errors import Detail, InvalidRequestError, OverloadedError
from chatwright.moderation.classifier import Classifier, Verdict, shipped
from chatwright.moderation.watch import TextWatch

# A request's texts are judged for so long at a stretch; then it is the next one's turn. It is Python: in several threads at once it
# would only keep the event loop waiting.
TURN_S = 0.02
MOST_WAITING = 64


class Moderator:
    """The classifier of this server, loaded at its first use. folder: where it lies; None for the one that is shipped."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._turn = asyncio.Semaphore(1)  # first come, first served: long texts and short ones take turns
        self._n_waiting = 0

    @cached_property
    def classifier(self) -> Classifier:
        """Raises InvalidModelError."""
        return shipped() if self._folder is None else Classifier.load(self._folder)

    async def judge(self, texts: Sequence[str]) -> list[Verdict]:
        """Of each text, off the event loop, beside others; cancelled, it ends. Raises InvalidModelError, OverloadedError."""
        if self._n_waiting >= MOST_WAITING:
            raise OverloadedError("Too many texts are being moderated. Try again in a moment.")
        self._n_waiting += 1
        try:
            verdicts: list[Verdict] = []
            work = self._judged(texts, verdicts)
            is_over = False
            while not is_over:
                async with self._turn:
                    is_over = await asyncio.to_thread(_go_on, work)
            return verdicts
        finally:
            self._n_waiting -= 1

    def _judged(self, texts: Sequence[str], verdicts: list[Verdict]) -> Iterator[None]:
        """Puts their verdicts into the list, in small steps."""
        for text in texts:
            verdicts.append((yield from self.classifier.judging(text)))


def _go_on(work: Iterator[None]) -> bool:
    """Work for one turn. Whether it is over."""
    end = time.monotonic() + TURN_S
    while time.monotonic() < end:
        if next(work, work) is work:
            return True
    return False


@dataclass(frozen=True)
class Guard:
    """Judges by a moderator."""

    moderator: Moderator

    async def check(self, texts: Sequence[str], *, param: str) -> None:
        """Raise InvalidRequestError where one of them falls into a category."""
        categories = sorted({name for verdict in await self.moderator.judge(texts) for name in verdict.flagged})
        if categories:
            raise InvalidRequestError(
                "The request was refused: its text was classified as {categories}. If that is wrong, say it in other words.",
                categories=_listed(categories),
                param=param,
                code="content_policy_violation",
            )

    def watch(self, before: str = "") -> TextWatch:
        """For one answer. `before`: the text that it continues, if it does."""
        return TextWatch(self.moderator.classifier, before)


def _listed(categories: Sequence[str]) -> Detail:
    """Names that people read: each in their language, with its comma between them."""
    first, *others = categories
    listed = Detail(first)
    for name in others:
        listed = Detail("{some}, {more}", some=listed, more=Detail(name))
    return listed


def watch_of(guard: Guard | None, before: str = "") -> Callable[[], Watch] | None:
    """For a `TextRequest`. `before`: the text that the answer continues, if it does."""
    return None if guard is None else lambda: guard.watch(before)
