"""Who asks: a person in a session, a key, the operator of the machine, or nobody. Every query of the store takes one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Role(IntEnum):
    """What a user is here; a higher one may do all that a lower one may."""

    MEMBER = 1
    ADMIN = 2
    OWNER = 3

    @property
    def word(self) -> str:
        """As it is written in the store and on the wire."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Role:
        """Raises KeyError."""
        return cls[word.upper()]


class Scope(StrEnum):
    """What a key may be used for."""

    INFERENCE = "inference"
    FILES = "files"
    FINE_TUNING = "fine-tuning"
    ADMIN = "admin"


EVERYTHING = frozenset(Scope)
SCOPES_OF_ROLE = {
    Role.MEMBER: EVERYTHING - {Scope.ADMIN},
    Role.ADMIN: EVERYTHING,
    Role.OWNER: EVERYTHING,
}


class Via(StrEnum):
    """How somebody came in."""

    NOBODY = "nobody"
    OPEN = "open"  # this machine, where there are neither keys nor accounts
    SERVER_KEY = "server key"  # --api-key
    KEY = "key"
    SESSION = "session"
    WORK = "work"  # a job or batch that a user started, and that goes on without them
    OPERATOR = "operator"  # the admin token, or the command line: who has it can change the files themselves


@dataclass(frozen=True)
class Actor:
    """`role` and `scopes`: those at this moment. `credential`: the id of the session or key; never the secret."""

    via: Via
    user_id: str | None = None
    role: Role | None = None
    scopes: frozenset[Scope] = frozenset()
    credential: str | None = None


NOBODY = Actor(Via.NOBODY)
OPEN = Actor(Via.OPEN, scopes=frozenset({Scope.INFERENCE}))
SERVER_KEY = Actor(Via.SERVER_KEY, scopes=frozenset({Scope.INFERENCE}))
OPERATOR = Actor(Via.OPERATOR, role=Role.OWNER, scopes=EVERYTHING)


def on_behalf_of_owner(user_id: str | None, key_id: str | None = None) -> Actor:
    """Who works for whom something belongs to, when they are not there: the operator for what is nobody's. `key_id`: the key by
    which it was begun, whose limits hold for it too.

    Only for work that was allowed when it was started. A user's work stops with the user: whoever runs it looks whether they are
    still active.
    """
    if user_id is None:
        return OPERATOR
    return Actor(Via.WORK, user_id, Role.MEMBER, SCOPES_OF_ROLE[Role.MEMBER], key_id)
