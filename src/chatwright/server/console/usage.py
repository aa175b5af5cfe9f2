"""What one has used oneself, and what one may use."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from chatwright.server.console.limits import LimitObject
from chatwright.server.json_body import JsonRoute
from chatwright.server.permission import Permit
from chatwright.server.state import NeedDatabase, State
from chatwright.store.actor import Actor
from chatwright.store.policy import Action
from chatwright.store.usage.admission import count
from chatwright.store.usage.limits import own_limits
from chatwright.store.usage.report import Question, Used, own_usage
from chatwright.store.usage.times import DAY

router = APIRouter(route_class=JsonRoute, tags=["usage"])
Own = Annotated[Actor, Depends(Permit(Action.READ_OWN_USAGE))]


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


class OwnLimit(LimitObject):
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
    limits: list[OwnLimit]


@router.get("/usage")
async def get_own_usage(
    actor: Own, state: State, database: NeedDatabase, days: Annotated[int, Query(ge=1, le=366)] = 31
) -> OwnUsage:
    """One's own usage of the last days, today included."""
    now = state.meter.clock.now()
    end = now - now % DAY + DAY
    question = Question(end - days * DAY, end, DAY, ("key_id", "model"))
    async with database.read() as session:
        rows = await own_usage(session, actor, question)
        limits = [(limit, await count(session, limit, now)) for limit in await own_limits(session, actor)]
    return OwnUsage(
        start_time=question.start,
        end_time=end,
        data=[UsageDay.of(row) for row in rows],
        limits=[OwnLimit(**LimitObject.of(limit).model_dump(), **vars(counted)) for limit, counted in limits],
    )
