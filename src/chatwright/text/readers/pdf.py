"""PDF: the text of all pages (pypdf), without the lines that every page repeats, and with its paragraphs joined again."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Container, Iterator
from typing import Any

from chatwright.text.characters import is_cjk
from chatwright.text.readers.failures import PARSER_FAILURES, broken
from chatwright.text.readers.piece import Piece
from chatwright.text.readers.time_limit import time_limit
from chatwright.text.readers.unit import Record, Refused, Skipped
from chatwright.text.reasons import Detail

_EDGE_LINES = 3  # headers and footers are looked for in so many lines at the top and bottom of a page
_NUMBER = re.compile(r"\d+|(?<![A-Za-z])[ivxlc]{1,6}(?![A-Za-z])", re.IGNORECASE)
_ENDS = tuple(".!?:;。！？：；…”’\"'」』)）")
_LIST_ITEM = re.compile(r"\s*(?:[-*•·▪◦‣]|\(?\d{1,3}[.)、]|[（(]?[一二三四五六七八九十]{1,3}[）)、.])\s*")


def read_pdf(piece: Piece) -> Iterator[Record | Skipped]:
    """One document, and a Skipped for each page that is a picture. Raises Refused."""
    import pypdf
    from pypdf.errors import DependencyError, PyPdfError

    # Its warnings about damaged files go to stderr, amid the progress bar; what is lost is said here.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        file = piece.seekable()
        with time_limit(file.seek(0, 2)):
            reader = pypdf.PdfReader(file, strict=False)
            if reader.is_encrypted and not reader.decrypt(""):
                raise Refused("encrypted pdf", "it opens with a password only: save a copy without one")
            pages, pictures = _pages(reader)
    except DependencyError as error:
        raise Refused(
            "encrypted pdf", "it is encrypted in a way that is not read here: save a copy without a password"
        ) from error
    except PyPdfError as error:
        raise Refused("broken pdf", broken(error)) from error
    except PARSER_FAILURES as error:
        raise Refused("broken pdf", broken(error)) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise Refused("broken pdf", broken(error)) from error
    if not any(page.strip() for page in pages):
        if pictures:
            raise Refused("scanned pdf", "its pages are pictures: run text recognition (OCR) over it first")
        raise Refused("empty", "its pages hold no text")
    for number in pictures:
        yield Skipped(piece.source, f"page {number}", "scanned page", "a picture without text")
    repeated = repeated_lines(pages)
    for line in repeated.values():
        yield Skipped(
            piece.source, "", "repeated line", Detail("on top or at the bottom of most pages: {line}", line=line[:100])
        )
    stripped = [strip_edges(page, repeated) for page in pages]
    full = full_width(stripped)
    text = "\n\n".join(filter(None, (join_lines(page, full) for page in stripped)))
    yield Record("documents", {"text": text}, "", f"pdf, {len(pages)} pages" if len(pages) != 1 else "pdf, 1 page")


def _pages(reader: Any) -> tuple[list[str], list[int]]:
    """The text of every page, and the numbers of those that only show a picture."""
    texts: list[str] = []
    pictures: list[int] = []
    for number, page in enumerate(reader.pages, 1):
        text = page.extract_text() or ""
        texts.append(text.encode("utf-8", "replace").decode())
        if len(text.strip()) < 3 and _shows_picture(page):
            pictures.append(number)
            texts[-1] = ""
    return texts, pictures


def _shows_picture(page: Any) -> bool:
    resources = page.get("/Resources")
    objects = resources.get_object().get("/XObject") if resources is not None else None
    if objects is None:
        return False
    return any(entry.get_object().get("/Subtype") == "/Image" for entry in objects.get_object().values())


def repeated_lines(pages: list[str]) -> dict[str, str]:
    """Pattern → line, of the lines at the edges of pages that many share but for a number: headers, footers, page numbers."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    n_pages = 0
    for page in pages:
        lines = [line.strip() for line in page.split("\n") if line.strip()]
        n_pages += bool(lines)
        edges = {_pattern(line): line for line in (*lines[:_EDGE_LINES], *lines[-_EDGE_LINES:])}
        counts.update(edges.keys())
        for pattern, line in edges.items():
            examples.setdefault(pattern, line)
    # Left and right pages may have headers of their own, so that each stands on half of the pages.
    return {pattern: examples[pattern] for pattern, n in counts.items() if n >= 3 and n >= 0.4 * n_pages}


def strip_edges(page: str, repeated: Container[str]) -> str:
    """The page without such lines, from its top down and from its bottom up to the first other one."""
    lines = [line.rstrip() for line in page.split("\n")]
    filled = [at for at, line in enumerate(lines) if line.strip()]
    start, end = 0, len(lines)
    for at in filled[:_EDGE_LINES]:
        if _pattern(lines[at]) not in repeated:
            break
        start = at + 1
    for at in reversed(filled[-_EDGE_LINES:]):
        if at < start or _pattern(lines[at]) not in repeated:
            break
        end = at
    return "\n".join(lines[start:end])


def full_width(pages: list[str]) -> float:
    """From which width on a line is full, so that its paragraph may go on in the next; infinite for very short texts."""
    widths = sorted(_width(line) for page in pages for line in page.split("\n") if line.strip())
    return max(20.0, 0.8 * widths[int(0.9 * (len(widths) - 1))]) if len(widths) > 2 else float("inf")


def join_lines(page: str, full: float) -> str:
    """Lines that were broken for the width of the page, joined to paragraphs. `full`: see `full_width`."""
    joined: list[str] = []
    goes_on = False
    for line in page.split("\n"):
        stripped = line.strip()
        if goes_on and stripped and not _LIST_ITEM.match(stripped):
            joined[-1] = _join(joined[-1], stripped)
        else:
            joined.append(stripped)
        width = _width(stripped)
        goes_on = width >= full and (not stripped.endswith(_ENDS) or width > 60)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(joined)).strip()


def _join(before: str, after: str) -> str:
    if before.endswith("-") and len(before) > 1 and before[-2].islower() and after[:1].islower():
        return before[:-1] + after
    if is_cjk(before[-1:]) or is_cjk(after[:1]):
        return before + after
    return f"{before} {after}"


def _pattern(line: str) -> str:
    return _NUMBER.sub("#", " ".join(line.split()))


def _width(line: str) -> int:
    return sum(2 if is_cjk(char) else 1 for char in line.strip())
