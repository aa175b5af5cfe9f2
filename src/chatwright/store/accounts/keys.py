"""API keys: many a user, each named, scoped and perhaps expiring; shown once, and kept as a digest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import ForbiddenError, InvalidRequestError, NotFoundError
from chatwright.store import clock
from chatwright.store.accounts.emails import clean_name
from chatwright.store.accounts.secret import digest, new_key
from chatwright.store.actor import SCOPES_OF_ROLE, Actor, Role, Scope
from chatwright.store.database import one_at_a_time
from chatwright.store.ids import new_id
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.tables import ApiKey, User

MOST_KEYS = 100
LONGEST_LIFE_S = 10 * 365 * 86_400


async def list_own_keys(session: AsyncSession, actor: Actor) -> Sequence[ApiKey]:
    """One's own keys, the oldest first, also those that open nothing any more."""
    authorize(actor, Action.USE_KEYS, Resource(actor.user_id))
    return await _list(session, actor.user_id)


async def list_keys_of_users(session: AsyncSession, actor: Actor, user_id: str | None) -> Sequence[ApiKey]:
    """A user's keys; None: everybody's. Raises NotFoundError."""
    authorize(actor, Action.READ_KEYS_OF_USERS)
    if user_id is not None:
        await _find_user(session, user_id)
    return await _list(session, user_id)


async def make_own_key(
    session: AsyncSession, actor: Actor, name: str, scopes: Iterable[Scope], expires_at: int | None
) -> tuple[ApiKey, str]:
    """(row, key). The key is told here and never again.

    Raises InvalidRequestError; ForbiddenError for a scope that its user, or who makes it, has not.
    """
    authorize(actor, Action.USE_KEYS, Resource(actor.user_id))
    assert actor.user_id is not None
    return await _make(session, actor, actor.user_id, name, scopes, expires_at)


async def make_key_for_user(
    session: AsyncSession, actor: Actor, user_id: str, name: str, scopes: Iterable[Scope], expires_at: int | None
) -> tuple[ApiKey, str]:
    """The same, by the machine's operator."""
    authorize(actor, Action.MAKE_KEYS_FOR_USERS)
    return await _make(session, actor, user_id, name, scopes, expires_at)


async def revoke_own_key(session: AsyncSession, actor: Actor, key_id: str) -> ApiKey:
    """From now on it opens nothing. Raises NotFoundError, also for the keys of others."""
    authorize(actor, Action.USE_KEYS)
    row = await _find_key(session, key_id)
    authorize(actor, Action.USE_KEYS, Resource(row.user_id))
    row.revoked_at = row.revoked_at or clock.now()
    return row


async def revoke_key_of_user(session: AsyncSession, actor: Actor, user_id: str | None, key_id: str) -> ApiKey:
    """The same, of a user; None: of whoever has it. Raises NotFoundError for a key that is not this user's."""
    authorize(actor, Action.REVOKE_KEYS_OF_USERS)
    row = await _find_key(session, key_id)
    if user_id is not None and row.user_id != user_id:
        raise NotFoundError("There is nothing of that id.")
    user = await _find_user(session, row.user_id)
    authorize(actor, Action.REVOKE_KEYS_OF_USERS, Resource(user.id, Role.of(user.role)))
    row.revoked_at = row.revoked_at or clock.now()
    return row


async def _list(session: AsyncSession, user_id: str | None) -> Sequence[ApiKey]:
    query = select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)
    return (await session.scalars(query if user_id is None else query.where(ApiKey.user_id == user_id))).all()


async def _find_user(session: AsyncSession, user_id: str) -> User:
    user = await session.get(User, user_id)
    if user is None:
        raise NotFoundError("There is nothing of that id.")
    return user


async def _find_key(session: AsyncSession, key_id: str) -> ApiKey:
    row = await session.get(ApiKey, key_id)
    if row is None:
        raise NotFoundError("There is nothing of that id.")
    return row


async def _make(
    session: AsyncSession, actor: Actor, user_id: str, name: str, scopes: Iterable[Scope], expires_at: int | None
) -> tuple[ApiKey, str]:
    await one_at_a_time(session, f"keys of {user_id}")
    user = await _find_user(session, user_id)
    if user.status != "active":
        raise InvalidRequestError(
            "{email} has not chosen a password yet, or is suspended: only who can sign in can have keys.",
            email=user.email,
            code="not_active",
        )
    wanted = frozenset(scopes)
    if not wanted:
        raise InvalidRequestError("Name at least one scope.", param="scopes", code="invalid_value")
    allowed = SCOPES_OF_ROLE[Role.of(user.role)] & actor.scopes
    if missing := sorted(scope.value for scope in wanted - allowed):
        raise ForbiddenError("A key can not do more than its user: leave out {scopes}.", scopes=", ".join(missing))
    now = clock.now()
    if expires_at is not None and not now < expires_at <= now + LONGEST_LIFE_S:
        raise InvalidRequestError(
            "A key expires in the future, within ten years.", param="expires_at", code="invalid_value"
        )
    count = select(func.count()).select_from(ApiKey).where(ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
    if (await session.scalar(count) or 0) >= MOST_KEYS:
        raise InvalidRequestError("A user has at most {n} keys: revoke one first.", n=MOST_KEYS, code="too_many_keys")
    key, prefix = new_key()
    row = ApiKey(
        id=new_id("key"),
        user_id=user_id,
        prefix=prefix,
        secret_hash=digest(key),
        name=clean_name(name),
        scopes=" ".join(sorted(wanted)),
        created_at=now,
        expires_at=expires_at,
        revoked_at=None,
        used_at=None,
    )
    session.add(row)
    await session.flush()
    return row, key
