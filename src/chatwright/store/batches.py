"""The rows of batches: made, found, listed, cancelled by their owners; taken forward by whoever answers their lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import InvalidRequestError, NotFoundError, TooLargeError
from chatwright.store import clock
from chatwright.store.actor import Actor
from chatwright.store.database import one_at_a_time
from chatwright.store.ids import is_id
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.tables import Batch, User
from chatwright.store.usage.payer import Payer

WINDOW_S = 24 * 3600
MOST_OPEN = 20
WORK = "batches"  # the folder in the home where the open ones are worked on
# Statuses in which something is still to be done.
OPEN = ("validating", "in_progress", "finalizing", "cancelling")


@dataclass(frozen=True)
class BatchPage:
    """`has_more`: there are more behind the last one."""

    batches: Sequence[Batch]
    has_more: bool


@dataclass(frozen=True)
class OpenBatch:
    """What whoever works on a batch looks at every now and then. `owner_is_active`: False once they were suspended."""

    id: str
    user_id: str | None
    status: str
    expires_at: int
    owner_is_active: bool
    key_id: str | None = None


async def add_batch(session: AsyncSession, actor: Actor, batch: Batch) -> None:
    """Add one. Raises TooLargeError where its owner has too many that are not finished."""
    authorize(actor, Action.USE_BATCHES, Resource(batch.user_id))
    await one_at_a_time(session, f"batches of {batch.user_id}")
    n_open = select(func.count()).select_from(Batch).where(Batch.user_id == batch.user_id, Batch.status.in_(OPEN))
    if (await session.scalar(n_open) or 0) >= MOST_OPEN:
        raise TooLargeError(
            "There can be {n} unfinished batches at most: wait for some, or cancel them.",
            n=MOST_OPEN,
            param=None,
            code="too_many_batches",
        )
    batch.key_id = Payer.of(actor).key_id or None
    session.add(batch)
    await session.flush()


async def get_batch(session: AsyncSession, actor: Actor, batch_id: str) -> Batch:
    """One batch. Raises NotFoundError, also for those of others."""
    authorize(actor, Action.USE_BATCHES)
    batch = await session.get(Batch, batch_id) if is_id(batch_id) else None
    if batch is None:
        raise NotFoundError("There is nothing of that id.")
    authorize(actor, Action.USE_BATCHES, Resource(batch.user_id))
    return batch


async def list_batches(session: AsyncSession, actor: Actor, limit: int, after: str | None) -> BatchPage:
    """One's own batches, the newest first. Raises NotFoundError for an `after` that is not there."""
    authorize(actor, Action.USE_BATCHES, Resource(actor.user_id))
    query = select(Batch).where(Batch.user_id == actor.user_id)
    if after is not None:
        last = await get_batch(session, actor, after)
        query = query.where(tuple_(Batch.created_at, Batch.id) < tuple_(last.created_at, last.id))
    rows = (await session.scalars(query.order_by(Batch.created_at.desc(), Batch.id.desc()).limit(limit + 1))).all()
    return BatchPage(rows[:limit], len(rows) > limit)


async def cancel_batch(session: AsyncSession, actor: Actor, batch_id: str) -> Batch:
    """Ask for its end; whoever works on it ends it. Raises NotFoundError, InvalidRequestError for one that is over."""
    batch = await get_batch(session, actor, batch_id)
    await session.refresh(batch, with_for_update=True)
    if batch.status not in OPEN:
        raise InvalidRequestError(
            "The batch is {status}: there is nothing to cancel.", status=batch.status, code="batch_not_open"
        )
    if batch.status in ("validating", "in_progress"):
        batch.status, batch.cancelling_at = "cancelling", clock.now()
    return batch


async def open_batches(session: AsyncSession) -> list[OpenBatch]:
    """All that are not over, the oldest first; for whoever works on them."""
    query = select(Batch.id, Batch.user_id, Batch.status, Batch.expires_at, User.status, Batch.key_id)
    query = query.outerjoin(User, User.id == Batch.user_id).where(Batch.status.in_(OPEN))
    found = await session.execute(query.order_by(Batch.created_at, Batch.id))
    return [
        OpenBatch(batch_id, user_id, status, expires_at, user_id is None or user_status == "active", key_id)
        for batch_id, user_id, status, expires_at, user_status, key_id in found
    ]


def metadata_of(batch: Batch) -> dict[str, str] | None:
    """What its owner wrote beside it."""
    return None if batch.user_metadata is None else orjson.loads(batch.user_metadata)
