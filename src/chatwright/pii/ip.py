"""Public IPv4 and IPv6 addresses.

Private, loopback, link-local, multicast and documentation addresses identify nobody and stay, whatever stands before them:
manuals are full of 192.168.0.1, and a model should know what it means. Numbers that may be versions or sections stay too unless
something beside them says that they are addresses. docs/en/data.md says both.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from chatwright.pii.finding import Finding

_V4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
# Two colons with at most four hexadecimal digits between: times of day have them too, and are sorted out below.
_V6_HINT = re.compile(r":[0-9A-Fa-f]{0,4}:")
_V6_RUN = re.compile("[0-9A-Fa-f:.]*")
_V6_CHARACTERS = frozenset("0123456789abcdefABCDEF:.")
_MAX_V6 = 45

_SAYS_VERSION = re.compile(
    r"(?:版本|章|节|条|第|(?i:(?<![a-z])(?:v|ver|version|release|build|rev|section|chapter|clause|figure|table|oid)))"
    r"[号为是]?[ \t]*[:：=]?[ \t]*[v.]?$|[A-Za-z)][/_-]v?$"
)
_SAYS_ADDRESS = re.compile(
    r"(?:地址|服务器|主机|网关|来自|(?i:(?<![a-z])(?:ip|ipv4|address|addr|host|hostname|server|nameserver|dns|gateway|proxy|peer|"
    r"remote|src|dst|from|client|ping|ssh)))"
    r"(?:[ ](?i:is))?[为是]?[ \t]*[:：=]?[ \t]*[\"'(\[（“]?$"
)
_PORT = re.compile(r":[0-9]{2,5}(?![0-9.:])")
_NETWORK = re.compile("/[0-9]{1,2}(?![0-9/.])")
_LETTER = re.compile("[A-Za-z]")
_IP = re.compile("[^A-Za-z]?(?i:ip)[0-9]")  # IP8.8.8.8, as Chinese prose writes it without a blank
_MAX_CONTEXT = 24
# 3.2.1.4 counts sections or versions: a small number everywhere says so, unless the words before say otherwise.
_SMALL = 32


def addresses(text: str) -> Iterator[Finding]:
    """Addresses that some machine on the internet has."""
    if "." in text:
        yield from _v4(text)
    if ":" in text:
        yield from _v6(text)


def _v4(text: str) -> Iterator[Finding]:
    for match in _V4.finditer(text):
        start, end = match.span()
        before = text[start - 1 : start]
        if before and (before in "0123456789._" or (_LETTER.match(before) and not _IP.match(text, max(0, start - 3)))):
            continue
        after = text[end : end + 2]
        if after and (after[0].isdecimal() or after[0] == "_" or (after[0] == "." and after[1:].isdecimal())):
            continue
        if _is_public(match[0]) and not _is_version(text, start, end):
            yield Finding(start, end, "ip", match[0])


def _is_version(text: str, start: int, end: int) -> bool:
    if text[max(0, start - 3) : start] == "://" or text[start - 1 : start] == "@":
        return False
    context = max(0, start - _MAX_CONTEXT)
    if _SAYS_VERSION.search(text, context, start):
        return True
    parts = [int(part) for part in text[start:end].split(".")]
    network = parts[3] == 0 and _NETWORK.match(text, end)  # 192.31.196.0/24 is no machine's
    if not network and not _looks_like_version(parts):
        return False
    return _SAYS_ADDRESS.search(text, context, start) is None and _PORT.match(text, end) is None


def _looks_like_version(parts: list[int]) -> bool:
    """Small numbers everywhere; object identifiers such as 2.5.29.37; 8.4.120.0 and 119.0.0.0, but not 81.2.69.0: networks
    larger than 256 addresses have machines whose address ends in 0."""
    ends_in_zero = parts[3] == 0 and (parts[0] < _SMALL or 0 in parts[1:3])
    return ends_in_zero or max(parts) < _SMALL or (parts[0] <= 2 and parts[1] <= 16)


def _v6(text: str) -> Iterator[Finding]:
    done = 0
    for match in _V6_HINT.finditer(text):
        start = match.start()
        if start < done:
            continue
        while start > done and text[start - 1] in _V6_CHARACTERS:
            start -= 1
        end = done = _V6_RUN.match(text, match.end()).end()  # type: ignore[union-attr]  # also matches nothing
        if end - start > _MAX_V6:
            continue
        while end > start and text[end - 1] in ".:" and text[end - 2 : end] != "::":
            end -= 1
        if _in_a_word(text, start, end):
            continue
        number = text[start:end]
        if _looks_like_v6(number) and _is_public(number):
            yield Finding(start, end, "ip", number)


def _in_a_word(text: str, start: int, end: int) -> bool:
    around = (text[start - 1 : start], text[end : end + 1])
    return any(
        character and ((character.isascii() and character.isalnum()) or character in "_:") for character in around
    )


def _looks_like_v6(number: str) -> bool:
    """Not `a::b` of a programming language: eight groups, or a first group of three digits or more."""
    return any(character.isdecimal() for character in number) and (
        number.count(":") == 7 or len(number.split(":", 1)[0]) >= 3
    )


def _is_public(number: str) -> bool:
    try:
        address = ipaddress.ip_address(number)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast
