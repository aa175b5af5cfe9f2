"""The training loop, the only one: steps, held-out evaluations, samples, checkpoints, early stopping, the result.

`train` starts a run or goes on with it: everything it does after a checkpoint is a function of the checkpoint and of config.toml,
never of the clock, so that a run killed at any moment and continued ends with the same bits.
"""

from __future__ import annotations

import _thread
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from chatwright.errors import ChatwrightError, DivergenceError, StorageError, TrainingError
from chatwright.i18n import _
from chatwright.training.checkpoint import (
    State,
    checkpoint_name,
    checkpoints,
    load_checkpoint,
    load_parameters,
    save_checkpoint,
)
from chatwright.training.compiling import compile_model
from chatwright.training.config import TrainingConfig
from chatwright.training.distributed import World
from chatwright.training.environment import describe_environment, differences, read_environment, write_environment
from chatwright.training.history import MEASURED
from chatwright.training.memory import out_of_memory
from chatwright.training.objective import Objective
from chatwright.training.optimizer import Optimizers
from chatwright.training.progress import Progress, Silent
from chatwright.training.report import write_report
from chatwright.training.run import CHECKPOINTS, RESULT, Run, publish
from chatwright.training.samples import write_samples
from chatwright.training.schedule import rate_scale
from chatwright.training.signals import StopSignals
from chatwright.training.step import Interrupted, Stepper
from chatwright.training.tensorboard import Curves


@dataclass(frozen=True)
class Result:
    """How a call of `train` ended. `signal`: the number of the signal that interrupted it, None when it came to its end.
    `metrics`: the figures of the whole held-out data, of the weights that became the result."""

    step: int
    metrics: Mapping[str, float]
    best_step: int | None = None
    signal: int | None = None
    stopped_early: bool = False


def train(
    objective: Objective,
    config: TrainingConfig,
    run: Run,
    *,
    progress: Progress | None = None,
    world: World | None = None,
    force: bool = False,
) -> Result:
    """Trains to the end, or until a signal. The caller holds the run's lock (`run.locked()`), on rank 0 of several.

    A run that has checkpoints goes on from the newest; in another environment only with `force`. Raises TrainingError,
    DivergenceError, StorageError.
    """
    world = world or World()
    loop = _Loop(objective, config, run, progress or Silent(), world)
    try:
        loop.restore(force)
        with out_of_memory(run.verb):
            return loop.train()
    except ChatwrightError as error:
        if world.is_main:
            kind = "diverged" if isinstance(error, DivergenceError) else "failed"
            loop.note(kind, step=loop.state.step, error=str(error))
        raise


