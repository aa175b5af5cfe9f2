"""Chinese resident identity numbers (GB 11643-1999): region, birth date, and a checksum (ISO 7064 MOD 11-2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import date

from chatwright.pii.finding import Finding
from chatwright.pii.numbers import Zone, inside_a_word_or_number

_ID_18 = re.compile(
    r"(?<![0-9])[1-8][0-9]{5}[ -]?(?:18|19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[ -]?[0-9]{3}[0-9Xx]"
)
# Until 1999: two digits of the year, no checksum, so that only the words before tell it from any other number.
_ID_15 = re.compile(r"(?<![0-9])[1-8][0-9]{5}[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}(?![0-9])")
_SAYS_ID = re.compile(r"(?:身份证|证件|身份號|(?i:id card|identity|citizen id|resident id))[^0-9\n]{0,12}$")

_PROVINCES = re.compile("1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECKS = "10X98765432"


def chinese_ids(text: str, zones: Iterable[Zone]) -> Iterator[Finding]:
    """Ids of 18 digits whose province, date and checksum are right, and of 15 digits that the text calls an id."""
    for start, end in zones:
        if end - start < 15:
            continue
        # two characters more: the checksum may be an X, and what follows tells whether the number ends there
        for match in _ID_18.finditer(text, start, min(end + 2, len(text))):
            if is_chinese_id(match[0]) and not inside_a_word_or_number(text, *match.span()):
                yield Finding(*match.span(), "chinese_id", match[0])
        for match in _ID_15.finditer(text, start, end):
            if (
                _is_plausible(match[0][:6], f"19{match[0][6:12]}")
                and not inside_a_word_or_number(text, *match.span())
                and _SAYS_ID.search(text, max(0, match.start() - 24), match.start())
            ):
                yield Finding(*match.span(), "chinese_id", match[0])


def is_chinese_id(number: str) -> bool:
    """Whether region, date and checksum of an 18-digit number are right; blanks and hyphens do not count."""
    digits = number.replace(" ", "").replace("-", "").upper()
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, digits[:17], strict=True))
    return _CHECKS[total % 11] == digits[17] and _is_plausible(digits[:6], digits[6:14])


def _is_plausible(region: str, birth: str) -> bool:
    try:
        born = date(int(birth[:4]), int(birth[4:6]), int(birth[6:]))
    except ValueError:
        return False
    return _PROVINCES.match(region) is not None and 1880 <= born.year <= 2099
