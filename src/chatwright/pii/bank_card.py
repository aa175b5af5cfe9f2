"""Numbers of payment cards: issuer's prefix, length, and Luhn's check digit (ISO/IEC 7812)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from chatwright.pii.finding import Finding
from chatwright.pii.numbers import Zone, inside_a_word_or_number, names_something_else

_SHAPES = re.compile(
    r"(?<![0-9])(?:"
    r"[0-9]{13,19}"
    r"|[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{1,3})?"
    r"|3[0-9]{3}([ -])[0-9]{6}\2[0-9]{4,5}"  # American Express and Diners Club write theirs so
    r"|62[0-9]{4}([ -])[0-9]{10,13}"
    r")(?![0-9])"
)
# Issuers' prefixes with the lengths that they use. 62: UnionPay; 60, 68, 9558 and so on: older Chinese debit cards.
_ISSUERS = (
    (re.compile(r"4"), {13, 16, 19}),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), {16}),
    (re.compile(r"3[47]"), {15}),
    (re.compile(r"6011|64[4-9]|65"), {16, 19}),
    (re.compile(r"62|81"), {16, 17, 18, 19}),
    (re.compile(r"35(?:2[89]|[3-8])"), {16, 19}),
    (re.compile(r"3(?:0[0-5]|6|8|9)"), {14, 16, 19}),
    (re.compile(r"9558|60[0-9]{2}|68[0-9]{2}|436742|456351"), {16, 18, 19}),
)


def bank_cards(text: str, zones: Iterable[Zone]) -> Iterator[Finding]:
    """Card numbers, in groups or not. A number that the text calls an order's or a parcel's is none."""
    for start, end in zones:
        if end - start < 13:
            continue
        for match in _SHAPES.finditer(text, start, end):
            if (
                is_bank_card(match[0])
                and not inside_a_word_or_number(text, *match.span())
                and not names_something_else(text, match.start())
            ):
                yield Finding(*match.span(), "bank_card", match[0])


def is_bank_card(number: str) -> bool:
    """Whether prefix, length and check digit are right; blanks and hyphens do not count."""
    digits = number.replace(" ", "").replace("-", "")
    known = any(len(digits) in lengths and prefix.match(digits) for prefix, lengths in _ISSUERS)
    return known and luhn(digits)


def luhn(digits: str) -> bool:
    """Luhn's algorithm (US patent 2,950,048): every second digit from the right counts twice."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0
