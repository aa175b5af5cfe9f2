"""Files of JSON lines that only grow: a run's events and metrics, readable after any kill."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chatwright.errors import StorageError


class Journal:
    """One append-only file. A line is written in one call, so a kill can tear only the last one, which `repair` cuts off."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: dict[str, Any]) -> None:
        """Adds a line. Numbers that JSON has no word for (NaN) become null. Raises StorageError."""
        line = json.dumps(_plain(entry), ensure_ascii=False, separators=(",", ":")) + "\n"
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                data = line.encode()
                while data:
                    data = data[os.write(fd, data) :]
            finally:
                os.close(fd)
        except OSError as error:
            raise StorageError("{path} cannot be written: {reason}", path=self.path, reason=error.strerror) from error

    def read(self) -> Iterator[dict[str, Any]]:
        """The whole lines, in order; a torn last one is left out."""
        try:
            with self.path.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    if line.endswith("\n"):
                        try:
                            entry = json.loads(line)
                        except ValueError:  # torn by a full disk and continued after it
                            continue
                        if isinstance(entry, dict):
                            yield entry
        except FileNotFoundError:
            return

    def repair(self) -> None:
        """Cuts off a torn last line. Called by the one process that writes, before it does."""
        try:
            with self.path.open("r+b") as file:
                end = file.seek(0, os.SEEK_END)
                position = end
                while position > 0:
                    start = max(0, position - 4096)
                    file.seek(start)
                    newline = file.read(position - start).rfind(b"\n")
                    if newline >= 0:
                        position = start + newline + 1
                        break
                    position = start
                if position != end:
                    file.truncate(position)
        except FileNotFoundError:
            return


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | bool | None) else str(value)
