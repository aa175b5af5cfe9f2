"""Plain text: one document a file; long ones in parts, cut where a paragraph, a line or at least a character ends."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from chatwright.text.readers.encoding import TextDecoder, is_binary
from chatwright.text.readers.piece import Piece
from chatwright.text.readers.unit import Record, Refused, Skipped

# Corpora such as TinyStories and OpenWebText put this between the documents of one file.
SEPARATOR = b"<|endoftext|>"


def read_plain(piece: Piece) -> Iterator[Record | Skipped]:
    """Records of kind "documents". Raises Refused for a file that is no text."""
    if is_binary(piece.head):
        raise Refused("binary")
    decoder = piece.decoder()
    separated = SEPARATOR in piece.head
    prefix = f"from byte {piece.start}, " if piece.is_range else ""
    number = 0
    pending: tuple[str, bytes] | None = None  # the first part has a number only once there is a second
    for data in _documents(piece, decoder, separated):
        number += 1
        if number == 1:
            pending = (prefix.removesuffix(", "), data)
            continue
        name = "document" if separated else "part"
        if pending is not None:
            yield from _record(piece, decoder, pending[1], f"{prefix}{name} 1")
            pending = None
        yield from _record(piece, decoder, data, f"{prefix}{name} {number}")
    if pending is not None:
        yield from _record(piece, decoder, pending[1], pending[0])
    elif number == 0:
        yield Skipped(piece.source, "", "empty")


def cut_text(text: str, max_bytes: int) -> Iterator[str]:
    """A text in parts of at most `max_bytes` of UTF-8; one part when it fits."""
    if len(text) * 4 <= max_bytes:
        yield text
        return
    data = text.encode("utf-8", "replace")
    start = 0
    while len(data) - start > max_bytes:
        end = start + cut(data[start : start + max_bytes])
        yield data[start:end].decode()
        start = end
    yield data[start:].decode()


def cut(window: bytes, legacy: str | None = None) -> int:
    """Where to end a part that may be as long as `window`: after a paragraph, line, sentence or word, else a character.

    `legacy`: the encoding where it is not UTF-8; all of them keep bytes below 0x30 to themselves.
    """
    marks = (b"\n\n", b"\n", "。".encode(), b". ", b" ") if legacy is None else (b"\n\n", b"\n", b". ", b" ")
    for mark in marks:
        at = window.rfind(mark, len(window) // 2)
        if at >= 0:
            return at + len(mark)
    decoder = codecs.getincrementaldecoder(legacy or "utf-8")("replace")
    decoder.decode(window)
    return len(window) - len(decoder.getstate()[0])


def _record(piece: Piece, decoder: TextDecoder, data: bytes, where: str) -> Iterator[Record | Skipped]:
    decoded = decoder.decode(data)
    if not decoded.text.strip():
        yield Skipped(piece.source, where, "empty")
        return
    n_undecodable = decoded.n_undecodable + piece.n_undecodable
    piece.n_undecodable = 0
    yield Record(
        "documents",
        {"text": decoded.text},
        where,
        "plain text",
        encoding=piece.encoding or decoded.encoding,
        n_undecodable=n_undecodable,
    )


def _documents(piece: Piece, decoder: TextDecoder, separated: bool) -> Iterator[bytes]:
    """The documents of the stream, each at most `max_document_bytes` long."""
    max_bytes = piece.limits.max_document_bytes
    buffer = bytearray()
    for block in piece.blocks():
        buffer += block
        start = 0
        if separated:
            while (end := buffer.find(SEPARATOR, start)) >= 0:
                yield from _parts(bytes(buffer[start:end]), max_bytes, decoder)
                start = end + len(SEPARATOR)
        while len(buffer) - start > max_bytes + len(SEPARATOR):
            end = start + cut(bytes(buffer[start : start + max_bytes]), decoder.legacy)
            yield bytes(buffer[start:end])
            start = end
        del buffer[:start]
    yield from _parts(bytes(buffer), max_bytes, decoder)


def _parts(data: bytes, max_bytes: int, decoder: TextDecoder) -> Iterator[bytes]:
    while len(data) > max_bytes:
        end = cut(data[:max_bytes], decoder.legacy)
        yield data[:end]
        data = data[end:]
    if data and not data.isspace():
        yield data
