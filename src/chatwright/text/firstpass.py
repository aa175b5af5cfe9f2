"""The first pass: groups of units are read, cleaned and left as blocks, by any worker in any order."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from chatwright.errors import InvalidDatasetError
from chatwright.i18n import _
from chatwright.text.blocks import Block, BlockWriter
from chatwright.text.cleaning import Dropped, windows
from chatwright.text.options import PrepareOptions
from chatwright.text.readers import Limits, Record, Skipped, Unit, read_unit
from chatwright.text.reasons import BAD, NOTES, shown, to_json
from chatwright.text.tally import ROW_STEPS, Tallies, Tally, new_tallies
from chatwright.text.work import Work

_MOST_BATCH_BYTES = 16 << 20
_LEAST_BATCH_BYTES = 128 << 10
_BATCHES = 64  # of small inputs, so that all workers have some, and little is lost when they are killed
BATCH_UNITS = 1000


@dataclass(frozen=True)
class Batch:
    """Some consecutive units: one work item."""

    number: int
    units: tuple[Unit, ...]

    @property
    def name(self) -> str:
        """Of its files."""
        return f"batch-{self.number:06d}"

    @property
    def size_bytes(self) -> int:
        """Of its input."""
        return sum(unit.size_bytes for unit in self.units)


@dataclass(frozen=True)
class FirstPass:
    """What a worker needs to know."""

    folder: Path
    options: PrepareOptions
    limits: Limits


def batches(units: Sequence[Unit], first_number: int = 0) -> list[Batch]:
    """Units in order, in groups of an equal size that depends on the whole input."""
    batch_bytes = max(_LEAST_BATCH_BYTES, min(_MOST_BATCH_BYTES, sum(unit.size_bytes for unit in units) // _BATCHES))
    groups: list[list[Unit]] = [[]]
    n_bytes = 0
    for unit in units:
        if groups[-1] and (n_bytes + unit.size_bytes > batch_bytes or len(groups[-1]) >= BATCH_UNITS):
            groups.append([])
            n_bytes = 0
        groups[-1].append(unit)
        n_bytes += unit.size_bytes
    return [Batch(number, tuple(group)) for number, group in enumerate(groups, first_number) if group]


def is_done(work: Work, batch: Batch) -> bool:
    """Whether a batch was finished, and its files are whole."""
    marker = work.read(f"{batch.name}.json")
    return marker is not None and all(block.is_whole(work.folder) for block in blocks_of(marker))


def blocks_of(marker: dict[str, Any]) -> list[Block]:
    """The blocks that a finished batch left."""
    return [Block(**block | {"languages": tuple(block["languages"])}) for block in marker["blocks"]]


def tallies_of(marker: dict[str, Any]) -> Tallies:
    """The counts of a finished batch."""
    return {name: Tally.from_json(marker["steps"][name]) for name in ROW_STEPS}


def run_batch(plan: FirstPass, batch: Batch) -> int:
    """Read and clean a batch; its bytes of input. Raises OSError, and InvalidDatasetError for a bad row with --on-bad-row stop."""
    work = Work(plan.folder)
    tallies = new_tallies()
    writer = BlockWriter(plan.folder, batch.name)
    sources: list[dict[str, Any]] = []
    details: dict[str, Any] = {}  # the first of each reason, to be said where nothing is left
    with (plan.folder / f"{batch.name}.dropped").open("wb") as dropped:

        def drop(entry: Dropped) -> None:
            stop_if_asked(entry, plan.options)
            if entry.detail and entry.reason not in details:
                details[entry.reason] = to_json(entry.detail)
            dropped.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))

        def records() -> Iterator[tuple[str, Record]]:
            for unit in batch.units:
                source = _source(unit)
                sources.append(source)
                for found in read_unit(unit, plan.limits):
                    if isinstance(found, Skipped):
                        drop(Dropped(found.source, found.where, "read", found.reason, found.detail))
                        if found.reason in NOTES:
                            tallies["read"].notes[found.reason] += 1
                            continue
                        tallies["read"].drop(found.reason, 0)
                        source["skipped"] += 1
                        continue
                    source["records"] += 1
                    if found.detected not in source["detected"]:
                        source["detected"][found.detected] = 0
                    source["detected"][found.detected] += 1
                    yield unit.source, found

        for window in windows(records(), plan.options, tallies):
            for entry in window.dropped:
                drop(entry)
            writer.add(window)
        writer.flush()
    work.write(
        f"{batch.name}.json",
        {
            "blocks": [asdict(block) for block in writer.blocks],
            "steps": {name: tally.as_step(name).model_dump() for name, tally in tallies.items()},
            "sources": sources,
            "details": details,
        },
    )
    return batch.size_bytes


def stop_if_asked(found: Skipped | Dropped, options: PrepareOptions) -> None:
    """Raises InvalidDatasetError for what somebody meant to be read, with --on-bad-row stop."""
    if options.on_bad_row == "skip" or found.reason not in BAD:
        return
    why = shown(found.detail) or _(found.reason)
    if found.where:
        raise InvalidDatasetError(
            "{source}, {where}, cannot be read ({detail}). Correct it, or leave such rows out with --on-bad-row skip.",
            source=found.source,
            where=_place(found.where),
            detail=why,
        )
    raise InvalidDatasetError(
        "{source} cannot be read ({detail}). Correct it, or leave such files out with --on-bad-row skip.",
        source=found.source,
        detail=why,
    )


def _source(unit: Unit) -> dict[str, Any]:
    """A line of sources.jsonl."""
    return {
        "source": unit.key,
        "format": unit.format,
        "size_bytes": unit.size_bytes,
        "sha256": _hash(unit),
        "records": 0,
        "skipped": 0,
        "detected": {},
    }


def _hash(unit: Unit) -> str | None:
    """SHA-256 of the file, or of the range of a large one.

    Of the whole file for members of archives and row groups, which are no bytes of their own.
    """
    try:
        if unit.container or unit.format == "parquet":
            status = unit.path.stat()
            return _hash_of_file(unit.path, status.st_size, status.st_mtime_ns)
        return _hash_of_range(unit.path, unit.start, unit.end)
    except OSError:
        return None  # the reader says why


@lru_cache(maxsize=16)  # an archive has up to a million members, one after the other
def _hash_of_file(path: Path, _size_bytes: int, _mtime_ns: int) -> str:
    return _hash_of_range(path, 0, None)


def _hash_of_range(path: Path, start: int, end: int | None) -> str:
    digest = hashlib.sha256()
    left = None if end is None else end - start
    with path.open("rb") as stream:
        stream.seek(start)
        while data := stream.read(1 << 20 if left is None else min(1 << 20, left)):
            digest.update(data)
            left = None if left is None else left - len(data)
    return digest.hexdigest()


def _place(where: str) -> str:
    """`line 61`, or `test, row 61`, in the user's language; the name of a member of an archive as it is."""
    match = re.fullmatch(r"(\w+, )?(line|row|page) (\d+)", where)
    if match is None:
        return where
    number = int(match[3])
    return (match[1] or "") + {
        "line": _("line {number}", number=number),
        "row": _("row {number}", number=number),
        "page": _("page {number}", number=number),
    }[match[2]]
