"""Browsers that are signed in: sessions begin, are listed, and end."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import NotFoundError
from chatwright.store import clock
from chatwright.store.accounts.secret import digest, new_token
from chatwright.store.actor import Actor
from chatwright.store.ids import new_id
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.tables import Session, User

LIFE_S = 30 * 86_400
IDLE_S = 7 * 86_400


async def begin_session(session: AsyncSession, user: User) -> str:
    """The token of a new session, for a user who has just proven who they are. Sessions that are over go by the way."""
    now = clock.now()
    await session.execute(delete(Session).where((Session.expires_at <= now) | (Session.seen_at <= now - IDLE_S)))
    token = new_token()
    session.add(
        Session(
            id=new_id("session"),
            user_id=user.id,
            token_hash=digest(token),
            created_at=now,
            seen_at=now,
            expires_at=now + LIFE_S,
        )
    )
    return token


async def list_sessions(session: AsyncSession, actor: Actor) -> Sequence[Session]:
    """One's own, the newest first."""
    authorize(actor, Action.USE_ACCOUNT, Resource(actor.user_id))
    query = select(Session).where(Session.user_id == actor.user_id, Session.expires_at > clock.now())
    return (await session.scalars(query.order_by(Session.created_at.desc(), Session.id))).all()


async def end_session(session: AsyncSession, actor: Actor, session_id: str) -> None:
    """Sign a browser out. Raises NotFoundError, also for the sessions of others."""
    authorize(actor, Action.USE_ACCOUNT)
    row = await session.get(Session, session_id)
    if row is None:
        raise NotFoundError("There is nothing of that id.")
    authorize(actor, Action.USE_ACCOUNT, Resource(row.user_id))
    await session.delete(row)


async def end_other_sessions(session: AsyncSession, actor: Actor) -> None:
    """All of one's own but the one that asks."""
    authorize(actor, Action.USE_ACCOUNT, Resource(actor.user_id))
    await session.execute(delete(Session).where(Session.user_id == actor.user_id, Session.id != actor.credential))
