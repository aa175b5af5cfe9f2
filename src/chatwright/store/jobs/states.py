"""What a job can be, and what becomes of it when somebody asks."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """`VALIDATING`: its files are looked at, `QUEUED`: it waits for its turn."""

    VALIDATING = "validating"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


AT_WORK = frozenset({State.VALIDATING, State.QUEUED, State.RUNNING})
ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


class ModelState(StrEnum):
    """Whether there is a result."""

    NONE = "none"
    READY = "ready"
    DELETED = "deleted"
