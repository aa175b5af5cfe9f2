"""One step: gradients of all its micro-batches on all ranks, summed, divided by the step's weight, clipped, applied.

The loss of a step is the sum over its supervised units divided by their number in the whole step, never a mean of means:
micro-batches and ranks with few supervised tokens would weigh too much, and one with none would be NaN (nanochat #590).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from chatwright.errors import DivergenceError
from chatwright.training.config import TrainingConfig
from chatwright.training.distributed import World
from chatwright.training.objective import Objective
from chatwright.training.optimizer import Optimizers
from chatwright.training.order import MicroBatch, RowOrder


class Interrupted(Exception):  # noqa: N818 — not an error
    """The user asked to stop in the middle of a step; the weights are those before it."""


@dataclass(frozen=True)
class StepResult:
    """`loss` in nats a unit, over the whole step; `grad_norm` before clipping; `weight`: supervised units of the step."""

    loss: float
    grad_norm: float
    weight: int


class _Loss(nn.Module):
    """The objective's loss as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.model = objective.model
        self.objective = objective

    def forward(self, batch: Any) -> Tensor:
        return self.objective.loss(batch)


class Stepper:
    """Does steps. `should_stop` is asked between micro-batches, where nothing has been changed yet."""

    def __init__(
        self,
        objective: Objective,
        config: TrainingConfig,
        optimizers: Optimizers,
        world: World,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.objective, self.config, self.optimizers, self.world = objective, config, optimizers, world
        self.should_stop = should_stop
        self.order = RowOrder(config.seed, objective.n_rows)
        self.device = next(objective.model.parameters()).device
        loss: nn.Module = _Loss(objective)
        self.parallel = DistributedDataParallel(loss) if world.size > 1 else None
        self.loss = self.parallel or loss

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """This rank's share of a step."""
        return self.order.micro_batches(
            step, self.config.batch_rows, self.config.micro_rows, self.world.rank, self.world.size
        )

    def step(self, step: int) -> StepResult:
        """Raises DivergenceError with the weights untouched; Interrupted."""
        micro_batches = self.micro_batches(step)
        self.optimizers.zero_grad()
        losses: list[Tensor] = []
        weight = 0
        for index, micro_batch in enumerate(micro_batches):
            if self.world.size == 1 and self.should_stop():  # of several ranks none may leave the others waiting
                self.optimizers.zero_grad()
                raise Interrupted
            # the ranks' gradients are averaged once a step, in the backward pass of the last micro-batch
            loss, n_units = self._accumulate(micro_batch, synchronise=index == len(micro_batches) - 1)
            losses.append(loss)
            weight += n_units
        total, total_weight = self.world.sum([float(torch.stack(losses).sum()), float(weight)])
        gradients = self.optimizers.gradients()
        norm = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
        if not math.isfinite(total) or not math.isfinite(norm):
            raise self._divergence(step, micro_batches, total)
        if total_weight == 0:  # a step of nothing: no gradient, and no decay either
            self.optimizers.zero_grad()
            return StepResult(0.0, 0.0, 0)
        # DistributedDataParallel gives the mean over ranks of sums; wanted is the sum over all divided by the weight
        scale = self.world.size / total_weight
        norm *= scale
        if self.config.clip and norm > self.config.clip:
            scale *= self.config.clip / norm
        torch._foreach_mul_(gradients, scale)
        self.optimizers.step(step)
        return StepResult(total / total_weight, norm, int(total_weight))

    def _accumulate(self, micro_batch: MicroBatch, *, synchronise: bool) -> tuple[Tensor, int]:
        """Adds a micro-batch's gradients; its loss (sum, without graph) and weight."""
        batch = self.objective.batch(micro_batch.rows, micro_batch.epoch)
        n_units = self.objective.weight(batch)
        if n_units == 0 and self.parallel is None:
            return torch.zeros((), device=self.device), 0
        # dropout depends on the place in the run and on nothing before it
        torch.manual_seed(_mix(self.config.seed, micro_batch.first))
        alone: AbstractContextManager[Any] = nullcontext()
        if self.parallel is not None and not synchronise:
            alone = self.parallel.no_sync()
        with alone:
            with self.autocast():
                loss: Tensor = self.loss(batch)
            if n_units == 0:
                loss = loss * 0
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach().float(), n_units

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 for the matrix products, where the run has it; weights and losses stay float32."""
        if self.config.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _divergence(self, step: int, micro_batches: Sequence[MicroBatch], total: float) -> DivergenceError:
        """Which micro-batch it was: each is computed once more, alone. Nothing has been changed since."""
        found: tuple[int, int, list[str]] | None = None
        for index, micro_batch in enumerate(micro_batches):
            self.optimizers.zero_grad()
            loss, _ = self._accumulate(micro_batch, synchronise=False)
            gradients = self.optimizers.gradients()
            norm = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
            if not (math.isfinite(float(loss)) and math.isfinite(norm)):
                names = self.objective.documents(micro_batch.rows, micro_batch.epoch)
                found = (self.world.rank, index, names)
                break
        self.optimizers.zero_grad()
        culprits = [each for each in self.world.gather(found) if each is not None]
        shown = ", ".join(list(dict.fromkeys(culprits[0][2]))[:8]) if culprits else "-"
        return DivergenceError(
            "Training diverged at step {step}: the loss or a gradient is not a number any more (micro-batch {micro_batch} of"
            " process {rank}, documents: {documents}). The weights are those before that step. Lower the learning rate (--lr),"
            " look at these documents, or start a new run.",
            step=step + 1,
            micro_batch=culprits[0][1] + 1 if culprits else "-",
            rank=culprits[0][0] if culprits else "-",
            documents=shown,
            loss=total,
        )


def _mix(seed: int, first: int) -> int:
    """A seed of its own for each place in the run (splitmix64's finaliser: neighbours have nothing in common)."""
    z = (seed * 0x9E3779B97F4A7C15 + first + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (z ^ (z >> 31)) & 0x7FFFFFFFFFFFFFFF
