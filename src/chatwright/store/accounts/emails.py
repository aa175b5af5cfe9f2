"""Email addresses as names of accounts: one spelling for each."""

from __future__ import annotations

import re
import unicodedata

from chatwright.errors import InvalidRequestError

# What a mail server would take is its own business; this keeps out what is no address, or would not print as one.
SHAPE = re.compile(r"[^\s@\x00-\x1f\x7f<>\"'`\\,;:()\[\]]+@[^\s@\x00-\x1f\x7f<>\"'`\\,;:()\[\]]+")


def clean_email(text: str) -> str:
    """The address in the spelling that is kept. Raises InvalidRequestError."""
    email = unicodedata.normalize("NFKC", text.strip()).lower()
    if len(email) > 254 or not SHAPE.fullmatch(email) or not email.isprintable():
        raise InvalidRequestError("This is no email address.", param="email", code="invalid_value")
    return email


def clean_name(text: str, field: str = "name") -> str:
    """A name that prints as one line. Raises InvalidRequestError."""
    name = unicodedata.normalize("NFC", text.strip())
    if not 1 <= len(name) <= 100 or not name.isprintable():
        raise InvalidRequestError(
            "A name has 1 to 100 characters, without line breaks or control characters.",
            param=field,
            code="invalid_value",
        )
    return name
