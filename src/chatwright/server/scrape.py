"""`/metrics`, in Prometheus' text format."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from chatwright.server.permission import Permit
from chatwright.server.state import State
from chatwright.store.policy import Action

router = APIRouter(tags=["health"], dependencies=[Depends(Permit(Action.READ_METRICS))])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Counters, histograms and gauges."}},
)
async def read_metrics(state: State) -> Response:
    """What was counted since the server started, for Prometheus. For administrators, and for everybody where a server is open."""
    return Response(generate_latest(state.meter.metrics.registry), media_type=CONTENT_TYPE_LATEST)
