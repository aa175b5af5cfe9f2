"""Limits, for administrators."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from chatwright.server.console.wire import Body, Deleted, Text
from chatwright.server.errors import WireError
from chatwright.server.json_body import JsonRoute
from chatwright.server.permission import Permit
from chatwright.server.state import NeedDatabase
from chatwright.store.actor import Actor
from chatwright.store.policy import Action
from chatwright.store.tables import Limit
from chatwright.store.usage.limits import FIGURES, MOST, Figure, Subject, list_limits, remove_limit, set_limit

router = APIRouter(route_class=JsonRoute, tags=["limits"])
Reader = Annotated[Actor, Depends(Permit(Action.READ_LIMITS))]
Changer = Annotated[Actor, Depends(Permit(Action.CHANGE_LIMITS))]
Number = Annotated[int, Field(ge=0, le=MOST)]


class LimitObject(BaseModel):
    """What one key, one user or one model (the two others are null) may use; null: as much as they like."""

    object: Literal["limit"] = "limit"
    id: str
    key_id: str | None
    user_id: str | None
    model: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent_requests: int | None
    tokens_per_month: int | None
    created_at: int

    @classmethod
    def of(cls, limit: Limit) -> LimitObject:
        """From the row."""
        return cls.model_validate(limit, from_attributes=True)


class LimitObjects(BaseModel):
    """The oldest first."""

    object: Literal["list"] = "list"
    data: list[LimitObject]


class SetLimitBody(Body):
    """Of whom, and what. A figure that is not given stays; null takes it away."""

    key_id: Text | None = None
    user_id: Text | None = None
    model: Text | None = None
    requests_per_minute: Number | None = None
    tokens_per_minute: Number | None = None
    concurrent_requests: Number | None = None
    tokens_per_month: Number | None = None


@router.get("/limits")
async def get_limits(actor: Reader, database: NeedDatabase) -> LimitObjects:
    """All limits."""
    async with database.read() as session:
        return LimitObjects(data=[LimitObject.of(row) for row in await list_limits(session, actor)])


@router.put("/limits")
async def put_limit(body: SetLimitBody, actor: Changer, database: NeedDatabase) -> LimitObject:
    """Set figures of the limit of a key, a user or a model."""
    figures: dict[Figure, int | None] = {name: getattr(body, name) for name in FIGURES if name in body.model_fields_set}
    if not any(value is not None for value in figures.values()):
        raise WireError(400, f"Say what shall be limited: {', '.join(FIGURES)}.", code="missing")
    async with database.write() as session:
        row = await set_limit(session, actor, Subject(body.key_id, body.user_id, body.model), figures)
        assert row is not None, "one figure at least is set"
        return LimitObject.of(row)


@router.delete("/limits/{limit_id}")
async def delete_limit(limit_id: str, actor: Changer, database: NeedDatabase) -> Deleted:
    """Take all figures of a limit away."""
    async with database.write() as session:
        await remove_limit(session, actor, limit_id)
    return Deleted(id=limit_id)
