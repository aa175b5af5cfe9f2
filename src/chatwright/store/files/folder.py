"""Where contents lie: `files/` in the home folder, each under the id of its row; what is still arriving lies apart.

A content has its final name only when it is whole and on the disk. What a kill leaves behind are files without a row, which
`sweep` takes away. Until a content has its row, and while that is being deleted, it has a second name among what is arriving: it
is left over then, and not of another moment of the database (`moment`).
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from chatwright.errors import DiskFullError, StorageError, TooLargeError
from chatwright.settings import make_private_folder
from chatwright.store.ids import is_id, new_id

# The database, logs and everybody else need a disk that is not full to the last byte.
KEPT_FREE_BYTES = 64 * 2**20
CHUNK_BYTES = 2**20
# How much of the beginning is kept in memory, to see what kind of file it is.
START_BYTES = 64 * 1024
INCOMING, PARTS, OWNER = "incoming", "parts", ".database"


class Incoming:
    """A content that is being written. Its hashes and size grow with it."""

    def __init__(self, path: Path, limit_bytes: int, on_growth: Callable[[int], None] | None = None) -> None:
        self.path = path
        self.size_bytes = 0
        self.start = b""
        self._limit_bytes = limit_bytes
        self._on_growth = on_growth
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._waiting = bytearray()
        self._file: BinaryIO = os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")

    @property
    def sha256(self) -> str:
        """Of what was written, in hexadecimal; whole after `finish`."""
        return self._sha256.hexdigest()

    @property
    def md5(self) -> str:
        """The same, as the API's checksum is an MD5."""
        return self._md5.hexdigest()

    async def write(self, data: bytes) -> None:
        """Append. Raises TooLargeError beyond the limit, DiskFullError, StorageError."""
        self.size_bytes += len(data)
        if self.size_bytes > self._limit_bytes:
            raise TooLargeError(
                "The file is larger than {size} MiB, the limit of this server.",
                size=f"{self._limit_bytes / 2**20:g}",
                param="file",
                code="file_too_large",
            )
        if self._on_growth is not None:
            self._on_growth(len(data))
        if len(self.start) < START_BYTES:
            self.start += data[: START_BYTES - len(self.start)]
        self._waiting += data
        if len(self._waiting) >= CHUNK_BYTES:
            await self._pass_on()

    async def finish(self) -> None:
        """Everything is on the disk when this returns."""
        await self._pass_on()
        with explained(self.path):
            await asyncio.to_thread(self._sync)

    def close(self) -> None:
        """Let go of the file, whatever is in it."""
        with suppress(OSError):  # a full disk can show itself once more
            self._file.close()

    async def _pass_on(self) -> None:
        data, self._waiting = bytes(self._waiting), bytearray()
        if data:
            with explained(self.path):
                await asyncio.to_thread(self._write, data)

    def _write(self, data: bytes) -> None:
        check_room(self.path.parent, len(data))
        self._sha256.update(data)
        self._md5.update(data)
        self._file.write(data)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class FilesFolder:
    """The folder of one home. Nothing is made before the first file. `owner`: which database its contents go with."""

    def __init__(self, home: Path, owner: str) -> None:
        self.path = home / "files"
        self._owner = owner

    def content(self, file_id: str) -> Path:
        """Where the content of a file lies. `file_id`: of a row, and checked all the same."""
        return self.path / _checked(file_id)

    def part(self, part_id: str) -> Path:
        """Where the content of a part of an upload lies."""
        return self.path / PARTS / _checked(part_id)

    @asynccontextmanager
    async def incoming(
        self, limit_bytes: int, announced_bytes: int = 0, on_growth: Callable[[int], None] | None = None
    ) -> AsyncIterator[Incoming]:
        """A content to be written and then kept by `take`; what was not kept is gone when the block ends, however it ends.

        Raises DiskFullError where the announced size has no room, StorageError.
        """
        await asyncio.to_thread(self._make, announced_bytes)
        path = self.path / INCOMING / new_id("in")
        with explained(path):
            incoming = Incoming(path, limit_bytes, on_growth)
        try:
            yield incoming
        finally:
            incoming.close()
            path.unlink(missing_ok=True)

    async def take(self, incoming: Incoming, place: Path) -> None:
        """Give a finished content its name, for good. It keeps the one that it had while it arrived until the block of `incoming`
        ends. Raises StorageError."""

        def name() -> None:
            try:
                os.link(incoming.path, place)
            except OSError:  # a file system without links
                incoming.path.rename(place)
            _sync_folder(place.parent)

        with explained(place):
            await asyncio.to_thread(name)

    @asynccontextmanager
    async def leaving(self, place: Path) -> AsyncIterator[None]:
        """While the block deletes a content and its row: should it be killed in between, what is left belongs to nobody."""
        second = self.path / INCOMING / new_id("out")

        def link() -> None:
            with suppress(OSError):
                os.link(place, second)

        await asyncio.to_thread(link)
        try:
            yield
        finally:
            second.unlink(missing_ok=True)

    async def remove(self, *places: Path) -> None:
        """Delete contents; those that are gone already are no mistake."""

        def unlink() -> None:
            for place in places:
                with suppress(OSError):  # the sweep tries again
                    place.unlink(missing_ok=True)

        await asyncio.to_thread(unlink)

    def sweep(self, file_ids: Collection[str], part_ids: Collection[str], older_than_s: float) -> int:
        """Delete what belongs to no row and has not changed for a while. Returns how many."""
        before = time.time() - older_than_s
        n_removed = 0
        for folder, known in ((self.path, file_ids), (self.path / PARTS, part_ids), (self.path / INCOMING, ())):
            for path in _files_in(folder):
                if path.name in known or not is_id(path.name):
                    continue
                with suppress(OSError):
                    if path.stat().st_mtime <= before:
                        path.unlink(missing_ok=True)
                        n_removed += 1
        return n_removed

    def left_over(self) -> set[int]:
        """Contents, by the numbers that the file system has for them, that were on their way in or out when a server ended."""
        numbers = set()
        for path in _files_in(self.path / INCOMING):
            with suppress(OSError):
                numbers.add(path.stat().st_ino)
        return numbers

    def has_news_since(self, at: float) -> bool:
        """Whether anything came after that time, or just before it."""
        for folder in (self.path, self.path / PARTS):
            for path in _files_in(folder):
                with suppress(OSError):
                    if is_id(path.name) and path.stat().st_mtime >= at:
                        return True
        return False

    def is_ours(self, file_ids: Iterable[str]) -> bool:
        """Whether this folder goes with our database: it was made for it, or has contents of its rows (the database has moved).

        With another one, an empty one by a slip of the configuration, every content would look left over.
        """
        with suppress(OSError, UnicodeDecodeError):
            if (self.path / OWNER).read_text(encoding="utf-8") == self._owner:
                return True
        found = any((self.path / file_id).exists() for file_id in file_ids)
        if found:
            self._claim()
        return found

    def _make(self, announced_bytes: int) -> None:
        for folder in (self.path / INCOMING, self.path / PARTS):
            make_private_folder(folder)
        if not (self.path / OWNER).exists():
            self._claim()
        check_room(self.path, announced_bytes)

    def _claim(self) -> None:
        with suppress(OSError):
            (self.path / OWNER).write_text(self._owner, encoding="utf-8")


def check_room(folder: Path, n_bytes: int) -> None:
    """Raise DiskFullError unless so much, and a rest, is free."""
    if shutil.disk_usage(folder).free < n_bytes + KEPT_FREE_BYTES:
        raise disk_full()


def disk_full() -> DiskFullError:
    """The sentence for it. No path: it is shown to whoever sends a file."""
    return DiskFullError(
        "The server's disk is full: nothing was kept. Delete files that are not needed, and try again."
    )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raise what the system raises for a file as DiskFullError or StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise disk_full() from error
        raise StorageError(
            "The file {path} cannot be written or read ({reason}).", path=path, reason=error.strerror or error
        ) from error


def _checked(name: str) -> str:
    assert is_id(name), "a name that was not made here"
    return name


def _files_in(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []


def _sync_folder(folder: Path) -> None:
    """So that the name survives a power cut too."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
