"""HTML: the text of a page without navigation, scripts and footers (trafilatura); all its text where nothing else is found."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator

from chatwright.text.readers.encoding import is_binary
from chatwright.text.readers.failures import PARSER_FAILURES, first_line
from chatwright.text.readers.piece import Piece
from chatwright.text.readers.time_limit import time_limit
from chatwright.text.readers.unit import Record, Refused, Skipped
from chatwright.text.reasons import Detail

_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{1,40})""", re.IGNORECASE)
_UNSEEN = (
    "script",
    "style",
    "noscript",
    "template",
    "svg",
    "math",
    "iframe",
    "object",
    "head",
    "nav",
    "form",
    "button",
    "select",
)
_BLOCKS = {
    "address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption", "figure", "footer", "h1", "h2", "h3",
    "h4", "h5", "h6", "header", "hr", "li", "main", "ol", "p", "pre", "section", "table", "td", "th", "tr", "ul", "title", "body",
}  # fmt: skip
# Less than this share of a page's text is no main text: an index, say, which trafilatura takes for navigation.
_ENOUGH = 0.1


def read_html(piece: Piece) -> Iterator[Record | Skipped]:
    """One document, and a Skipped with the number of characters beside its main text. Raises Refused."""
    if is_binary(piece.head):
        raise Refused("binary")
    markup, encoding, n_undecodable = _decode(piece, piece.whole())
    if not markup.strip():
        yield Skipped(piece.source, "", "empty")
        return
    try:
        with time_limit(len(markup)):
            everything = plain_text(markup)
            main = main_text(markup)
    except PARSER_FAILURES as error:
        raise Refused("broken html", first_line(error)) from error
    is_main = len(main) >= _ENOUGH * len(everything)
    text = main if is_main and main else everything
    if not text.strip():
        yield Skipped(piece.source, "", "empty", "the page has no text")
        return
    n_left_out = _n_missing(everything, text)
    if n_left_out:
        yield Skipped(
            piece.source,
            "",
            "left out",
            Detail(
                "{n} of the {total} characters of the page, which stand outside of its main text",
                n=f"{n_left_out:,}",
                total=f"{_n_missing(everything, ''):,}",
            ),
        )
    detected = "html, main text" if text is main else "html, all text"
    yield Record("documents", {"text": text}, "", detected, "html", encoding, n_undecodable)


def _n_missing(everything: str, kept: str) -> int:
    """How many characters that are no blanks `kept` has less: by their counts, because the two break lines differently."""
    return sum((Counter("".join(everything.split())) - Counter("".join(kept.split()))).values())


def main_text(markup: str) -> str:
    """The page's main text as trafilatura finds it; '' where it finds none."""
    import trafilatura

    # It logs every page that it finds nothing on to stderr, amid the progress bar.
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    try:
        text = trafilatura.extract(markup, include_comments=False, include_tables=True, favor_recall=True)
    except PARSER_FAILURES:
        return ""  # all of the page's text is taken instead
    return (text or "").strip()


def plain_text(markup: str) -> str:
    """All text that a reader of the page would see, a line a block."""
    from lxml import etree, html

    # Characters that XML forbids make lxml refuse the whole page.
    parser = html.HTMLParser(encoding="utf-8", huge_tree=False, remove_comments=True, remove_pis=True)
    try:
        root = html.document_fromstring(markup.encode("utf-8", "replace"), parser=parser)
    except etree.ParserError:
        return ""  # nothing but comments
    etree.strip_elements(root, *_UNSEEN, with_tail=False)
    parts: list[str] = []
    for event, element in etree.iterwalk(root, events=("start", "end")):
        if element.tag in _BLOCKS:
            parts.append("\n")
        text = element.text if event == "start" else element.tail if element is not root else None
        if text:
            keeps_lines = event == "start" and element.tag == "pre"
            parts.append(text if keeps_lines else re.sub(r"\s+", " ", text))
    lines = (line.strip() for line in "".join(parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _decode(piece: Piece, data: bytes) -> tuple[str, str, int]:
    """The page's text: by its BOM, as UTF-8, as what it declares, or as what its bytes make likely."""
    declared = _CHARSET.search(data[:4096])
    decoder = piece.decoder()
    if piece.encoding is None and declared and decoder.legacy is not None:
        name = declared[1].decode().lower()
        name = {"gb2312": "gb18030", "gbk": "gb18030", "iso-8859-1": "cp1252", "shift_jis": "cp932"}.get(name, name)
        try:
            return data.decode(name), name, 0
        except (LookupError, UnicodeError):
            pass
    decoded = decoder.decode(data)
    return decoded.text, piece.encoding or decoded.encoding, decoded.n_undecodable + piece.n_undecodable
