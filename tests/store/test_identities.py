"""Identities and the way to their provider, on both databases: once, in one browser, and never two for one account."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import func, select

from chatwright.store.accounts import users
from chatwright.store.accounts.identities import LOGIN_LIFE_S, IdentityRefusedError, KnownAs
from chatwright.store.accounts.service import Accounts
from chatwright.store.actor import OPERATOR
from chatwright.store.database import Database
from chatwright.store.tables import Identity, OidcLogin, User
from tests.store.people import make_user, quick_accounts, set_clock

ISSUER = "https://login.example.org"


@pytest.fixture
def accounts(database: Database) -> Accounts:
    return quick_accounts(database)


def known(subject: str, email: str | None, issuer: str = ISSUER) -> KnownAs:
    return KnownAs(issuer, subject, email, None)


async def count(accounts: Accounts, table: type[Identity | OidcLogin | User]) -> int:
    async with accounts.database.read() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


async def test_a_login_ends_once_however_many_try(accounts: Accounts) -> None:
    login = await accounts.begin_login("10.0.0.1")
    ends = await asyncio.gather(*(accounts.end_login(login.state, login.browser) for _ in range(10)))
    assert [end for end in ends if end is not None] == [login]
    assert await count(accounts, OidcLogin) == 0


async def test_a_login_ends_in_its_own_browser_and_in_time(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    now = set_clock(monkeypatch)
    one, other = await accounts.begin_login("10.0.0.1"), await accounts.begin_login("10.0.0.1")
    assert await accounts.end_login(one.state, other.browser) is None
    assert await accounts.end_login(one.state, one.browser) is None, "tried, and gone"
    now.now += LOGIN_LIFE_S
    assert await accounts.end_login(other.state, other.browser) is None
    for state in ("", "x", "'; DROP TABLE users; --", "\x00", "x" * 43):
        assert await accounts.end_login(state, one.browser) is None


async def test_no_secret_of_a_login_is_kept(accounts: Accounts) -> None:
    login = await accounts.begin_login("10.0.0.1")
    async with accounts.database.read() as session:
        row = (await session.scalars(select(OidcLogin))).one()
    assert login.state not in (row.state_hash, row.browser_hash)
    assert login.browser not in (row.state_hash, row.browser_hash)


async def test_one_address_is_linked_to_one_subject_of_a_provider(accounts: Accounts) -> None:
    user = await make_user(accounts, "li@example.org")
    found, token = await accounts.sign_in_as(known("a", "LI@example.org"), "10.0.0.1", new_users=False)
    assert found.id == user.id
    assert (await accounts.actor_of_session(token)).user_id == user.id
    with pytest.raises(IdentityRefusedError) as refused:
        await accounts.sign_in_as(known("b", "li@example.org"), "10.0.0.1", new_users=True)
    assert refused.value.reason == "other_identity"
    found, _ = await accounts.sign_in_as(known("b", "li@example.org", "https://other.example"), "x", new_users=False)
    assert found.id == user.id, "another provider may know them by another name"
    assert await count(accounts, Identity) == 2


async def test_many_first_visits_at_once_make_one_user(accounts: Accounts) -> None:
    await make_user(accounts, "ann@example.org")
    visits = (accounts.sign_in_as(known("new", "new@example.org"), "x", new_users=True) for _ in range(10))
    found = await asyncio.gather(*visits)
    assert len({user.id for user, _ in found}) == 1
    assert (await count(accounts, User), await count(accounts, Identity)) == (2, 1)


@pytest.mark.parametrize("email", [None, "", "no address", "a@b\x00c", "x" * 300 + "@example.org"])
async def test_without_a_usable_address_nobody_is_made(accounts: Accounts, email: str | None) -> None:
    await make_user(accounts, "ann@example.org")
    with pytest.raises(IdentityRefusedError) as refused:
        await accounts.sign_in_as(known("new", email), "x", new_users=True)
    assert refused.value.reason == "stranger"
    assert await count(accounts, User) == 1


async def test_the_suspended_stay_out_and_nothing_is_written(accounts: Accounts) -> None:
    user = await make_user(accounts, "li@example.org")
    async with accounts.database.write() as session:
        await users.suspend(session, OPERATOR, user.id)
    with pytest.raises(IdentityRefusedError) as refused:
        await accounts.sign_in_as(known("a", "li@example.org"), "x", new_users=True)
    assert refused.value.reason == "suspended"
    assert await count(accounts, Identity) == 0


async def test_identities_go_with_their_user(accounts: Accounts) -> None:
    user = await make_user(accounts, "li@example.org")
    await accounts.sign_in_as(known("a", "li@example.org"), "x", new_users=False)
    async with accounts.database.write() as session:
        await users.remove_user(session, OPERATOR, user.id)
    assert await count(accounts, Identity) == 0
