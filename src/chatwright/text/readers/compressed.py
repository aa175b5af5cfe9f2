"""Decompressing a stream forward, in flat memory, and not for ever: what grows beyond all measure is a bomb."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Any

from chatwright.text.readers.piece import Readable
from chatwright.text.readers.unit import Limits, Refused
from chatwright.text.reasons import Detail

_INPUT_BYTES = 64 << 10
_OUTPUT_BYTES = 1 << 20
_LZMA_BYTES = 256 << 20  # xz -9 needs 65 MB to read; a header may ask for 4 GB
_BROKEN = "the compressed data is damaged: fetch or pack the file again"


class Decompressed:
    """A stream unpacked: "gz", "bz2", "xz", "zst", or "deflate" (inside zip). Several streams in a row are one.

    Raises Refused on damage and on bombs, and again at every later read.
    """

    def __init__(self, stream: Readable, compression: str, limits: Limits) -> None:
        self.stream = stream
        self.compression = compression
        self.limits = limits
        self.n_in = 0
        self.n_out = 0
        self._rest = b""
        self._decompressor: Any = None
        self._refused: Refused | None = None
        self._ended = False

    def read(self, n_bytes: int = -1, /) -> bytes:
        """At most `n_bytes` (all with -1), b"" at the end."""
        if self._refused is not None:
            raise self._refused
        if n_bytes < 0:
            return b"".join(iter(lambda: self.read(_OUTPUT_BYTES), b""))
        try:
            data = b"" if self._ended or n_bytes == 0 else self._next(min(n_bytes, _OUTPUT_BYTES))
            self.n_out += len(data)
            self._judge()
        except Refused as refused:
            self._refused = refused
            raise
        return data

    def _judge(self) -> None:
        if self.n_out > self.limits.max_archive_bytes or (
            self.n_out > self.limits.judged_bytes and self.n_out > self.limits.max_archive_ratio * self.n_in
        ):
            detail = Detail(
                "unpacks to more than {most} times its size: unpack it yourself if you trust it",
                most=self.limits.max_archive_ratio,
            )
            raise Refused("zip bomb", detail)

    def _next(self, n_bytes: int) -> bytes:
        if self.compression == "zst":
            return self._next_zst(n_bytes)
        while True:
            if self._decompressor is None:
                if not self._begin():
                    self._ended = True
                    return b""
                self._decompressor = _decompressor(self.compression)
            fresh = b""
            if not self._rest and getattr(self._decompressor, "needs_input", True):
                fresh = self._fill()
            try:
                data: bytes = self._decompressor.decompress(self._rest, n_bytes)
            except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError) as error:
                raise Refused("broken archive", _BROKEN) from error
            before, self._rest = self._rest, getattr(self._decompressor, "unconsumed_tail", b"")
            if self._decompressor.eof:
                self._rest = self._decompressor.unused_data
                self._decompressor = None
                if self.compression == "deflate":
                    self._ended = True
                    return data
            elif not data and not before and not fresh:
                raise Refused("broken archive", "the compressed data ends too early: fetch the file again")
            if data:
                return data

    def _begin(self) -> bool:
        """Whether another stream begins here; padding and rubbish behind the last one are none."""
        if not self._rest:
            self._fill()
        if self.n_out == 0 and self.n_in == len(self._rest):
            return bool(self._rest)
        self._rest = self._rest.lstrip(b"\0")
        magic = {"gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ"}.get(self.compression, b"\0")
        return self._rest.startswith(magic)

    def _fill(self) -> bytes:
        self._rest = self.stream.read(_INPUT_BYTES)
        self.n_in += len(self._rest)
        return self._rest

    def _next_zst(self, n_bytes: int) -> bytes:
        import pyarrow

        if self._decompressor is None:
            self._decompressor = pyarrow.CompressedInputStream(pyarrow.PythonFile(_Counted(self), mode="r"), "zstd")
        try:
            return bytes(self._decompressor.read(n_bytes))
        except (OSError, pyarrow.ArrowException) as error:
            raise Refused("broken archive", _BROKEN) from error


class _Counted:
    """The packed bytes for pyarrow, which asks for a Python file."""

    closed = False

    def __init__(self, owner: Decompressed) -> None:
        self.owner = owner

    def read(self, n_bytes: int = -1) -> bytes:
        data = self.owner.stream.read(n_bytes)
        self.owner.n_in += len(data)
        return data

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """The stream belongs to its owner."""


def _decompressor(compression: str) -> Any:
    if compression == "gz":
        return zlib.decompressobj(wbits=31)
    if compression == "deflate":
        return zlib.decompressobj(wbits=-15)
    if compression == "bz2":
        return bz2.BZ2Decompressor()
    return lzma.LZMADecompressor(memlimit=_LZMA_BYTES)
