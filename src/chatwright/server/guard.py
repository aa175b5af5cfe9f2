"""Moderation at run time, where it is switched on: what is said to a model is refused, what it answers is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from chatwright.engine.text import Watch
from chatwright.errors import Detail, InvalidRequestError
from chatwright.moderation.classifier import Classifier, Verdict, shipped
from chatwright.moderation.watch import TextWatch


class Moderator:
    """The classifier of this server, loaded at its first use. folder: where it lies; None for the one that is shipped."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @cached_property
    def classifier(self) -> Classifier:
        """Raises InvalidModelError."""
        return shipped() if self._folder is None else Classifier.load(self._folder)

    async def judge(self, texts: Sequence[str]) -> list[Verdict]:
        """Of each text, off the event loop. Raises InvalidModelError."""
        return await asyncio.to_thread(lambda: [self.classifier.judge(text) for text in texts])


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

    def watch(self) -> TextWatch:
        """For one answer."""
        return TextWatch(self.moderator.classifier)


def _listed(categories: Sequence[str]) -> Detail:
    """Names that people read: each in their language, with its comma between them."""
    first, *others = categories
    listed = Detail(first)
    for name in others:
        listed = Detail("{some}, {more}", some=listed, more=Detail(name))
    return listed


def watch_of(guard: Guard | None) -> Callable[[], Watch] | None:
    """For a `TextRequest`."""
    return None if guard is None else guard.watch
