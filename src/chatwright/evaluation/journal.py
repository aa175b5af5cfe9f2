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

from chatwright.errors import InUseError, StorageError, UsageError
from chatwright.evaluation.task import Task
from chatwright.text.work import open_locked

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
        """The journal of an evaluation that `request` describes, begun or gone on with, for one process at a time. Nothing is
        overwritten: raises UsageError for a folder that holds something else, an evaluation that is finished, or answers to
        another request; InUseError; StorageError.
        """
        journal = cls(folder)
        if folder is None:
            return journal
        items = folder / ITEMS
        try:
            _check_holds_none_or_one(folder)
            folder.mkdir(parents=True, exist_ok=True)
            journal._file = open_locked(items)
            if journal._file is None:
                raise InUseError(
                    "Another process is writing an evaluation into {path} just now: wait for it, or choose another folder with"
                    " --out.",
                    path=folder,
                )
            # What ended before its first answer, at an address where nobody listens, binds nobody to its request.
            if b"\n" in items.read_bytes():
                _check_same(folder, request)
            (folder / STATE).write_text(json.dumps(request, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
            journal._read(items)
        except OSError as error:
            journal.close()
            raise StorageError("{path} cannot be written: {reason}", path=folder, reason=error.strerror) from error
        except UsageError:
            journal.close()
            raise
        return journal

    def close(self) -> None:
        """Leaves the folder to others."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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


def _check_holds_none_or_one(folder: Path) -> None:
    """An evaluation that is not finished, or nothing yet."""
    if (folder / REPORT).is_file():
        raise UsageError(
            "{path} holds a finished evaluation already; nothing was changed. Choose another folder with --out.",
            path=folder,
        )
    if not folder.exists() or (folder.is_dir() and all(_is_empty_journal(each) for each in folder.iterdir())):
        return
    try:
        json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            "{path} exists and holds no evaluation; nothing was changed. Choose another folder with --out.", path=folder
        ) from error


def _is_empty_journal(path: Path) -> bool:
    """As it lies there for a moment, before what was asked is written beside it."""
    return path.name == ITEMS and path.stat().st_size == 0


def _check_same(folder: Path, request: Mapping[str, Any]) -> None:
    begun = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if begun != json.loads(json.dumps(request)):
        raise UsageError(
            "{path} holds an evaluation that was begun with other models, tasks or options; nothing was changed. Repeat its"
            " command, or choose another folder with --out.",
            path=folder,
        )
