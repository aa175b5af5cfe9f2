"""Checkpoints: a model folder that serves like any other, beside what training needs to go on from it bit for bit.

    checkpoints/step-000100/  config.json model.safetensors tokenizer.json …   (the objective's model folder or adapter)
                              optimizer.safetensors    trained parameters, optimizer state, RNG
                              state.json               step, best, evaluations without improvement, units seen

The parameters are in optimizer.safetensors once more, under their names in memory: a model folder may hold them merged, renamed or
rounded. A checkpoint is written under a temporary name, put on disk, then renamed: one that has its name is whole.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from chatwright.errors import StorageError, TrainingError
from chatwright.training.objective import Objective
from chatwright.training.optimizer import Optimizers
from chatwright.training.run import CHECKPOINTS, Run, publish

TENSORS, STATE = "optimizer.safetensors", "state.json"
_NAME = re.compile(r"step-(\d+)")


@dataclass
class State:
    """Where a run is. `best` is the lowest held-out metric so far, at `best_step`; `stopped`: it ended before its last step."""

    step: int = 0
    best: float | None = None
    best_step: int | None = None
    n_worse: int = 0
    n_units: int = 0
    stopped: bool = False


def checkpoint_name(step: int) -> str:
    """`step-000100`: sorts as numbers do, up to a million steps, and is parsed beyond."""
    return f"step-{step:06d}"


def checkpoints(run: Run) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    folder = run.path / CHECKPOINTS
    found = [entry for entry in folder.iterdir() if _NAME.fullmatch(entry.name)] if folder.is_dir() else []
    return sorted(found, key=_step)


def save_checkpoint(run: Run, objective: Objective, optimizers: Optimizers, state: State, keep: int) -> Path:
    """Writes the checkpoint of `state.step` and removes old ones, but never the best. Raises StorageError: then the older ones
    are as they were."""
    folder = run.path / CHECKPOINTS
    path = folder / checkpoint_name(state.step)
    temporary = folder / f".{path.name}.writing"
    try:
        folder.mkdir(exist_ok=True)
        for leftover in folder.glob(".*"):  # of a write that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        objective.save_model(temporary)
        save_file(_tensors(optimizers), temporary / TENSORS, metadata={"format": "pt"})
        (temporary / STATE).write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
        publish(temporary, path)
    except (OSError, SafetensorError, StorageError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        newest = checkpoints(run)
        raise StorageError(
            "The checkpoint of step {step} cannot be written to {path}: {reason}. The run can be continued from step {last} once"
            " there is room: chatwright runs resume {run}",
            step=state.step,
            path=path,
            reason=_reason(error),
            last=_step(newest[-1]) if newest else 0,
            run=run.path,
        ) from error
    _remove_old(run, state, keep)
    return path


def load_checkpoint(path: Path, optimizers: Optimizers) -> State:
    """Puts parameters, optimizer state and RNG back, and says where the run was. Raises TrainingError when it is damaged."""
    state = read_state(path)
    tensors = _read_tensors(path)
    rng = tensors.pop("rng", None)
    _restore_parameters(path, tensors, optimizers)
    try:
        optimizers.load_state({name: tensor for name, tensor in tensors.items() if not name.startswith("parameter/")})
    except KeyError as error:
        raise _does_not_fit(path) from error
    if rng is not None:
        torch.set_rng_state(rng)
    return state


def load_parameters(path: Path, optimizers: Optimizers) -> None:
    """Puts only the trained parameters back: the best checkpoint's, at the end of a run. Raises TrainingError."""
    _restore_parameters(path, _read_tensors(path), optimizers)


def read_state(path: Path) -> State:
    """The state.json of a checkpoint. Raises TrainingError when it is damaged."""
    try:
        values: Mapping[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
        return State(**values)
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def _tensors(optimizers: Optimizers) -> dict[str, Tensor]:
    tensors = {f"parameter/{name}": p.detach() for name, p in optimizers.parameters.items()}
    tensors |= optimizers.state()
    # nothing needs it (every micro-batch seeds by its number), but who continues by other means has it
    tensors["rng"] = torch.get_rng_state()
    # a tensor that shares memory with another cannot be stored; a copy of a small part costs nothing
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _restore_parameters(path: Path, tensors: Mapping[str, Tensor], optimizers: Optimizers) -> None:
    stored = {name.removeprefix("parameter/"): t for name, t in tensors.items() if name.startswith("parameter/")}
    if stored.keys() != optimizers.parameters.keys():
        raise _does_not_fit(path)
    with torch.no_grad():
        for name, parameter in optimizers.parameters.items():
            if stored[name].shape != parameter.shape:
                raise _does_not_fit(path)
            parameter.copy_(stored[name])


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path / TENSORS)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> TrainingError:
    return TrainingError(
        "The checkpoint {path} is damaged ({reason}). Remove its folder: the run then continues from the one before.",
        path=path,
        reason=error,
    )


def _does_not_fit(path: Path) -> TrainingError:
    return TrainingError(
        "The checkpoint {path} is of another model than the one that the run's config.toml describes. Do not change config.toml;"
        " start a new run instead.",
        path=path,
    )


def _remove_old(run: Run, state: State, keep: int) -> None:
    for path in checkpoints(run)[:-keep]:
        if _step(path) != state.best_step:
            grave = path.with_name(f".{path.name}.old")  # a half-removed one must not look whole
            path.rename(grave)
            shutil.rmtree(grave, ignore_errors=True)


def _step(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
