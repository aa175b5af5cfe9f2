"""API keys: what one can do, for how long, and that nothing else than the key itself opens."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from types import ModuleType

import pytest

from chatwright.errors import ForbiddenError, InvalidRequestError, NotFoundError, StoreUnavailableError
from chatwright.store.accounts import keys, links, sessions, users
from chatwright.store.accounts.service import Accounts
from chatwright.store.actor import NOBODY, OPERATOR, Actor, Role, Scope, Via
from chatwright.store.database import Database
from chatwright.store.tables import ApiKey, User
from tests.store.people import PASSWORD, make_user, quick_accounts, set_clock, signed_in


@pytest.fixture
async def accounts(database: Database) -> AsyncIterator[Accounts]:
    accounts = quick_accounts(database)
    yield accounts
    await accounts.written()


async def make(
    accounts: Accounts, user: User, *scopes: Scope, expires_at: int | None = None, name: str = "laptop"
) -> tuple[ApiKey, str]:
    async with accounts.database.write() as session:
        return await keys.make_own_key(session, signed_in(user), name, scopes or [Scope.INFERENCE], expires_at)


async def test_a_key_is_its_user_with_less(accounts: Accounts) -> None:
    user = await make_user(accounts, "ann@example.org", Role.ADMIN)
    row, key = await make(accounts, user, Scope.INFERENCE, Scope.FILES, name="笔记本 🙂")
    actor = await accounts.actor_of_key(key)
    assert actor == Actor(Via.KEY, user.id, Role.ADMIN, frozenset({Scope.INFERENCE, Scope.FILES}), row.id)
    assert key.startswith(f"sk-cw-{row.prefix}-")
    await accounts.written()
    async with accounts.database.read() as session:
        [listed] = await keys.list_own_keys(session, signed_in(user))
    assert listed.used_at is not None
    assert listed.name == "笔记本 🙂"


async def test_nothing_but_the_key_opens(accounts: Accounts) -> None:
    user = await make_user(accounts, "ann@example.org")
    row, key = await make(accounts, user)
    other, other_key = await make(accounts, user)
    secret, other_secret = key.split("-")[3], other_key.split("-")[3]
    for wrong in (
        "",
        key[:-1],
        key + "x",
        key.swapcase(),
        key + "\n",
        f" {key}",
        key.upper(),
        row.id,
        row.prefix,
        row.secret_hash,
        f"sk-cw-{row.prefix}-{row.secret_hash}"[: len(key)],
        f"sk-cw-{row.prefix}-{other_secret}",
        f"sk-cw-{other.prefix}-{secret}",
        f"sk-cw-{'x' * 12}-{secret}",
        f"sk-cw-{row.prefix}-{'x' * 43}",
        "sk-cw-%-%",
        f"sk-cw-{row.prefix}' OR '1'='1-{secret}",
        "' UNION SELECT * FROM api_keys --",
        "x'; DROP TABLE api_keys; --",
        "\x00" * 62,
        "sk-cw-" + "х" * 12 + "-" + "х" * 43,  # Cyrillic
        "\udc80",
        "x" * 60_000,
    ):
        assert await accounts.actor_of_key(wrong) is NOBODY, wrong[:80]
    assert (await accounts.actor_of_key(key)).credential == row.id
    assert (await accounts.actor_of_key(other_key)).credential == other.id


async def test_a_key_never_has_more_than_its_creator(accounts: Accounts) -> None:
    member, admin = await make_user(accounts, "m@example.org"), await make_user(accounts, "a@example.org", Role.ADMIN)
    await make_user(accounts, "o@example.org", Role.OWNER)
    with pytest.raises(ForbiddenError, match="leave out admin"):
        await make(accounts, member, Scope.ADMIN, Scope.INFERENCE)
    _, key = await make(accounts, admin, *Scope)
    actor = await accounts.actor_of_key(key)
    assert actor.scopes == frozenset(Scope)
    # No key makes keys, changes an account, or acts as another, whatever its scopes.
    async with accounts.database.write() as session:
        with pytest.raises(ForbiddenError):
            await keys.make_own_key(session, actor, "more", [Scope.INFERENCE], None)
        with pytest.raises(ForbiddenError):
            await keys.make_key_for_user(session, actor, member.id, "as them", [Scope.INFERENCE], None)
        with pytest.raises(ForbiddenError):
            await keys.make_key_for_user(session, signed_in(admin), member.id, "as them", [Scope.INFERENCE], None)
        with pytest.raises(ForbiddenError):
            await sessions.list_sessions(session, actor)
        with pytest.raises(ForbiddenError):
            await keys.make_key_for_user(session, OPERATOR, member.id, "too much", [Scope.ADMIN], None)
    async with accounts.database.write() as session:
        await users.change_role(session, OPERATOR, admin.id, Role.MEMBER)
    demoted = await accounts.actor_of_key(key)
    assert demoted.scopes == frozenset(Scope) - {Scope.ADMIN}
    assert demoted.role is Role.MEMBER


async def test_a_key_expires(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    now = set_clock(monkeypatch)
    user = await make_user(accounts, "ann@example.org")
    _, key = await make(accounts, user, expires_at=now.now + 60)
    now.now += 59
    assert (await accounts.actor_of_key(key)).user_id == user.id
    now.now += 1
    assert await accounts.actor_of_key(key) is NOBODY
    for expires_at in (now.now, now.now - 1, 0, -1, now.now + 11 * 365 * 86_400):
        with pytest.raises(InvalidRequestError):
            await make(accounts, user, expires_at=expires_at)


async def test_a_clock_that_is_set_back_opens_no_expired_key_again(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = set_clock(monkeypatch)
    start, user = now.now, await make_user(accounts, "ann@example.org")
    row, refused = await make(accounts, user, expires_at=start + 60)
    _, unused = await make(accounts, user, expires_at=start + 60)
    _, longer = await make(accounts, user, expires_at=start + 3600)
    _, endless = await make(accounts, user)
    now.now += 60
    assert await accounts.actor_of_key(refused) is NOBODY
    now.now = start
    for key, opens in ((refused, False), (unused, False), (longer, True), (endless, True)):
        assert (await accounts.actor_of_key(key) is not NOBODY) is opens
    async with accounts.database.read() as session:
        closed = next(each for each in await keys.list_own_keys(session, signed_in(user)) if each.id == row.id)
    assert closed.revoked_at == closed.expires_at == start + 60, "lists say that it expired, and when"
    # Nobody asks: what a server sweeps every few minutes.
    now.now = start + 3600
    await accounts.close_what_is_over()
    now.now = start
    assert await accounts.actor_of_key(longer) is NOBODY
    assert await accounts.actor_of_key(endless) is not NOBODY


async def test_a_clock_that_is_set_back_opens_nothing_that_expired_since_the_last_sweep(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody sent the key in between, and no sweep came by: the time goes on all the same."""
    now = set_clock(monkeypatch)
    start, user = now.now, await make_user(accounts, "ann@example.org")
    _, short = await make(accounts, user, expires_at=start + 60)
    _, also_short = await make(accounts, user, expires_at=start + 60)
    _, longer = await make(accounts, user, expires_at=start + 7200)
    _, token = await accounts.sign_in(user.email, PASSWORD, "a")
    await accounts.close_what_is_over()
    now.elapsed_s = 100.0
    now.now = start - 3600
    assert await accounts.actor_of_key(short) is NOBODY
    await accounts.close_what_is_over()
    for key, opens in ((short, False), (also_short, False), (longer, True)):
        assert (await accounts.actor_of_key(key) is not NOBODY) is opens
    assert await accounts.actor_of_session(token) is not NOBODY
    # What is made by the clock of now lives as long as it says.
    _, fresh = await make(accounts, user, expires_at=now.now + 60)
    now.elapsed_s, now.now = now.elapsed_s + 59, now.now + 59
    assert await accounts.actor_of_key(fresh) is not NOBODY
    now.elapsed_s, now.now = now.elapsed_s + 1, now.now + 1
    assert await accounts.actor_of_key(fresh) is NOBODY


