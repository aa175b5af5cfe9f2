"""The folder of a run: what it was asked to do, what happened, and what came out, readable without us.

    config.toml  environment.json  events.jsonl  metrics.jsonl  report.html  tensorboard/  samples/step-000100.md
    checkpoints/step-000100/  model/ (the result)  lock

config.toml holds everything that `runs resume` needs: the verb, the dataset and its fingerprint, the model, every resolved
setting, with the reason as a comment beside it. It is written once and never changed.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import tomlkit
from filelock import FileLock, Timeout
from tomlkit.items import Item, Table

from chatwright.errors import ChatwrightError, InUseError, NotARunError, StorageError, TrainingError, UsageError
from chatwright.text.work import sync_folder, sync_names, write_atomically
from chatwright.training.journal import Journal

CONFIG, ENVIRONMENT, EVENTS, REPORT = "config.toml", "environment.json", "events.jsonl", "report.html"
RESULT, CHECKPOINTS, SAMPLES, TENSORBOARD, TOKENIZER, TOKENS = (
    "model",
    "checkpoints",
    "samples",
    "tensorboard",
    "tokenizer",
    "tokens",
)
LOCK, HOLDER = "lock", "lock.json"
# What a start that was killed has prepared, and the file in it that says what it was made of.
MARKS = {TOKENIZER: "origin.json", TOKENS: "tokens.json"}
FORMAT = 1


class Run:
    """One run folder. Created by `create`, found again by `open`; `config` is config.toml as plain values."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path = path
        self.config = config
        self.events = Journal(path / EVENTS)
        self.metrics = Journal(path / "metrics.jsonl")

    @classmethod
    def create(
        cls,
        path: Path,
        verb: str,
        sections: Mapping[str, Mapping[str, Any]],
        reasons: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Self:
        """A new run of `verb` ("train", "tune"). `sections`: name → settings, such as "dataset", "model", "training".
        `reasons`: name → setting → why it has that value.

        Raises UsageError when the folder is there and not empty, StorageError when it cannot be written.
        """
        path = Path(path)
        document = _document(verb, sections, reasons or {})
        try:
            check_new(path)
            path.mkdir(parents=True, exist_ok=True)
            write_atomically(path / CONFIG, (tomlkit.dumps(document).rstrip() + "\n").encode())
        except OSError as error:
            raise StorageError(
                "The run cannot be written to {path}: {reason}", path=path, reason=error.strerror
            ) from error
        return cls(path, document.unwrap())

    @classmethod
    def open(cls, path: Path) -> Self:
        """The run in a folder. Raises NotARunError when it holds none, TrainingError when its config.toml is damaged or
        of a newer Chatwright."""
        path = Path(path)
        try:
            config = tomllib.loads((path / CONFIG).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            if (path / TOKENIZER / MARKS[TOKENIZER]).is_file():
                raise TrainingError(
                    "The run {path} was ended before its first step: start it again as you did before; what is ready is kept.",
                    path=path,
                ) from error
            raise NotARunError("{path} is not the folder of a run: it has no config.toml.", path=path) from error
        except (OSError, ValueError) as error:
            raise TrainingError(
                "The config.toml of the run {path} cannot be read: {reason}", path=path, reason=error
            ) from error
        if not isinstance(config.get("verb"), str) or not isinstance(config.get("format"), int):
            raise NotARunError("{path} is not the folder of a run: its config.toml is of another kind.", path=path)
        if config["format"] > FORMAT:
            raise TrainingError("The run {path} was made by a newer Chatwright. Upgrade to continue it.", path=path)
        return cls(path, config)

    @property
    def verb(self) -> str:
        """What the run does: "train" or "tune"."""
        return str(self.config["verb"])

    def section(self, name: str) -> dict[str, Any]:
        """One section of config.toml. Raises TrainingError when it is missing."""
        section = self.config.get(name)
        if not isinstance(section, dict):
            raise TrainingError("The config.toml of the run {path} lacks [{section}].", path=self.path, section=name)
        return dict(section)

    def reasons(self) -> dict[str, dict[str, str]]:
        """Section → setting → why, as the comments of config.toml say it."""
        document = tomlkit.parse((self.path / CONFIG).read_text(encoding="utf-8"))
        found: dict[str, dict[str, str]] = {}
        for name, section in document.items():
            if isinstance(section, Table):
                for key in section:
                    item = section.value.item(key)
                    if isinstance(item, Item) and (comment := item.trivia.comment.lstrip("# ")):
                        found.setdefault(name, {})[key] = comment
        return found

    @property
    def result(self) -> Path:
        """Where the finished model lies."""
        return self.path / RESULT

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While the block runs no other process may write to the run. Raises InUseError naming the holder."""
        with locked_folder(self.path):
            for journal in (self.events, self.metrics):
                journal.repair()
            yield

    def is_held(self) -> bool:
        """Whether a process is at it now."""
        if not (self.path / LOCK).exists():
            return False
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            return True
        lock.release()
        return False

    def event(self, kind: str, **data: Any) -> None:
        """Adds a line to events.jsonl."""
        self.events.append({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": kind, **data})

    def metric(self, step: int, **values: float | int | None) -> None:
        """Adds a line to metrics.jsonl."""
        self.metrics.append({"step": step, "time": round(time.time(), 3), **values})


@contextmanager
def locked_folder(path: Path) -> Iterator[None]:
    """`Run.locked` for a folder that is to become a run; it is made where it is not there. Raises InUseError, StorageError."""
    holder = path / HOLDER
    lock = FileLock(path / LOCK)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        pid = "?"
        with suppress(OSError, ValueError, KeyError):
            pid = str(json.loads(holder.read_text(encoding="utf-8"))["pid"])
        raise InUseError(
            "The run {path} is in use by process {pid}. Wait for it, or stop it first (kill {pid}).",
            path=path,
            pid=pid,
        ) from error
    except OSError as error:
        raise StorageError("The run cannot be written to {path}: {reason}", path=path, reason=error.strerror) from error
    try:
        with suppress(OSError):  # it only tells others who we are; the lock is what counts
            holder.write_text(json.dumps({"pid": os.getpid()}), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


def check_new(path: Path) -> None:
    """Raises UsageError when a new run cannot begin in `path`: something else lies there. What a start that was killed has
    prepared is no hindrance."""
    if path.exists() and (not path.is_dir() or any(_is_foreign(entry) for entry in path.iterdir())):
        raise UsageError(
            "{path} is there already. Choose another folder for the run, or continue it: chatwright runs resume {path}",
            path=path,
        )


@dataclass(frozen=True)
class FolderBefore:
    """What was in a folder that is to become a run. `names`: of its entries; `missing`: it and those above it that were not there,
    innermost first."""

    path: Path
    names: frozenset[str]
    missing: tuple[Path, ...]

    @classmethod
    def of(cls, path: Path) -> Self:
        """As it is now."""
        names = frozenset(entry.name for entry in path.iterdir()) if path.is_dir() else frozenset()
        return cls(path, names, tuple(each for each in (path, *path.parents) if not each.exists()))

    @contextmanager
    def restored_on_refusal(self) -> Iterator[None]:
        """The caller holds the lock. A block that raises an error of ours, or for lack of memory, leaves nothing that was not there
        before; one that is killed or interrupted leaves what it had ready, for the same command once more."""
        try:
            yield
        except (ChatwrightError, MemoryError):
            self._restore()
            raise

    def _restore(self) -> None:
        for entry in list(self.path.iterdir()):
            ours = entry.name in (*MARKS, LOCK, HOLDER) or entry.name.endswith(".writing")
            if not ours or entry.name in self.names:
                continue
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(OSError):
                    entry.unlink()
        for folder in self.missing:
            with suppress(OSError):
                folder.rmdir()


def _is_foreign(entry: Path) -> bool:
    """A tokenizer that somebody made there has no origin file of ours: a new run would put its own in its place."""
    if entry.name in MARKS:
        return not (entry / MARKS[entry.name]).is_file()
    return entry.name not in (LOCK, HOLDER) and not (entry.name.startswith(".") and entry.name.endswith(".writing"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """A JSON file of a run, whole or not at all. Raises StorageError."""
    try:
        write_atomically(path, json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n")
    except OSError as error:
        raise StorageError("{path} cannot be written: {reason}", path=path, reason=error.strerror) from error


def publish(temporary: Path, path: Path) -> None:
    """Makes a finished folder appear under its name: every file on disk before the rename, the rename on disk after it.

    A folder that is there is replaced. Raises OSError.
    """
    sync_folder(temporary)
    if path.exists():
        grave = path.with_name(f".{path.name}.old")
        shutil.rmtree(grave, ignore_errors=True)
        path.rename(grave)
        temporary.rename(path)
        shutil.rmtree(grave, ignore_errors=True)
    else:
        temporary.rename(path)
    sync_names(path.parent)


def _document(
    verb: str, sections: Mapping[str, Mapping[str, Any]], reasons: Mapping[str, Mapping[str, str]]
) -> tomlkit.TOMLDocument:
    from chatwright import __version__

    document = tomlkit.document()
    document.add("format", tomlkit.item(FORMAT))
    document.add("verb", tomlkit.item(verb))
    document.add("chatwright", tomlkit.item(__version__))
    document.add("created_at", tomlkit.item(datetime.now(UTC).isoformat(timespec="seconds")))
    for name, settings in sections.items():
        table = tomlkit.table()
        for key, value in settings.items():
            if value is None:
                continue  # TOML has no null: an absent setting
            item = tomlkit.item(str(value) if isinstance(value, Path) else value)
            if why := reasons.get(name, {}).get(key):
                item.comment(" ".join(why.split()))
            table.add(key, item)
        document.add(name, table)
    return document
