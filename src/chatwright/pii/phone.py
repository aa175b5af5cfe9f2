"""Telephone numbers: international (E.164), Chinese mobile and landline, North American.

A number without a plus sign or separators of its own is one only where its digits say so (a Chinese mobile), or the words
before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from chatwright.pii.finding import Finding
from chatwright.pii.numbers import Zone, inside_a_word_or_number, names_something_else

_GAP = "[ .\\-\u00a0\u2010-\u2013]"
_EXTENSION = re.compile(r"(?:[ ,]{0,2}(?:(?i:ext|extn|extension|x)[.:]?|转|分机)[ ]?[0-9]{1,6}|-[0-9]{1,5})(?![0-9])")

# Second and third digits that operators have been given (MIIT's numbering plan).
_MOBILE_HEAD = "1(?:3[0-9]|4[0-9]|5[0-35-9]|6[2567]|7[0-8]|8[0-9]|9[0-35-9])"
_CHINESE_MOBILE = re.compile(
    rf"(?<![0-9])(?:(?:86|0086){_GAP}{{0,2}})?{_MOBILE_HEAD}(?:[0-9]{{8}}|({_GAP})[0-9]{{4}}\1[0-9]{{4}})(?![0-9])"
)
_AREA = "0(?:10|2[0-57-9]|[3-9][0-9]{2})"
_CHINESE_LANDLINE = re.compile(
    rf"(?<![0-9])(?:\({_AREA}\){_GAP}?|(?:86{_GAP}{{0,2}})?{_AREA}{_GAP}{{1,2}})[2-8][0-9]{{2,3}}{_GAP}?[0-9]{{4}}(?![0-9])"
)
_CHINESE_SERVICE = re.compile(r"(?<![0-9])[48]00([ -])(?:[0-9]{3}\1[0-9]{4}|[0-9]{4}\1[0-9]{3}|[0-9]{7})(?![0-9])")
# Not with blanks alone between the groups: 200 300 4000 stands in many a table.
_NORTH_AMERICAN = re.compile(
    r"(?<![0-9])(?:(?:00)?1[ .\-\u2010-\u2013])?"
    rf"(?:\([2-9][0-9]{{2}}\){_GAP}?[2-9][0-9]{{2}}{_GAP}|[2-9][0-9]{{2}}([.\-\u2010-\u2013])[2-9][0-9]{{2}}\1)"
    r"[0-9]{4}(?![0-9])"
)
# 00 in place of the plus sign: only with groups behind it
_DOUBLE_ZERO = re.compile(rf"(?<![0-9])00[1-9][0-9]{{0,2}}(?:{_GAP}[0-9]{{2,5}}){{3,5}}(?![0-9])")
_SHAPES = (_CHINESE_MOBILE, _CHINESE_LANDLINE, _CHINESE_SERVICE, _NORTH_AMERICAN, _DOUBLE_ZERO)

# After a plus sign or the words that announce it, any number of a plausible length is one.
_ANNOUNCED = re.compile(
    rf"(?<![0-9])(?:[0-9]{{1,3}}{_GAP}?)?(?:\([0-9]{{1,5}}\){_GAP}?)?[0-9](?:{_GAP}?[0-9]){{3,14}}(?![0-9])"
)
_SAYS_PHONE = re.compile(
    r"(?:电话|手机|联系方式|热线|传真|座机|固话|致电|拨打|来电|短信|电联|電話|手機|號碼|"
    r"(?i:(?<![a-z])(?:tel|phone|telephone|mobile|mob|cell|cellphone|fax|hotline|whatsapp|call|dial|"
    r"(?:my|his|her|our|your|their) number)))"
    r"(?:号码|号|[ _]?(?i:number|num|no[.]?|me|us|at|on|him|her|is|to|them)(?![a-z])){0,3}"
    r"[ \t]*[为是]?[ \t]*[.:：=]?[ \t]*[(（\"'“]?$"
)
_WORDS_OF_CONTACT = re.compile(r"(?i:tel|phone|mobile|mob|cell|call|fax|qq|wx|wechat|whatsapp)$")
_MAX_CONTEXT = 28
_DATE = re.compile(r"(?:19|20)[0-9]{2}([-./ ])[0-9]{1,2}\1[0-9]{1,2}")
_BARE_DATE = re.compile(r"(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])")
_DECIMAL = re.compile(r"[0-9]+\.[0-9]+")


def phones(text: str, zones: Iterable[Zone]) -> Iterator[Finding]:
    """Telephone numbers, with their country code and extension."""
    for start, end in zones:
        start -= start > 0 and text[start - 1] == "("
        for first, last in _in_zone(text, start, end):
            if match := _EXTENSION.match(text, last):
                last = match.end()
            yield Finding(first, last, "phone", text[first:last])


def _in_zone(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    has_plus = start > 0 and text[start - 1] == "+"
    says_phone = _SAYS_PHONE.search(text, max(0, start - _MAX_CONTEXT), start) is not None
    if has_plus or says_phone:
        match = _ANNOUNCED.match(text, start, end) or _ANNOUNCED.match(text, start + 1, end)
        first = match.start() - has_plus if match else start
        if match and _may_end(text, match.end()) and _is_plausible(match[0]) and not _in_a_word(text, first):
            yield first, match.end()
            start = match.end()
    for shape in _SHAPES:
        for match in shape.finditer(text, start, end):
            first, last = match.span()
            if _may_end(text, last) and not _in_a_word(text, first) and not names_something_else(text, first):
                yield first, last


def _in_a_word(text: str, start: int) -> bool:
    """Whether letters, a decimal point or a minus sign lead to text[start], unless letters say what comes (`tel138…`)."""
    if text[start - 1 : start] == "-" and not text[max(0, start - 2) : start - 1].isalnum():
        return True
    if not inside_a_word_or_number(text, start, len(text)):
        return False
    return _WORDS_OF_CONTACT.search(text, max(0, start - 10), start) is None


def _may_end(text: str, end: int) -> bool:
    after = text[end : end + 2]
    if not after:
        return True
    if after[0].isascii() and after[0].isalpha():
        return after[0] in "xXeE" and _EXTENSION.match(text, end) is not None
    return after[0] not in "_%*^" and not (len(after) == 2 and after[0] in "./:" and "0" <= after[1] <= "9")


def _is_plausible(number: str) -> bool:
    """Of a length that telephone numbers have, and no date or decimal number."""
    n_digits = sum("0" <= character <= "9" for character in number)
    if not 7 <= n_digits <= 15 or _DATE.match(number) or _DECIMAL.fullmatch(number):
        return False
    return not (number.isdecimal() and _BARE_DATE.fullmatch(number))
