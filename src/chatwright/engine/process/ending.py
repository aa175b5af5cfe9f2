"""How an engine's process ended, and what those are told who waited for it."""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import dataclass

from chatwright.errors import EngineError


@dataclass(frozen=True)
class Ending:
    """How a process ended. `hung`: it was killed because nothing was heard of it."""

    code: int
    hung: bool = False

    @property
    def how(self) -> str:
        """Such as "exit code 1", "signal 11 (SIGSEGV)"."""
        if self.hung:
            return "it hung"
        if self.code >= 0:
            return f"exit code {self.code}"
        if self.code == -signal.SIGKILL:
            return "signal 9, as when memory runs out"
        with suppress(ValueError):
            return f"signal {-self.code} ({signal.Signals(-self.code).name})"
        return f"signal {-self.code}"

    def cut_answer(self, name: str) -> EngineError:
        """What those are told whose answers it had begun."""
        if self.hung:
            return EngineError(
                "The engine of {name} did not move any more and is being started again. Try again.", name=name
            )
        if self.code == -signal.SIGKILL:
            return EngineError(
                "The engine of {name} was killed in the middle of this answer, as systems do when memory runs out. It is being "
                "started again: try again in a moment.",
                name=name,
            )
        return EngineError(
            "The engine of {name} crashed in the middle of this answer ({how}). It is being started again: try again in a "
            "moment.",
            name=name,
            how=self.how,
        )

    def cut_loading(self, name: str) -> EngineError:
        """What those are told who waited for the model."""
        if self.code == -signal.SIGKILL:
            return EngineError(
                "The engine of {name} was killed while it was loading, as systems do when memory runs out. Free memory, or take "
                "a smaller model.",
                name=name,
            )
        return EngineError(
            "The engine of {name} crashed while it was loading ({how}). Its last words are in the log.",
            name=name,
            how=self.how,
        )


class EndedWhileLoadingError(Exception):
    """The process was gone before it was ready, and said nothing itself."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.how)
        self.ending = ending
