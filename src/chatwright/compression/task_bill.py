"""What a compression does to tasks: the scores of the model before and after on the same items, with a paired verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatwright.engine.load import load_text_model
from chatwright.errors import UsageError
from chatwright.evaluation.backends.engine import EngineWriter
from chatwright.evaluation.card import add_figures
from chatwright.evaluation.examples import Example
from chatwright.evaluation.journal import Journal
from chatwright.evaluation.library import MEMORISATION, find_tasks
from chatwright.evaluation.run import Progress, Silent, answer_with_writer, check_writer, prepare
from chatwright.evaluation.scores import TaskComparison, TaskScores, compare, comparison_dict, score, to_dict
from chatwright.evaluation.task import Task
from chatwright.settings import Settings

PRECISION = "fp32"


@dataclass(frozen=True)
class TaskBill:
    """`comparisons`: after minus before. `teacher`: of a distillation."""

    before: Sequence[TaskScores]
    after: Sequence[TaskScores]
    teacher: Sequence[TaskScores] = ()
    comparisons: Sequence[TaskComparison] = field(default_factory=tuple)

    @classmethod
    def of(
        cls, before: Sequence[TaskScores], after: Sequence[TaskScores], teacher: Sequence[TaskScores] = ()
    ) -> TaskBill:
        """With the comparison of each task's main figure."""
        return cls(before, after, teacher, compare(after, before))

    def to_dict(self) -> list[dict[str, Any]]:
        """For --json: one entry a task."""
        teachers: Sequence[TaskScores | None] = self.teacher or [None] * len(self.before)
        return [
            {
                "task": before.answered.task.name,
                "n": before.n,
                "before": to_dict(before)["metrics"],
                "after": to_dict(after)["metrics"],
                "teacher": None if teacher is None else to_dict(teacher)["metrics"],
                "comparison": comparison_dict(compared),
            }
            for before, after, teacher, compared in zip(
                self.before, self.after, teachers, self.comparisons, strict=True
            )
        ]

    def write_card(self, folder: Path) -> None:
        """Into the card of what was made, as `evaluate` does it, so that measuring again renews these lines."""
        add_figures(folder, self.after, f"engine, {PRECISION}", self.before)


class TaskScorer:
    """Scores models on the tasks that were asked for; names, files and prompts are looked at before any work.

    Every model is computed in float32, as its bits per byte are: `serve` would round an uncompressed one to 8 bits as well, and
    what the compression itself costs would not be seen.
    """

    def __init__(self, names: str, limit: int | None, settings: Settings, progress: Progress | None = None) -> None:
        """Raises EvaluationError, UsageError for a task that is none."""
        tasks = [] if MEMORISATION in _names(names) else find_tasks(names)
        if not tasks:
            raise UsageError(
                "The task memorisation asks for the training data, which is not looked at here: leave it out of --tasks, and score"
                " it with `chatwright evaluate --train`."
            )
        self.prepared: list[tuple[Task, list[Example]]] = prepare([task.sampled(limit) for task in tasks])
        self.settings = settings.model_copy(update={"quantization": PRECISION})
        self.progress = progress or Silent()

    def check(self, path: Path, name: str) -> None:
        """Raises EvaluationError where the model cannot do a task, before any work."""
        asyncio.run(self._check(path, name))

    async def _check(self, path: Path, name: str) -> None:
        writer = EngineWriter(load_text_model(path, name, self.settings))
        try:
            check_writer(writer, self.prepared)
        finally:
            await writer.close()

    def score(self, path: Path, name: str) -> list[TaskScores]:
        """Raises EvaluationError where the model cannot do a task, before any item."""
        return asyncio.run(self._score(path, name))

    async def _score(self, path: Path, name: str) -> list[TaskScores]:
        writer = EngineWriter(load_text_model(path, name, self.settings))
        try:
            with Journal.open(None, {}) as journal:
                answered = await answer_with_writer(writer, self.prepared, journal, self.progress)
        finally:
            await writer.close()
        return [score(each) for each in answered]


def _names(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]
