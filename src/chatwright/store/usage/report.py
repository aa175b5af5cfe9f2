"""What was used, told by time, user, key and model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.store.actor import Actor
from chatwright.store.policy import Action, Resource, authorize
from chatwright.store.tables import Usage
from chatwright.store.usage.payer import Kind
from chatwright.store.usage.times import DAY, minute_of

Group = Literal["user_id", "key_id", "model"]


@dataclass(frozen=True)
class Question:
    """Usage of requests that began from `start` on and before `end` (Unix time, to the minute), in buckets of `width_s` seconds.

    `by`: each combination of these is a row of its own. The others narrow it down: None means all.
    """

    start: int
    end: int
    width_s: int = DAY
    by: Collection[Group] = ()
    kind: Kind | None = None
    user_ids: Collection[str] | None = None
    key_ids: Collection[str] | None = None
    models: Collection[str] | None = None


@dataclass(frozen=True)
class Used:
    """One bucket, from `start` on. `user_id`, `key_id`, `model`: where the question is by them; "" for nobody."""

    start: int
    user_id: str | None
    key_id: str | None
    model: str | None
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int


async def usage_of_all(session: AsyncSession, actor: Actor, question: Question) -> Sequence[Used]:
    """Everybody's, by time and then by what it is asked by."""
    authorize(actor, Action.READ_USAGE)
    return await _ask(session, question)


async def own_usage(session: AsyncSession, actor: Actor, question: Question) -> Sequence[Used]:
    """The same of oneself, whatever users it asks for."""
    authorize(actor, Action.READ_OWN_USAGE, Resource(actor.user_id))
    assert actor.user_id is not None
    mine = Question(**{**vars(question), "user_ids": [actor.user_id]})
    return await _ask(session, mine)


async def _ask(session: AsyncSession, question: Question) -> Sequence[Used]:
    bucket = (Usage.start - Usage.start % question.width_s).label("bucket")
    columns = [getattr(Usage, name) for name in ("user_id", "key_id", "model") if name in question.by]
    query = select(
        bucket,
        *columns,
        func.sum(Usage.requests),
        func.sum(Usage.input_tokens),
        func.sum(Usage.cached_tokens),
        func.sum(Usage.output_tokens),
    ).where(Usage.start >= minute_of(question.start), Usage.start < question.end)
    if question.kind is not None:
        query = query.where(Usage.kind == question.kind)
    for column, wanted in (
        (Usage.user_id, question.user_ids),
        (Usage.key_id, question.key_ids),
        (Usage.model, question.models),
    ):
        if wanted is not None:
            query = query.where(column.in_(wanted))
    found = await session.execute(query.group_by(bucket, *columns).order_by(bucket, *columns))
    rows = []
    for start, *rest in found:
        names = dict(zip((column.key for column in columns), rest, strict=False))
        counts = [int(number) for number in rest[len(columns) :]]
        rows.append(Used(int(start), names.get("user_id"), names.get("key_id"), names.get("model"), *counts))
    return rows
