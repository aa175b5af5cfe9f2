"""Labelled spans of characters as labels of tokens, and back: B-, I-, O (Ramshaw & Marcus 1995), aligned through bytes.

A token of a byte-level vocabulary can hold a part of a character (most Chinese characters are two or three tokens in a small
one) and usually begins with the blank before its word. A token belongs to a span when it shares a byte with it, blanks aside;
back again, a span reaches from the first character that its tokens touch to the last, blanks aside.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

Span = tuple[int, int, str]
Range = tuple[int, int]
OUTSIDE = "O"


def tag_names(labels: Sequence[str]) -> tuple[str, ...]:
    """O, then B- and I- of each label in order: the classes of a token."""
    return (OUTSIDE, *(f"{prefix}-{label}" for label in labels for prefix in "BI"))


def compose(text: str, spans: Sequence[Span]) -> tuple[str, list[Span]]:
    """Text and spans in Unicode's composed form (NFC), which Qwen2's normaliser makes of every text: the tokens then spell exactly
    this text. Where a composition would reach across the edge of a span, the text is left as it is.
    """
    if unicodedata.is_normalized("NFC", text):
        return text, list(spans)
    edges = sorted({0, len(text), *(edge for start, end, _label in spans for edge in (start, end))})
    pieces = [unicodedata.normalize("NFC", text[a:b]) for a, b in pairwise(edges)]
    composed = "".join(pieces)
    if composed != unicodedata.normalize("NFC", text):
        return text, list(spans)
    moved = dict(zip(edges, accumulate(map(len, pieces), initial=0), strict=True))
    return composed, [(moved[start], moved[end], label) for start, end, label in spans]


def token_ranges(text: str, pieces: Sequence[bytes]) -> list[Range] | None:
    """The characters (start, end) that each token touches, from the tokens' bytes; (p, p) for a token of no bytes.

    A blank that a tokenizer puts before the text is passed over. None where the tokens do not spell the text.
    """
    data = text.encode()
    # char_at[i]: where character i begins
    char_at = list(accumulate((len(character.encode()) for character in text), initial=0))
    ranges: list[Range] = []
    at = 0
    for piece in pieces:
        if not data.startswith(piece, at):
            piece = piece.removeprefix(b" ")
            if at or not data.startswith(piece, at):
                return None
        end = at + len(piece)
        ranges.append((bisect_right(char_at, at) - 1, bisect_left(char_at, end)))
        at = end
    return ranges if at == len(data) else None


def tags_of(text: str, ranges: Sequence[Range], spans: Sequence[Span]) -> list[str]:
    """A tag for each token. Spans are in order and do not overlap."""
    tags = [OUTSIDE] * len(ranges)
    inked = [_without_blanks(text, *each) for each in ranges]
    first = 0
    for start, end, label in spans:
        prefix = "B"
        while first < len(inked) and inked[first][1] <= start:
            first += 1
        for token in range(first, len(inked)):
            token_start, token_end = inked[token]
            if token_start >= end:
                break
            if token_start < token_end and tags[token] == OUTSIDE:  # a token across two spans stays with the first
                tags[token] = f"{prefix}-{label}"
                prefix = "I"
    return tags


def spans_of(text: str, ranges: Sequence[Range], tags: Sequence[str]) -> list[Span]:
    """The spans that tags spell; an I- that continues nothing begins a span, as in CoNLL-2003's evaluation."""
    spans: list[Span] = []
    open_label = ""
    for (start, end), tag in zip(ranges, tags, strict=True):
        if start == end:  # no characters: a token between the parts of a word says nothing
            continue
        prefix, _, label = tag.partition("-")
        if tag == OUTSIDE:
            open_label = ""
        elif prefix == "I" and label == open_label:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]), label)
        else:
            spans.append((start, end, label))
            open_label = label
    trimmed = [(*_without_blanks(text, start, end), label) for start, end, label in spans]
    return [(start, end, label) for start, end, label in trimmed if start < end]


def read_spans(row: Mapping[str, Any]) -> list[Span]:
    """The spans of a dataset's row, in order, without those that are empty, lie outside the text or overlap an earlier one."""
    kept: list[Span] = []
    length = len(row["text"])
    for start, end, label in sorted((span["start"], span["end"], str(span["label"])) for span in row["spans"]):
        if 0 <= start < end <= length and (not kept or start >= kept[-1][1]):
            kept.append((start, end, label))
    return kept


def _without_blanks(text: str, start: int, end: int) -> Range:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end
