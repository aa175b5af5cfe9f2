"""Reading what a test has written: all records and all that was skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from chatwright.text.readers import Input, Limits, Record, Skipped, find_units, read_unit


def read(*inputs: str | Path | Input, **limits: int) -> tuple[list[Record], list[Skipped]]:
    """Everything in the inputs."""
    bounds = Limits(**limits)
    units, skipped = find_units(inputs, bounds)
    assert len({unit.key for unit in units}) == len(units)
    records: list[Record] = []
    for unit in units:
        for found in read_unit(unit, bounds):
            (skipped if isinstance(found, Skipped) else records).append(found)  # type: ignore[arg-type]
    return records, skipped


def read_data(path: Path, data: bytes | str, **limits: int) -> tuple[list[Record], list[Skipped]]:
    """Everything in a file of that name and content."""
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read(path, **limits)


def texts(records: list[Record]) -> list[str]:
    return [record.payload["text"] for record in records]


def reasons(skipped: list[Skipped]) -> list[str]:
    return [entry.reason for entry in skipped]


def one(records: list[Record], skipped: list[Skipped]) -> Record:
    """The only record of something from which nothing was skipped."""
    assert skipped == []
    (record,) = records
    return record


def dialogue(record: Record) -> list[tuple[Any, Any]]:
    return [(message["role"], message["content"]) for message in record.payload["messages"]]
