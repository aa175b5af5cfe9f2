"""E-mail addresses (RFC 5321's usual form): found from the @ outwards, so that text without one costs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from chatwright.pii.finding import Finding

_LOCAL = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.!#$%&'*+/=?^_`{|}~-")
_MAX_LOCAL = 64
_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}([A-Za-z]{2,24}|xn--[A-Za-z0-9-]{2,20})")
# Quotes and brackets stand before an address more often than in it, and so do the keys of query strings.
_LEADING = "'`{|}~*/!#$%&?^.=-+"
# photo@2x.png is a picture, and x@y.transpose a matrix product.
_FILES = re.compile("png|jpe?g|gif|svg|webp|ico|js|ts|css|py|md|txt|html?|json|xml|ya?ml|sh|so|dll|exe|zip|gz")
_LONG_DOMAINS = re.compile(
    "academy|agency|associates|boutique|business|careers|community|company|computer|construction|consulting|contractors|"
    "digital|directory|education|engineer|engineering|enterprises|equipment|exchange|finance|financial|foundation|"
    "graphics|holdings|immobilien|industries|institute|insurance|international|investments|limited|management|"
    "marketing|network|organic|partners|photography|photos|productions|properties|restaurant|services|shopping|"
    "solutions|software|support|systems|technology|training|university|ventures|website"
)


def emails(text: str) -> Iterator[Finding]:
    """Addresses with a domain that may exist."""
    at = text.find("@")
    while at >= 0:
        domain = _DOMAIN.match(text, at + 1)
        if domain is not None and _may_exist(domain):
            start = _local_start(text, at)
            if start < at and text[start:at] != "git":
                yield Finding(start, domain.end(), "email", text[start : domain.end()])
        at = text.find("@", at + 1)


def _local_start(text: str, at: int) -> int:
    start = at
    while start > 0 and at - start < _MAX_LOCAL and text[start - 1] in _LOCAL:
        start -= 1
    local = text[start:at]
    # user=ann@x.org and https://x/?mail=ann@x.org: what leads to the address is not part of it
    cut = max(local.rfind(character) for character in "=/?&|{}`")
    local = local[cut + 1 :].lstrip(_LEADING)
    return at - len(local) if not local.endswith(".") else at


def _may_exist(domain: re.Match[str]) -> bool:
    last = domain[1].lower()
    if _FILES.fullmatch(last):
        return False
    return len(last) <= 6 or last.startswith("xn--") or _LONG_DOMAINS.fullmatch(last) is not None
