"""Reading a unit: open it, choose the reader of its format, and turn whatever goes wrong into something skipped."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

from chatwright.errors import StorageError
from chatwright.text.readers.archive import read_archive, unpack
from chatwright.text.readers.conll import looks_like_conll, read_conll
from chatwright.text.readers.corpus import read_yaml
from chatwright.text.readers.json_rows import read_json_rows, read_jsonl_rows
from chatwright.text.readers.open import open_unit
from chatwright.text.readers.parquet import read_parquet_rows
from chatwright.text.readers.pdf import read_pdf
from chatwright.text.readers.piece import Piece
from chatwright.text.readers.plain import cut_text, read_plain
from chatwright.text.readers.shapes import read_rows
from chatwright.text.readers.table import read_table
from chatwright.text.readers.unit import Limits, Record, Refused, Skipped, Unit, out_of_memory
from chatwright.text.readers.web import read_html
from chatwright.text.readers.word import read_docx


def read_unit(unit: Unit, limits: Limits) -> Iterator[Record | Skipped]:
    """Everything in the unit, streamed.

    Raises nothing but StorageError (no room for temporary files) and InvalidDatasetError (memory ran out).
    """
    nothing = True
    try:
        with open_unit(unit, limits) as piece:
            for found in read_piece(piece):
                nothing = False
                yield found
        if nothing:  # blanks only: still named, nothing is lost silently
            yield Skipped(unit.source, "", "empty")
    except Refused as refused:
        yield Skipped(unit.source, refused.where, refused.reason, refused.detail)
    except MemoryError as error:
        raise out_of_memory(unit.source) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                "There is no room for temporary files while reading {source}: free some space, or set TMPDIR to a folder "
                "on another disk.",
                source=unit.source,
            ) from error
        yield Skipped(unit.source, "", "unreadable", error.strerror or str(error))


def read_piece(piece: Piece) -> Iterator[Record | Skipped]:
    """The records of an opened unit; long documents in parts."""
    piece = unpack(piece)
    if piece.format in ("zip", "tar"):
        yield from read_archive(piece, read_piece)
        return
    max_bytes = piece.limits.max_document_bytes
    for found in reader_of(piece.format)(piece):
        if isinstance(found, Skipped) or found.kind != "documents" or len(found.payload["text"]) * 4 <= max_bytes:
            yield found
            continue
        parts = list(cut_text(found.payload["text"], max_bytes))
        for number, text in enumerate(parts, 1):
            where = found.where if len(parts) == 1 else ", ".join(filter(None, (found.where, f"part {number}")))
            n_undecodable = found.n_undecodable if number == 1 else 0
            yield Record(
                "documents", {"text": text}, where, found.detected, found.markup, found.encoding, n_undecodable
            )


Reader = Callable[[Piece], Iterator[Record | Skipped]]


def reader_of(format: str) -> Reader:
    """The reader of a format; plain text where nothing else is known."""
    readers: dict[str, Reader] = {
        "jsonl": lambda piece: read_rows(piece, read_jsonl_rows(piece)),
        "json": lambda piece: read_rows(piece, read_json_rows(piece)),
        "csv": lambda piece: read_rows(piece, read_table(piece)),
        "tsv": lambda piece: read_rows(piece, read_table(piece)),
        "parquet": lambda piece: read_rows(piece, read_parquet_rows(piece)),
        "html": read_html,
        "pdf": read_pdf,
        "docx": read_docx,
        "yaml": read_yaml,
        "conll": read_conll,
    }
    return readers.get(format, read_text)


def read_text(piece: Piece) -> Iterator[Record | Skipped]:
    """Plain text, unless it is one token and tag a line."""
    head = piece.decoder().decode(piece.head).text if not piece.encoding else ""
    return read_conll(piece) if looks_like_conll(head) else read_plain(piece)
