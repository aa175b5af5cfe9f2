"""Links that are good once: for the first owner, who is whoever reads the console; for invited users; for forgotten passwords."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import InvalidRequestError, NotFoundError
from chatwright.store import clock
from chatwright.store.accounts.emails import clean_email, clean_name
from chatwright.store.accounts.secret import TOKEN, digest, new_token
from chatwright.store.actor import Actor, Role
from chatwright.store.database import one_at_a_time
from chatwright.store.ids import new_id
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.tables import Link, Session, User

LIFE_S = 3 * 86_400


@dataclass(frozen=True)
class LinkedUser:
    """For what a link is, and for whom: nobody yet, where it makes the first owner."""

    purpose: str
    email: str | None


async def make_setup_link(session: AsyncSession, actor: Actor) -> str | None:
    """A token with which the first owner makes their account; None when there are users. Earlier ones are good no more."""
    authorize(actor, Action.CHANGE_USERS, Resource(None, Role.OWNER))
    await one_at_a_time(session, "users")
    if await session.scalar(select(exists().select_from(User))):
        return None
    await session.execute(delete(Link).where(Link.purpose == "setup"))
    return _add(session, "setup", None)


async def make_link(session: AsyncSession, actor: Actor, user_id: str) -> str:
    """A token with which a user chooses a password, the first or a new one. Earlier ones are good no more.

    Raises NotFoundError, ForbiddenError, InvalidRequestError for who is suspended.
    """
    authorize(actor, Action.CHANGE_USERS)
    user = await session.get(User, user_id)
    if user is None:
        raise NotFoundError("There is nothing of that id.")
    authorize(actor, Action.CHANGE_USERS, Resource(user.id, Role.of(user.role)))
    if user.status == "suspended":
        raise InvalidRequestError("{email} is suspended: let them in again first.", email=user.email, code="suspended")
    await session.execute(delete(Link).where(Link.user_id == user.id))
    return _add(session, "invitation" if user.status == "invited" else "reset", user.id)


async def look_at_link(session: AsyncSession, token: str) -> LinkedUser:
    """What a link is good for. Raises NotFoundError for one that is used, replaced, expired or made up."""
    link = await _find(session, token)
    user = await session.get_one(User, link.user_id) if link.user_id is not None else None
    return LinkedUser(link.purpose, user.email if user is not None else None)


async def use_link(session: AsyncSession, token: str, password_hash: str, email: str | None, name: str | None) -> User:
    """Set the password, and make the first owner's account. All sessions of the user end. Raises what `look_at_link` does, and
    InvalidRequestError where the first owner gives no address."""
    await one_at_a_time(session, "users")
    link = await _find(session, token)
    if link.user_id is None:
        if await session.scalar(select(exists().select_from(User))):
            raise NotFoundError("This link is not good any more: ask for a new one.")
        if email is None:
            raise InvalidRequestError("The first owner needs an email address.", param="email", code="missing")
        address = clean_email(email)
        user = User(
            id=new_id("user"),
            email=address,
            name=clean_name(name) if name else address.partition("@")[0][:100],
            role=Role.OWNER.word,
            status="active",
            password_hash=password_hash,
            created_at=clock.now(),
        )
        session.add(user)
    else:
        user = await session.get_one(User, link.user_id)
        user.password_hash = password_hash
        user.status = "active"  # who is suspended has no links
        if name:
            user.name = clean_name(name)
        await session.execute(delete(Session).where(Session.user_id == user.id))
    await session.delete(link)
    await session.flush()
    return user


async def _find(session: AsyncSession, token: str) -> Link:
    link = None
    if TOKEN.fullmatch(token):
        link = await session.scalar(select(Link).where(Link.token_hash == digest(token)))
    if link is None or link.expires_at <= clock.now():
        raise NotFoundError("This link is not good any more: ask for a new one.")
    return link


def _add(session: AsyncSession, purpose: str, user_id: str | None) -> str:
    token, now = new_token(), clock.now()
    session.add(
        Link(
            id=new_id("link"),
            user_id=user_id,
            purpose=purpose,
            token_hash=digest(token),
            created_at=now,
            expires_at=now + LIFE_S,
        )
    )
    return token
