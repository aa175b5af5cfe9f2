"""From what a request carries to who asks: a key or a session that is good at this moment, else nobody."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.store import clock
from chatwright.store.accounts.secret import KEY, TOKEN, digest, same
from chatwright.store.accounts.sessions import IDLE_S
from chatwright.store.actor import NOBODY, SCOPES_OF_ROLE, Actor, Role, Scope, Via
from chatwright.store.tables import ApiKey, Link, OidcLogin, Session, User

# The times of use are figures for people: a write for each request would be too much for them.
NOTED_EVERY_S = 60


@dataclass(frozen=True)
class Recognised:
    """`is_stale`: it is time to note that the credential was used. `is_over`: its time is up, which is not
    noted yet."""

    actor: Actor
    is_stale: bool = False
    is_over: bool = False


async def by_key(session: AsyncSession, text: str, now: int) -> Recognised:
    """Who sends this key. `now`: of `Expiry`. What is no key never reaches the database, nor does a secret: the row is found by
    the prefix, and the digests are compared in constant time, also where there is no row."""
    match = KEY.fullmatch(text)
    if match is None:
        return Recognised(NOBODY)
    found = (
        await session.execute(
            select(ApiKey, User).join(User, User.id == ApiKey.user_id).where(ApiKey.prefix == match[1])
        )
    ).one_or_none()
    is_right = same(digest(text), found[0].secret_hash if found is not None else digest("no such key"))
    if found is None or not is_right:
        return Recognised(NOBODY)
    key, user = found
    if key.revoked_at is not None:
        return Recognised(NOBODY)
    if key.expires_at is not None and key.expires_at <= now:
        return Recognised(NOBODY, is_over=True)
    if user.status != "active":
        return Recognised(NOBODY)
    role = Role.of(user.role)
    scopes = frozenset(Scope(word) for word in key.scopes.split()) & SCOPES_OF_ROLE[role]
    is_stale = key.used_at is None or abs(clock.now() - key.used_at) >= NOTED_EVERY_S
    return Recognised(Actor(Via.KEY, user.id, role, scopes, key.id), is_stale)


async def by_session(session: AsyncSession, token: str, now: int) -> Recognised:
    """Who has this session. Found by its digest: who could guess that could guess the token."""
    if TOKEN.fullmatch(token) is None:
        return Recognised(NOBODY)
    found = (
        await session.execute(
            select(Session, User).join(User, User.id == Session.user_id).where(Session.token_hash == digest(token))
        )
    ).one_or_none()
    if found is None:
        return Recognised(NOBODY)
    row, user = found
    if row.expires_at <= now or row.seen_at <= now - IDLE_S:
        return Recognised(NOBODY, is_over=True)
    if user.status != "active":
        return Recognised(NOBODY)
    role = Role.of(user.role)
    return Recognised(
        Actor(Via.SESSION, user.id, role, SCOPES_OF_ROLE[role], row.id), abs(clock.now() - row.seen_at) >= NOTED_EVERY_S
    )


async def close_what_is_over(session: AsyncSession, now: int) -> None:
    """End for good what has expired by now: a clock that is set back later opens none of it again.

    That is noted with each credential, and not as the latest time that was ever seen: one wrong jump of a clock into the future
    would close every door until that time has come, here only what lived until then. A key is kept for its user's list.
    """
    await session.execute(
        update(ApiKey).where(ApiKey.revoked_at.is_(None), ApiKey.expires_at <= now).values(revoked_at=ApiKey.expires_at)
    )
    await session.execute(delete(Session).where(or_(Session.expires_at <= now, Session.seen_at <= now - IDLE_S)))
    await session.execute(delete(Link).where(Link.expires_at <= now))
    await session.execute(delete(OidcLogin).where(OidcLogin.expires_at <= now))


async def note_use(session: AsyncSession, actor: Actor) -> None:
    """Write down that a credential was used."""
    if actor.via is Via.KEY:
        await session.execute(update(ApiKey).where(ApiKey.id == actor.credential).values(used_at=clock.now()))
    elif actor.via is Via.SESSION:
        await session.execute(update(Session).where(Session.id == actor.credential).values(seen_at=clock.now()))
