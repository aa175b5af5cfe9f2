"""Users: added, changed, suspended, removed. There is always an owner who can sign in."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import InvalidRequestError, NotFoundError
from chatwright.store import clock
from chatwright.store.accounts.emails import clean_email, clean_name
from chatwright.store.actor import SCOPES_OF_ROLE, Actor, Role, Scope
from chatwright.store.database import one_at_a_time
from chatwright.store.ids import new_id
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.tables import ApiKey, Link, Session, User


async def list_users(session: AsyncSession, actor: Actor) -> Sequence[User]:
    """All users, the oldest first."""
    authorize(actor, Action.READ_USERS)
    return (await session.scalars(select(User).order_by(User.created_at, User.id))).all()


async def get_user(session: AsyncSession, actor: Actor, user_id: str) -> User:
    """One user. Raises NotFoundError."""
    authorize(actor, Action.READ_USERS)
    return await _find(session, user_id)


async def find_user(session: AsyncSession, actor: Actor, email: str) -> User:
    """The user of an address. Raises NotFoundError, InvalidRequestError."""
    authorize(actor, Action.READ_USERS)
    user = await session.scalar(select(User).where(User.email == clean_email(email)))
    if user is None:
        raise NotFoundError("There is no user {email}.", email=email.strip()[:254])
    return user


async def add_user(session: AsyncSession, actor: Actor, email: str, name: str | None, role: Role | None) -> User:
    """A user who was invited. `role`: by default a member, and an owner where there is nobody yet.

    Raises InvalidRequestError, ForbiddenError for a role above one's own.
    """
    await one_at_a_time(session, "users")
    if role is None:
        role = Role.MEMBER if await session.scalar(select(func.count()).select_from(User)) else Role.OWNER
    authorize(actor, Action.CHANGE_USERS, Resource(None, role))
    address = clean_email(email)
    if await session.scalar(select(User.id).where(User.email == address)) is not None:
        raise InvalidRequestError("There is a user {email} already.", email=address, param="email", code="email_taken")
    user = User(
        id=new_id("user"),
        email=address,
        name=clean_name(name) if name is not None else address.partition("@")[0][:100],
        role=role.word,
        status="invited",
        password_hash=None,
        created_at=clock.now(),
    )
    session.add(user)
    await session.flush()
    return user


async def change_role(session: AsyncSession, actor: Actor, user_id: str, role: Role) -> User:
    """Raises NotFoundError, ForbiddenError for what is above one's own role, InvalidRequestError for the last owner."""
    user = await _find_to_change(session, actor, user_id, role)
    if role is not Role.OWNER:
        await _keep_an_owner(session, user)
    user.role = role.word
    return user


async def suspend(session: AsyncSession, actor: Actor, user_id: str) -> User:
    """End everything a user could come in with: sessions and links are gone, keys revoked for good, the password opens nothing."""
    user = await _find_to_change(session, actor, user_id)
    await _keep_an_owner(session, user)
    user.status = "suspended"
    await session.execute(delete(Session).where(Session.user_id == user.id))
    await session.execute(delete(Link).where(Link.user_id == user.id))
    await session.execute(
        update(ApiKey).where(ApiKey.user_id == user.id, ApiKey.revoked_at.is_(None)).values(revoked_at=clock.now())
    )
    return user


async def resume(session: AsyncSession, actor: Actor, user_id: str) -> User:
    """Let a user in again, by their password; keys have to be made anew."""
    user = await _find_to_change(session, actor, user_id)
    if user.status == "suspended":
        user.status = "active" if user.password_hash is not None else "invited"
    return user


async def remove_user(session: AsyncSession, actor: Actor, user_id: str) -> None:
    """Remove a user and all that is theirs."""
    user = await _find_to_change(session, actor, user_id)
    await _keep_an_owner(session, user)
    await session.delete(user)
    await session.flush()


async def get_account(session: AsyncSession, actor: Actor) -> User:
    """The user who asks."""
    authorize(actor, Action.USE_ACCOUNT, Resource(actor.user_id))
    assert actor.user_id is not None
    return await _find(session, actor.user_id)


async def rename(session: AsyncSession, actor: Actor, name: str) -> User:
    """Change one's own name."""
    user = await get_account(session, actor)
    user.name = clean_name(name)
    return user


def scopes_of(user: User) -> frozenset[Scope]:
    """What a user may use at most."""
    return SCOPES_OF_ROLE[Role.of(user.role)]


async def _find(session: AsyncSession, user_id: str) -> User:
    user = await session.get(User, user_id)
    if user is None:
        raise NotFoundError("There is nothing of that id.")
    return user


async def _find_to_change(session: AsyncSession, actor: Actor, user_id: str, role: Role = Role.MEMBER) -> User:
    authorize(actor, Action.CHANGE_USERS)
    await one_at_a_time(session, "users")
    user = await _find(session, user_id)
    authorize(actor, Action.CHANGE_USERS, Resource(user.id, max(role, Role.of(user.role))))
    return user


async def _keep_an_owner(session: AsyncSession, user: User) -> None:
    """Raise InvalidRequestError for the last one."""
    if user.role != Role.OWNER.word or user.status != "active":
        return
    others = select(func.count()).select_from(User)
    others = others.where(User.role == Role.OWNER.word, User.status == "active", User.id != user.id)
    if not await session.scalar(others):
        raise InvalidRequestError(
            "This is the last owner: make somebody else an owner first.", param=None, code="last_owner"
        )