async def test_a_database_that_can_not_note_that_a_key_is_over_refuses_it_all_the_same(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = set_clock(monkeypatch)
    _, key = await make(accounts, await make_user(accounts, "ann@example.org"), expires_at=now.now + 60)
    now.now += 60

    async def fail() -> None:
        raise StoreUnavailableError("gone")

    with monkeypatch.context() as broken:
        broken.setattr(accounts, "close_what_is_over", fail)
        assert await accounts.actor_of_key(key) is NOBODY
    assert await accounts.actor_of_key(key) is NOBODY
    now.now -= 60
    assert await accounts.actor_of_key(key) is NOBODY


async def test_a_revoked_key_opens_nothing_at_once(accounts: Accounts) -> None:
    user = await make_user(accounts, "ann@example.org")
    row, key = await make(accounts, user)
    assert (await accounts.actor_of_key(key)).user_id == user.id
    for _ in range(2):
        async with accounts.database.write() as session:
            assert (await keys.revoke_own_key(session, signed_in(user), row.id)).revoked_at
        assert await accounts.actor_of_key(key) is NOBODY


async def test_keys_of_others_do_not_exist(accounts: Accounts) -> None:
    ann, bob = await make_user(accounts, "ann@example.org"), await make_user(accounts, "bob@example.org")
    admin = await make_user(accounts, "admin@example.org", Role.ADMIN)
    owner = await make_user(accounts, "owner@example.org", Role.OWNER)
    row, key = await make(accounts, ann)
    owners, _ = await make(accounts, owner)
    async with accounts.database.write() as session:
        for thief in (bob, admin, owner):
            with pytest.raises(NotFoundError):
                await keys.revoke_own_key(session, signed_in(thief), row.id)
        with pytest.raises(ForbiddenError):
            await keys.revoke_key_of_user(session, signed_in(bob), ann.id, row.id)
        with pytest.raises(ForbiddenError):
            await keys.revoke_key_of_user(session, signed_in(admin), owner.id, owners.id)
        # The key must be that user's: else the right to one would be the right to all.
        with pytest.raises(NotFoundError):
            await keys.revoke_key_of_user(session, signed_in(admin), bob.id, row.id)
        assert await keys.list_own_keys(session, signed_in(bob)) == []
    assert (await accounts.actor_of_key(key)).user_id == ann.id
    async with accounts.database.write() as session:
        assert [found.id for found in await keys.list_keys_of_users(session, signed_in(admin), ann.id)] == [row.id]
        await keys.revoke_key_of_user(session, signed_in(admin), ann.id, row.id)
    assert await accounts.actor_of_key(key) is NOBODY


async def test_there_are_not_endlessly_many_keys(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MOST_KEYS", 3)
    user = await make_user(accounts, "ann@example.org")
    made = await asyncio.gather(*(make(accounts, user) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(result, tuple) for result in made) == 3
    for name in ("", " ", "x" * 101, "a\nb", "a\x00b", "a\u202eb"):
        with pytest.raises(InvalidRequestError):
            await make(accounts, user, name=name)


async def test_a_database_that_takes_no_writes_keeps_no_key_out(accounts: Accounts) -> None:
    """When a key was last used is only a figure."""
    if not accounts.database.is_sqlite:
        pytest.skip("PostgreSQL writes beside other writers")
    user = await make_user(accounts, "ann@example.org")
    _, key = await make(accounts, user)
    impatient = quick_accounts(Database(accounts.database.url, wait_s=0.1))
    async with accounts.database.write():
        assert (await impatient.actor_of_key(key)).user_id == user.id
    with pytest.raises(StoreUnavailableError):  # but what can not be looked up opens nothing
        async with accounts.database.write():
            await impatient.setup_token()
    await impatient.written()
    await impatient.database.close()


@pytest.mark.parametrize("module", [users, keys, sessions, links])
def test_every_query_takes_an_actor(module: ModuleType) -> None:
    """But those of who has proven what no actor is needed for: the token of a link, a password."""
    proven = {"look_at_link", "use_link", "begin_session"}
    functions = {
        name: function
        for name, function in vars(module).items()
        if inspect.iscoroutinefunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }
    assert len(functions) > 2
    for name, function in functions.items():
        first, second = list(inspect.signature(function).parameters)[:2]
        assert first == "session"
        assert second == "actor" or name in proven, name
