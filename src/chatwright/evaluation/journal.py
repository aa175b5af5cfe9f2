"""items.jsonl: what a model said to each item, appended as it comes, so that an interrupted evaluation goes on where it was.

An entry is found again by what made it: the task without its items, the model, and the item itself. A line cut off by a
crash is left out and asked again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from chatwright.errors import StorageError, UsageError
from chatwright.evaluation.task import Task

ITEMS, STATE, REPORT = "items.jsonl", "evaluation.json", "report.json"
Key = tuple[str, str, str]


class Journal:
    """Results by (task, model, item). Without a folder they are kept in memory only. A context manager."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.results: dict[Key, dict[str, Any]] = {}
        self._file: IO[bytes] | None = None

    @classmethod
    def open(cls, folder: Path | None, request: Mapping[str, Any]) -> Journal:
        """The journal of an evaluation that `request` describes, begun or gone on with. Nothing is overwritten: raises
        UsageError for a folder that holds something else, or an evaluation that is finished; StorageError.
        """
        journal = cls(folder)
        if folder is None:
            return journal
        try:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                _check_resumable(folder, request)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / STATE).write_text(json.dumps(request, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
            journal._read(folder / ITEMS)
            journal._file = (folder / ITEMS).open("ab")
        except OSError as error:
            raise StorageError("{path} cannot be written: {reason}", path=folder, reason=error.strerror) from error
        return journal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def find(self, task: Task, model: str, item: str) -> dict[str, Any] | None:
        """What was found before, if it was."""
        return self.results.get((task.fingerprint, model, item))

    def add(self, task: Task, model: str, item: str, result: dict[str, Any]) -> None:
        """Keeps a result, on disk before anything else happens. Raises StorageError."""
        self.results[task.fingerprint, model, item] = result
        if self._file is None:
            return
        line = {"task": task.fingerprint, "name": task.name, "model": model, "item": item, **result}
        try:
            self._file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
            self._file.flush()
        except OSError as error:
            raise StorageError("{path} cannot be written: {reason}", path=self.folder, reason=error.strerror) from error

    def _read(self, path: Path) -> None:
        if not path.is_file():
            return
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                key = (entry.pop("task"), entry.pop("model"), entry.pop("item"))
            except (ValueError, KeyError):
                continue
            entry.pop("name", None)
            self.results[key] = entry


def _check_resumable(folder: Path, request: Mapping[str, Any]) -> None:
    if (folder / REPORT).is_file():
        raise UsageError(
            "{path} holds a finished evaluation already; nothing was changed. Choose another folder with --out.",
            path=folder,
        )
    try:
        begun = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            "{path} exists and holds no evaluation; nothing was changed. Choose another folder with --out.", path=folder
        ) from error
    if begun != json.loads(json.dumps(request)):
        raise UsageError(
            "{path} holds an evaluation that was begun with other models, tasks or options; nothing was changed. Repeat its"
            " command, or choose another folder with --out.",
            path=folder,
        )
