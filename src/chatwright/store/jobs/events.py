"""Events of a job: counted by us, one after the other, in the transaction that changes the job."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from chatwright.store import clock
from chatwright.store.tables import Job, JobEvent

Level = Literal["info", "warn", "error"]


@dataclass(frozen=True)
class Event:
    """Something that happened, before it has a number. `at`: Unix time; None: now."""

    message: str
    level: Level = "info"
    type: Literal["message", "metrics"] = "message"
    data: Mapping[str, Any] | None = None
    at: int | None = None


def add_events(session: AsyncSession, job: Job, events: Iterable[Event]) -> None:
    """Append them. `job` belongs to this session, in a transaction that writes."""
    for event in events:
        job.n_events += 1
        session.add(
            JobEvent(
                job_id=job.id,
                number=job.n_events,
                created_at=clock.now() if event.at is None else event.at,
                level=event.level,
                type=event.type,
                message=event.message,
                data=None if event.data is None else json.dumps(event.data, ensure_ascii=False),
            )
        )
    job.updated_at = clock.now()
