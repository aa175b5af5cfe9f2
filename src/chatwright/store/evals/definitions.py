"""The rows of evals: made, found, listed, renamed and deleted by their owners."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import NotFoundError, TooLargeError
from chatwright.store import clock
from chatwright.store.actor import Actor
from chatwright.store.database import one_at_a_time
from chatwright.store.ids import is_wire_id, new_wire_id
from chatwright.store.kept import size_of
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.tables import Eval

MOST_EVALS = 1000


@dataclass(frozen=True)
class EvalPage:
    """`has_more`: there are more behind the last one."""

    evals: Sequence[Eval]
    has_more: bool


async def add_eval(
    session: AsyncSession, actor: Actor, name: str, source: str, criteria: str, metadata: Mapping[str, str] | None
) -> Eval:
    """Add one. Raises TooLargeError where its owner has too many."""
    authorize(actor, Action.USE_EVALS, Resource(actor.user_id))
    await one_at_a_time(session, f"evals of {actor.user_id}")
    own = select(func.count()).select_from(Eval).where(Eval.user_id.is_not_distinct_from(actor.user_id))
    if (await session.scalar(own) or 0) >= MOST_EVALS:
        raise TooLargeError(
            "There can be {n} evals at most: delete some first.", n=MOST_EVALS, param=None, code="too_many_evals"
        )
    now = clock.now()
    row = Eval(
        id=new_wire_id("eval"),
        user_id=actor.user_id,
        position=time.time_ns(),
        name=name,
        source=source,
        criteria=criteria,
        user_metadata=as_json(metadata),
        size_bytes=size_of(source, criteria, as_json(metadata)),
        created_at=now,
        updated_at=now,
    )
    session.add(row)
    await session.flush()
    return row


async def get_eval(session: AsyncSession, actor: Actor, eval_id: str) -> Eval:
    """One of them. Raises NotFoundError, also for those of others."""
    authorize(actor, Action.USE_EVALS)
    row = await session.get(Eval, eval_id) if is_wire_id(eval_id) else None
    if row is None:
        raise NotFoundError("There is nothing of that id.")
    authorize(actor, Action.USE_EVALS, Resource(row.user_id))
    return row


async def list_evals(
    session: AsyncSession,
    actor: Actor,
    *,
    limit: int,
    after: str | None,
    newest_first: bool = False,
    by_change: bool = False,
) -> EvalPage:
    """One's own, in the order in which they were made or, `by_change`, last changed. Raises NotFoundError for an `after` that is
    not there."""
    authorize(actor, Action.USE_EVALS)
    columns = (Eval.updated_at, Eval.position, Eval.id) if by_change else (Eval.position, Eval.id)
    query = select(Eval).where(Eval.user_id.is_not_distinct_from(actor.user_id))
    if after is not None:
        last = await get_eval(session, actor, after)
        mark = (last.updated_at, last.position, last.id) if by_change else (last.position, last.id)
        query = query.where(tuple_(*columns) < tuple_(*mark) if newest_first else tuple_(*columns) > tuple_(*mark))
    query = query.order_by(*(column.desc() if newest_first else column for column in columns))
    rows = (await session.scalars(query.limit(limit + 1))).all()
    return EvalPage(rows[:limit], len(rows) > limit)


async def rename_eval(session: AsyncSession, actor: Actor, eval_id: str, name: str) -> Eval:
    """Raises NotFoundError."""
    row = await get_eval(session, actor, eval_id)
    row.name, row.updated_at = name, clock.now()
    return row


async def label_eval(session: AsyncSession, actor: Actor, eval_id: str, metadata: Mapping[str, str] | None) -> Eval:
    """Put other metadata in the place of what there was. Raises NotFoundError."""
    row = await get_eval(session, actor, eval_id)
    row.user_metadata, row.updated_at = as_json(metadata), clock.now()
    return row


async def delete_eval(session: AsyncSession, actor: Actor, eval_id: str) -> None:
    """With its runs and all that they found; whoever works on one sees that it is gone. Raises NotFoundError."""
    row = await get_eval(session, actor, eval_id)
    await session.execute(delete(Eval).where(Eval.id == row.id))


def as_json(metadata: Mapping[str, str] | None) -> str | None:
    """As it is kept."""
    return None if metadata is None else orjson.dumps(dict(metadata)).decode()
