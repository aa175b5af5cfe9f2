"""`metadata`: up to 16 pairs of texts that clients put beside an object."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints

MAX_PAIRS = 16


def _check(value: object) -> object:
    """The size before the entries: millions of wrong ones would become millions of error objects. PostgreSQL keeps no NUL."""
    if isinstance(value, dict):
        if len(value) > MAX_PAIRS:
            raise ValueError(f"metadata has at most {MAX_PAIRS} pairs")
        if any("\0" in text for pair in value.items() for text in pair if isinstance(text, str)):
            raise ValueError("metadata has no NUL characters")
    return value


Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=MAX_PAIRS),
    BeforeValidator(_check),
]
