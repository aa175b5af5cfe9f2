"""Folds of a tuning as runs of their own under the run, and augmentations judged by them; finished ones are never repeated.

    RUN/folds/1 …  RUN/folds/1-seed-1 …              with folds.json: every figure's mean, standard deviation and n
    RUN/choose/1/lr-0.001/1 …  RUN/choose/all/…      inner folds, where a setting is chosen
    RUN/augment/none/1 …  RUN/augment/typos/1 …      with augmentations.json: the difference of each fold, and what it tells

The models of folds are not kept: what a fold is for are its figures. Only the training rows are divided; the dataset's held-out
rows stay untouched for the model itself.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from chatwright.errors import DivergenceError
from chatwright.i18n import _
from chatwright.training.augmentation import AUGMENTATIONS
from chatwright.training.before import EVENT, measure_before
from chatwright.training.config import TrainingConfig
from chatwright.training.distributed import World
from chatwright.training.figures import BEFORE
from chatwright.training.fold_report import AUGMENT_FILE, FOLDS_FILE
from chatwright.training.fold_state import AUGMENT, COMPARED, FINISHED, FOLDS_FINISHED
from chatwright.training.folds import Comparison, Spread, assign_folds, compare, summarise
from chatwright.training.history import History, figures_of
from chatwright.training.loop import Result, train
from chatwright.training.progress import Progress
from chatwright.training.run import CHECKPOINTS, CONFIG, Run, write_json
from chatwright.training.trials import (
    Choose,
    Fitted,
    FoldPlan,
    Judge,
    StoppedError,
    Summary,
    Trial,
    Within,
    parse_choose,
    run_folds,
)
from chatwright.training.tune_recipe import CHOOSABLE, JUDGE_OF, for_fold
from chatwright.training.tune_task import Items, Task

NONE = "none"


@dataclass(frozen=True)
class Comparisons:
    """Figures over folds without augmentation and with each; `differences`: name → what its folds tell on `metric`,
    the judge's."""

    metric: str
    figures: Mapping[str, Mapping[str, Spread]]
    differences: Mapping[str, Comparison]


def fold_items(task: Task, within: Within, seed: int) -> tuple[Items, Items]:
    """Training and held-out items of a fold, or of a fold of what a fold trains on: all divisions but the last say what is left.

    Raises InvalidDatasetError where there are too few groups.
    """
    clusters, sizes, labels = [item.cluster for item in task.train], task.sizes(), task.labels()
    left, held_out = list(range(len(task.train))), list[int]()
    for n_folds, fold in within:
        folds = assign_folds(
            [clusters[i] for i in left],
            n_folds,
            seed,
            sizes=[sizes[i] for i in left],
            labels=None if labels is None else [labels[i] for i in left],
        )
        held_out = [i for i, own in zip(left, folds, strict=True) if own == fold - 1]
        left = [i for i, own in zip(left, folds, strict=True) if own != fold - 1]
    return [task.train[i] for i in left], [task.train[i] for i in held_out]


def check_divisible(task: Task, folds: int, choose: Choose | None, seed: int) -> None:
    """Raises InvalidDatasetError where the training rows cannot be divided so often."""
    for fold in range(1, folds + 1 if choose else 2):
        fold_items(task, ((folds, fold), (choose.folds, 1)) if choose else ((folds, fold),), seed)


def within_of(tune: Mapping[str, Any]) -> Within:
    """The divisions that a fold's own run is of."""
    return tuple((int(folds), int(fold)) for folds, fold in tune.get("within", [[tune["folds"], tune["fold"]]]))


def plan_of(run: Run) -> FoldPlan:
    """What folds the run asks for."""
    tune, seed = run.section("tune"), int(run.section("training")["seed"])
    choose = parse_choose(tune["choose"], tuple(CHOOSABLE), tune["inner_folds"]) if "choose" in tune else None
    seeds = tuple(range(seed, seed + int(tune.get("seeds", 1))))
    return FoldPlan(tune["folds"], seeds, JUDGE_OF[tune["method"]], choose)


def cross_validate(
    run: Run, task: Task, progress: Progress, world: World, force: bool
) -> tuple[Summary | None, int | None]:
    """All folds of a run, those not finished yet; the summary, or the signal that interrupted them."""
    try:
        summary = run_folds(
            plan_of(run),
            lambda trial: _fit(run, trial, task, progress, world, force),
            final=bool(run.section("tune")["final"]),
        )
    except StoppedError as stopped:
        return None, stopped.signal
    if world.is_main:
        write_folds(run, summary)
    return summary, None


def compare_augmentations(
    run: Run, task: Task, progress: Progress, world: World, force: bool
) -> tuple[Comparisons | None, int | None]:
    """Folds without augmentation and with each one alone, on the same folds and seeds."""
    tune, training = run.section("tune"), run.section("training")
    judge = JUDGE_OF[tune["method"]]
    figures: dict[str, Mapping[str, Spread]] = {}
    for name in (NONE, *AUGMENTATIONS):
        changes = {"augmentations": [] if name == NONE else [name], "compare": False}
        progress.say(_("Augmentation: {name}", name=_("none") if name == NONE else name))
        trials = [
            Trial(f"{AUGMENT}/{name}/{fold}", ((tune["folds"], fold),), int(training["seed"]), changes)
            for fold in range(1, tune["folds"] + 1)
        ]
        try:
            results = [_fit(run, trial, task, progress, world, force).figures for trial in trials]
        except StoppedError as stopped:
            return None, stopped.signal
        figures[name] = summarise(results)
    plain = figures[NONE][judge.metric].values
    differences = {
        name: compare(plain, figures[name][judge.metric].values, lower_is_better=not judge.higher_is_better)
        for name in AUGMENTATIONS
    }
    comparisons = Comparisons(judge.metric, figures, differences)
    if world.is_main:
        write_json(
            run.path / AUGMENT_FILE,
            {
                "metric": judge.metric,
                "figures": {
                    name: {key: spread.to_dict() for key, spread in own.items()} for name, own in figures.items()
                },
                "differences": {name: asdict(difference) for name, difference in differences.items()},
            },
        )
        run.event(COMPARED, **{name: each.verdict for name, each in differences.items()})
    return comparisons, None


