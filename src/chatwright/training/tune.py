"""Tuning, from a model and a dataset to a run and its result: started, continued, in folds or at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from chatwright.errors import InvalidDatasetError, TrainingError
from chatwright.i18n import _, shown
from chatwright.text.dataset import Dataset
from chatwright.training.base_model import BaseModel
from chatwright.training.before import measure_before
from chatwright.training.chat_tasks import ChatTask, PreferenceTask
from chatwright.training.config import Precision, TrainingConfig
from chatwright.training.cross_validation import (
    Comparisons,
    changed,
    check_divisible,
    compare_augmentations,
    cross_validate,
    fold_items,
    locked,
    within_of,
)
from chatwright.training.distributed import World
from chatwright.training.head_tasks import ClassTask, TagTask
from chatwright.training.loop import Result, train
from chatwright.training.memory import out_of_memory
from chatwright.training.objective import Objective
from chatwright.training.progress import Progress, Silent
from chatwright.training.recipe import precision_for
from chatwright.training.report import write_report
from chatwright.training.run import Run, write_json
from chatwright.training.speed import measure_machine
from chatwright.training.trials import Summary
from chatwright.training.tune_recipe import (
    KIND_OF,
    Method,
    TuneOptions,
    check_kind,
    choose_context,
    for_part,
    resolve,
)
from chatwright.training.tune_task import Rows, Task

DETAILS = "held_out.json"
# A label this many times as frequent as another is said: accuracy then flatters.
IMBALANCE = 10


@dataclass(frozen=True)
class Tuned:
    """What came of it. `result`: the folder of the model or adapter, None where there is none (yet). `before`: what `metrics` was
    before the first step, where that says something. `details`: by label, for heads. `signal`: what interrupted it.
    """

    run: Run
    result: Path | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    before: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    folds: Summary | None = None
    comparisons: Comparisons | None = None
    best_step: int | None = None
    stopped_early: bool = False
    signal: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "run": str(self.run.path),
            "result": None if self.result is None else str(self.result),
            "metrics": dict(self.metrics),
            "before": dict(self.before),
            "details": dict(self.details),
            "folds": None if self.folds is None else self.folds.to_dict(),
            "comparisons": None if self.comparisons is None else asdict(self.comparisons),
            "best_step": self.best_step,
            "stopped_early": self.stopped_early,
            "signal": self.signal,
        }


def start_tuning(
    base: BaseModel,
    dataset: Dataset,
    options: TuneOptions,
    path: Path,
    *,
    device: torch.device,
    n_threads: int | None = None,
    compare: bool = False,
    progress: Progress | None = None,
    world: World | None = None,
) -> Tuned:
    """A new run at `path`. `compare`: try each augmentation by folds instead of making a model.

    Raises InvalidDatasetError, InvalidModelError, UsageError before anything is written; then as `train` does.
    """
    progress, world = progress or Silent(), world or World()
    if n_threads:
        torch.set_num_threads(world.threads(n_threads, device))
    with out_of_memory("tune"):
        task = _create(base, dataset, options, path, device, compare, progress, world)
        return _go_on(Run.open(path), task, progress, world, force=False)


def resume_tuning(
    run: Run,
    *,
    device: torch.device | None = None,
    progress: Progress | None = None,
    world: World | None = None,
    force: bool = False,
) -> Tuned:
    """Goes on with a run, or with one of its folds, with the threads that it began with: their number decides the order of sums,
    and with it the last bits. Raises TrainingError where model or dataset have changed.
    """
    device, progress = device or torch.device("cpu"), progress or Silent()
    torch.set_num_threads(int(run.section("machine")["n_threads"]))
    with out_of_memory("tune"):
        return _go_on(run, _task_of(run, device, progress), progress, world or World(), force=force)


def _create(
    base: BaseModel,
    dataset: Dataset,
    options: TuneOptions,
    path: Path,
    device: torch.device,
    compare: bool,
    progress: Progress,
    world: World,
) -> Task:
    """The folder of a new run, and what it is to do."""
    kind = check_kind(dataset, options.method)
    dataset.verify((kind,))
    context_length, why_context = choose_context(options, base.context_length)
    task = load_task(options.method, base, dataset, context_length, device, progress)
    precision, why_precision = _precision(options, device)
    recipe = resolve(options, task.shape(task.train, task.held_out, options.packed), precision)
    tune = {
        **recipe.tune,
        **task.settings(),
        "context_length": context_length,
        "data": dataset.fingerprint[:16],
        "languages": list(dataset.languages("train", kind))[:8],
        "folds": options.folds,
        "seeds": options.seeds,
        "choose": None if options.choose is None else str(options.choose),
        "inner_folds": None if options.choose is None else options.choose.folds,
        "final": options.final and not compare,
        "compare": compare,
    }
    sections = {
        "dataset": {"path": dataset.path.resolve(), "fingerprint": dataset.fingerprint, "kind": kind},
        "model": {
            "path": base.path.resolve(),
            "name": base.name,
            "weights": base.fingerprint(),
            "text_side": base.text_fingerprint(),
        },
        "tune": tune,
        "training": recipe.training.to_dict(),
        "machine": {"n_threads": torch.get_num_threads()},
    }
    reasons = recipe.reasons
    reasons["tune"]["context_length"] = why_context
    reasons["training"]["precision"] = why_precision
    if options.folds:  # refuse what cannot be divided before a folder is made
        check_divisible(task, options.folds, options.choose, options.seed)
    if world.is_main:
        run = Run.create(path, "tune", sections, reasons)
        with run.locked():
            _note_data(run, task, progress)
    world.barrier()
    return task


def load_task(
    method: Method, base: BaseModel, dataset: Dataset, context_length: int, device: torch.device, progress: Progress
) -> Task:
    """Reads the dataset for a method. Raises InvalidDatasetError where nothing is left to train on, InvalidModelError."""
    rows = Rows(dataset, method, progress)
    task: Task
    match method:
        case "full" | "lora":
            task = ChatTask(base, rows, context_length, device)
        case "dpo":
            task = PreferenceTask(base, rows, context_length, device)
        case "classify":
            task = ClassTask(base, rows, context_length, device)
        case "tag":
            task = TagTask(base, rows, context_length, device)
    if not task.train:
        counts = sorted(task.notes["train"].counts.items())
        raise InvalidDatasetError(
            "None of the {n} training rows of {path} can be trained on: {reasons}.",
            n=dataset.n_rows("train", KIND_OF[method]),
            path=dataset.path,
            reasons="; ".join(f"{_(kind)} ({n})" for kind, n in counts) or "-",
        )
    return task


def _task_of(run: Run, device: torch.device, progress: Progress) -> Task:
    data, model, tune = run.section("dataset"), run.section("model"), run.section("tune")
    dataset = Dataset.open(Path(data["path"]))
    if dataset.fingerprint != data["fingerprint"]:
        raise TrainingError(
            "The dataset {dataset} has changed since the run {path} began. Put the old one back, or start a new run.",
            dataset=dataset.path,
            path=run.path,
        )
    dataset.verify((KIND_OF[tune["method"]],))
    base = BaseModel.open(Path(model["path"]), model["name"])
    base.check(model["weights"], model["text_side"])
    return load_task(tune["method"], base, dataset, tune["context_length"], device, progress)


def _go_on(run: Run, task: Task, progress: Progress, world: World, *, force: bool) -> Tuned:
    tune = run.section("tune")
    with locked(run, world):
        if tune.get("compare"):
            comparisons, signal = compare_augmentations(run, task, progress, world, force)
            if not signal and world.is_main:
                write_report(run)
            return Tuned(run, comparisons=comparisons, signal=signal)
        folds = None
        if tune["folds"] and "fold" not in tune:
            folds, signal = cross_validate(run, task, progress, world, force)
            if signal or not tune["final"]:
                if not signal and world.is_main:
                    write_report(run)
                return Tuned(run, folds=folds, signal=signal)
            progress.say(_("Now the model itself, on all training data."))
        return _train_one(run, task, progress, world, force, folds)


def _train_one(
    run: Run, task: Task, progress: Progress, world: World, force: bool, folds: Summary | None = None
) -> Tuned:
    tune, training = run.section("tune"), TrainingConfig.from_dict(run.section("training"))
    if folds is not None and folds.chosen is not None:
        assert folds.setting is not None
        tune, training = changed(tune, training, {folds.setting: folds.chosen.value})
        shape = task.shape(task.train, task.held_out, tune["packed"])
        training = for_part(training, tune["epochs"], shape.n_rows, shape.n_held_out)
    objective = _objective(run, task, tune)
    before = measure_before(objective, run, world)
    result: Result = train(objective, training, run, progress=progress, world=world, force=force)
    details: dict[str, Any] = getattr(objective, "details", {})
    if result.signal is not None:
        return Tuned(run, folds=folds, signal=result.signal)
    if world.is_main and details:
        write_json(run.path / DETAILS, details)
    return Tuned(
        run,
        result=run.path / getattr(objective, "result_name", "model"),
        metrics=result.metrics,
        before=before,
        details=details,
        folds=folds,
        best_step=result.best_step,
        stopped_early=result.stopped_early,
    )


def _objective(run: Run, task: Task, tune: Mapping[str, Any]) -> Objective:
    seed = run.section("training")["seed"]
    train_items, held_out = task.train, task.held_out
    if "fold" in tune:
        train_items, held_out = fold_items(task, within_of(tune), tune["split_seed"])
    return task.objective(train_items, held_out, tune, seed, run.path)


def _precision(options: TuneOptions, device: torch.device) -> tuple[Precision, str]:
    """As asked, or what is faster on this machine."""
    if options.precision != "auto":
        return options.precision, _("as asked")
    return precision_for(measure_machine(device))


def _note_data(run: Run, task: Task, progress: Progress) -> None:
    """What could not be used as it is: into the events, and said."""
    for split, notes in task.notes.items():
        if not notes.counts:
            continue
        run.event("data", split=split, notes=notes.to_dict())
        for kind, n in sorted(notes.counts.items()):
            where = _("training data") if split == "train" else _("held-out data")
            progress.say(
                _(
                    "{where}: {kind}: {n} (first: {name})",
                    where=where,
                    kind=_(kind),
                    n=n,
                    name=shown(notes.names[kind][0])[:200],
                )
            )
    counts: Mapping[str, int] = task.settings().get("label_counts", {})
    if counts:
        run.event("labels", counts=dict(counts))
        most, least = max(counts, key=lambda label: counts[label]), min(counts, key=lambda label: counts[label])
        if counts[most] >= IMBALANCE * counts[least]:
            progress.say(
                _(
                    "The labels are uneven: {most} {n_most} times, {least} {n_least} times. Look at macro F1 rather than accuracy.",
                    most=most,
                    n_most=counts[most],
                    least=least,
                    n_least=counts[least],
                )
            )
    if not task.held_out:
        progress.say(_("There are no held-out rows: nothing will tell when to stop, or how good the result is."))
