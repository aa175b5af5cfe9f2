"""Opening the bytes of a unit: a file, a range of it, a member of an archive, through whatever compression lies around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chatwright.text.readers.compressed import Decompressed
from chatwright.text.readers.encoding import SAMPLE_BYTES
from chatwright.text.readers.members import Checked, open_zip_member
from chatwright.text.readers.piece import Limited, Piece, Readable, with_head
from chatwright.text.readers.unit import Limits, Unit


@contextmanager
def open_unit(unit: Unit, limits: Limits) -> Iterator[Piece]:
    """The unit's bytes. Raises OSError, Refused."""
    with unit.path.open("rb") as file:
        stream: Readable = file
        piece = Piece(unit.source, unit.format, file, limits, size_bytes=unit.size_bytes)
        if unit.container or unit.compression:
            if unit.container == "zip":
                stream = open_zip_member(file, unit.start, unit.size_bytes, unit.checksum, limits)
            elif unit.container == "tar":
                file.seek(unit.start)
                stream = Checked(file, unit.size_bytes)
            piece.depth = bool(unit.container) + bool(unit.compression)
            if unit.compression:
                stream = Decompressed(stream, unit.compression, limits)
                piece.size_bytes = None
            piece.head, piece.stream = with_head(stream)
            yield piece
            return
        piece.head = file.read(SAMPLE_BYTES)
        file.seek(0)
        if unit.start > 0 or unit.end is not None:
            piece.start, piece.end, piece.first_line = unit.start, unit.end, unit.first_line
            piece.is_range = True
            if unit.format != "parquet":  # its ranges are of row groups
                file.seek(unit.start)
                if unit.end is not None:
                    piece.stream = Limited(file, unit.end - unit.start)
        yield piece
