"""Accounts for tests, with passwords that are hashed quickly, and a clock that can be set."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from argon2 import PasswordHasher

from chatwright.store import clock
from chatwright.store.accounts import users
from chatwright.store.accounts.passwords import Passwords
from chatwright.store.accounts.service import Accounts
from chatwright.store.actor import OPERATOR, SCOPES_OF_ROLE, Actor, Role, Via
from chatwright.store.database import Database
from chatwright.store.tables import User

PASSWORD = "correct horse battery 马"


def quick_passwords() -> Passwords:
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


def quick_accounts(database: Database) -> Accounts:
    return Accounts(database, quick_passwords())


@dataclass
class Clock:
    """`elapsed_s`: what has passed, whatever the clock says."""

    now: int
    elapsed_s: float = 0.0

    def __call__(self) -> int:
        return self.now


def set_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time stands still until a test moves it."""
    set_to = Clock(1_790_000_000)
    monkeypatch.setattr(clock, "now", set_to)
    monkeypatch.setattr(clock, "monotonic", lambda: set_to.elapsed_s)
    return set_to


async def make_user(accounts: Accounts, email: str, role: Role = Role.MEMBER) -> User:
    """A user who can sign in."""
    async with accounts.database.write() as session:
        user = await users.add_user(session, OPERATOR, email, None, role)
    await accounts.set_password(OPERATOR, user.id, PASSWORD)
    async with accounts.database.read() as session:
        return await users.get_user(session, OPERATOR, user.id)


def signed_in(user: User) -> Actor:
    role = Role.of(user.role)
    return Actor(Via.SESSION, user.id, role, SCOPES_OF_ROLE[role], "session-x")
