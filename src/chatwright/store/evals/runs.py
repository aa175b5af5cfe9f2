"""The rows of runs and of their items: their owners'. Items are visible once something became of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.errors import InvalidRequestError, NotFoundError, TooLargeError
from chatwright.store import clock
from chatwright.store.actor import Actor
from chatwright.store.database import one_at_a_time
from chatwright.store.evals.definitions import as_json, get_eval
from chatwright.store.ids import is_wire_id, new_wire_id
from chatwright.store.kept import size_of
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.tables import EvalItem, EvalRun
from chatwright.store.usage.payer import Payer

OPEN = ("queued", "in_progress")
MOST_OPEN = 20
# Of all runs of one owner together.
MOST_ITEMS_KEPT = 200_000
ROWS_AT_ONCE = 500


@dataclass(frozen=True)
class NewItem:
    """An item of a run that is to be made, and the sample that comes with it: JSON."""

    content: str
    given: str | None = None


@dataclass(frozen=True)
class NewRun:
    """`source`: what was asked for, as JSON, without items. `server`: who shall work on it."""

    name: str
    source: str
    model: str | None
    metadata: Mapping[str, str] | None
    server: str


@dataclass(frozen=True)
class RunPage:
    """`has_more`: there are more behind the last one."""

    runs: Sequence[EvalRun]
    has_more: bool


@dataclass(frozen=True)
class ItemPage:
    """The same for items."""

    items: Sequence[EvalItem]
    has_more: bool


async def add_run(session: AsyncSession, actor: Actor, eval_id: str, new: NewRun, items: Sequence[NewItem]) -> EvalRun:
    """Add one with its items. Raises NotFoundError; TooLargeError where its owner has too much that is not finished, or is kept."""
    await get_eval(session, actor, eval_id)
    await one_at_a_time(session, f"eval runs of {actor.user_id}")
    own = EvalRun.user_id.is_not_distinct_from(actor.user_id)
    n_open = select(func.count()).select_from(EvalRun).where(own, EvalRun.status.in_(OPEN))
    if (await session.scalar(n_open) or 0) >= MOST_OPEN:
        raise TooLargeError(
            "There can be {n} unfinished runs of evals at most: wait for some, or cancel them.",
            n=MOST_OPEN,
            param=None,
            code="too_many_runs",
        )
    n_kept = await session.scalar(select(func.coalesce(func.sum(EvalRun.n_total), 0)).where(own)) or 0
    if n_kept + len(items) > MOST_ITEMS_KEPT:
        raise TooLargeError(
            "All runs of evals together can have {n} items at most: delete some runs first.",
            n=MOST_ITEMS_KEPT,
            param=None,
            code="too_many_items",
        )
    now = clock.now()
    run = EvalRun(
        id=new_wire_id("evalrun"),
        eval_id=eval_id,
        user_id=actor.user_id,
        position=time.time_ns(),
        name=new.name,
        source=new.source,
        model=new.model,
        user_metadata=as_json(new.metadata),
        size_bytes=size_of(new.source, as_json(new.metadata)) + sum(size_of(i.content, i.given) for i in items),
        key_id=Payer.of(actor).key_id or None,
        status="queued",
        server=new.server,
        seen_at=now,
        n_total=len(items),
        n_passed=0,
        n_failed=0,
        n_errored=0,
        tallies="{}",
        created_at=now,
    )
    session.add(run)
    await session.flush()
    for start in range(0, len(items), ROWS_AT_ONCE):
        rows = [
            {
                "id": new_wire_id("outputitem"),
                "run_id": run.id,
                "number": start + place,
                "content": item.content,
                "given": item.given,
                "status": "queued",
                "created_at": now,
            }
            for place, item in enumerate(items[start : start + ROWS_AT_ONCE])
        ]
        await session.execute(insert(EvalItem), rows)
    return run


async def get_run(session: AsyncSession, actor: Actor, eval_id: str, run_id: str) -> EvalRun:
    """One of an eval's runs. Raises NotFoundError, also for those of others."""
    authorize(actor, Action.USE_EVALS)
    run = await session.get(EvalRun, run_id) if is_wire_id(run_id) else None
    if run is None or run.eval_id != eval_id:
        raise NotFoundError("There is nothing of that id.")
    authorize(actor, Action.USE_EVALS, Resource(run.user_id))
    return run


