"""Rows of JSON: lines of jsonl, elements of a JSON array of any length, or one object; each parsed on its own.

orjson parses; what it refuses gets a second, more patient reading (NaN as in pandas' files, lone surrogates, other encodings).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from chatwright.text.readers.columns import NUMBERING, has_text, listed
from chatwright.text.readers.conversations import holds_rows
from chatwright.text.readers.encoding import TextDecoder, is_binary
from chatwright.text.readers.piece import Piece
from chatwright.text.readers.unit import Refused, Skipped
from chatwright.text.reasons import Detail

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Under these names an object holds its rows; under the others too, but not one of them alone: `test` may be a field of a row.
_ROWS = ("data", "rows", "examples", "train", "items", "records")
_OTHER_SPLITS = ("validation", "valid", "val", "dev", "test")
# A string, or the beginning of one; or a bracket.
_QUOTE, _OPEN_LIST, _OPENING = ord('"'), ord("["), b"[{"
_TOKEN = re.compile(rb'"(?:[^"\\]+|\\.)*+("?)|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Row:
    """One value, where it was, and how its bytes were decoded."""

    value: Any
    where: str
    encoding: str = "utf-8"
    n_undecodable: int = 0


def read_jsonl_rows(piece: Piece) -> Iterator[Row | Skipped]:
    """A row a line; a bad one is Skipped by its line."""
    if is_binary(piece.head):
        raise Refused("binary")
    decoder = piece.decoder()
    n_lines = 0
    for number, line in piece.lines():
        n_lines += 1
        yield _row(piece, decoder, line, f"line {number}")
    if n_lines == 0:
        yield Skipped(piece.source, "", "empty")


def read_json_rows(piece: Piece) -> Iterator[Row | Skipped]:
    """The elements of an array, or of the arrays of rows inside an object ("data", "train", …), or the object itself."""
    if is_binary(piece.head):
        raise Refused("binary")
    if looks_like_jsonl(piece.head):
        yield from read_jsonl_rows(piece)
        return
    decoder = piece.decoder()
    start = piece.head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if piece.encoding or not start.startswith(b"["):
        yield from _whole(piece, decoder)
        return
    number = 0
    for element in _elements(piece):
        number += 1
        yield _row(piece, decoder, element, f"row {number}")
    if number == 0:
        yield Skipped(piece.source, "", "empty")


def looks_like_jsonl(head: bytes) -> bool:
    """Whether the first line is a JSON value of its own, and another follows it."""
    first, newline, rest = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")
    if not newline or not rest.strip() or not first.startswith((b"{", b"[")):
        return False
    try:
        orjson.loads(first)
    except orjson.JSONDecodeError:
        return False
    return True


def parse_json(data: bytes, decoder: TextDecoder) -> tuple[Any, str, int]:
    """(value, encoding, number of undecodable characters). Raises Refused with a sentence for what is no JSON."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _parse_patiently(data, decoder)
    if type(value) is dict and any(data.count(b'"%b"' % key.encode()) > 1 for key in value):
        _refuse_duplicate_keys(data)
    return value, "utf-8", 0


def _parse_patiently(data: bytes, decoder: TextDecoder) -> tuple[Any, str, int]:
    decoded = decoder.decode(data)
    try:
        value = json.loads(decoded.text, parse_constant=lambda _name: None, object_pairs_hook=_unique)
        # A lone surrogate is half a character: nothing can encode it.
        text = json.dumps(value, ensure_ascii=False)
        n_lone = len(_LONE_SURROGATE.findall(text))
        if n_lone:
            value = json.loads(_LONE_SURROGATE.sub("\ufffd", text))
    except RecursionError:
        raise Refused("bad row", "nested too deeply") from None
    except json.JSONDecodeError as error:
        problem = Detail("{what}: column {column}", what=Detail(error.msg), column=error.pos + 1)
        raise Refused("bad row", Detail("no JSON: {error}", error=problem)) from None
    except ValueError as error:
        raise Refused("bad row", Detail("no JSON: {error}", error=str(error).splitlines()[0][:200])) from None
    return value, decoded.encoding, decoded.n_undecodable + n_lone


