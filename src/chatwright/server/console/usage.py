"""What one has used oneself and what one may use; and the same of everybody, for administrators."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.server.console.limits import LimitObject
from chatwright.server.json_body import JsonRoute
from chatwright.server.permission import Permit
from chatwright.server.state import NeedDatabase, State
from chatwright.store.accounts import keys, users
from chatwright.store.actor import Actor
from chatwright.store.policy import Action
from chatwright.store.tables import Limit
from chatwright.store.usage.admission import count
from chatwright.store.usage.limits import list_limits, own_limits
from chatwright.store.usage.report import Group, Question, Used, own_usage, usage_of_all
from chatwright.store.usage.times import DAY

router = APIRouter(route_class=JsonRoute, tags=["usage"])
Own = Annotated[Actor, Depends(Permit(Action.READ_OWN_USAGE))]
Reader = Annotated[Actor, Depends(Permit(Action.READ_USAGE))]
Days = Annotated[int, Query(ge=1, le=366)]
GROUPS: dict[str, Group] = {"user": "user_id", "key": "key_id", "model": "model"}


class UsageDay(BaseModel):
    """What a key used of a model on a day (of UTC, from `day` on). `key_id`: null for what was used signed in."""

    object: Literal["usage_day"] = "usage_day"
    day: int
    model: str
    key_id: str | None
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int

    @classmethod
    def of(cls, used: Used) -> UsageDay:
        """From the store's."""
        return cls(
            day=used.start,
            model=used.model or "",
            key_id=used.key_id or None,
            requests=used.requests,
            input_tokens=used.input_tokens,
            cached_tokens=used.cached_tokens,
            output_tokens=used.output_tokens,
        )


class CountedLimit(LimitObject):
    """A limit, with what counts against it now: requests and tokens of this minute and this month, what runs included."""

    requests_of_minute: int
    tokens_of_minute: int
    tokens_of_month: int
    running: int


class OwnUsage(BaseModel):
    """Days on which something was used, the oldest first, and the limits of oneself and one's keys."""

    object: Literal["usage"] = "usage"
    start_time: int
    end_time: int
    data: list[UsageDay]
    limits: list[CountedLimit]


class UsageOfAllDay(BaseModel):
    """What was used on a day, of what it is asked by: of `user_id`, `key_id` and `model` one is there, or none of them where it was
    nobody's or nobody's key."""

    object: Literal["usage_of_all_day"] = "usage_of_all_day"
    day: int
    user_id: str | None
    key_id: str | None
    model: str | None
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int

    @classmethod
    def of(cls, used: Used) -> UsageOfAllDay:
        """From the store's."""
        return cls(
            day=used.start,
            user_id=used.user_id or None,
            key_id=used.key_id or None,
            model=used.model or None,
            requests=used.requests,
            input_tokens=used.input_tokens,
            cached_tokens=used.cached_tokens,
            output_tokens=used.output_tokens,
        )


class UsageName(BaseModel):
    """How a user or a key is called. `owner`: whose key it is."""

    object: Literal["usage_name"] = "usage_name"
    id: str
    name: str
    owner: str | None


class UsageOfAll(BaseModel):
    """Days on which something was used, the oldest first; all limits; and names of the users and keys among them that still are."""

    object: Literal["usage_of_all"] = "usage_of_all"
    start_time: int
    end_time: int
    data: list[UsageOfAllDay]
    limits: list[CountedLimit]
    names: list[UsageName]


@router.get("/usage")
async def get_own_usage(actor: Own, state: State, database: NeedDatabase, days: Days = 31) -> OwnUsage:
    """One's own usage of the last days, today included."""
    now = state.meter.clock.now()
    question = _question(now, days, "key_id", "model")
    async with database.read() as session:
        rows = await own_usage(session, actor, question)
        limits = [await _counted(session, limit, now) for limit in await own_limits(session, actor)]
    return OwnUsage(
        start_time=question.start, end_time=question.end, data=[UsageDay.of(row) for row in rows], limits=limits
    )


@router.get("/usage/all")
async def get_usage_of_all(
    actor: Reader,
    state: State,
    database: NeedDatabase,
    days: Days = 31,
    by: Literal["user", "key", "model"] = "model",
) -> UsageOfAll:
    """Everybody's usage of the last days, today included, by users, keys or models."""
    now = state.meter.clock.now()
    question = _question(now, days, GROUPS[by])
    async with database.read() as session:
        rows = await usage_of_all(session, actor, question)
        limits = [await _counted(session, limit, now) for limit in await list_limits(session, actor)]
        users_named = {row.user_id for row in rows} | {limit.user_id for limit in limits}
        keys_named = {row.key_id for row in rows} | {limit.key_id for limit in limits}
        named = {name for name in users_named | keys_named if name}
        names = await _names(session, actor, named)
    return UsageOfAll(
        start_time=question.start,
        end_time=question.end,
        data=[UsageOfAllDay.of(row) for row in rows],
        limits=limits,
        names=names,
    )


def _question(now: int, days: int, *by: Group) -> Question:
    """The last days, today included."""
    end = now - now % DAY + DAY
    return Question(end - days * DAY, end, DAY, by)


async def _counted(session: AsyncSession, limit: Limit, now: int) -> CountedLimit:
    return CountedLimit(**LimitObject.of(limit).model_dump(), **vars(await count(session, limit, now)))


async def _names(session: AsyncSession, actor: Actor, ids: set[str]) -> list[UsageName]:
    """Of those who were removed nothing but the id was kept."""
    if not ids:
        return []
    known = {user.id: user.name for user in await users.list_users(session, actor)}
    found = [UsageName(id=user_id, name=name, owner=None) for user_id, name in known.items() if user_id in ids]
    found += [
        UsageName(id=key.id, name=key.name, owner=known.get(key.user_id))
        for key in await keys.list_keys_of_users(session, actor, None)
        if key.id in ids
    ]
    return found