async def list_runs(
    session: AsyncSession,
    actor: Actor,
    eval_id: str,
    *,
    limit: int,
    after: str | None,
    newest_first: bool = False,
    status: str | None = None,
) -> RunPage:
    """An eval's runs, in the order in which they were begun. Raises NotFoundError."""
    row = await get_eval(session, actor, eval_id)
    query = select(EvalRun).where(EvalRun.eval_id == row.id)
    if status is not None:
        query = query.where(EvalRun.status == status)
    place = tuple_(EvalRun.position, EvalRun.id)
    if after is not None:
        last = await get_run(session, actor, eval_id, after)
        mark = tuple_(last.position, last.id)
        query = query.where(place < mark if newest_first else place > mark)
    columns = (EvalRun.position, EvalRun.id)
    query = query.order_by(*(column.desc() if newest_first else column for column in columns))
    rows = (await session.scalars(query.limit(limit + 1))).all()
    return RunPage(rows[:limit], len(rows) > limit)


async def cancel_run(session: AsyncSession, actor: Actor, eval_id: str, run_id: str) -> EvalRun:
    """End it, with what it has. Raises NotFoundError, InvalidRequestError for one that is over."""
    run = await get_run(session, actor, eval_id, run_id)
    await session.refresh(run, with_for_update=True)
    if run.status not in OPEN:
        raise InvalidRequestError(
            "The run is {status}: there is nothing to cancel.", status=run.status, code="run_not_open"
        )
    run.status, run.finished_at = "canceled", clock.now()
    return run


async def delete_run(session: AsyncSession, actor: Actor, eval_id: str, run_id: str) -> None:
    """With all that it found; whoever works on it sees that it is gone. Raises NotFoundError."""
    run = await get_run(session, actor, eval_id, run_id)
    await session.execute(delete(EvalRun).where(EvalRun.id == run.id))


async def get_item(session: AsyncSession, actor: Actor, eval_id: str, run_id: str, item_id: str) -> EvalItem:
    """One item of which something became. Raises NotFoundError."""
    run = await get_run(session, actor, eval_id, run_id)
    item = await session.get(EvalItem, item_id) if is_wire_id(item_id) else None
    if item is None or item.run_id != run.id or item.status == "queued":
        raise NotFoundError("There is nothing of that id.")
    return item


async def list_items(
    session: AsyncSession,
    actor: Actor,
    eval_id: str,
    run_id: str,
    *,
    limit: int,
    after: str | None,
    newest_first: bool = False,
    status: str | None = None,
) -> ItemPage:
    """The items of which something became, in their order. Raises NotFoundError."""
    run = await get_run(session, actor, eval_id, run_id)
    wanted = EvalItem.status != "queued" if status is None else EvalItem.status == status
    query = select(EvalItem).where(EvalItem.run_id == run.id, wanted)
    if after is not None:
        number = (await get_item(session, actor, eval_id, run_id, after)).number
        query = query.where(EvalItem.number < number if newest_first else EvalItem.number > number)
    query = query.order_by(EvalItem.number.desc() if newest_first else EvalItem.number)
    rows = (await session.scalars(query.limit(limit + 1))).all()
    return ItemPage(rows[:limit], len(rows) > limit)


async def given_items(session: AsyncSession, run: EvalRun) -> list[NewItem]:
    """All that a run was given, in order; of one that was found before."""
    query = select(EvalItem.content, EvalItem.given).where(EvalItem.run_id == run.id).order_by(EvalItem.number)
    return [NewItem(content, given) for content, given in await session.execute(query)]
