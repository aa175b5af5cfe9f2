"""CoNLL files: a token and its tag a line, a blank line between sentences; also Chinese files of a character a line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from chatwright.text.readers.encoding import is_binary
from chatwright.text.readers.labels import join_tagged
from chatwright.text.readers.piece import Piece
from chatwright.text.readers.unit import Record, Refused, Skipped
from chatwright.text.reasons import Detail

_TAG = re.compile(r"O|(?:[BIESMLU][-_])\S+")
_SENTENCE_TOKENS = 100_000


def looks_like_conll(text: str) -> bool:
    """Whether the first lines of a file all are tokens and tags."""
    lines = [line.split() for line in text.split("\n")[:200] if line.strip() and not line.startswith("-DOCSTART-")]
    if len(lines) < 2 or not all(len(cells) >= 2 and _TAG.fullmatch(cells[-1]) for cells in lines[:-1]):
        return False
    return any(cells[-1] != "O" for cells in lines)


def read_conll(piece: Piece) -> Iterator[Record | Skipped]:
    """A record a sentence: the first column is the token, the last one its tag."""
    if is_binary(piece.head):
        raise Refused("binary")
    decoder = piece.decoder()
    tokens: list[str] = []
    tags: list[str] = []
    first = piece.first_line
    n_undecodable = 0
    bad = ""
    encoding = piece.encoding or "utf-8"
    for number, raw in piece.lines(blank=True):
        if raw is None:
            bad = bad or Detail("line {number} is too long: the sentence is left out", number=number)
            continue
        decoded = decoder.decode(raw)
        n_undecodable += decoded.n_undecodable
        encoding = decoded.encoding if not raw.isascii() else encoding
        cells = decoded.text.split()
        is_token = bool(cells) and cells[0] != "-DOCSTART-"
        if tokens and (not is_token or len(tokens) >= _SENTENCE_TOKENS):
            yield _sentence(piece, tokens, tags, first, bad, encoding, n_undecodable)
            tokens, tags, n_undecodable, bad = [], [], 0, ""
        if is_token:
            if len(cells) < 2:
                bad = bad or Detail("line {number} has no tag: the sentence is left out", number=number)
            first = first if tokens else number
            tokens.append(cells[0])
            tags.append(cells[-1])
    if tokens:
        yield _sentence(piece, tokens, tags, first, bad, encoding, n_undecodable)


def _sentence(
    piece: Piece, tokens: list[str], tags: list[str], first: int, bad: str, encoding: str, n_undecodable: int
) -> Record | Skipped:
    where = f"line {first}"
    if bad:
        return Skipped(piece.source, where, "bad tags", bad)
    try:
        payload = join_tagged(tokens, tags)
    except Refused as refused:
        return Skipped(piece.source, where, refused.reason, refused.detail)
    return Record("tagged", payload, where, "conll", encoding=encoding, n_undecodable=n_undecodable)
