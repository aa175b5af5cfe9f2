"""Users and how they sign in: roles, suspension, links, throttling; on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type
from sqlalchemy import func, select

from chatwright.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    NotSignedInError,
    StoreUnavailableError,
    ThrottledError,
)
from chatwright.store.accounts import keys, links, sessions, throttle, users
from chatwright.store.accounts.emails import clean_email
from chatwright.store.accounts.passwords import Passwords, check_password
from chatwright.store.accounts.service import Accounts
from chatwright.store.actor import NOBODY, OPERATOR, Actor, Role, Scope, Via
from chatwright.store.database import Database
from chatwright.store.tables import Link, Session, Throttle, User
from tests.store.people import PASSWORD, make_user, quick_accounts, set_clock, signed_in


@pytest.fixture
async def accounts(database: Database) -> AsyncIterator[Accounts]:
    accounts = quick_accounts(database)
    yield accounts
    await accounts.written()


async def all_of(accounts: Accounts, table: Any) -> list[Any]:
    async with accounts.database.read() as session:
        return list((await session.scalars(select(table))).all())


async def test_the_first_owner_comes_by_the_link_of_the_console_only(accounts: Accounts) -> None:
    assert not await accounts.has_users()
    for token in ("", "x", "x" * 43, "' OR 1=1 --"):
        with pytest.raises(NotFoundError):
            await accounts.use_link(token, PASSWORD, "1.2.3.4", email="thief@example.org")
    old = await accounts.setup_token()
    token = await accounts.setup_token()
    assert old is not None
    assert token is not None
    with pytest.raises(NotFoundError):
        await accounts.use_link(old, PASSWORD, "1.2.3.4", email="late@example.org")
    with pytest.raises(InvalidRequestError):
        await accounts.use_link(token, PASSWORD, "1.2.3.4")
    user, session_token = await accounts.use_link(token, PASSWORD, "1.2.3.4", email=" Ann@Example.ORG ", name="安")
    assert (user.role, user.status, user.email, user.name) == ("owner", "active", "ann@example.org", "安")
    assert (await accounts.actor_of_session(session_token)).role is Role.OWNER
    assert await accounts.setup_token() is None
    with pytest.raises(NotFoundError):
        await accounts.use_link(token, PASSWORD, "1.2.3.4", email="second@example.org")


async def test_two_who_use_the_setup_link_at_once_do_not_both_become_owners(accounts: Accounts) -> None:
    token = await accounts.setup_token()
    assert token is not None
    results = await asyncio.gather(
        *(accounts.use_link(token, PASSWORD, "a", email=f"{n}@example.org") for n in range(5)), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert len(await all_of(accounts, User)) == 1


async def test_what_is_kept_opens_nothing(accounts: Accounts) -> None:
    """Who reads the database finds no password, no token, no key."""
    setup = await accounts.setup_token()
    assert setup is not None
    user, token = await accounts.use_link(setup, PASSWORD, "1.2.3.4", email="ann@example.org")
    async with accounts.database.write() as session:
        invitation = await links.make_link(session, OPERATOR, user.id)
        _row, key = await keys.make_own_key(session, signed_in(user), "k", [Scope.INFERENCE], None)
    kept = repr(
        [vars(row) for table in (User, Session, Link, Throttle, keys.ApiKey) for row in await all_of(accounts, table)]
    )
    for secret in (PASSWORD, setup, token, invitation, key, key.split("-")[3], "1.2.3.4"):
        assert secret not in kept
    assert "$argon2id$" in kept


async def test_signing_in(accounts: Accounts) -> None:
    user = await make_user(accounts, "ann@example.org")
    found, token = await accounts.sign_in("ANN@example.org ", PASSWORD, "1.2.3.4")
    assert found.id == user.id
    actor = await accounts.actor_of_session(token)
    assert (actor.via, actor.user_id, actor.role) == (Via.SESSION, user.id, Role.MEMBER)
    assert Scope.ADMIN not in actor.scopes
    # The same password from a keyboard that composes letters in another way.
    assert await accounts.sign_in("ann@example.org", PASSWORD.replace("c", "ｃ"), "1.2.3.4")
    for email, password in (
        ("ann@example.org", PASSWORD + "x"),
        ("ann@example.org", PASSWORD[:-1]),
        ("ann@example.org", ""),
        ("bob@example.org", PASSWORD),
        ("", PASSWORD),
        ("' OR '1'='1", "' OR '1'='1"),
    ):
        with pytest.raises(NotSignedInError, match="or the password is wrong"):
            await accounts.sign_in(email, password, "1.2.3.4")
    await accounts.sign_out(token)
    assert await accounts.actor_of_session(token) is NOBODY


async def test_who_was_invited_has_no_password_yet(accounts: Accounts) -> None:
    async with accounts.database.write() as session:
        user = await users.add_user(session, OPERATOR, "li@example.org", None, Role.MEMBER)
        token = await links.make_link(session, OPERATOR, user.id)
    with pytest.raises(NotSignedInError):
        await accounts.sign_in("li@example.org", "", "1.2.3.4")
    assert (await accounts.look_at_link(token, "a")).email == "li@example.org"
    found, _ = await accounts.use_link(token, PASSWORD, "a", email="other@example.org")
    assert (found.id, found.email, found.status, found.role) == (user.id, "li@example.org", "active", "member")
    with pytest.raises(NotFoundError):
        await accounts.use_link(token, PASSWORD + "2", "a")


async def test_links_are_good_for_a_while_only_and_the_last_one_counts(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = set_clock(monkeypatch)
    user = await make_user(accounts, "ann@example.org")
    async with accounts.database.write() as session:
        first = await links.make_link(session, OPERATOR, user.id)
    async with accounts.database.write() as session:
        second = await links.make_link(session, OPERATOR, user.id)
    with pytest.raises(NotFoundError):
        await accounts.look_at_link(first, "a")
    assert (await accounts.look_at_link(second, "a")).purpose == "reset"
    now.now += links.LIFE_S
    with pytest.raises(NotFoundError):
        await accounts.look_at_link(second, "a")


async def test_a_reset_ends_all_sessions(accounts: Accounts) -> None:
    user = await make_user(accounts, "ann@example.org")
    _, token = await accounts.sign_in(user.email, PASSWORD, "a")
    async with accounts.database.write() as session:
        link = await links.make_link(session, OPERATOR, user.id)
    assert (await accounts.actor_of_session(token)).user_id == user.id, "a link that nobody used changes nothing"
    await accounts.use_link(link, "another password 2", "a")
    assert await accounts.actor_of_session(token) is NOBODY
    with pytest.raises(NotSignedInError):
        await accounts.sign_in(user.email, PASSWORD, "a")


async def test_changing_the_password_needs_the_old_one_and_ends_all_sessions(accounts: Accounts) -> None:
    user = await make_user(accounts, "ann@example.org")
    _, here = await accounts.sign_in(user.email, PASSWORD, "a")
    _, elsewhere = await accounts.sign_in(user.email, PASSWORD, "a")
    actor = await accounts.actor_of_session(here)
    with pytest.raises(InvalidRequestError, match="old password"):
        await accounts.change_password(actor, "wrong password", "a new password 1")
    with pytest.raises(InvalidRequestError, match="at least"):
        await accounts.change_password(actor, PASSWORD, "short")
    new = await accounts.change_password(actor, PASSWORD, "a new password 1")
    for token in (here, elsewhere):
        assert await accounts.actor_of_session(token) is NOBODY
    assert (await accounts.actor_of_session(new)).user_id == user.id
    assert await accounts.sign_in(user.email, "a new password 1", "a")


@pytest.mark.parametrize("password", ["", "short", "aaaaaaaaaaaaaaaa", "ababababababab", "ann.lee1234", "x" * 501])
def test_weak_passwords_are_refused(password: str) -> None:
    with pytest.raises(InvalidRequestError):
        check_password(password, "ann.lee@example.org")


def test_good_passwords_are_not() -> None:
    for password in (PASSWORD, "密码要够长才安全可靠吧", "correct horse", "ann.lee walks the dog"):
        check_password(password, "ann.lee@example.org")


def test_passwords_are_hashed_as_they_should_be() -> None:
    """OWASP's least for argon2id: 19 MiB with two passes; RFC 9106's second choice: 64 MiB with three."""
    parameters = extract_parameters(asyncio.run(Passwords().hash("x" * 10)))
    assert parameters.type is Type.ID
    assert (parameters.memory_cost, parameters.time_cost) >= (65536, 3)
    assert parameters.salt_len >= 16


async def test_a_hash_of_older_parameters_is_renewed_by_signing_in(accounts: Accounts, database: Database) -> None:
    user = await make_user(accounts, "ann@example.org")
    stronger = Accounts(database, Passwords(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)))
    await stronger.sign_in(user.email, PASSWORD, "a")
    [row] = await all_of(accounts, User)
    assert row.password_hash != user.password_hash
    assert extract_parameters(row.password_hash).time_cost == 2
    assert await stronger.sign_in(user.email, PASSWORD, "a")


async def test_suspension_ends_everything(accounts: Accounts) -> None:
    owner, user = (
        await make_user(accounts, "owner@example.org", Role.OWNER),
        await make_user(accounts, "ann@example.org"),
    )
    _, token = await accounts.sign_in(user.email, PASSWORD, "a")
    async with accounts.database.write() as session:
        _, key = await keys.make_own_key(session, signed_in(user), "k", [Scope.INFERENCE], None)
        link = await links.make_link(session, OPERATOR, user.id)
    assert (await accounts.actor_of_key(key)).user_id == user.id
    async with accounts.database.write() as session:
        await users.suspend(session, signed_in(owner), user.id)

    async def is_shut() -> None:
        assert await accounts.actor_of_session(token) is NOBODY
        assert await accounts.actor_of_key(key) is NOBODY
        with pytest.raises(NotFoundError):
            await accounts.use_link(link, PASSWORD, "a")

    await is_shut()
    with pytest.raises(NotSignedInError):
        await accounts.sign_in(user.email, PASSWORD, "a")
    with pytest.raises(InvalidRequestError):
        async with accounts.database.write() as session:
            await links.make_link(session, OPERATOR, user.id)
    async with accounts.database.write() as session:
        await users.resume(session, signed_in(owner), user.id)
    await is_shut()
    assert await accounts.sign_in(user.email, PASSWORD, "a"), "the password opens again, nothing else"


async def test_suspension_while_the_password_is_hashed_counts(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await make_user(accounts, "ann@example.org")
    verify = accounts._passwords.verify

    async def slowly(*given: Any) -> bool:
        result = await verify(*given)
        async with accounts.database.write() as session:
            await users.suspend(session, OPERATOR, user.id)
        return result

    monkeypatch.setattr(accounts._passwords, "verify", slowly)
    with pytest.raises(NotSignedInError):
        await accounts.sign_in(user.email, PASSWORD, "a")
    assert await all_of(accounts, Session) == []


async def test_removing_a_user_removes_all_that_is_theirs(accounts: Accounts) -> None:
    user = await make_user(accounts, "ann@example.org")
    _, token = await accounts.sign_in(user.email, PASSWORD, "a")
    async with accounts.database.write() as session:
        _, key = await keys.make_own_key(session, signed_in(user), "k", [Scope.INFERENCE], None)
        await links.make_link(session, OPERATOR, user.id)
    async with accounts.database.write() as session:
        await users.remove_user(session, OPERATOR, user.id)
    for table in (User, Session, keys.ApiKey, Link):
        assert await all_of(accounts, table) == []
    assert await accounts.actor_of_key(key) is await accounts.actor_of_session(token) is NOBODY


async def test_there_is_always_an_owner(accounts: Accounts) -> None:
    one = await make_user(accounts, "one@example.org", Role.OWNER)
    async with accounts.database.write() as session:  # an owner who never came does not count
        await users.add_user(session, OPERATOR, "invited@example.org", None, Role.OWNER)

    async def attempts(user: User, actor: Actor) -> list[Any]:
        results = []
        for work in (
            lambda session: users.change_role(session, actor, user.id, Role.ADMIN),
            lambda session: users.suspend(session, actor, user.id),
            lambda session: users.remove_user(session, actor, user.id),
        ):
            try:
                async with accounts.database.write() as session:
                    await work(session)
                results.append(None)
            except InvalidRequestError as error:
                results.append(error.code)
        return results

    for actor in (OPERATOR, signed_in(one)):
        assert await attempts(one, actor) == ["last_owner"] * 3
    two = await make_user(accounts, "two@example.org", Role.OWNER)

    async def step_down(user: User) -> None:
        async with accounts.database.write() as session:
            await users.change_role(session, signed_in(user), user.id, Role.MEMBER)

    done = await asyncio.gather(step_down(one), step_down(two), return_exceptions=True)
    assert sorted(type(result).__name__ for result in done) == ["InvalidRequestError", "NoneType"], "not both at once"


async def test_who_may_change_whom(accounts: Accounts) -> None:
    owner = await make_user(accounts, "owner@example.org", Role.OWNER)
    admin = await make_user(accounts, "admin@example.org", Role.ADMIN)
    member = await make_user(accounts, "member@example.org")
    other = await make_user(accounts, "other@example.org")

    async def attempt(actor: Actor, work: Any, *given: Any) -> type[BaseException] | None:
        try:
            async with accounts.database.write() as session:
                await work(session, actor, *given)
                raise ZeroDivisionError  # undone: the next attempt finds the same
        except ZeroDivisionError:
            return None
        except (ForbiddenError, NotFoundError) as error:
            return type(error)

    works: list[tuple[Any, ...]] = [
        (users.suspend,),
        (users.resume,),
        (users.remove_user,),
        (users.change_role, Role.MEMBER),
        (links.make_link,),
    ]
    await make_user(accounts, "spare@example.org", Role.OWNER)
    for work, *given in works:
        assert await attempt(signed_in(member), work, other.id, *given) is ForbiddenError
        assert await attempt(signed_in(admin), work, owner.id, *given) is ForbiddenError
        assert await attempt(signed_in(admin), work, member.id, *given) is None
        assert await attempt(signed_in(owner), work, admin.id, *given) is None
        assert await attempt(signed_in(owner), work, "user-none", *given) is NotFoundError
    for actor, role, wanted in (
        (admin, Role.OWNER, ForbiddenError),
        (admin, Role.ADMIN, None),
        (owner, Role.OWNER, None),
        (member, Role.MEMBER, ForbiddenError),
    ):
        assert await attempt(signed_in(actor), users.change_role, other.id, role) is wanted
        assert await attempt(signed_in(actor), users.add_user, "new@example.org", None, role) is wanted
    for work in (users.list_users, keys.list_keys_of_users):
        arguments = () if work is users.list_users else (None,)
        assert await attempt(signed_in(member), work, *arguments) is ForbiddenError


async def test_an_address_is_one_account(accounts: Accounts) -> None:
    await make_user(accounts, "ann@example.org")
    for email in ("ann@example.org", "ANN@EXAMPLE.ORG", " ann@example.org", "ａnn@example.org"):
        with pytest.raises(InvalidRequestError) as refused:
            await make_user(accounts, email)
        assert refused.value.code == "email_taken"
    for email in (
        "",
        "ann",
        "@",
        "a@",
        "@b",
        "a b@c",
        "a@b\nc",
        "a@b\x00",
        "<a@b>",
        "a@b@c",
        "x" * 251 + "@b.c",
        "a\u202e@b.c",
    ):
        with pytest.raises(InvalidRequestError):
            clean_email(email)


async def test_guessing_slows_down(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    now = set_clock(monkeypatch)
    user = await make_user(accounts, "ann@example.org")

    async def guess(password: str = "wrong password", email: str = user.email, address: str = "1.2.3.4") -> str:
        try:
            await accounts.sign_in(email, password, address)
        except ThrottledError as error:
            return str(error.params["seconds"])
        except NotSignedInError:
            return "wrong"
        return "in"

    assert [await guess() for _ in range(6)] == ["wrong"] * 5 + ["1"]
    assert await guess(PASSWORD) == "1", "also who knows the password waits: else a guesser would learn when he had it"
    assert await guess(PASSWORD, address="9.9.9.9") == "1"
    waits = []
    for _ in range(12):
        while (said := await guess()) != "wrong":
            waits.append(int(said))
            now.now += int(said)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    now.now += 300
    assert await guess(PASSWORD) == "in"
    assert [await guess() for _ in range(6)] == ["wrong"] * 5 + ["1"], "who got in starts anew"
    now.now -= 10_000_000  # a clock that was set back keeps nobody out until it is again what it was
    assert await guess() == "wrong"
    assert int(await guess(PASSWORD)) <= throttle.LONGEST_WAIT_S, "and lets nobody guess on"
    now.now += throttle.LONGEST_WAIT_S
    assert await guess(PASSWORD) == "in"


async def test_guessing_at_many_accounts_slows_down_too(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch)
    user = await make_user(accounts, "ann@example.org")
    for number in range(throttle.FREE_OF_ADDRESS):
        with pytest.raises(NotSignedInError):
            await accounts.sign_in(f"{number}@example.org", "wrong password", "1.2.3.4")
    for email in ("x@example.org", user.email):
        with pytest.raises(ThrottledError):
            await accounts.sign_in(email, PASSWORD, "1.2.3.4")
    assert await accounts.sign_in(user.email, PASSWORD, "9.9.9.9")


async def test_guessing_at_links_slows_down(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch)
    for _ in range(throttle.FREE_OF_ADDRESS):
        with pytest.raises(NotFoundError):
            await accounts.look_at_link("x" * 43, "1.2.3.4")
    with pytest.raises(ThrottledError):
        await accounts.look_at_link("x" * 43, "1.2.3.4")


async def test_fifty_guesses_at_once_are_fifty_guesses(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    set_clock(monkeypatch)
    user = await make_user(accounts, "ann@example.org")
    looked_at = 0
    verify = accounts._passwords.verify

    async def counted(*given: Any) -> bool:
        nonlocal looked_at
        looked_at += 1
        return await verify(*given)

    monkeypatch.setattr(accounts._passwords, "verify", counted)
    results = await asyncio.gather(
        *(accounts.sign_in(user.email, f"guess number {n}", f"address {n}") for n in range(50)), return_exceptions=True
    )
    assert looked_at == throttle.FREE_OF_ACCOUNT
    assert {type(result) for result in results} <= {NotSignedInError, ThrottledError, StoreUnavailableError}


async def test_an_unknown_account_takes_as_long_as_a_wrong_password(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not timed, but counted: the same work is done."""
    user = await make_user(accounts, "ann@example.org")
    hashes = []
    original = accounts._passwords._matches
    monkeypatch.setattr(accounts._passwords, "_matches", lambda *given: hashes.append(given[0]) or original(*given))
    for email in (user.email, "nobody@example.org", "nonsense"):
        with pytest.raises(NotSignedInError):
            await accounts.sign_in(email, "wrong password", "a")
    assert len(hashes) == 3
    assert {text.rsplit("$", 2)[0] for text in hashes} == {hashes[0].rsplit("$", 2)[0]}, "with the same parameters"