class _Loop:
    def __init__(
        self, objective: Objective, config: TrainingConfig, run: Run, progress: Progress, world: World
    ) -> None:
        world.check_rows(config.batch_rows)
        self.objective, self.config, self.run, self.progress, self.world = objective, config, run, progress, world
        self.optimizers = Optimizers(objective.model, config)
        self.state = State()
        self.device = next(objective.model.parameters()).device
        self.unit: str = getattr(objective, "unit", "tokens")
        self.signals = StopSignals(self._announce_stop)
        self.stepper = Stepper(objective, config, self.optimizers, world, lambda: self.signals.received is not None)
        self.curves: Curves | None = None

    def restore(self, force: bool) -> None:
        """Puts the newest checkpoint back, if there is one."""
        now = describe_environment(self.device, self.world.size)
        then = read_environment(self.run.path)
        newest = next(reversed(checkpoints(self.run)), None)
        self.world.barrier()  # rank 0 must not write its environment before the others have looked
        if newest is None:
            if self.world.is_main:
                write_environment(self.run.path, now)
                self.note("started", n_steps=self.config.n_steps, world_size=self.world.size)
            return
        if then and (changed := differences(then, now)):
            shown = "; ".join(f"{name}: {before} → {after}" for name, (before, after) in changed.items())
            # the number of processes is chosen on each start, and checkpoints are made to fit any
            if not force and changed.keys() != {"world_size"}:
                raise TrainingError(
                    "The run {path} began in another environment ({changes}): it would go on, but not bit for bit as it would"
                    " have there. To accept that: chatwright runs resume {path} --force",
                    path=self.run.path,
                    changes=shown,
                )
            self.progress.say(_("This is another environment than the run began in: {changes}.", changes=shown))
            if self.world.is_main:
                self.note("environment_changed", changes=shown)
        self.state = load_checkpoint(newest, self.optimizers)
        if self.world.is_main:
            self.note("resumed", step=self.state.step, world_size=self.world.size)

    def train(self) -> Result:
        """Everything from `state.step` on."""
        if self.config.compile and (problem := compile_model(self.objective.model)):
            self.progress.say(problem)
        self.objective.model.train()
        with ExitStack() as stack:
            stack.enter_context(self.signals)
            if self.world.is_main:
                self.curves = stack.enter_context(Curves(self.run, self.state.step))
            self.progress.begin(self.state.step, self.config.n_steps)
            while self.state.step < self.config.n_steps and not self.state.stopped:
                if (number := self._asked_to_stop()) or not self._step():
                    return self._interrupted(number or self.signals.received or 0)
            return self._finish()

    def _step(self) -> bool:
        """One step and what is due after it; False when the user stopped it half-way."""
        began = time.perf_counter()  # for the eye only
        step = self.state.step
        try:
            result = self.stepper.step(step)
        except Interrupted:
            return False
        self.state.step += 1
        self.state.n_units += result.weight
        seconds = time.perf_counter() - began
        figures = {
            "loss": result.loss,
            "lr": self.config.lr * rate_scale(step, self.config),
            "grad_norm": result.grad_norm,
            f"{self.unit}_per_s": result.weight / max(seconds, 1e-9),
        }
        if self.world.is_main:
            self._record(figures)
            self.progress.step(self.state.step, figures)
        last = self.state.step == self.config.n_steps
        improved = self._evaluate() if last or _due(self.state.step, self.config.eval_every) else False
        if self.world.is_main and (last or _due(self.state.step, self.config.sample_every)):
            self._sample()
        if improved or last or self.state.stopped or _due(self.state.step, self.config.checkpoint_every):
            self._save()
        return True

    def _evaluate(self) -> bool:
        """Held-out figures of a fixed part; whether they are the best so far. May decide to stop."""
        figures: Mapping[str, float] = self.world.from_main(self._figures(full=False) if self.world.is_main else None)
        value = figures.get(self.objective.metric)
        if value is None:
            return False
        if self.world.is_main:
            self._record({name: float(figure) for name, figure in figures.items()})
            self.progress.evaluated(self.state.step, figures)
        if self.state.best is None or value < self.state.best:
            self.state.best, self.state.best_step, self.state.n_worse = float(value), self.state.step, 0
            return True
        self.state.n_worse += 1
        if self.config.patience and self.state.n_worse >= self.config.patience:
            self.state.stopped = True
            if self.world.is_main:
                self.note("stopped_early", step=self.state.step, best_step=self.state.best_step, best=self.state.best)
        return False

    def _figures(self, *, full: bool) -> Mapping[str, float]:
        self.objective.model.eval()
        # the figures of the result are those of the weights as they are served, in float32
        with torch.no_grad(), nullcontext() if full else self.stepper.autocast():
            figures = self.objective.evaluate(full=full)
        self.objective.model.train()
        return figures

    def _sample(self) -> None:
        self.objective.model.eval()
        with torch.no_grad():
            samples = self.objective.samples()
        self.objective.model.train()
        if samples:
            write_samples(self.run, self.state.step, samples)

    def _save(self) -> None:
        if self.world.is_main:
            path = save_checkpoint(self.run, self.objective, self.optimizers, self.state, self.config.keep)
            self.note("checkpoint", step=self.state.step, path=str(path.relative_to(self.run.path)))
        self.world.barrier()

    def _asked_to_stop(self) -> int:
        """The number of the signal that asked any rank to stop, or 0; the same on all ranks."""
        received = self.signals.received or 0
        return int(max(self.world.gather(received))) if self.world.sum([float(received)])[0] else 0

    def _interrupted(self, number: int) -> Result:
        # rank 0 decides for all: one that looks for itself may find what rank 0 has just written, and not wait with it
        if self.world.from_main(self._is_unsaved()):
            self._save()
        if self.world.is_main:
            self.note("interrupted", step=self.state.step, signal=number)
        return Result(self.state.step, {}, self.state.best_step, signal=number)

    def _is_unsaved(self) -> bool:
        newest = checkpoints(self.run)
        return self.state.step > 0 and (not newest or newest[-1].name != checkpoint_name(self.state.step))

    def _finish(self) -> Result:
        """The best weights become the result, and are measured on all held-out data."""
        if self.state.best_step not in (None, self.state.step):
            load_parameters(self.run.path / CHECKPOINTS / checkpoint_name(self.state.best_step or 0), self.optimizers)
        if (finish := getattr(self.objective, "finish", None)) is not None:
            finish()
        metrics: Mapping[str, float] = {}
        if self.world.is_main:
            metrics = {name: float(value) for name, value in self._figures(full=True).items()}
            self._say_why_it_differs(metrics.get(self.objective.metric))
            documents = getattr(self.objective, "measured", None)
            # the card says them
            self.note(MEASURED, step=self.state.best_step or self.state.step, figures=metrics, documents=documents)
            self._write_result()
            self.note(
                "finished",
                step=self.state.step,
                best_step=self.state.best_step,
                stopped_early=self.state.stopped,
                metrics=metrics,
            )
            if self.curves is not None:
                self.curves.flush()
            write_report(self.run)
        metrics = self.world.from_main(metrics)
        return Result(self.state.step, metrics, self.state.best_step, stopped_early=self.state.stopped)

    def _say_why_it_differs(self, value: float | None) -> None:
        """The last figure on the way and the final one of the same weights stand below each other, and seldom agree."""
        if value is None or self.state.best is None or f"{value:.4f}" == f"{self.state.best:.4f}":
            return
        n, n_all = getattr(self.objective, "measured", (0, 0))
        if (strength := float(getattr(self.objective, "strength", 1.0))) != 1.0:
            sentence = _(
                "On the way the change counted in full ({glance:.4f} by a quick look at the held-out data); the result keeps"
                " {strength:g} of it, and its figures are of all held-out data, in float32 ({value:.4f}).",
                glance=self.state.best,
                strength=strength,
                value=value,
            )
        elif n < n_all:
            sentence = _(
                "On the way a quick look at the held-out data gave {glance:.4f}; the figures of the result are of {n} of its {all}"
                " documents, in float32 ({value:.4f}): all of them would have taken too much of the time.",
                glance=self.state.best,
                n=n,
                all=n_all,
                value=value,
            )
        else:
            sentence = _(
                "On the way a quick look at the held-out data gave {glance:.4f}; the figures of the result are of all of it, in"
                " float32 ({value:.4f}).",
                glance=self.state.best,
                value=value,
            )
        self.progress.say(sentence)

    def _write_result(self) -> None:
        """RUN/model, or what the objective names its result (an adapter has another layout and another name)."""
        path: Path = self.run.path / getattr(self.objective, "result_name", RESULT)
        temporary = path.with_name(f".{path.name}.writing")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            self.objective.save_model(temporary)
            publish(temporary, path)
        except (OSError, StorageError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise StorageError(
                "Training is done, but the model cannot be written to {path}: {reason}. Make room, then: chatwright runs"
                " resume {run}",
                path=path,
                reason=error,
                run=self.run.path,
            ) from error

    def _record(self, figures: Mapping[str, float]) -> None:
        self.run.metric(self.state.step, **{name: float(f"{value:.6g}") for name, value in figures.items()})
        if self.curves is not None:
            self.curves.add(self.state.step, figures)

    def note(self, kind: str, **data: Any) -> None:
        """An event, as far as the disk still takes one: an error must not hide behind the error of writing it down."""
        try:
            self.run.event(kind, **data)
        except StorageError:
            if kind not in ("failed", "diverged"):
                raise

    def _announce_stop(self, number: int) -> None:
        said = _("Stopping: saving a checkpoint first. Once more, and it ends at once.")
        # Not in the handler's own thread: that may be in the middle of writing, and Python refuses to write within writing. Of the
        # two ways to start another one this has no lock that the interrupted thread could hold.
        _thread.start_new_thread(self.progress.say, (said,))


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
