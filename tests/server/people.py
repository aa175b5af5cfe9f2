"""A server with accounts, and everybody whom a test of access needs: signed in, with keys of all kinds, kept out, and nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy.engine import URL

from chatwright.store.accounts import keys, users
from chatwright.store.accounts.service import Accounts
from chatwright.store.actor import OPERATOR, Role, Scope
from chatwright.store.database import Database
from chatwright.store.migrate import upgrade
from chatwright.store.tables import ApiKey, User
from chatwright.store.url import sqlite_url
from tests.server.harness import RunningServer
from tests.store.people import PASSWORD, make_user, quick_accounts, signed_in

ADMIN_TOKEN = "operator-token-1234567890"
SERVER_KEY = "sk-server-key-1234567890"
ROLES = {
    "owner": Role.OWNER,
    "admin": Role.ADMIN,
    "member": Role.MEMBER,
    "other": Role.MEMBER,
    "suspended": Role.MEMBER,
}
KEYS = {
    "inference key": ("member", [Scope.INFERENCE]),
    "files key": ("member", [Scope.FILES, Scope.FINE_TUNING]),
    "full key": ("member", [Scope.INFERENCE, Scope.FILES, Scope.FINE_TUNING]),
    "full key of other": ("other", [Scope.INFERENCE, Scope.FILES, Scope.FINE_TUNING]),
    "admin key": ("admin", [Scope.ADMIN]),
    "revoked key": ("member", list(Scope)[:3]),
    "expired key": ("member", list(Scope)[:3]),
    "key of suspended": ("suspended", list(Scope)[:3]),
}


def email(name: str) -> str:
    return f"{name}@example.org"


@dataclass
class People:
    """Who there is. `ids`: of users; `keys`: the secrets; `key_ids`: their rows; `tokens`: of sessions."""

    url: URL
    ids: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    key_ids: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def do(self, work: Any) -> Any:
        """Something in the database, from outside of the server, as the command line does it."""

        async def errand() -> Any:
            database = Database(self.url)
            try:
                return await work(quick_accounts(database))
            finally:
                await database.close()

        return asyncio.run(errand())


def settle(place: Path | URL) -> People:
    """Make the database, in a folder or where a URL says, and everybody in it."""
    if isinstance(place, Path):
        place.mkdir(parents=True, exist_ok=True)
        place = sqlite_url(place / "chatwright.db")
    people = People(place)

    async def work(accounts: Accounts) -> None:
        await upgrade(people.url)
        found: dict[str, User] = {}
        for name, role in ROLES.items():
            found[name] = await make_user(accounts, email(name), role)
            people.ids[name] = found[name].id
        for name, (owner, scopes) in KEYS.items():
            async with accounts.database.write() as session:
                row, key = await keys.make_own_key(session, signed_in(found[owner]), name, scopes, None)
                if name == "expired key":
                    row.expires_at = row.created_at - 1
            people.keys[name], people.key_ids[name] = key, row.id
        for name in ROLES:
            people.tokens[name] = (await accounts.sign_in(email(name), PASSWORD, "settle"))[1]
        async with accounts.database.write() as session:
            await keys.revoke_own_key(session, signed_in(found["member"]), people.key_ids["revoked key"])
            await users.suspend(session, OPERATOR, people.ids["suspended"])
            key = await session.get_one(ApiKey, people.key_ids["key of suspended"])
            key.revoked_at = None  # even a key that suspension had missed opens nothing

    people.do(work)
    return people


@contextmanager
def browser(server: RunningServer, name: str) -> Iterator[httpx.Client]:
    """A browser in which somebody signed in."""
    http = signed_in_client(server, name)
    try:
        yield http
    finally:
        http.close()


def signed_in_client(server: RunningServer, name: str) -> httpx.Client:
    """The same, to be closed by whoever asks."""
    http = server.http(headers={"Origin": server.url})
    answer = http.post("/api/session", json={"email": email(name), "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    http.headers["X-CSRF-Token"] = answer.json()["csrf_token"]
    return http


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
