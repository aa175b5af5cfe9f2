"""The curves of a run as TensorBoard reads them."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tensorboardX import SummaryWriter

from chatwright.training.run import TENSORBOARD, Run


class Curves:
    """Writes scalars. `step`: where the run goes on; what an earlier process wrote beyond it is hidden by TensorBoard."""

    def __init__(self, run: Run, step: int) -> None:
        self.writer = SummaryWriter(str(run.path / TENSORBOARD), purge_step=step + 1 if step else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """One point on each curve."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Puts what was added into the file."""
        self.writer.flush()
