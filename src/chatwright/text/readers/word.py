"""Word documents (docx): paragraphs, lists, tables, formulas, text boxes and notes in their order; deleted text stays deleted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from chatwright.text.readers.failures import PARSER_FAILURES, broken
from chatwright.text.readers.formula import MATH, in_a_line
from chatwright.text.readers.members import zip_members
from chatwright.text.readers.piece import Piece
from chatwright.text.readers.time_limit import time_limit
from chatwright.text.readers.unit import Record, Refused, Skipped
from chatwright.text.reasons import Detail

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_DELETED = frozenset({f"{_W}del", f"{_W}moveFrom", f"{_W}instrText", f"{_W}delText"})
_FORMULAS = frozenset({f"{MATH}oMathPara", f"{MATH}oMath"})
_NOTES = ("/word/footnotes.xml", "/word/endnotes.xml")
# What the font Symbol draws at its bytes 0x20 to 0x7E and 0xA0 to 0xFE (Unicode's VENDORS/ADOBE/symbol.txt; 0xF0 is a trade mark).
_SYMBOL = dict(
    zip(
        [*range(0x20, 0x7F), *range(0xA0, 0xF0), *range(0xF1, 0xFF)],
        " !∀#∃%&∋()∗+,−./0123456789:;<=>?≅ΑΒΧΔΕΦΓΗΙϑΚΛΜΝΟΠΘΡΣΤΥςΩΞΨΖ[∴]⊥_‾αβχδεφγηιϕκλμνοπθρστυϖωξψζ{|}∼"
        "€ϒ′≤⁄∞ƒ♣♦♥♠↔←↑→↓°±″≥×∝∂•÷≠≡≈…⏐⎯↵ℵℑℜ℘⊗⊕∅∩∪⊃⊇⊄⊂⊆∈∉∠∇®©™∏√⋅¬∧∨⇔⇐⇑⇒⇓◊⟨®©™∑⎛⎜⎝⎡⎢⎣⎧⎨⎩⎪⟩∫⌠⎮⌡⎞⎟⎠⎤⎥⎦⎫⎬⎭",
        strict=True,
    )
)
_BESIDE = re.compile(r"/word/(?:header|footer|comments)\d*\.xml")


def read_docx(piece: Piece) -> Iterator[Record | Skipped]:
    """One document, and a Skipped each for its headers, footers and comments, and for what is only drawn. Raises Refused."""
    if piece.head.startswith(_OLE):
        raise Refused("encrypted docx", "it is encrypted, or an old Word file: save it as docx without a password")
    file = piece.seekable()
    try:
        # A docx is a zip: the same caps hold.
        n_bytes = file.seek(0, 2)
        for _member in zip_members(file, n_bytes, piece.source, piece.limits):
            pass
        file.seek(0)
        with time_limit(n_bytes):
            paragraphs, beside, n_drawn = _paragraphs(file)
    except PARSER_FAILURES as error:
        raise Refused("broken docx", broken(error)) from error
    except Refused as refused:
        raise Refused("broken docx" if refused.reason == "broken archive" else refused.reason, refused.detail) from None
    if beside:
        yield Skipped(
            piece.source,
            "",
            "left out",
            Detail(
                "{n} characters of headers, footers and comments: {text}",
                n=f"{sum(map(len, beside)):,}",
                text=" / ".join(beside)[:100],
            ),
        )
    if n_drawn:
        detail = Detail("{n} symbols of fonts such as Wingdings, for which there is no character", n=f"{n_drawn:,}")
        yield Skipped(piece.source, "", "left out", detail)
    text = "\n".join(paragraphs).strip()
    if not text:
        yield Skipped(piece.source, "", "empty", "the document has no text")
        return
    yield Record("documents", {"text": text}, "", "docx")


def _paragraphs(file: Any) -> tuple[list[str], list[str], int]:
    """The paragraphs of the text and its notes; those of headers, footers and comments, without blank ones; and how many
    symbols of the text have no character."""
    import docx
    from docx.opc.exceptions import OpcError
    from lxml import etree

    try:
        part = docx.Document(file).part
    except OpcError as error:
        raise Refused("broken docx", broken(error)) from error
    paragraphs, beside = list(_blocks(part.element.body)), []
    n_drawn = _n_drawn(part.element.body)
    for related in part.package.iter_parts():
        name = str(related.partname)
        if name in _NOTES or _BESIDE.fullmatch(name):
            parser = etree.XMLParser(resolve_entities=False, no_network=True)
            root = etree.fromstring(related.blob, parser)
            found = _blocks(root)
            if name in _NOTES:
                paragraphs += found
                n_drawn += _n_drawn(root)
            else:
                beside += [line.strip() for line in found if line.strip()]
    return paragraphs, beside, n_drawn


def _blocks(element: Any) -> Iterator[str]:
    """The paragraphs and table rows in an element, in order."""
    for child in element:
        if child.tag == f"{_W}p":
            text, boxes = _paragraph(child)
            yield text
            for box in boxes:
                yield from _blocks(box)
        elif child.tag == f"{_W}tbl":
            yield from _rows(child)
        elif child.tag in _FORMULAS:
            yield _formula(child)
        elif isinstance(child.tag, str) and child.tag not in _DELETED:
            yield from _blocks(child)


def _rows(table: Any) -> Iterator[str]:
    for row in table.iter(f"{_W}tr"):
        if next(row.iterancestors(f"{_W}tbl")) is not table:
            continue  # of a table inside a cell, which is read with the cell
        cells = [" ".join(filter(None, (line.strip() for line in _blocks(cell)))) for cell in _cells(row)]
        if any(cells):
            yield "\t".join(cells)


def _cells(row: Any) -> Iterator[Any]:
    for child in row:
        if child.tag == f"{_W}tc":
            yield child
        elif child.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins"):
            yield from _cells(child)


def _paragraph(paragraph: Any) -> tuple[str, list[Any]]:
    """The text of a paragraph, and the text boxes that hang on it."""
    parts: list[str] = []
    boxes: list[Any] = []
    pending = [paragraph]
    while pending:
        element = pending.pop()
        tag = element.tag
        if tag in _DELETED or tag == _FALLBACK:  # old programs' copy of what is there already
            continue
        if tag == f"{_W}txbxContent":
            boxes.append(element)
        elif tag == f"{_W}t":
            parts.append(element.text or "")
        elif tag in _FORMULAS:
            parts.append(_formula(element))
        elif tag == f"{_W}sym":
            parts.append(_symbol(element) or "")
        elif tag == f"{_W}tab" and element.getparent().tag == f"{_W}r":
            parts.append("\t")
        elif tag in (f"{_W}br", f"{_W}cr"):
            parts.append("\n")
        elif tag == f"{_W}noBreakHyphen":
            parts.append("-")
        else:
            pending.extend(reversed(element))
    return "".join(parts), boxes


def _formula(element: Any) -> str:
    return in_a_line(element, texts=frozenset({f"{_W}t"}), without=_DELETED)


def _symbol(element: Any) -> str | None:
    """The character that a symbol stands for; None for the drawings of fonts such as Wingdings.

    Symbol fonts keep their bytes at U+F000, for private use.
    """
    try:
        code = int(element.get(f"{_W}char", ""), 16)
    except ValueError:
        return None
    if (element.get(f"{_W}font") or "").lower() == "symbol":
        return _SYMBOL.get(code & 0xFF) if code < 0x100 or 0xF000 <= code < 0xF100 else chr(code)
    private = 0xE000 <= code < 0xF900
    return chr(code) if code >= 0x20 and not private and not 0xD800 <= code < 0xE000 and code < 0x110000 else None


def _n_drawn(element: Any) -> int:
    return sum(_symbol(each) is None for each in element.iter(f"{_W}sym"))
