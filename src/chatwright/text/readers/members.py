"""What lies in a zip or tar: its members as places in the file, and why some of them are not read.

Nothing is extracted: a member's name is a label for the user, whatever it is. zip members are opened at their own header, so
that a thousand workers need not parse the central directory a thousand times.
"""

from __future__ import annotations

import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Literal, Self

from chatwright.text.readers.compressed import Decompressed
from chatwright.text.readers.names import EXPORT_EXTRA, export_extras, format_of, shown
from chatwright.text.readers.piece import Limited, Readable
from chatwright.text.readers.unit import Limits, Refused, Skipped
from chatwright.text.reasons import Detail

BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    NotImplementedError,
    struct.error,
    ValueError,
    EOFError,
    IndexError,
)
_EXTENDED_HEADER_BYTES = 1 << 20
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 0x1
WHAT_TO_DO = {
    "link": "links inside archives are not followed: unpack it, and name the file that is meant",
    "not a file": "a device, pipe or socket",
    "encrypted archive": "it opens with a password only: unpack it, and name the folder",
    "part of a ChatGPT export": EXPORT_EXTRA,
    "sparse file": "a file with holes, as tar --sparse packs it: unpack it, and name the folder",
    "unsafe name": "its name leads out of the archive: unpack it yourself if you trust it, and name the folder",
    "hidden": "a part of its name begins with a dot: unpack it, and name it as an input to read it",
}


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside an archive. `start`: of its local header (zip) or its data (tar)."""

    name: str
    format: str
    compression: Literal["", "gz", "bz2", "xz", "zst"]
    start: int
    size_bytes: int
    checksum: int | None = None


def zip_members(file: IO[bytes], n_bytes: int, source: str, limits: Limits) -> Iterator[Member | Skipped]:
    """The members of a zip of `n_bytes`. Raises Refused."""
    try:
        infos = zipfile.ZipFile(file).infolist()
    except BROKEN_ARCHIVE as error:
        raise Refused("broken archive", "no zip file, or a damaged one: fetch or pack it again") from error
    _refuse_bomb(infos, n_bytes, limits)
    extras = export_extras(info.filename for info in infos)
    for info in infos:
        if info.filename.endswith("/"):  # is_dir() raises on an empty name
            continue
        name = _zip_name(info)
        mode = info.external_attr >> 16
        reason = _reason(info.filename)
        if stat.S_ISLNK(mode):
            reason = "link"
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            reason = "not a file"
        elif info.flag_bits & _ENCRYPTED:
            reason = "encrypted archive"
        elif info.filename in extras:
            reason = "part of a ChatGPT export"
        yield _member(source, name, reason, info.header_offset, info.file_size, info.CRC)


def open_zip_member(file: IO[bytes], start: int, n_bytes: int, checksum: int | None, limits: Limits) -> Readable:
    """The contents of the member whose local header lies at `start`. Raises Refused."""
    file.seek(start)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise Refused("broken archive", "a member is not where the archive's table says: fetch or pack it again")
    _magic, _version, _flags, method, *_times_and_sizes, n_name, n_extra = _LOCAL_HEADER.unpack(header)
    file.seek(n_name + n_extra, 1)
    if method == zipfile.ZIP_STORED:
        return Checked(file, n_bytes, checksum)
    if method == zipfile.ZIP_DEFLATED:
        return Checked(Decompressed(file, "deflate", limits), n_bytes, checksum)
    try:
        archive = zipfile.ZipFile(file)
        return Guarded(archive.open(next(info for info in archive.infolist() if info.header_offset == start)))
    except (*BROKEN_ARCHIVE, RuntimeError, StopIteration) as error:
        raise Refused(
            "broken archive",
            Detail(
                "packed by method {method}, which is not read here: pack it again as an ordinary zip", method=method
            ),
        ) from error


def tar_members(
    archive: tarfile.TarFile, source: str, limits: Limits
) -> Iterator[tuple[tarfile.TarInfo, Member | Skipped]]:
    """The members of an open tar, one after the other. Raises Refused."""
    n_members = 0
    try:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep them all
            n_members += 1
            if n_members > limits.max_archive_members:
                raise Refused(
                    "zip bomb",
                    Detail(
                        "more than {most:,} members: unpack it yourself if you trust it",
                        most=limits.max_archive_members,
                    ),
                )
            if info.isdir():
                continue
            reason = _reason(info.name)
            if info.issym() or info.islnk():
                reason = "link"
            elif not info.isreg():
                reason = "not a file"
            elif info.issparse():
                reason = "sparse file"
            yield info, _member(source, info.name, reason, info.offset_data, info.size, None)
    except BROKEN_ARCHIVE as error:
        raise Refused(
            "broken archive", "a damaged tar file, or one that ends too early: fetch or pack it again"
        ) from error


class BoundedTarInfo(tarfile.TarInfo):
    """A header whose extension (long names, pax) is of sane size: tarfile would read gigabytes of it into memory.

    Nor is a file that simply stops taken for a whole archive, as tarfile does.
    """

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError("no end of the archive") from error

    def _proc_member(self, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:
        extended = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, *tarfile.GNU_TYPES)
        if self.type in extended and self.type != tarfile.GNUTYPE_SPARSE and self.size > _EXTENDED_HEADER_BYTES:
            raise tarfile.ReadError("header too large")
        return super()._proc_member(tarfile_)  # type: ignore[misc, no-any-return]


class Guarded:
    """The stream of a library, whose errors mean that the archive is damaged."""

    def __init__(self, stream: Readable) -> None:
        self.stream = stream

    def read(self, n_bytes: int = -1, /) -> bytes:
        try:
            return self.stream.read(n_bytes)
        except (*BROKEN_ARCHIVE, zlib.error, lzma.LZMAError) as error:
            raise Refused(
                "broken archive", "the archive is damaged, or ends inside this member: fetch or pack it again"
            ) from error


class Checked:
    """A member's bytes, held to the size and (zip) checksum that the archive names."""

    def __init__(self, stream: Readable, n_bytes: int, checksum: int | None = None) -> None:
        self.stream = Limited(stream, n_bytes)
        self.checksum = checksum
        self.found = 0

    def read(self, n_bytes: int = -1, /) -> bytes:
        data = self.stream.read(n_bytes)
        self.found = zlib.crc32(data, self.found)
        ended = self.stream.left == 0 or (not data and n_bytes != 0)
        if ended and (self.stream.left or (self.checksum is not None and self.found != self.checksum)):
            raise Refused("broken archive", "a member's size or checksum is wrong: fetch or pack the archive again")
        return data


