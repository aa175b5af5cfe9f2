"""Secrets made here: random enough that a digest of them is safe to keep and to look up."""

from __future__ import annotations

import hashlib
import hmac
import re

from chatwright.store.ids import random_text

KEY = re.compile(r"sk-cw-([A-Za-z0-9]{12})-([A-Za-z0-9]{43})")
TOKEN = re.compile(r"[A-Za-z0-9]{43}")


def new_token() -> str:
    """256 bits, for a session or a link."""
    return random_text(43)


def new_key() -> tuple[str, str]:
    """(key, prefix): the prefix names the key and is no secret."""
    prefix = random_text(12)
    return f"sk-cw-{prefix}-{random_text(43)}", prefix


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def same(one: str, other: str) -> bool:
    """Compared in a time that tells nothing."""
    return hmac.compare_digest(one.encode(), other.encode())
