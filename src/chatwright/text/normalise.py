"""One form for the same text: NFC, line ends, control and invisible characters, odd blanks. Indentation stays.

NFC and not NFKC: full-width punctuation is how Chinese is written, and ² is not 2. Each step first looks whether it has work.
"""

from __future__ import annotations

import re
import unicodedata

_LINE_ENDS = "\r\n\u0085\u2028\u2029\x0b\x0c"
_SPACES = "\u00a0\u2000-\u200a\u202f\u205f"
# Soft hyphen, zero-width space, marks and embeddings of direction (which can make text read otherwise than it is), joiners
# of words, byte order marks. The zero-width joiner and non-joiner stay: emoji and several scripts need them.
_INVISIBLE = "\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb\ufffe\uffff"
_CONTROL = "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"
_ODD = re.compile(f"[{_LINE_ENDS[2:]}{_SPACES}{_INVISIBLE}{_CONTROL}\u3000\ud800-\udfff]")
_ODD_ASCII = bytes([*range(0, 9), 11, 12, *range(14, 32), 127])
_TO_LINE_END = re.compile("\r\n?|[\u0085\u2028\u2029\x0b\x0c]")
_TO_NOTHING = re.compile(f"[{_INVISIBLE}{_CONTROL}]")
_TO_SPACE = re.compile(f"[{_SPACES}]")
_INDENT = re.compile("^\u3000+", re.MULTILINE)  # how Chinese typesetting begins a paragraph
_BLANK_LINES = re.compile("\n{4,}")


def normalise_text(text: str) -> str:
    """The whole text of a document or message, without blanks at the ends of lines and more than two empty lines together."""
    text = normalise_characters(text)
    if " \n" in text or "\t\n" in text:
        text = "\n".join([line.rstrip() for line in text.split("\n")])
    if "\n\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n\n", text)
    if text[:1].isspace() or text[-1:].isspace():
        text = _first_line_with_text(text).rstrip()
    return text


def normalise_characters(text: str) -> str:
    """Characters only: a part of a text can be normalised alone, and the parts joined again."""
    if text.isascii():
        if "\r" in text:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        raw = text.encode()
        if len(raw.translate(None, _ODD_ASCII)) == len(raw):
            return text
        return raw.replace(b"\x0b", b"\n").replace(b"\x0c", b"\n").translate(None, _ODD_ASCII).decode()
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if _ODD.search(text):
        text = _TO_LINE_END.sub("\n", text)
        text = _TO_NOTHING.sub("", text)
        text = _INDENT.sub("", _TO_SPACE.sub(" ", text)).replace("\u3000", " ")
        text = text.encode("utf-8", "replace").decode() if _has_surrogate(text) else text
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    return text


def _first_line_with_text(text: str) -> str:
    """Without empty lines at the start, but with the indentation of the first line that has text."""
    start = len(text) - len(text.lstrip())
    return text[text.rfind("\n", 0, start) + 1 :]


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
