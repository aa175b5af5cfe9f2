"""What a worker is started with: its phase, and what of the machine it may use."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal, Self

Phase = Literal["check", "tune"]
CHECK: Phase = "check"
TUNE: Phase = "tune"


@dataclass(frozen=True)
class Budget:
    """Threads that compute, and bytes of memory (0: no limit of its own). `device`: as in the settings."""

    n_threads: int
    memory_bytes: int
    device: str = "auto"

    def to_json(self) -> str:
        """For a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse."""
        return cls(**json.loads(text))
