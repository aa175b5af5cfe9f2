"""Text that is safe to show in a terminal: a model's output and names from outside may hold control sequences."""

from __future__ import annotations

import unicodedata

# Characters that reorder what is shown, so that a text reads differently from what it is (CVE-2021-42574).
_REORDERING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def printable(text: str) -> str:
    """`text` with every control character made visible: ESC becomes ␛, so that no sequence reaches the terminal.

    Line feeds and tabs stay. Works piece by piece: streaming needs no state.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_show, text))


def _show(char: str) -> str:
    code = ord(char)
    if char in "\n\t":
        return char
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if 0x80 <= code < 0xA0 or code in _REORDERING or unicodedata.category(char) == "Cs":
        return "\ufffd"
    return char