def _member(source: str, name: str, reason: str, start: int, n_bytes: int, checksum: int | None) -> Member | Skipped:
    label = shown(name)
    if reason:
        return Skipped(f"{source}!/{label}", "", reason, WHAT_TO_DO[reason])
    if n_bytes == 0:
        return Skipped(f"{source}!/{label}", "", "empty")
    try:
        format, compression = format_of(PurePosixPath(name).name)
    except Refused as refused:
        return Skipped(f"{source}!/{label}", "", refused.reason, refused.detail)
    return Member(label, format, compression, start, n_bytes, checksum)  # type: ignore[arg-type]


def _reason(name: str) -> str:
    """Why a member of that name is not read; '' if nothing is wrong with it."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or (len(parts[0]) == 2 and parts[0][1] == ":"):
        return "unsafe name"
    if any(part.startswith(".") and part != "." for part in parts) or parts[0] == "__MACOSX":
        return "hidden"
    return ""


def _zip_name(info: zipfile.ZipInfo) -> str:
    """A name without the UTF-8 flag was decoded as cp437 by zipfile: most are UTF-8 or, from Chinese Windows, GB18030."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        raw = info.filename.encode("cp437")
    except UnicodeEncodeError:
        return info.filename
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return info.filename


def _refuse_bomb(infos: list[zipfile.ZipInfo], n_bytes: int, limits: Limits) -> None:
    if len(infos) > limits.max_archive_members:
        raise Refused(
            "zip bomb",
            Detail("more than {most:,} members: unpack it yourself if you trust it", most=limits.max_archive_members),
        )
    total = sum(info.file_size for info in infos)
    if total > limits.max_archive_bytes or (total > limits.judged_bytes and total > limits.max_archive_ratio * n_bytes):
        detail = Detail(
            "unpacks to {total:,} bytes from {packed:,}: unpack it yourself if you trust it",
            total=total,
            packed=n_bytes,
        )
        raise Refused("zip bomb", detail)
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:  # D. Fifield, "A better zip bomb" (2019): all members share one piece of data
            raise Refused("zip bomb", "its members overlap")
        end = info.header_offset + _LOCAL_HEADER.size + info.compress_size