async def test_sessions_end_by_themselves(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    now = set_clock(monkeypatch)
    user = await make_user(accounts, "ann@example.org")
    _, idle = await accounts.sign_in(user.email, PASSWORD, "a")
    now.now += sessions.IDLE_S
    assert await accounts.actor_of_session(idle) is NOBODY
    _, used = await accounts.sign_in(user.email, PASSWORD, "a")
    assert len(await all_of(accounts, Session)) == 1, "what is over is removed"
    start = now.now
    while now.now + 86_400 < start + sessions.LIFE_S:
        now.now += 86_400
        assert (await accounts.actor_of_session(used)).user_id == user.id
        await accounts.written()
    now.now += 86_400
    assert await accounts.actor_of_session(used) is NOBODY


async def test_a_clock_that_is_set_back_opens_no_session_or_link_again(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = set_clock(monkeypatch)
    start, user = now.now, await make_user(accounts, "ann@example.org")
    _, idle = await accounts.sign_in(user.email, PASSWORD, "a")
    now.now += sessions.IDLE_S
    assert await accounts.actor_of_session(idle) is NOBODY
    now.now = start
    assert await accounts.actor_of_session(idle) is NOBODY
    async with accounts.database.write() as session:
        link = await links.make_link(session, OPERATOR, user.id)
    now.now += links.LIFE_S
    with pytest.raises(NotFoundError):
        await accounts.look_at_link(link, "a")
    now.now = start
    with pytest.raises(NotFoundError):
        await accounts.use_link(link, PASSWORD, "a")
    _, fresh = await accounts.sign_in(user.email, PASSWORD, "a")
    assert (await accounts.actor_of_session(fresh)).user_id == user.id


async def test_one_ends_ones_own_sessions_only(accounts: Accounts) -> None:
    ann, bob = await make_user(accounts, "ann@example.org"), await make_user(accounts, "bob@example.org", Role.OWNER)
    _, token = await accounts.sign_in(ann.email, PASSWORD, "a")
    _, other = await accounts.sign_in(ann.email, PASSWORD, "a")
    actor, others = await accounts.actor_of_session(token), await accounts.actor_of_session(other)
    assert others.credential is not None
    for thief in (signed_in(bob),):
        with pytest.raises(NotFoundError):
            async with accounts.database.write() as session:
                await sessions.end_session(session, thief, others.credential)
    async with accounts.database.read() as session:
        assert len(await sessions.list_sessions(session, actor)) == 2
        assert await sessions.list_sessions(session, signed_in(bob)) == []
    async with accounts.database.write() as session:
        await sessions.end_session(session, actor, others.credential)
    assert await accounts.actor_of_session(other) is NOBODY
    assert (await accounts.actor_of_session(token)).user_id == ann.id


async def test_no_token_but_the_right_one_is_a_session(accounts: Accounts) -> None:
    user = await make_user(accounts, "ann@example.org")
    _, token = await accounts.sign_in(user.email, PASSWORD, "a")
    [row] = await all_of(accounts, Session)
    for wrong in (
        "",
        token[:-1],
        token + "x",
        token.swapcase(),
        row.id,
        row.token_hash,
        "' OR 1=1 --",
        "x" * 43,
        token + "\n",
        "\udc80" * 43,
    ):
        assert await accounts.actor_of_session(wrong) is NOBODY
    async with accounts.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(Session)) == 1
