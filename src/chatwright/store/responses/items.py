"""An item as it is kept: its id, and the wire's object as JSON."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KeptItem:
    """`content` has the id in it, too."""

    id: str
    content: str
