"""Models from this machine: a folder in HF layout or a GGUF file, copied under the models folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from chatwright.errors import PullError
from chatwright.hub.failures import need_space, writing_to
from chatwright.hub.manifest import Manifest
from chatwright.hub.names import check_name, name_from
from chatwright.hub.progress import Progress
from chatwright.hub.selection import POOLING, select_files
from chatwright.hub.source import Source

_CHUNK = 8 * 2**20


def path_source(path: Path, rename: str | None) -> Source:
    """A folder or a `.gguf` file. Symlinks are followed: what is copied is the content. Raises PullError."""
    name = check_name(rename) if rename else name_from(path.stem if path.is_file() else path.resolve().name)
    if not name:
        raise PullError("{path} makes no usable model name: give one with --name.", path=path)
    source = f"file:{path.resolve()}"

    def fetch(work: Path, folder: Path, progress: Progress) -> Manifest:
        if not path.exists():
            raise PullError("{path} does not exist.", path=path)
        if path.is_file() and path.suffix != ".gguf":
            raise PullError(
                "{path} is not a model: expected a .gguf file, or a folder in Hugging Face's layout.", path=path
            )
        try:
            home = path.parent if path.is_file() else path
            files = [path.name] if path.is_file() else _model_files(path)
            total = sum((home / file).stat().st_size for file in files)
            need_space(work, total, shutil.disk_usage(work).free)
            for file in files:
                (folder / file).parent.mkdir(exist_ok=True)
                _copy(home / file, folder / file, work, progress)
        except PermissionError as error:
            raise PullError(
                "{path} cannot be read ({reason}).", path=error.filename or path, reason=error.strerror
            ) from error
        return Manifest(name=name, source=source)

    return Source(name, source, fetch)


def _model_files(folder: Path) -> list[str]:
    names = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    names += [POOLING] if (folder / POOLING).is_file() else []
    return select_files(names, None, str(folder))


def _copy(source: Path, target: Path, work: Path, progress: Progress) -> None:
    done = 0
    progress.begin(source.name, source.stat().st_size)
    with source.open("rb") as reader, writing_to(work), target.open("wb") as writer:
        while chunk := reader.read(_CHUNK):
            writer.write(chunk)
            done += len(chunk)
            progress.advance(done)
    progress.end()
