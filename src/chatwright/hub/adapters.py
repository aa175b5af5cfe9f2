"""Where adapters lie that a running server may load: a name of one becomes a folder here, and a path never does.

`adapters` and `runs` in the home folder, and the models folder; the first that has the name. What lies in a run is its
folder `adapter`.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from chatwright.errors import InUseError, InvalidRequestError, ModelNotFoundError, StorageError, UsageError
from chatwright.hub.names import folder_of, is_name, name_of
from chatwright.model.adapter import is_adapter, open_adapter
from chatwright.settings import make_private_folder

if TYPE_CHECKING:
    from chatwright.settings import Settings

ADAPTERS, RUNS = "adapters", "runs"


class AdapterFolders:
    """The folders that are searched, in their order. None of them needs to be there."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = roots

    @classmethod
    def of(cls, settings: Settings) -> AdapterFolders:
        """Those of a home folder."""
        return cls((settings.home / ADAPTERS, settings.home / RUNS, settings.models_dir))

    def list(self) -> list[str]:
        """The names of what looks like an adapter, sorted. Folders that cannot be read have none."""
        found = set()
        for root in self.roots:
            with suppress(OSError):
                for entry in root.iterdir():
                    if (name := name_of(entry.name)) and _is_own(entry):
                        found.add(name)
        return sorted(found)

    def resolve(self, name: str) -> Path:
        """The folder of the adapter of that name. Raises InvalidRequestError for what is no name, or leads out of the folders by a
        symlink; ModelNotFoundError."""
        if not is_name(name):
            raise InvalidRequestError(
                "{name} is not a name: a request names a folder in adapters, runs or models of the server's home folder, never a"
                " path of the file system. Copy the adapter there.",
                param="lora_path",
                code="invalid_value",
                name=repr(name[:200]),
            )
        for folder in [root / folder_of(name) for root in self.roots]:
            try:
                if not is_adapter(folder):
                    continue
                own = _is_own(folder)
            except OSError as error:
                raise StorageError(
                    "The folder {path} cannot be read ({reason}).", path=folder, reason=error.strerror
                ) from error
            if own:
                return folder
            raise InvalidRequestError(
                "The adapter {name} is a symbolic link, or has one in it, which may lead anywhere: copy the files themselves.",
                param="lora_path",
                code="invalid_adapter",
                name=name,
            )
        raise ModelNotFoundError(
            "No adapter is called {name}: neither adapters nor runs nor models of the server's home folder has a folder of that"
            " name with adapter_config.json in it, or in its folder adapter.",
            name=name,
        )

    def add(self, name: str, folder: Path) -> Path:
        """Copy an adapter, or that of a run, to where it is found under a name: there whole or not at all.

        Raises UsageError for what is no name, InUseError where it is taken, StorageError, and what `open_adapter` raises.
        """
        if not is_name(name):
            raise UsageError(
                "{name} is not a name: letters, digits, dots, dashes and underscores.", name=repr(name[:200])
            )
        adapter = open_adapter(folder)
        target = self.roots[0] / folder_of(name)
        if name in self.list() or target.exists():
            raise InUseError(
                "An adapter called {name} is there already: take another name, or remove its folder first.", name=name
            )
        make_private_folder(self.roots[0])
        work = self.roots[0] / f".{uuid.uuid4().hex}"
        try:
            work.mkdir(mode=0o700)
            for file in sorted(adapter.path.iterdir()):
                if file.is_file():
                    shutil.copyfile(file, work / file.name)
            work.rename(target)
        except OSError as error:
            raise StorageError(
                "The adapter in {folder} cannot be copied to {path} ({reason}).",
                folder=adapter.path,
                path=target,
                reason=error.strerror,
            ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return target


def is_called(base_name: str, name: str, path: Path) -> bool:
    """Whether the base that an adapter's author wrote down is this model."""
    if base_name == name:
        return True
    return bool(base_name) and "\0" not in base_name and Path(base_name).expanduser().resolve() == path.resolve()


def _is_own(folder: Path) -> bool:
    """Whether it is an adapter, and all of it lies in it."""
    if folder.is_symlink() or not is_adapter(folder):
        return False
    inner = folder / "adapter"
    if inner.is_symlink():
        return False
    places = [folder, inner] if inner.is_dir() else [folder]
    return not any(entry.is_symlink() for place in places for entry in place.iterdir())
