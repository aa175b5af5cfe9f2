"""Setting limits: of a key, a user or a model; what is not limited is free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import InvalidRequestError, NotFoundError
from chatwright.store import clock
from chatwright.store.actor import Actor, Role
from chatwright.store.database import one_at_a_time
from chatwright.store.ids import is_id, new_id
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.tables import ApiKey, Limit, User

Figure = Literal["requests_per_minute", "tokens_per_minute", "concurrent_requests", "tokens_per_month"]
FIGURES: tuple[Figure, ...] = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "tokens_per_month")
MOST = 10**15
LONGEST_MODEL_NAME = 200


@dataclass(frozen=True)
class Subject:
    """Whose limit it is: one of them is given."""

    key_id: str | None = None
    user_id: str | None = None
    model: str | None = None


async def list_limits(session: AsyncSession, actor: Actor) -> Sequence[Limit]:
    """All of them, the oldest first."""
    authorize(actor, Action.READ_LIMITS)
    return (await session.scalars(select(Limit).order_by(Limit.created_at, Limit.id))).all()


async def own_limits(session: AsyncSession, actor: Actor) -> Sequence[Limit]:
    """Those of oneself and of one's keys."""
    authorize(actor, Action.READ_OWN_USAGE, Resource(actor.user_id))
    keys = select(ApiKey.id).where(ApiKey.user_id == actor.user_id)
    query = select(Limit).where(or_(Limit.user_id == actor.user_id, Limit.key_id.in_(keys)))
    return (await session.scalars(query.order_by(Limit.created_at, Limit.id))).all()


async def set_limit(
    session: AsyncSession, actor: Actor, subject: Subject, figures: Mapping[Figure, int | None]
) -> Limit | None:
    """Set those figures; None: without that limit from now on. What is not given stays. Returns None where no figure is left.

    Raises NotFoundError for a key or user that does not exist, InvalidRequestError, ForbiddenError for one of higher rank.
    """
    authorize(actor, Action.CHANGE_LIMITS)
    await _check_subject(session, actor, subject)
    for name, value in figures.items():
        if value is not None and not 0 <= value <= MOST:
            raise InvalidRequestError(
                "A limit is a whole number from 0 to {most}.", most=MOST, param=name, code="invalid_value"
            )
    await one_at_a_time(session, f"limit of {subject}")
    row = await _find(session, subject)
    if row is None:
        row = Limit(
            id=new_id("limit"),
            key_id=subject.key_id,
            user_id=subject.user_id,
            model=subject.model,
            created_at=clock.now(),
            **dict.fromkeys(FIGURES),
        )
        session.add(row)
    for name, value in figures.items():
        setattr(row, name, value)
    if all(getattr(row, name) is None for name in FIGURES):
        if row in session.new:
            session.expunge(row)
        else:
            await session.delete(row)
        return None
    await session.flush()
    return row


async def remove_limit(session: AsyncSession, actor: Actor, limit_id: str) -> None:
    """Take all figures of a limit away. Raises NotFoundError."""
    authorize(actor, Action.CHANGE_LIMITS)
    row = await session.get(Limit, limit_id)
    if row is None:
        raise NotFoundError("There is nothing of that id.")
    await _check_subject(session, actor, Subject(row.key_id, row.user_id, row.model))
    await session.delete(row)


async def remove_limit_of(session: AsyncSession, actor: Actor, subject: Subject) -> bool:
    """The same, by whose it is; whether there was one."""
    authorize(actor, Action.CHANGE_LIMITS)
    await _check_subject(session, actor, subject)
    row = await _find(session, subject)
    if row is not None:
        await session.delete(row)
    return row is not None


async def _find(session: AsyncSession, subject: Subject) -> Limit | None:
    conditions = [getattr(Limit, name) == value for name, value in vars(subject).items() if value is not None]
    limit: Limit | None = await session.scalar(select(Limit).where(*conditions))
    return limit


async def _check_subject(session: AsyncSession, actor: Actor, subject: Subject) -> None:
    """That it exists, and is not of higher rank than who asks."""
    if sum(value is not None for value in vars(subject).values()) != 1:
        raise InvalidRequestError(
            "A limit is of one key, one user or one model: name one of them.", param="user_id", code="invalid_value"
        )
    if subject.model is not None:
        if not 0 < len(subject.model) <= LONGEST_MODEL_NAME:
            raise InvalidRequestError("A model's name is not so long.", param="model", code="invalid_value")
        if not subject.model.isprintable():  # of no model; and PostgreSQL fails on some texts
            raise NotFoundError("There is nothing of that id.")
        return
    if not is_id(subject.key_id or subject.user_id or ""):
        raise NotFoundError("There is nothing of that id.")
    key = await session.get(ApiKey, subject.key_id) if subject.key_id is not None else None
    user_id = key.user_id if key is not None else subject.user_id
    user = await session.get(User, user_id) if user_id is not None else None
    if user is None:
        raise NotFoundError("There is nothing of that id.")
    authorize(actor, Action.CHANGE_LIMITS, Resource(user.id, Role.of(user.role)))
