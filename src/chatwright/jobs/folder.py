"""Where a job lies: `jobs/ID` in the home folder.

    request.json      what is to be done; written once, before there is a row
    training.jsonl  validation.jsonl   the files as they were when the job was made
    parent/           the adapter that it goes on from, if any
    dataset/  checked.json   what became of the files, and what was found in them; the second says that the first is whole
    run/              the run, the same as one of the command line (see `training.run`)
    outcome.json      how it ended; written by the worker, once
    lock  worker.json held by the worker while it lives, and who it is
    worker.log        what it wrote to its standard output and error

The worker reads and writes here and nowhere else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
from filelock import FileLock, Timeout

from chatwright.errors import InUseError, StorageError
from chatwright.settings import make_private_folder
from chatwright.store.files.aside import JOBS, RUN
from chatwright.store.ids import new_id
from chatwright.text.work import sync_folder, write_atomically

TRAINING, VALIDATION, PARENT, DATASET = "training.jsonl", "validation.jsonl", "parent", "dataset"
REQUEST, CHECKED, OUTCOME = "request.json", "checked.json", "outcome.json"
LOCK, WORKER, LOG = "lock", "worker.json", "worker.log"
ADAPTER, CHECKPOINTS = "adapter", "checkpoints"
PLACE, DATABASE = ".place", ".database"
# Of an adapter, or of a checkpoint, in which there is more.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "generation_config.json")
_ID = re.compile(r"[a-z]+-[A-Za-z0-9]+")
_STEP = re.compile(r"step-(\d+)")
# A worker that starts just when somebody looks at its lock tries again.
LOCK_WAIT_S = 5.0

Method = Literal["supervised", "dpo"]


@dataclass(frozen=True)
class Request:
    """What a job is to do. `base_name`: "" for a model that is no model of the models folder. None: the planner decides."""

    method: Method
    base_path: str
    base_name: str
    seed: int
    n_epochs: int | None = None
    batch_size: int | None = None
    learning_rate_multiplier: float | None = None
    beta: float | None = None
    user_id: str | None = None


@dataclass(frozen=True)
class Checked:
    """What the training file was. `texts`: every example was a prompt and its completion, so that a plain prompt to the result is
    what a user says, as it was to the models of 2021."""

    n_rows: int
    texts: bool


@dataclass(frozen=True)
class Outcome:
    """How the worker ended. `code`, `message`, `param`: of a failure, as the API says it."""

    succeeded: bool
    code: str = ""
    message: str = ""
    param: str | None = None


@dataclass(frozen=True)
class Inputs:
    """What is copied into a new folder."""

    training: Path
    validation: Path | None = None
    parent: Path | None = None
    request: Request = field(kw_only=True)


class JobFolder:
    """One job's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = path / RUN

    @property
    def id(self) -> str:
        """The job's."""
        return self.path.name

    @property
    def parent(self) -> Path | None:
        """The adapter that it goes on from."""
        folder = self.path / PARENT
        return folder if folder.is_dir() else None

    @property
    def adapter(self) -> Path:
        """Its result."""
        return self.run / ADAPTER

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of a step lies, if there is one."""
        return self.run / CHECKPOINTS / f"step-{step:06d}"

    def checkpoint_steps(self) -> list[int]:
        """Of the whole checkpoints, the earliest first."""
        try:
            names = [entry.name for entry in (self.run / CHECKPOINTS).iterdir()]
        except OSError:
            return []
        return sorted(int(match[1]) for name in names if (match := _STEP.fullmatch(name)))

    def checked(self) -> Checked | None:
        """What was found in its files; None where they have not become a dataset."""
        try:
            return Checked(**self._read(CHECKED))
        except StorageError:
            return None

    def note_checked(self, checked: Checked) -> None:
        """Say that the dataset is whole. Raises StorageError."""
        self._write(CHECKED, asdict(checked))

    def request(self) -> Request:
        """What is to be done. Raises StorageError."""
        return Request(**self._read(REQUEST))

    def outcome(self) -> Outcome | None:
        """How the worker ended; None where it has not come to an end."""
        try:
            return Outcome(**self._read(OUTCOME))
        except StorageError:
            return None

    def end(self, outcome: Outcome) -> None:
        """Write down how it ended. Raises StorageError."""
        self._write(OUTCOME, asdict(outcome))

    def last_words(self, n_lines: int = 3) -> str:
        """The end of what the worker wrote. Not for the log of the server: it may say what is in the files."""
        try:
            with (self.path / LOG).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return "\n".join([line for line in lines if line.strip()][-n_lines:])

    @contextmanager
    def held(self) -> Iterator[None]:
        """While the block runs this process is the job's only worker. Raises InUseError where another one is."""
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=LOCK_WAIT_S)
        except Timeout as error:
            raise InUseError("Another process works at the job {id} already.", id=self.id) from error
        try:
            process = psutil.Process()
            self._write(WORKER, {"pid": process.pid, "started_at": process.create_time()})
            yield
        finally:
            lock.release()

    def worker(self) -> psutil.Process | None:
        """The process that works at it now, whoever started it."""
        if not (self.path / LOCK).exists():
            return None
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            pass
        else:
            lock.release()
            return None
        try:
            noted = self._read(WORKER)
            process = psutil.Process(noted["pid"])
            # Its number may be another's by now.
            return process if abs(process.create_time() - noted["started_at"]) < 1 else None
        except (StorageError, KeyError, psutil.Error):
            return None

    def forget_inputs(self) -> None:
        """What was only needed to get here: it may be private, and is not needed any more."""
        for name in (TRAINING, VALIDATION):
            with suppress(OSError):
                (self.path / name).unlink(missing_ok=True)
        for name in (DATASET, PARENT):
            shutil.rmtree(self.path / name, ignore_errors=True)

    def remove(self) -> None:
        """Everything, with the result. Nothing finds half of it."""
        grave = self.path.with_name(f".{self.path.name}.removed")
        try:
            self.path.rename(grave)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(
                "The folder {path} cannot be removed ({reason}).", path=self.path, reason=error.strerror
            ) from error
        shutil.rmtree(grave, ignore_errors=True)

    def remove_checkpoint(self, step: int) -> bool:
        """Whether there was one. Raises StorageError."""
        path = self.checkpoint(step)
        grave = path.with_name(f".{path.name}.old")  # as training removes its own: nothing finds half of it
        try:
            path.rename(grave)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StorageError(
                "The folder {path} cannot be removed ({reason}).", path=path, reason=error.strerror
            ) from error
        shutil.rmtree(grave, ignore_errors=True)
        return True

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            assert isinstance(value, dict)
        except (OSError, ValueError, AssertionError) as error:
            raise StorageError("The file {path} cannot be read ({reason}).", path=path, reason=error) from error
        return value

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        path = self.path / name
        try:
            write_atomically(path, json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n")
        except OSError as error:
            raise StorageError("{path} cannot be written: {reason}", path=path, reason=error.strerror) from error


class JobsFolder:
    """All jobs of one home. Nothing is made before the first one."""

    def __init__(self, home: Path) -> None:
        self.path = home / JOBS

    def place(self) -> str:
        """What this folder is called in rows: several servers may share a database, and each works at what lies with it.

        Raises StorageError.
        """
        file = self.path / PLACE
        try:
            return file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _unwritable(self.path, error) from error
        make_private_folder(self.path)
        try:
            write_atomically(file, new_id("place").encode())
            return file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def known_place(self) -> str | None:
        """The same, where there is one already."""
        try:
            return (self.path / PLACE).read_text(encoding="utf-8").strip()
        except OSError:
            return None

    def is_of(self, database: str) -> bool:
        """Whether the jobs here were made with that database. With another one, an empty one by a slip of the configuration, all
        of them would look as if nobody knew them."""
        try:
            return (self.path / DATABASE).read_text(encoding="utf-8") == database
        except (OSError, UnicodeDecodeError):
            return False

    def claim(self, database: str) -> None:
        """Say with which database they were made, where nothing says it yet."""
        with suppress(OSError):
            if not (self.path / DATABASE).exists():
                (self.path / DATABASE).write_text(database, encoding="utf-8")

    def job(self, job_id: str) -> JobFolder:
        """The folder of a job. `job_id`: of a row, and checked all the same."""
        assert _ID.fullmatch(job_id), "an id that was not made here"
        return JobFolder(self.path / job_id)

    def jobs(self) -> list[JobFolder]:
        """What is there."""
        try:
            return [JobFolder(entry) for entry in sorted(self.path.iterdir()) if _ID.fullmatch(entry.name)]
        except OSError:
            return []

    def make(self, job_id: str, inputs: Inputs) -> JobFolder:
        """A new folder, there whole or not at all. Raises StorageError."""
        final = self.job(job_id)
        folder = JobFolder(self.path / f".{job_id}.writing")
        make_private_folder(self.path)
        try:
            folder.path.mkdir(mode=0o700)
            for source, name in ((inputs.training, TRAINING), (inputs.validation, VALIDATION)):
                if source is not None:
                    _same_content(source, folder.path / name)
            if inputs.parent is not None:
                (folder.path / PARENT).mkdir(mode=0o700)
                for name in ADAPTER_FILES:
                    if (inputs.parent / name).is_file():
                        _same_content(inputs.parent / name, folder.path / PARENT / name)
            folder._write(REQUEST, asdict(inputs.request))
            sync_folder(folder.path)
            folder.path.rename(final.path)
        except OSError as error:
            raise _unwritable(final.path, error) from error
        finally:
            shutil.rmtree(folder.path, ignore_errors=True)
        return final

    def sweep_half_made(self) -> None:
        """What a kill left of folders that were being made or removed. Only while nobody makes or removes any."""
        with suppress(OSError):
            for entry in self.path.iterdir():
                if entry.name.startswith(".") and entry.name.endswith((".writing", ".removed")):
                    shutil.rmtree(entry, ignore_errors=True)


def _same_content(source: Path, target: Path) -> None:
    """A second name for the same bytes where the file system can, as files are never changed; else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError("The job cannot be written to {path}: {reason}", path=path, reason=error.strerror)
