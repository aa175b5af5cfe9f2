"""Opening the bytes of a unit: a file, a range of it, a member of an archive, through whatever compression lies around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chatwright.text.readers.encoding import SAMPLE_BYTES
from chatwright.text.readers.piece import Limited, Piece, Readable
from chatwright.text.readers.unit import Limits, Unit


@contextmanager
def open_unit(unit: Unit, limits: Limits) -> Iterator[Piece]:
    """The unit's bytes. Raises OSError, Refused."""
    is_range = not unit.container and not unit.compression and (unit.start > 0 or unit.end is not None)
    with unit.path.open("rb") as file:
        stream: Readable = file
        head = file.read(SAMPLE_BYTES)
        file.seek(0)
        if is_range and unit.format != "parquet":
            file.seek(unit.start)
            if unit.end is not None:
                stream = Limited(file, unit.end - unit.start)
        yield Piece(
            unit.source, unit.format, stream, limits, head, unit.size_bytes, unit.start, unit.first_line, is_range
        )
