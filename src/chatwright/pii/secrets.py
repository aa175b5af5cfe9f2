"""Secrets that are known by their name only: `api_key = …`, `password: …`, 密码是…, with a value that nobody would make up."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from chatwright.pii.finding import Finding

# Found as fixed letters, which costs nothing where they are not; what stands around them is looked at only then.
_NAMES = ("key", "token", "secret", "password", "passwd", "pwd")
_NAMES_IN_ALL_CASES = tuple(spelled for name in _NAMES for spelled in (name, name.capitalize(), name.upper()))
_CHINESE_WORDS = ("密码", "口令", "密钥", "令牌", "密碼", "金鑰")
# A bare `key` names anything; one of these must come before it.
_OF_WHAT = re.compile(
    r"(?i:api|access|secret|private|auth|account|encryption|master|signing|client|service|subscription)[ _-]?$"
)
_ASSIGNED = re.compile(
    r"[\"'`]?[ \t]{0,8}(?::=|=>|[:=]|(?i:is)(?= ))[ \t]{0,8}[\"'`]?([^\s\"'`,;<>(){}\[\]，。；、]{6,256})"
)
_CHINESE_ASSIGNED = re.compile(r"[ \t]{0,4}(?:[:：=是为]){1,2}[ \t]{0,4}[\"'“`]?([!-~]{6,256})")
_PLACEHOLDER = re.compile(
    r"(?i:your|example|changeme|placeholder|xxx|test|dummy|sample|redacted|getenv|environ)|\*\*\*|\.\.\.|<|\$\{|\{\{"
)
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")  # module.Class1 of a program
# Words and identifiers have little else than letters; Shannon's entropy of what a generator makes is higher.
_MIN_BITS_PER_CHAR = 3.0
_LONG = 16


def secrets(text: str) -> Iterator[Finding]:
    """Values that stand behind the name of a secret and look random, and passwords of letters and digits."""
    plain = text.isascii()  # then lower case has the same places, and a third of the words does
    lowered = text.lower() if plain else text
    for word in _NAMES if plain else _NAMES_IN_ALL_CASES:
        place = lowered.find(word)
        while place >= 0:
            end = place + len(word)
            match = _ASSIGNED.match(text, end)
            if (
                match
                and (word.lower() != "key" or _OF_WHAT.search(text, max(0, place - 16), place))
                and _is_secret(match[1], is_password=word.lower().startswith("p"))
            ):
                yield Finding(match.start(1), match.end(1), "key", match[1])
            place = lowered.find(word, match.end() if match else end)
    for word in () if text.isascii() else _CHINESE_WORDS:
        place = text.find(word)
        while place >= 0:
            match = _CHINESE_ASSIGNED.match(text, place + len(word))
            if match and _is_secret(match[1], is_password=word in ("密码", "口令", "密碼")):
                yield Finding(match.start(1), match.end(1), "key", match[1])
            place = text.find(word, match.end() if match else place + len(word))


def _is_secret(value: str, *, is_password: bool) -> bool:
    if _PLACEHOLDER.search(value) or "://" in value or _DOTTED.fullmatch(value):
        return False
    has_digit = any("0" <= character <= "9" for character in value)
    has_letter = any(character.isascii() and character.isalpha() for character in value)
    if not (has_digit and has_letter) or value.startswith("0x"):
        return False
    if is_password:
        return True
    return len(value) >= _LONG and bits_per_char(value) >= _MIN_BITS_PER_CHAR


def bits_per_char(value: str) -> float:
    """Shannon's entropy of the characters of `value`, as they are distributed in it."""
    n = len(value)
    return -sum(count / n * math.log2(count / n) for count in Counter(value).values())