def _refuse_duplicate_keys(data: bytes) -> None:
    try:
        json.loads(data, object_pairs_hook=_unique)
    except RecursionError:
        raise Refused("bad row", "nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _value in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Refused("bad row", Detail("the key {key!r} twice in one object", key=twice[:40]))
    return value


def _row(piece: Piece, decoder: TextDecoder, data: bytes | None, where: str) -> Row | Skipped:
    if data is None:
        return Skipped(
            piece.source, where, "too long", Detail("longer than {most:,} bytes", most=piece.limits.max_line_bytes)
        )
    try:
        value, encoding, n_undecodable = parse_json(data, decoder)
    except Refused as refused:
        return Skipped(piece.source, where, refused.reason, refused.detail)
    return Row(value, where, piece.encoding or encoding, n_undecodable)


def _elements(piece: Piece) -> Iterator[bytes | None]:
    """The elements of the array that the stream is, as bytes, in flat memory; None for one above `max_line_bytes`.

    Raises Refused where the array ends before its end.
    """
    limit = piece.limits.max_line_bytes
    buffer = bytearray()
    depth = 0
    at = 0  # everything before is scanned
    begin = 0  # of the element, or of what lies between two elements
    dropping = False
    for block in piece.blocks():
        buffer += block
        for token in _TOKEN.finditer(buffer, at):
            kind = buffer[token.start()]
            if kind == _QUOTE and not token[1]:
                at = token.start()  # the string goes on in the next block
                break
            at = token.end()
            if depth == 0:
                if kind != _OPEN_LIST:
                    raise Refused("bad json", "something follows the end of the array")
                depth, begin = 1, at
                continue
            if depth == 1:
                for between in bytes(buffer[begin : token.start()]).split(b","):
                    if between and not between.isspace():
                        yield between.strip()  # a number, null, or rubbish: the caller says so
                begin = token.start()
            if kind == _QUOTE:
                complete = depth == 1
            elif kind in _OPENING:
                depth += 1
                complete = False
            else:
                depth -= 1
                complete = depth == 1
            if complete:
                yield None if dropping or at - begin > limit else bytes(buffer[begin:at])
                begin, dropping = at, False
            elif depth == 0:
                begin = at
        else:
            at = len(buffer)
        if depth > 0 and len(buffer) - begin > limit:
            dropping = True
            in_string = at < len(buffer)
            n_backslashes = len(buffer) - len(bytes(buffer).rstrip(b"\\"))
            del buffer[:]
            if in_string:
                buffer += b'"\\' if n_backslashes % 2 else b'"'
            at = begin = 0
        else:
            del buffer[:begin]
            at -= begin
            begin = 0
    if depth > 0:
        raise Refused("bad json", "the file ends inside an array: it is cut off")


def _whole(piece: Piece, decoder: TextDecoder) -> Iterator[Row | Skipped]:
    data = piece.whole()
    if not data.strip(b"\xef\xbb\xbf \t\r\n"):
        yield Skipped(piece.source, "", "empty")
        return
    try:
        value, encoding, n_undecodable = parse_json(data.removeprefix(b"\xef\xbb\xbf"), decoder)
    except Refused as refused:
        raise Refused("bad json", refused.detail) from None
    encoding = piece.encoding or encoding
    lists = _inner_rows(value)
    if not lists:
        yield Row(value, "", encoding, n_undecodable)
        return
    for name, rows in lists.items():
        for number, row in enumerate(rows, 1):
            where = f"{name}, row {number}" if len(lists) > 1 else f"row {number}"
            yield Row(row, where, encoding, n_undecodable)
            n_undecodable = 0
    if isinstance(value, dict):
        beside = [key for key in value if key not in lists and key.lower() not in NUMBERING and has_text(value[key])]
        if beside:
            detail = Detail("fields that are not read: {names}", names=listed(beside))
            yield Skipped(piece.source, "", "left out", detail)


def _inner_rows(value: Any) -> dict[str, list[Any]]:
    """The rows of {"train": [row, …], "test": [row, …], …} by name; empty where the value is itself the row."""
    if isinstance(value, list):
        return {"": value}
    if not isinstance(value, dict):
        return {}
    # ShareGPT's rows have their turns under this name; some files have all their rows there.
    conversations = value.get("conversations")
    if isinstance(conversations, list) and holds_rows(conversations):
        return {"conversations": conversations}
    lists = {
        key: inner
        for key in (*_ROWS, *_OTHER_SPLITS)
        if isinstance(inner := value.get(key), list) and inner and isinstance(inner[0], dict | list | str)
    }
    return lists if len(lists) > 1 or not lists.keys().isdisjoint(_ROWS) else {}
