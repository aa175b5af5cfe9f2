"""The tasks that ship with Chatwright, and what `--tasks` may name: their names, a language, all, or files of one's own."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from chatwright.errors import EvaluationError, UsageError
from chatwright.evaluation.recital import memorisation_task
from chatwright.evaluation.task import LANGUAGES, Task, load_task, task_files, text_task
from chatwright.text.dataset import Dataset

SHIPPED = Path(__file__).parent / "tasks"
SAFETY_KINDS = ("bias", "toxicity")
MEMORISATION = "memorisation"


@cache
def shipped_tasks() -> dict[str, Path]:
    """Name → TOML file; the name of a shipped task is that of its file."""
    return {file.stem: file for language in LANGUAGES for file in sorted((SHIPPED / language).glob("*.toml"))}


@cache
def safety_tasks() -> dict[str, Path]:
    """As `shipped_tasks`, of bias and toxicity: no score of ability comes of them, so `all` does not mean them."""
    return {
        file.stem: file for language in LANGUAGES for file in sorted((SHIPPED / language / "safety").glob("*.toml"))
    }


def is_shipped(task: Task) -> bool:
    """Whether everybody has it; other tasks are somebody's own."""
    return SHIPPED in task.path.parents


def called(task: Task) -> str:
    """What `--tasks` names it."""
    return task.name if is_shipped(task) or task.kind == MEMORISATION else str(task.path)


def find_tasks(wanted: str, train: Dataset | None = None) -> list[Task]:
    """`a,b`: names of shipped tasks, `all`, `en`, `zh`, `bias`, `toxicity`, `memorisation` (of the dataset `train`), a TOML file
    or a folder of such files, a text to be scored whole. Raises EvaluationError, UsageError; two tasks of one name are refused.
    """
    tasks: dict[str, Task] = {}
    for each in filter(None, (part.strip() for part in wanted.split(","))):
        for task in _found(each, train):
            if task.name in tasks and tasks[task.name].path != task.path:
                raise UsageError("Two tasks are called {name}: give one of them another name.", name=task.name)
            tasks[task.name] = task
    if not tasks:
        raise UsageError("--tasks names nothing to evaluate. It takes {known}, or files.", known=_known())
    return list(tasks.values())


def _found(name: str, train: Dataset | None) -> Iterator[Task]:
    shipped = {**shipped_tasks(), **safety_tasks()}
    if name in shipped:
        yield load_task(shipped[name])
    elif name in SAFETY_KINDS:
        yield from (load_task(file) for stem, file in safety_tasks().items() if stem.startswith(f"{name}-"))
    elif name == MEMORISATION:
        if train is None:
            raise UsageError(
                "The task memorisation asks for the training data: say with --train which dataset the model was trained on."
            )
        yield memorisation_task(train)
    elif name == "all" or name in LANGUAGES:
        chosen = [file for file in shipped_tasks().values() if name in ("all", file.parent.name)]
        if not chosen:
            raise EvaluationError("No tasks for {name} came with this installation.", name=name)
        yield from map(load_task, chosen)
    elif "\0" not in name and (path := Path(name).expanduser()).exists():
        if path.is_dir():
            yield from map(load_task, task_files(path))
        else:
            yield load_task(path) if path.suffix == ".toml" else text_task(path)
    else:
        nearest = difflib.get_close_matches(name, [*shipped, *SAFETY_KINDS, MEMORISATION], 3)
        raise UsageError(
            "There is no task {name}, and no file of that name. There are {known}.",
            name=name[:100],
            known=", ".join(nearest) + ", …" if nearest else _known(),
        )


def _known() -> str:
    return ", ".join(["all", *LANGUAGES, *shipped_tasks(), *SAFETY_KINDS, MEMORISATION])
