"""Finding what there is to read: files and folders in a fixed order, large files in ranges, archives by member."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from chatwright.errors import UsageError
from chatwright.text.manifest import kinds_of_dataset
from chatwright.text.readers.encoding import SAMPLE_BYTES
from chatwright.text.readers.members import BROKEN_ARCHIVE, BoundedTarInfo, Member, tar_members, zip_members
from chatwright.text.readers.names import COMPRESSIONS, EXPORT_EXTRA, export_extras, format_of, shown, sniff
from chatwright.text.readers.split import split_file
from chatwright.text.readers.unit import Limits, Refused, Skipped, Unit


@dataclass(frozen=True)
class Input:
    """A path under another name: the data set of a hub, say, lies in a cache and is called hf:ORG/NAME."""

    path: Path
    name: str


def find_units(inputs: Sequence[str | Path | Input], limits: Limits) -> tuple[list[Unit], list[Skipped]]:
    """What there is to read in files, folders and archives, and what is not read and why.

    Inputs keep their order; inside a folder names are sorted by their bytes. Links inside folders are not followed; one
    named as an input is. A file reached twice is read once. A dataset of Chatwright's inside a folder is left out: its report
    and what was dropped are no text of the user's, and its rows are there in the files it was made of. Raises UsageError for
    an input that does not exist or is a dataset.
    """
    units: list[Unit] = []
    skipped: list[Skipped] = []
    seen: set[tuple[int, int]] = set()
    for path, name in _named(inputs):
        for found in _walk(path, name):
            if isinstance(found, Skipped):
                skipped.append(found)
                continue
            source, file, status = found
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                skipped.append(Skipped(source, "", "named twice", "the same file was already found under another name"))
                continue
            seen.add(identity)
            for each in _units_of(file, source, status.st_size, limits):
                (skipped if isinstance(each, Skipped) else units).append(each)  # type: ignore[arg-type]
    return units, skipped


def _named(inputs: Sequence[str | Path | Input]) -> list[tuple[Path, str]]:
    """(path, name shown) of each input; the name is its last part where no other input ends in it."""
    paths = [entry.path if isinstance(entry, Input) else Path(entry).expanduser() for entry in inputs]
    for path in paths:
        if "\0" in str(path) or not os.path.lexists(path):
            raise UsageError("There is no file or folder {path}: check the spelling.", path=shown(path))
    short = [path.resolve().name or str(path) for path in paths]
    names = []
    for entry, path, name in zip(inputs, paths, short, strict=True):
        if isinstance(entry, Input):
            names.append(entry.name)
        else:
            names.append(shown(name if short.count(name) == 1 else path))
    return list(zip(paths, names, strict=True))


def _walk(path: Path, name: str) -> Iterator[tuple[str, Path, os.stat_result] | Skipped]:
    """(source, path, status) of every file at or below `path`, in order."""
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            if stat.S_ISREG(status.st_mode):
                yield name, path, status
            else:
                yield Skipped(name, "", "not a file", "a device, pipe or socket")
            return
    except OSError as error:
        yield Skipped(name, "", "unreadable", error.strerror or "")
        return
    pending = [(path, name)]
    while pending:
        folder, label = pending.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            yield Skipped(label, "", "unreadable", error.strerror or "")
            continue
        if (kinds := kinds_of_dataset(Path(folder))) is not None:
            if folder == path:
                raise _is_dataset(name, kinds)
            yield Skipped(label, "", "prepared dataset", "name the folders of rows in it as inputs to read them")
            continue
        folders = []
        extras = export_extras(entry.name for entry in entries)
        for entry in entries:
            source = f"{label}/{shown(entry.name)}"
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError as error:
                yield Skipped(source, "", "unreadable", error.strerror or "")
                continue
            if stat.S_ISLNK(status.st_mode):
                yield Skipped(source, "", "link", "links inside folders are not followed")
            elif entry.name.startswith("."):
                yield Skipped(source, "", "hidden", "its name begins with a dot; name it as an input to read it")
            elif entry.name in extras:
                yield Skipped(source, "", "part of a ChatGPT export", EXPORT_EXTRA)
            elif stat.S_ISDIR(status.st_mode):
                folders.append((Path(entry.path), source))
            elif stat.S_ISREG(status.st_mode):
                yield source, Path(entry.path), status
            else:
                yield Skipped(source, "", "not a file", "a device, pipe or socket")
        pending.extend(reversed(folders))


def _is_dataset(name: str, kinds: list[str]) -> UsageError:
    """For a dataset as an input: its rows are cut, cleaned and split already, and stand beside a report and what was dropped."""
    return UsageError(
        "{name} is a dataset already: tokenizer train, train and tune take it as it is. To prepare another one, name the files "
        "that it was made of, or in it the folders of rows ({folders}).",
        name=name,
        folders=", ".join(kinds) or "–",
    )


def _units_of(path: Path, source: str, size_bytes: int, limits: Limits) -> Iterator[Unit | Skipped]:
    """The units of one file."""
    try:
        if size_bytes == 0:
            raise Refused("empty")
        format, compression = format_of(path.name)
        if not format and not compression:
            with path.open("rb") as file:
                format = sniff(file.read(SAMPLE_BYTES))
            if format in COMPRESSIONS:
                format, compression = "", COMPRESSIONS[format]
        if compression:
            yield Unit(source, path, format, size_bytes=size_bytes, compression=compression)  # type: ignore[arg-type]
        elif format in ("zip", "tar"):
            yield from _members(path, source, format, size_bytes, limits)
        elif format == "parquet" or size_bytes > limits.split_bytes:
            yield from split_file(path, source, format, size_bytes, limits)
        else:
            yield Unit(source, path, format, size_bytes=size_bytes)
    except Refused as refused:
        yield Skipped(source, refused.where, refused.reason, refused.detail)
    except OSError as error:
        yield Skipped(source, "", "unreadable", error.strerror or "")


def _members(path: Path, source: str, format: str, size_bytes: int, limits: Limits) -> Iterator[Unit | Skipped]:
    """A unit a member. Raises Refused, OSError."""
    n_members = 0
    with path.open("rb") as file:
        for found in _zip_or_tar(file, source, format, size_bytes, limits):
            n_members += 1
            if isinstance(found, Skipped):
                yield found
                continue
            yield Unit(
                f"{source}!/{found.name}",
                path,
                found.format,
                member=found.name,
                start=found.start,
                size_bytes=found.size_bytes,
                container=format,  # type: ignore[arg-type]
                compression=found.compression,
                checksum=found.checksum,
            )
    if n_members == 0:
        yield Skipped(source, "", "empty")


def _zip_or_tar(
    file: BinaryIO, source: str, format: str, size_bytes: int, limits: Limits
) -> Iterator[Member | Skipped]:
    if format == "zip":
        yield from zip_members(file, size_bytes, source, limits)
        return
    try:
        archive = tarfile.open(fileobj=file, mode="r:", tarinfo=BoundedTarInfo)  # noqa: SIM115 — the file is the caller's
    except BROKEN_ARCHIVE as error:
        raise Refused("broken archive", "no tar file, or a damaged one: fetch or pack it again") from error
    yield from (found for _info, found in tar_members(archive, source, limits))
