"""Text around the text: licence headers of source files, cookie notices, and lines that begin or end most documents of a folder.

Conservative: a document that consists of such text (a licence, an article about cookies) stays as it is.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

_MIN_DOCUMENTS = 8  # of one folder, before repeated lines are believed to be its frame
_MIN_SHARE = 0.5  # of these documents
_EDGE_LINES = 5
_MAX_LINE_CHARS = 300
_HAS_LETTER = re.compile(r"[^\W\d_]")

_COMMENT = re.compile(r"\s*(?:#|//|/\*|\*|;|--|%|<!--|\.\\\"|\"\"\"|rem\b)", re.IGNORECASE)
_COPYRIGHT = re.compile(r"copyright|©|\(c\)\s*\d{4}|SPDX-|版权", re.IGNORECASE)
_COPYRIGHT_SIGNS = ("copyright", "©", "(c)", "spdx-", "版权")  # ten times as fast to look for
_LICENCE = re.compile(
    r"licen[cs]e|redistribut|permission is|without warrant|all rights reserved|SPDX-|许可", re.IGNORECASE
)
_MAX_HEADER_LINES = 60

_COOKIE = re.compile(
    r"(?:this|our) (?:web)?sites? uses? (?:\w+ ){0,3}cookies"
    r"|we (?:and our (?:\w+ )?partners )?use (?:\w+ ){0,3}cookies (?:to|on|and)\b"
    r"|by (?:continuing|using|browsing|clicking).{0,80}cookies?|(?:accept|reject|decline|allow|manage) (?:all |optional )?cookies"
    r"|本?(?:网站|站点|网页).{0,6}使用.{0,6}cookie|我们使用.{0,6}cookie|(?:接受|同意|允许|拒绝|管理)(?:所有|全部)?\s*cookie",
    re.IGNORECASE,
)


def strip_frame(text: str, markup: str = "") -> str:
    """A document without its licence header and, from the web, its cookie notices; the same object where it has none."""
    if markup and ("ookie" in text or "OOKIE" in text):
        text = _without_cookie_notices(text)
    head = text[:2000]
    if _COMMENT.match(head) and any(map(head.lower().__contains__, _COPYRIGHT_SIGNS)) and _COPYRIGHT.search(head):
        text = _without_licence_header(text)
    return text


def strip_repeated_edges(texts: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Documents without the first and last lines that most documents of their folder have in common."""
    members = defaultdict(list)
    for number, folder in enumerate(folders):
        members[folder].append(number)
    stripped = list(texts)
    for numbers in members.values():
        if len(numbers) < _MIN_DOCUMENTS:
            continue
        edges = {number: _edges(texts[number]) for number in numbers}
        seen = Counter(line for head, tail in edges.values() for line in {*head.values(), *tail.values()})
        least = max(_MIN_DOCUMENTS, _MIN_SHARE * len(numbers))
        frame = {line for line, count in seen.items() if count >= least and _HAS_LETTER.search(line)}
        if frame:
            for number in numbers:
                stripped[number] = _without_edges(texts[number], edges[number], frame)
    return stripped


def removed_lines(before: str, after: str) -> Iterator[str]:
    """The lines with text that a document no longer has. `after` is `before` without some of its lines."""
    kept = iter(after.split("\n"))
    next_kept = next(kept, None)
    for line in before.split("\n"):
        if line == next_kept:
            next_kept = next(kept, None)
        elif line.strip():
            yield line.strip()


Edges = tuple[dict[int, str], dict[int, str]]


def _edges(text: str) -> Edges:
    """The first and the last lines with text: by their number from the start, and (negative) from the end."""
    head = text[: _EDGE_LINES * _MAX_LINE_CHARS].split("\n", _EDGE_LINES * 2)[:-1]
    tail = text[-_EDGE_LINES * _MAX_LINE_CHARS :].rsplit("\n", _EDGE_LINES * 2)[1:]
    return (
        dict([(number, line) for number, line in enumerate(map(str.strip, head)) if len(line) >= 4][:_EDGE_LINES]),
        dict(
            [(number, line) for number, line in enumerate(map(str.strip, tail), -len(tail)) if len(line) >= 4][
                -_EDGE_LINES:
            ]
        ),
    )


def _without_edges(text: str, edges: Edges, frame: set[str]) -> str:
    head, tail = edges
    cut = {number for number, line in head.items() if line in frame}
    cut_at_end = {number for number, line in tail.items() if line in frame}
    if not cut and not cut_at_end:
        return text
    lines = text.split("\n")
    cut |= {len(lines) + number for number in cut_at_end}
    kept = "\n".join([line for number, line in enumerate(lines) if number not in cut])
    return kept if len(kept.strip()) * 2 > len(text.strip()) else text


def _without_cookie_notices(text: str) -> str:
    lines = text.split("\n")
    kept = [line for line in lines if len(line) > _MAX_LINE_CHARS or not _COOKIE.search(line)]
    if len(kept) == len(lines):
        return text
    left = "\n".join(kept)
    return left if len(left) * 2 > len(text) else text


def _without_licence_header(text: str) -> str:
    """Without the first block of comments when that speaks of copyright and licence; a line `#!` or `coding:` stays."""
    lines = text.split("\n", _MAX_HEADER_LINES)
    start = 0
    while start < len(lines) and (
        lines[start].startswith("#!") or "coding:" in lines[start][:80] or not lines[start].strip()
    ):
        start += 1
    end = start
    in_block = False
    while end < len(lines) - 1:
        line = lines[end].strip()
        opens = line.startswith(("/*", "<!--", '"""'))
        in_block = in_block or opens
        if not in_block and not _COMMENT.match(line):
            break
        body = line[2:] if opens else line
        if in_block and (
            "*/" in body or "-->" in body or (line.endswith('"""') and len(line) > 3 - opens * 3 and not opens)
        ):
            in_block = False
        end += 1
    header = "\n".join(lines[start:end])
    if in_block or not (_COPYRIGHT.search(header) and _LICENCE.search(header)):
        return text
    rest = "\n".join([*lines[:start], *lines[end:]])
    has_more = any(line.strip() and not _COMMENT.match(line) for line in lines[end:])
    return rest if has_more else text
