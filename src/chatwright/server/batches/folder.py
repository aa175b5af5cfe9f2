"""The folder of a batch that is not over: its input, and what was answered so far, on the disk before it counts.

`results.jsonl` only ever grows, line by line. A kill leaves at most half a line at its end, which is cut off and answered again.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from chatwright.settings import make_private_folder
from chatwright.store.batches import WORK
from chatwright.store.files.folder import check_room, explained
from chatwright.store.ids import is_id


@dataclass
class Tally:
    """What the results add up to."""

    n_completed: int = 0
    n_failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def add(self, result: dict[str, Any]) -> None:
        """Count one more line."""
        response = result.get("response")
        if not is_success(result) or response is None:
            self.n_failed += 1
            return
        self.n_completed += 1
        usage = response["body"].get("usage") or {}
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        self.input_tokens += usage.get("prompt_tokens", usage.get("input_tokens", 0))
        self.output_tokens += usage.get("completion_tokens", usage.get("output_tokens", 0))
        self.cached_tokens += details.get("cached_tokens") or 0


@dataclass
class Results:
    """What was answered: whose custom_ids, and the sums."""

    done: set[str] = field(default_factory=set)
    tally: Tally = field(default_factory=Tally)


class BatchFolder:
    """One batch's place in the home folder."""

    def __init__(self, home: Path, batch_id: str) -> None:
        assert is_id(batch_id), "a name that was not made here"
        self.path = home / WORK / batch_id
        self.input = self.path / "input.jsonl"
        self._results = self.path / "results.jsonl"
        self._stream: BinaryIO | None = None
        self._n_good_bytes = 0
        self._turn = asyncio.Lock()
        self._pending: set[asyncio.Task[None]] = set()

    @property
    def exists(self) -> bool:
        """Whether the batch is worked on here: its input lies in the home folder of the server that took it."""
        return self.input.is_file()

    def create(self, source: Path) -> None:
        """Keep the input, whatever becomes of the file that it is. Raises DiskFullError, StorageError."""
        with explained(self.path):
            make_private_folder(self.path)
            try:
                os.link(source, self.input)
            except OSError:  # a file system without links
                check_room(self.path, source.stat().st_size)
                part = self.path / "input.part"
                shutil.copyfile(source, part)
                part.rename(self.input)

    def open(self) -> Results:
        """Read what was answered before, and be ready for more. Raises StorageError."""
        results = Results()
        self._close()
        with explained(self._results):
            self._n_good_bytes = 0
            self._stream = os.fdopen(os.open(self._results, os.O_CREAT | os.O_RDWR, 0o600), "r+b")
            for data in self._stream:
                try:
                    result = orjson.loads(data) if data.endswith(b"\n") else None
                except orjson.JSONDecodeError:
                    result = None
                if result is None:
                    break
                results.done.add(result["custom_id"])
                results.tally.add(result)
                self._n_good_bytes += len(data)
            self._stream.truncate(self._n_good_bytes)
            self._stream.seek(self._n_good_bytes)
        return results

    async def append(self, result: dict[str, Any]) -> None:
        """Add a line; it is on the disk when this returns. Raises DiskFullError, StorageError, and has added nothing then.

        Cancelled, it is finished all the same, before `close` returns: half a line is none.
        """
        task = asyncio.create_task(self._append_in_turn(orjson.dumps(result) + b"\n"))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Let go of the results, when what is being written is written."""
        await asyncio.gather(*self._pending, return_exceptions=True)
        self._close()

    def results(self) -> Iterator[dict[str, Any]]:
        """All of them."""
        with self._results.open("rb") as stream:
            for data in stream:
                yield orjson.loads(data)

    def remove(self) -> None:
        """Delete everything."""
        self._close()
        shutil.rmtree(self.path, ignore_errors=True)

    async def _append_in_turn(self, data: bytes) -> None:
        async with self._turn:
            await asyncio.to_thread(self._append, data)

    def _close(self) -> None:
        if self._stream is not None:
            with suppress(OSError):
                self._stream.close()
            self._stream = None

    def _append(self, data: bytes) -> None:
        assert self._stream is not None, "opened first"
        with explained(self._results):
            try:
                self._stream.write(data)
                self._stream.flush()
                os.fsync(self._stream.fileno())
            except OSError:
                # Half a line would spoil the next one.
                with suppress(OSError):
                    self._stream.close()
                self._stream = self._results.open("r+b")
                self._stream.truncate(self._n_good_bytes)
                self._stream.seek(self._n_good_bytes)
                raise
        self._n_good_bytes += len(data)


def is_success(result: dict[str, Any]) -> bool:
    """Whether a line goes into the output; all others go into the file of errors."""
    response = result.get("response")
    return response is not None and response["status_code"] == 200


def batches_in(home: Path) -> list[str]:
    """The batches that have a folder."""
    with suppress(OSError):
        return [entry.name for entry in os.scandir(home / WORK) if entry.is_dir() and is_id(entry.name)]
    return []