def _fit(run: Run, trial: Trial, task: Task, progress: Progress, world: World, force: bool) -> Fitted:
    """One fold as a run of its own, gone on with where it was interrupted, read where it is finished. Raises StoppedError."""
    tune, training = run.section("tune"), TrainingConfig.from_dict(run.section("training"))
    items, held_out = fold_items(task, trial.within, training.seed)
    path = run.path / trial.name
    folds, fold = trial.within[-1]
    own_tune, base = changed(tune, training, trial.changes)
    for name in ("choose", "inner_folds", "seeds"):
        own_tune.pop(name, None)
    own_tune |= {
        "folds": folds,
        "fold": fold,
        "within": [list(each) for each in trial.within],
        "split_seed": training.seed,
    }
    shape = task.shape(items, held_out, tune["packed"])
    own_training = replace(for_fold(base, own_tune["epochs"], shape.n_rows), seed=trial.seed)
    if world.is_main and not (path / CONFIG).is_file():
        sections = {
            "dataset": run.section("dataset"),
            "model": run.section("model"),
            "tune": own_tune,
            "training": own_training.to_dict(),
            "machine": run.section("machine"),
        }
        Run.create(path, "tune", sections)
    world.barrier()
    sub_run = Run.open(path)
    history = History.read(sub_run)
    if world.from_main(history.status in FINISHED):
        if history.status == "diverged":
            return diverged(JUDGE_OF[tune["method"]], len(items), len(held_out))
        earlier = figures_of(next((entry["figures"] for entry in history.events if entry.get("event") == EVENT), {}))
        return Fitted(_with_before(history.final, earlier), len(items), len(held_out))
    say_trial(progress, trial, len(items), len(held_out))
    objective = task.objective(items, held_out, own_tune, trial.seed, path)
    with locked(sub_run, world):
        before = measure_before(objective, sub_run, world)
        try:
            result: Result | None = train(objective, own_training, sub_run, progress=progress, world=world, force=force)
        except DivergenceError:
            result = None
    if result is not None and result.signal is not None:
        raise StoppedError(result.signal)
    if world.is_main:
        for name in (CHECKPOINTS, getattr(objective, "result_name", "model")):
            shutil.rmtree(path / name, ignore_errors=True)
    if result is None:
        say_diverged(progress)
        return diverged(JUDGE_OF[tune["method"]], len(items), len(held_out))
    return Fitted(_with_before(result.metrics, before), len(items), len(held_out))


def changed(
    tune: Mapping[str, Any], training: TrainingConfig, changes: Mapping[str, Any]
) -> tuple[dict[str, Any], TrainingConfig]:
    """The sections of a run with some settings unlike its own."""
    of_training = {name: value for name, value in changes.items() if name in ("lr", "weight_decay")}
    of_tune = {name: value for name, value in changes.items() if name not in of_training}
    return {**tune, **of_tune}, replace(training, **of_training)


def say_trial(progress: Progress, trial: Trial, n: int, n_held_out: int) -> None:
    """What is trained next."""
    folds, fold = trial.within[-1]
    if trial.name.startswith("choose/"):
        [(setting, value)] = trial.changes.items()
        outer = trial.within[0][1] if len(trial.within) > 1 else 0
        where = _("within fold {fold}", fold=outer) if outer else _("for the model itself")
        progress.say(
            _(
                "Trying {setting} {value:g} {where}: inner fold {fold} of {folds}, {n} to train on, {held_out} held out.",
                setting=setting,
                value=value,
                where=where,
                fold=fold,
                folds=folds,
                n=n,
                held_out=n_held_out,
            )
        )
        return
    seed = _(" (seed {seed})", seed=trial.seed) if "-seed-" in trial.name else ""
    progress.say(
        _(
            "Fold {fold} of {folds}: {n} to train on, {held_out} held out.",
            fold=fold,
            folds=folds,
            n=n,
            held_out=n_held_out,
        )
        + seed
    )


def diverged(judge: Judge, n_train: int, n_held_out: int) -> Fitted:
    """What a training that diverged says: of the figure that it is judged by, that it is no number, which is the worst."""
    return Fitted({judge.metric: math.nan}, n_train, n_held_out)


def say_diverged(progress: Progress) -> None:
    """That a fold diverged, and what becomes of the others."""
    progress.say(_("This training diverged: its figure is no number. The other folds go on."))


def _with_before(figures: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {**figures, **{f"{name}{BEFORE}": value for name, value in before.items()}}


@contextmanager
def locked(run: Run, world: World) -> Iterator[None]:
    """`run.locked()` on the rank that writes."""
    if world.is_main:
        with run.locked():
            yield
    else:
        yield


def write_folds(run: Run, summary: Summary) -> None:
    """folds.json, and an event."""
    write_json(run.path / FOLDS_FILE, summary.to_dict())
    run.event(FOLDS_FINISHED, **{name: [spread.mean, spread.sd] for name, spread in summary.figures.items()})
