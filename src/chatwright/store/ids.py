"""Names of rows: a word for the kind and 128 random bits, never taken from a request and never guessable."""

from __future__ import annotations

import re
import secrets
import string

ALPHABET = string.ascii_letters + string.digits
LETTERS = 22  # 62^22 > 2^128
ID_LENGTH = 40
ID = re.compile(r"[a-z_]{1,16}-[A-Za-z0-9]{1,30}")
WIRE_ID = re.compile(r"[a-z]{1,12}_[A-Za-z0-9]{1,27}")


def new_id(kind: str) -> str:
    """`user-4f…`."""
    return f"{kind}-{random_text(LETTERS)}"


def new_wire_id(kind: str) -> str:
    """`resp_4f…`: in the form that OpenAI's ids of responses and what is in them have."""
    return f"{kind}_{random_text(LETTERS)}"


def is_wire_id(text: str) -> bool:
    """Whether this can be such an id. What cannot is not asked for: PostgreSQL fails on some texts instead of finding nothing."""
    return WIRE_ID.fullmatch(text) is not None


def random_text(n: int) -> str:
    """Letters and digits by chance, a little less than six bits each."""
    return "".join(secrets.choice(ALPHABET) for _ in range(n))


def is_id(text: str) -> bool:
    """Whether this can be the name of a row: what cannot never reaches the database (PostgreSQL fails on some texts instead of
    finding nothing), nor the file system."""
    return ID.fullmatch(text) is not None
