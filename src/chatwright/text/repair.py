"""Repair of text that was decoded wrongly somewhere on its way ("mojibake"), only where there are signs of it.

ftfy does 1–2 MB/s, so a regular expression of a few characters (200 MB/s and more) decides which lines it sees.
"""

from __future__ import annotations

import codecs
import re

_CP1252 = "\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122"
# A lead byte of UTF-8 followed by a continuation byte, both read as Latin-1 or Windows-1252: "Ã©", "â€™", "ä½ ".
_UTF8_AS_LATIN = re.compile(f"[\u00c2-\u00f4][\u0080-\u00bf{_CP1252}]")
# GBK read as Latin-1: "ÄãºÃ". Four high letters in a row stand in no language.
# The first pair stands alone, as `re` looks quickly for a character, and not for a group.
_GBK_AS_LATIN = re.compile("[\u00b0-\u00f7][\u00a1-\u00fe](?:[\u00b0-\u00f7][\u00a1-\u00fe]){2,}")
# UTF-8 read as GBK: "浣犲ソ". These characters begin most such pairs, and are rare in real text.
_UTF8_AS_GBK = re.compile("[锛銆鈥鐨鍦鏄涓浠浣璇鍙鎴杩鍜瀛闂绗]")
_ASCII = frozenset(map(chr, range(128)))


def repair_text(text: str) -> str:
    """The text as it was meant; the same object where nothing is to be repaired."""
    if text.isascii():
        return text
    if _UTF8_AS_LATIN.search(text) or _GBK_AS_LATIN.search(text) or len(_UTF8_AS_GBK.findall(text[:20_000])) > 1:
        repaired = "\n".join(map(_repair_line, text.split("\n")))
        return text if repaired == text else repaired
    return text


def _repair_line(line: str) -> str:
    if line.isascii():
        return line
    if _GBK_AS_LATIN.search(line) and (chinese := _gbk_read_as_latin(line)) is not None:
        return chinese
    if _UTF8_AS_LATIN.search(line):
        from ftfy import fix_encoding
        from ftfy.badness import is_bad

        return str(fix_encoding(line)) if is_bad(line) else line
    if _UTF8_AS_GBK.search(line):
        return _utf8_read_as_gbk(line) or line
    return line


def _gbk_read_as_latin(line: str) -> str | None:
    try:
        chinese = line.encode("latin-1").decode("gb2312")  # the common characters only: chance seldom lands there
    except (UnicodeEncodeError, UnicodeDecodeError):
        return None
    return chinese if len(set(line) - _ASCII) > 3 else None  # a row of one accented letter is a row of that letter


def _utf8_read_as_gbk(line: str) -> str | None:
    """GBK text is by chance valid UTF-8 about never. A character cut off at the end is left as it is.

    GBK takes bytes in pairs: of a text with an odd number of them the last one is lost, and with it a character.
    """
    whole = line.rstrip("\ufffd")  # what a decoder puts for the lost byte
    try:
        data = whole.encode("gb18030")
        text, n_read = codecs.utf_8_decode(data, "strict", False)
    except (UnicodeEncodeError, UnicodeDecodeError):
        return None
    tail = data[n_read:].decode("gb18030", "replace") + line[len(whole) :]
    # One character and a cut-off one are four bytes: a word of two Chinese characters may be that by chance.
    return None if tail and sum(not char.isascii() for char in text) < 2 else text + tail
