"""Archives read from front to back: compressed tars, and archives inside archives. Members come out one after the other."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from functools import partial

from chatwright.text.readers.compressed import Decompressed
from chatwright.text.readers.members import (
    BROKEN_ARCHIVE,
    BoundedTarInfo,
    Guarded,
    Member,
    open_zip_member,
    tar_members,
    zip_members,
)
from chatwright.text.readers.names import sniff
from chatwright.text.readers.piece import Piece, Readable, with_head
from chatwright.text.readers.unit import Limits, Record, Refused, Skipped
from chatwright.text.reasons import Detail

Read = Callable[[Piece], Iterator[Record | Skipped]]


def read_archive(piece: Piece, read: Read) -> Iterator[Record | Skipped]:
    """What `read` finds in the members of a zip or tar. Raises Refused."""
    deepen(piece)
    members = _zip(piece) if piece.format == "zip" else _tar(piece)
    budget = _Budget(piece.limits)
    n_members = 0
    for found in members:
        n_members += 1
        if isinstance(found, Skipped):
            yield found
            continue
        member, open_member = found
        source = f"{piece.source}!/{member.name}"
        try:
            yield from _read_member(piece, member, source, open_member, budget, read)
        except Refused as refused:
            yield Skipped(source, refused.where, refused.reason, refused.detail)
    if n_members == 0:
        yield Skipped(piece.source, "", "empty")


def unpack(piece: Piece) -> Piece:
    """The piece with its format known and no compression around it. Raises Refused."""
    if not piece.format:
        piece.format = sniff(piece.head)
    while piece.format in ("gz", "bz2", "xz", "zst"):
        deepen(piece)
        piece.head, piece.stream = with_head(Decompressed(piece.stream, piece.format, piece.limits))
        piece.format = sniff(piece.head)
    return piece


def deepen(piece: Piece) -> None:
    """One more archive around what is read next. Raises Refused when there are too many."""
    piece.depth += 1
    if piece.depth > piece.limits.max_archive_depth:
        raise Refused(
            "zip bomb",
            Detail(
                "archives inside archives, more than {most} deep: unpack it yourself if you trust it",
                most=piece.limits.max_archive_depth,
            ),
        )


def _read_member(
    piece: Piece, member: Member, source: str, open_member: Callable[[], Readable], budget: _Budget, read: Read
) -> Iterator[Record | Skipped]:
    stream: Readable = _Counted(open_member(), budget)
    inner = Piece(source, member.format, stream, piece.limits, size_bytes=member.size_bytes, depth=piece.depth)
    if member.compression:
        deepen(inner)
        inner.stream = Decompressed(stream, member.compression, piece.limits)
        inner.size_bytes = None
    inner.head, inner.stream = with_head(inner.stream)
    for found in read(inner):
        if isinstance(found, Record):
            where = ", ".join(filter(None, (member.name, found.where)))
            found = Record(
                found.kind, found.payload, where, found.detected, found.markup, found.encoding, found.n_undecodable
            )
        yield found


def _zip(piece: Piece) -> Iterator[tuple[Member, Callable[[], Readable]] | Skipped]:
    file = piece.seekable(piece.limits.max_archive_bytes)
    n_bytes = file.seek(0, 2)
    for found in zip_members(file, n_bytes, piece.source, piece.limits):
        if isinstance(found, Skipped):
            yield found
        else:
            yield found, partial(open_zip_member, file, found.start, found.size_bytes, found.checksum, piece.limits)


def _tar(piece: Piece) -> Iterator[tuple[Member, Callable[[], Readable]] | Skipped]:
    try:
        archive = tarfile.open(  # noqa: SIM115 — the stream is the caller's
            fileobj=piece.stream,  # type: ignore[call-overload]
            mode="r|",
            tarinfo=BoundedTarInfo,
        )
    except BROKEN_ARCHIVE as error:
        raise Refused("broken archive", "no tar file, or a damaged one: fetch or pack it again") from error
    for info, found in tar_members(archive, piece.source, piece.limits):
        if isinstance(found, Skipped):
            yield found
        else:
            yield found, partial(_extract, archive, info)


def _extract(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Readable:
    stream = archive.extractfile(info)
    assert stream is not None, "only regular members are opened"
    return Guarded(stream)


class _Budget:
    """How much all members of an archive may unpack to, together."""

    def __init__(self, limits: Limits) -> None:
        self.left = limits.max_archive_bytes


class _Counted:
    """A stream that draws on a budget."""

    def __init__(self, stream: Readable, budget: _Budget) -> None:
        self.stream = stream
        self.budget = budget

    def read(self, n_bytes: int = -1, /) -> bytes:
        data = self.stream.read(n_bytes)
        self.budget.left -= len(data)
        if self.budget.left < 0:
            raise Refused(
                "zip bomb",
                "its members together unpack to more than is ever read of an archive: unpack it yourself if you trust it",
            )
        return data
