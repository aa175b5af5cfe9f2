"""K folds as runs of their own under the run, and augmentations judged by them; finished folds are never repeated.

    RUN/folds/1 …                    with folds.json: every figure's mean, standard deviation and n
    RUN/augment/none/1 …  RUN/augment/typos/1 …   with augmentations.json: the difference of each fold, and what it tells

The models of folds are not kept: what a fold is for are its figures. Only the training rows are divided; the dataset's held-out
rows stay untouched for the model itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chatwright.i18n import _
from chatwright.training.augmentation import AUGMENTATIONS
from chatwright.training.before import EVENT, measure_before
from chatwright.training.config import TrainingConfig
from chatwright.training.distributed import World
from chatwright.training.fold_report import AUGMENT_FILE, FOLDS_FILE
from chatwright.training.folds import Comparison, Spread, assign_folds, compare, summarise
from chatwright.training.history import History
from chatwright.training.loop import train
from chatwright.training.progress import Progress
from chatwright.training.run import CHECKPOINTS, CONFIG, Run, write_json
from chatwright.training.tune_recipe import METRIC_OF, for_fold
from chatwright.training.tune_task import Items, Task

FOLDS, AUGMENT, NONE = "folds", "augment", "none"
FINISHED = ("finished", "stopped early")


@dataclass(frozen=True)
class Summary:
    """Figures over folds. `metric`: the one that is minimised. `rows`: training and held-out items of each fold."""

    metric: str
    figures: Mapping[str, Spread]
    rows: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Comparisons:
    """Figures over folds without augmentation and with each; `differences`: name → what its folds tell on `metric`."""

    metric: str
    figures: Mapping[str, Mapping[str, Spread]]
    differences: Mapping[str, Comparison]


def fold_items(task: Task, n_folds: int, seed: int, fold: int) -> tuple[Items, Items]:
    """Training and held-out items of fold 1 … n_folds. Raises InvalidDatasetError where there are too few groups."""
    clusters = [item.cluster for item in task.train]
    folds = assign_folds(clusters, n_folds, seed, sizes=task.sizes(), labels=task.labels())
    pairs = list(zip(task.train, folds, strict=True))
    return [item for item, own in pairs if own != fold - 1], [item for item, own in pairs if own == fold - 1]


def cross_validate(
    run: Run, task: Task, progress: Progress, world: World, force: bool
) -> tuple[Summary | None, int | None]:
    """All folds of a run, those not finished yet; the summary, or the signal that interrupted them."""
    results, rows, signal = _folds(run, run.path / FOLDS, {}, task, progress, world, force)
    if signal is not None:
        return None, signal
    summary = Summary(METRIC_OF[run.section("tune")["method"]], summarise(results), rows)
    if world.is_main:
        _write_folds(run, summary)
        run.event("folds_finished", **{name: [spread.mean, spread.sd] for name, spread in summary.figures.items()})
    return summary, None


def compare_augmentations(
    run: Run, task: Task, progress: Progress, world: World, force: bool
) -> tuple[Comparisons | None, int | None]:
    """Folds without augmentation and with each one alone, on the same folds and seeds."""
    metric = METRIC_OF[run.section("tune")["method"]]
    figures: dict[str, Mapping[str, Spread]] = {}
    for name in (NONE, *AUGMENTATIONS):
        changes = {"augmentations": [] if name == NONE else [name], "compare": False}
        progress.say(_("Augmentation: {name}", name=_("none") if name == NONE else name))
        results, _rows, signal = _folds(run, run.path / AUGMENT / name, changes, task, progress, world, force)
        if signal is not None:
            return None, signal
        figures[name] = summarise(results)
    plain = figures[NONE][metric].values
    differences = {name: compare(plain, figures[name][metric].values, lower_is_better=True) for name in AUGMENTATIONS}
    comparisons = Comparisons(metric, figures, differences)
    if world.is_main:
        write_json(
            run.path / AUGMENT_FILE,
            {
                "metric": metric,
                "figures": {
                    name: {key: spread.to_dict() for key, spread in own.items()} for name, own in figures.items()
                },
                "differences": {name: asdict(difference) for name, difference in differences.items()},
            },
        )
        run.event("augmentations_compared", **{name: each.verdict for name, each in differences.items()})
    return comparisons, None


def _folds(
    run: Run, folder: Path, changes: Mapping[str, Any], task: Task, progress: Progress, world: World, force: bool
) -> tuple[list[Mapping[str, float]], list[tuple[int, int]], int | None]:
    """The figures and the sizes of each fold, and the signal that interrupted them."""
    tune, training = run.section("tune"), TrainingConfig.from_dict(run.section("training"))
    results: list[Mapping[str, float]] = []
    rows: list[tuple[int, int]] = []
    for fold in range(1, tune["folds"] + 1):
        items, held_out = fold_items(task, tune["folds"], training.seed, fold)
        rows.append((len(items), len(held_out)))
        path = folder / str(fold)
        own_tune = {**tune, **changes, "fold": fold, "split_seed": training.seed}
        shape = task.shape(items, held_out, tune["packed"])
        own_training = for_fold(training, tune["epochs"], shape.n_rows)
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
            earlier: Mapping[str, float] = next(
                (entry["figures"] for entry in history.events if entry.get("event") == EVENT), {}
            )
            results.append(_with_before(history.final, earlier))
            continue
        progress.say(
            _(
                "Fold {fold} of {folds}: {n} to train on, {held_out} held out.",
                fold=fold,
                folds=tune["folds"],
                n=len(items),
                held_out=len(held_out),
            )
        )
        objective = task.objective(items, held_out, own_tune, training.seed, path)
        with locked(sub_run, world):
            before = measure_before(objective, own_training, sub_run, world)
            result = train(objective, own_training, sub_run, progress=progress, world=world, force=force)
        if result.signal is not None:
            return results, rows, result.signal
        results.append(_with_before(result.metrics, before))
        if world.is_main:
            for name in (CHECKPOINTS, getattr(objective, "result_name", "model")):
                shutil.rmtree(path / name, ignore_errors=True)
    return results, rows, None


def _with_before(figures: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    return {**figures, **{f"{name}_before": value for name, value in before.items()}}


@contextmanager
def locked(run: Run, world: World) -> Iterator[None]:
    """`run.locked()` on the rank that writes."""
    if world.is_main:
        with run.locked():
            yield
    else:
        yield


def _write_folds(run: Run, summary: Summary) -> None:
    write_json(
        run.path / FOLDS_FILE,
        {
            "metric": summary.metric,
            "figures": {name: spread.to_dict() for name, spread in summary.figures.items()},
            "rows": [{"train": n, "held_out": n_held_out} for n, n_held_out in summary.rows],
        },
    )
