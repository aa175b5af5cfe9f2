"""Where numbers of at least seven digits stand, and what the words before them say they are."""

from __future__ import annotations

import re

# Begins with a digit, so that the engine skips text without digits at memory speed. Groups of digits and the separators
# between them share no character: nothing is tried twice.
_ZONE = re.compile(r"[0-9](?:[ ()./\-\u00a0\u2010-\u2013]{0,3}[0-9]){6,}")

_MAX_CONTEXT = 24
_NOT_A_PERSON = re.compile(
    r"(?:订单|单号|编号|编码|流水|运单|快递|快件|货号|型号|批号|发票|税号|序列号|金额|价格|人民币|版本|条码|合同号|案号|"
    r"(?i:(?<![a-z])(?:order|invoice|tracking|serial|version|isbn|issn|sku|ticket|barcode|upc|ean|amount|price|total|"
    r"build|commit|hash|size|bytes|rows|timestamp|doi|uuid)))"
    r"[号码为是]{0,2}[ \t_]*(?:(?i:no|nr|number|id)[.]?)?[ \t]*[:：#=]?[ \t]*[#$¥￥€£(（\"'“]?$"
)


Zone = tuple[int, int]


def zones(text: str) -> list[Zone]:
    """The start and end of every stretch of at least seven digits, separators between them included."""
    return [match.span() for match in _ZONE.finditer(text)]


def names_something_else(text: str, start: int) -> bool:
    """Whether the words before text[start] say that the number there is of a thing: `order no. 13800138000`."""
    return _NOT_A_PERSON.search(text, max(0, start - _MAX_CONTEXT), start) is not None


def inside_a_word_or_number(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] goes on in ASCII letters or digits, or is a piece of a decimal number."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if before and ((before[-1].isascii() and before[-1].isalnum()) or before[-1] == "_"):
        return True
    if after and ((after[0].isascii() and after[0].isalnum()) or after[0] == "_"):
        return True
    return (len(before) == 2 and before[1] == "." and _is_digit(before[0])) or (
        len(after) == 2 and after[0] == "." and _is_digit(after[1])
    )


def _is_digit(character: str) -> bool:
    return "0" <= character <= "9"
