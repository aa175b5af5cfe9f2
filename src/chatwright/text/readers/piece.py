"""The bytes of one unit, opened: a forward stream, its first bytes, and what is known of it."""

from __future__ import annotations

import codecs
import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, Protocol

from chatwright.text.readers.encoding import SAMPLE_BYTES, TextDecoder, wide_encoding
from chatwright.text.readers.unit import Limits, Refused
from chatwright.text.reasons import Detail

BLOCK_BYTES = 1 << 20
SPOOLED_BYTES = 16 << 20


class Readable(Protocol):
    """A stream that can be read forward."""

    def read(self, n_bytes: int = -1, /) -> bytes: ...


@dataclass
class Piece:
    """One file, member or range, from its first byte on. `head`: the first bytes of the whole file, also for a range."""

    source: str
    format: str
    stream: Readable
    limits: Limits
    head: bytes = b""
    size_bytes: int | None = None
    start: int = 0
    end: int | None = None
    first_line: int = 1
    is_range: bool = False
    depth: int = 0  # how many archives and compressions lie around it
    n_undecodable: int = field(default=0, init=False)

    @cached_property
    def encoding(self) -> str | None:
        """UTF-16 or UTF-32; None for encodings in which a newline is one byte."""
        return wide_encoding(self.head)

    def decoder(self) -> TextDecoder:
        """For the bytes of `blocks`."""
        return TextDecoder(b"" if self.encoding else self.head[:SAMPLE_BYTES])

    def blocks(self) -> Iterator[bytes]:
        """All bytes, in blocks in which a newline is one byte: UTF-16 and UTF-32 are turned into UTF-8 here."""
        encoding = self.encoding
        if encoding is None:
            while block := self.stream.read(BLOCK_BYTES):
                yield block
            return
        decoder = codecs.getincrementaldecoder(encoding)("replace")
        while block := self.stream.read(BLOCK_BYTES):
            text = decoder.decode(block)
            self.n_undecodable += text.count("\ufffd")
            yield _utf8(text)
        tail = decoder.decode(b"", final=True)
        self.n_undecodable += tail.count("\ufffd")
        yield _utf8(tail)

    def lines(self, blank: bool = False, end: bytes = b"\n") -> Iterator[tuple[int, bytes | None]]:
        """(number, line without its `end`); None for a line above `max_line_bytes`, of which nothing is held.

        Blank lines count, and come out with `blank` only.
        """
        number = self.first_line
        tail = b""
        too_long = False
        for block in self.blocks():
            lines = block.split(end)
            if len(lines) == 1:
                if too_long:
                    continue
                tail += block
                if len(tail) > self.limits.max_line_bytes:
                    too_long, tail = True, b""
                continue
            lines[0] = tail + lines[0]
            tail = lines.pop()
            for line in lines:
                if too_long or len(line) > self.limits.max_line_bytes:
                    yield number, None
                    too_long = False
                elif blank or (line and not line.isspace()):
                    yield number, line
                number += 1
        if too_long or len(tail) > self.limits.max_line_bytes:
            yield number, None
        elif tail and (blank or not tail.isspace()):
            yield number, tail

    def whole(self) -> bytes:
        """All bytes at once, UTF-16 and UTF-32 as UTF-8. Raises Refused above `max_file_bytes`."""
        parts: list[bytes] = []
        n_bytes = 0
        for block in self.blocks():
            n_bytes += len(block)
            if n_bytes > self.limits.max_file_bytes:
                raise self.too_large()
            parts.append(block)
        return b"".join(parts)

    def seekable(self, max_bytes: int | None = None) -> IO[bytes]:
        """A copy that can be read from anywhere: in memory when small, else in a nameless temporary file."""
        if isinstance(self.stream, io.BufferedReader | io.FileIO):
            return self.stream
        limit = max_bytes or self.limits.max_file_bytes
        copy = tempfile.SpooledTemporaryFile(SPOOLED_BYTES)  # noqa: SIM115 — closed with the last reference to it
        n_bytes = 0
        while block := self.stream.read(BLOCK_BYTES):
            n_bytes += len(block)
            if n_bytes > limit:
                raise self.too_large()
            copy.write(block)
        copy.seek(0)
        return copy

    def too_large(self) -> Refused:
        """For formats that are read whole."""
        return Refused(
            "too large",
            Detail(
                "{format} files are read up to {most:,} bytes: split this one",
                format=self.format,
                most=self.limits.max_file_bytes,
            ),
        )


def with_head(stream: Readable) -> tuple[bytes, Readable]:
    """The first bytes of a stream, and the stream, still from its beginning."""
    parts: list[bytes] = []
    n_bytes = 0
    while n_bytes < SAMPLE_BYTES and (block := stream.read(SAMPLE_BYTES - n_bytes)):
        parts.append(block)
        n_bytes += len(block)
    head = b"".join(parts)
    return head, _Again(head, stream)


class _Again:
    """A stream whose first bytes were already read."""

    def __init__(self, head: bytes, stream: Readable) -> None:
        self.head = head
        self.stream = stream

    def read(self, n_bytes: int = -1, /) -> bytes:
        if not self.head:
            return self.stream.read(n_bytes)
        if n_bytes < 0:
            data, self.head = self.head, b""
            return data + self.stream.read()
        data, self.head = self.head[:n_bytes], self.head[n_bytes:]
        return data


class Limited:
    """The next `n_bytes` of a stream."""

    def __init__(self, stream: Readable, n_bytes: int) -> None:
        self.stream = stream
        self.left = n_bytes

    def read(self, n_bytes: int = -1, /) -> bytes:
        data = self.stream.read(self.left if n_bytes < 0 else min(n_bytes, self.left)) if self.left else b""
        self.left -= len(data)
        return data


def _utf8(text: str) -> bytes:
    return text.removeprefix("\ufeff").encode("utf-8", "replace")
