"""The models folder: list, resolve and remove what lies there. The one place that turns a model's name into a path."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from chatwright.errors import InUseError, ModelNotFoundError, StorageError
from chatwright.hub import locks
from chatwright.hub.manifest import Manifest, read_manifest
from chatwright.hub.names import folder_of, is_name, name_of
from chatwright.settings import make_private_folder

WORK_FOLDER = ".work"  # unfinished pulls, locks, models being removed; never listed


@dataclass(frozen=True)
class InstalledModel:
    """A model under the models folder. `path` is what a loader opens: a folder in HF layout, or a GGUF file."""

    name: str
    folder: Path
    path: Path
    manifest: Manifest | None

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())


class ModelsFolder:
    """All models of one user. Creates nothing until something is written."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def work(self) -> Path:
        """Where unfinished things lie."""
        return self.root / WORK_FOLDER

    def list(self) -> list[InstalledModel]:
        """Every model, by name. Raises InvalidModelError for a damaged manifest, StorageError if it cannot be read."""
        try:
            entries = sorted(self.root.iterdir()) if self.root.exists() else []
        except OSError as error:
            raise StorageError(
                "The models folder {path} cannot be read ({reason}).", path=self.root, reason=error.strerror
            ) from error
        names = [name for entry in entries if (name := name_of(entry.name)) and entry.is_dir()]
        return [model for name in names if (model := self.find(name))]

    def find(self, name: str) -> InstalledModel | None:
        """The model of that name, or None. Only well-formed names reach the file system."""
        if not is_name(name):
            return None
        folder = self.root / folder_of(name)
        try:
            path = loadable_path(folder)
        except OSError as error:
            raise StorageError(
                "The models folder {path} cannot be read ({reason}).", path=self.root, reason=error.strerror
            ) from error
        if path is None:
            return None
        manifest = read_manifest(folder)
        if manifest and manifest.name != name:  # a file system that ignores case: `Foo` is not `foo`
            return None
        return InstalledModel(name, folder, path, manifest)

    def resolve(self, name_or_path: str, *, allow_path: bool) -> tuple[str, Path]:
        """(name, path to load) of a model. `allow_path`: also accept a path, for the command line; never for a request.

        Raises ModelNotFoundError.
        """
        if model := self.find(name_or_path):
            return model.name, model.path
        if allow_path and "\0" not in name_or_path:
            path = Path(name_or_path).expanduser()
            if model := self._at(path):
                return model.name, model.path
            if path.is_file():
                return path.stem, path.resolve()
            if path.is_dir():
                loadable = loadable_path(path)
                if loadable is None:
                    raise ModelNotFoundError(
                        "The folder {path} holds no model: expected config.json with model.safetensors, or one .gguf "
                        "file.",
                        path=path,
                    )
                return path.resolve().name, loadable.resolve()
            raise ModelNotFoundError(
                "No model is called {name}, and there is no such file or folder. `chatwright ls` lists the models "
                "here, "
                "`chatwright pull` fetches more.",
                name=name_or_path,
            )
        raise ModelNotFoundError("The model {name!r} does not exist.", name=name_or_path[:200])

    def _at(self, path: Path) -> InstalledModel | None:
        """The model of this folder that a path leads into, so that it has one name however it is called."""
        try:
            parts = path.resolve().relative_to(self.root.resolve()).parts
        except ValueError:
            return None
        name = name_of(parts[0]) if parts and path.exists() else None
        return self.find(name) if name else None

    def owns(self, path: Path) -> bool:
        """Whether a path lies in this folder, so that `in_use` and `remove` apply to it."""
        return path.is_relative_to(self.root)

    def remove(self, name: str) -> None:
        """Remove a model: renamed away first, so that it is there whole or not at all.

        Raises ModelNotFoundError; InUseError naming the holder; StorageError.
        """
        if self.find(name) is None:
            raise ModelNotFoundError("The model {name!r} does not exist.", name=name[:200])
        with self.locked(name):
            model = self.find(name)
            if model is None:
                raise ModelNotFoundError("The model {name!r} does not exist.", name=name[:200])
            for holder in locks.holders(self.work, folder_of(name)):
                raise InUseError(
                    "The model {name} is in use by process {pid} ({what}): stop that first, then remove the model.",
                    name=name,
                    pid=holder.pid,
                    what=holder.what,
                )
            grave = self.work / f"removed-{uuid.uuid4().hex}"
            try:
                model.folder.rename(grave)
            except OSError as error:
                raise StorageError(
                    "The model {name} cannot be removed from {path} ({reason}).",
                    name=name,
                    path=model.folder,
                    reason=error.strerror,
                ) from error
        shutil.rmtree(grave, ignore_errors=True)
        self.sweep()

    @contextmanager
    def in_use(self, name: str, what: str) -> Iterator[None]:
        """While the block runs, `remove` refuses the model and names this process and `what` (a URL or a command).

        Raises ModelNotFoundError when the model has just been removed.
        """
        with self.locked(name):
            if self.find(name) is None:
                raise ModelNotFoundError("The model {name!r} does not exist.", name=name[:200])
            hold = locks.held(self.work, folder_of(name), what)
            hold.__enter__()
        try:
            yield
        finally:
            hold.__exit__(None, None, None)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """A short exclusive lock on the folder of one model; nothing to lock on a read-only file system."""
        if self.root.exists() and not os.access(self.root, os.W_OK):
            yield
            return
        self.make()
        with FileLock(self.work / f"{folder_of(name)}.lock"):
            yield

    def make(self) -> None:
        """Create the folder (0700). Raises StorageError."""
        make_private_folder(self.work)

    def sweep(self) -> None:
        """Finish removals that were interrupted."""
        for grave in self.work.glob("removed-*"):
            shutil.rmtree(grave, ignore_errors=True)


def loadable_path(folder: Path) -> Path | None:
    """What a loader opens in `folder`: the folder itself in HF layout, its GGUF file, or the result of the training run that it is;
    None if none of them."""
    if (folder / "config.json").is_file():
        return folder
    if (folder / "config.toml").is_file() and (folder / "model" / "config.json").is_file():
        return folder / "model"
    ggufs = sorted(folder.glob("*.gguf")) if folder.is_dir() else []
    return ggufs[0] if ggufs else None
