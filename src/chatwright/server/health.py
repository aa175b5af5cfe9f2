"""Whether the server works: `/health` follows the engines' heartbeats, `/ready` says whether new requests are welcome."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from chatwright.engine.protocol import EngineStats
from chatwright.server.permission import public
from chatwright.server.state import State

router = APIRouter(tags=["health"], dependencies=[Depends(public)])

# A step is a second or two even for a long prompt on a slow machine; a loop that was silent for longer hangs.
STALE_HEARTBEAT_S = 30.0


class EngineHealth(BaseModel):
    """How the engine of one model is. "unloaded": it is loaded by the first request. `problem` says why it is down."""

    model: str
    status: Literal["ok", "unloaded", "engine_down"]
    problem: str | None = None


class Health(BaseModel):
    """How the engines are. `running` and `waiting` count choices; all but the status is for servers that let everybody in."""

    status: Literal["ok", "engine_down"]
    running: int | None = None
    waiting: int | None = None
    engines: list[EngineHealth] | None = None


class Readiness(BaseModel):
    """Whether new requests are welcome."""

    status: Literal["ready", "draining", "engine_down"]


@router.get("/health", response_model_exclude_unset=True, responses={503: {"model": Health}})
async def health(state: State, response: Response) -> Health:
    """200 while every engine's loop turns, else 503. Where everybody is let in also how much is going on."""
    stats = [model.engine.stats() for model in state.models]
    engines = [engine_health(model.name, s) for model, s in zip(state.models, stats, strict=True)]
    healthy = all(engine.status != "engine_down" for engine in engines)
    response.status_code = 200 if healthy else 503
    status: Literal["ok", "engine_down"] = "ok" if healthy else "engine_down"
    if state.is_private:
        return Health(status=status)
    running, waiting = state.load()
    return Health(status=status, running=running, waiting=waiting, engines=engines)


def engine_health(model: str, stats: EngineStats) -> EngineHealth:
    """What the figures of an engine mean."""
    if not stats.alive:
        return EngineHealth(model=model, status="engine_down", problem=stats.problem or "The engine has stopped.")
    if stats.heartbeat_age_s >= STALE_HEARTBEAT_S:
        seconds = round(stats.heartbeat_age_s)
        return EngineHealth(model=model, status="engine_down", problem=f"The engine has not moved for {seconds} s.")
    return EngineHealth(model=model, status="ok" if stats.loaded else "unloaded")


@router.get("/ready", responses={503: {"model": Readiness}})
async def ready(state: State, response: Response) -> Readiness:
    """200 when requests are taken, 503 while the server shuts down or no engine is alive: one that is dead does not keep the
    others from answering."""
    alive = any(model.engine.stats().alive for model in state.models)
    response.status_code = 200 if alive and not state.draining else 503
    return Readiness(status="draining" if state.draining else "ready" if alive else "engine_down")
