"""On whose account tokens go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from chatwright.store.actor import Actor, Via

Kind = Literal["completions", "embeddings", "moderations"]


@dataclass(frozen=True)
class Payer:
    """A user, and the key that they used; "" where there is none: a session has no key, and the keys that a server is started with
    belong to nobody."""

    user_id: str = ""
    key_id: str = ""

    @classmethod
    def of(cls, actor: Actor) -> Payer:
        """Who asks, as who pays."""
        key = actor.credential if actor.via in (Via.KEY, Via.WORK) else None
        return cls(actor.user_id or "", key or "")
