"""Reading multipart/form-data as it arrives: small fields into memory, the one file piece by piece to its reader, never whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from chatwright.server.errors import WireError

MAX_PARTS = 32
MAX_FIELD_BYTES = 8 * 1024
# What a form may have around its file: boundaries, headers and all fields.
FORM_BYTES = MAX_PARTS * (MAX_FIELD_BYTES + 1024)


@dataclass
class Form:
    """What came: the fields, and whether the file did. `filename`: what the client calls it."""

    fields: dict[str, str] = field(default_factory=dict)
    has_file: bool = False
    filename: str | None = None


async def read_form(request: Request, file_field: str, sink: Callable[[bytes], Awaitable[None]]) -> Form:
    """Read the body, passing the content of the field `file_field` to `sink` piece by piece.

    Raises WireError (400, 415), ClientDisconnect, and what `sink` raises.
    """
    reader = _Reader(file_field)
    try:
        parser = MultipartParser(
            boundary_of(request),
            {
                "on_part_begin": reader.begin_part,
                "on_part_data": reader.read_part,
                "on_part_end": reader.end_part,
                "on_header_field": reader.read_header_name,
                "on_header_value": reader.read_header_value,
                "on_header_end": reader.end_header,
                "on_headers_finished": reader.end_headers,
                "on_end": reader.end,
            },
        )
        async for chunk in request.stream():
            if chunk and not reader.is_complete:
                parser.write(chunk)
                for piece in reader.take():
                    await sink(piece)
    except FormParserError as error:
        raise WireError(400, "The request body is not valid multipart/form-data.", code="invalid_form") from error
    if not reader.is_complete:
        raise WireError(400, "The form ends in the middle: its closing boundary is missing.", code="invalid_form")
    if not reader.form.has_file:
        raise WireError(
            400, f"The form has no field {file_field!r} with a file.", param=file_field, code="missing_file"
        )
    return reader.form


def boundary_of(request: Request) -> bytes:
    """What separates the parts. Raises WireError (415)."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        shown = kind.decode("latin-1")[:100] or "missing"
        raise WireError(415, f"Content-Type must be multipart/form-data with a boundary, not {shown!r}.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise WireError(415, "A form with a Content-Encoding is not supported. Send the body uncompressed.")
    return options[b"boundary"]


class _Reader:
    """The parser's callbacks. Headers and their number are bounded by the parser."""

    def __init__(self, file_field: str) -> None:
        self.form = Form()
        self.is_complete = False
        self._file_field = file_field
        self._n_parts = 0
        self._in_file = False
        self._name = ""
        self._header_name, self._header_value, self._disposition = b"", b"", b""
        self._field = bytearray()
        self._pieces: list[bytes] = []

    def take(self) -> list[bytes]:
        """Pieces of the file since the last time."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def begin_part(self) -> None:
        self._n_parts += 1
        if self._n_parts > MAX_PARTS:
            raise WireError(400, f"The form has more than {MAX_PARTS} parts.", code="invalid_form")
        self._header_name = self._header_value = self._disposition = b""
        self._field.clear()

    def read_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def read_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def end_headers(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise WireError(400, "A part of the form has no name in its Content-Disposition.", code="invalid_form")
        self._name = _text(options[b"name"])
        self._in_file = self._name == self._file_field
        if self._in_file:
            if self.form.has_file:
                raise WireError(400, f"The form has several fields {self._name!r}: send one file.", code="invalid_form")
            self.form.has_file = True
            self.form.filename = _text(options[b"filename"]) if b"filename" in options else None

    def read_part(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._pieces.append(data[start:end])
            return
        if len(self._field) + end - start > MAX_FIELD_BYTES:
            raise WireError(
                400, f"A field of the form is longer than {MAX_FIELD_BYTES // 1024} KiB.", code="invalid_form"
            )
        self._field += data[start:end]

    def end_part(self) -> None:
        if not self._in_file:
            self.form.fields[self._name] = _text(bytes(self._field))

    def end(self) -> None:
        self.is_complete = True


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise WireError(400, "The names and fields of the form must be UTF-8.", code="invalid_form") from None
