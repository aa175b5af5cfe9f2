"""`train --folds`: how good a recipe is on text it has not seen, with its spread over folds and seeds; it leaves figures, no model.

    RUN/config.toml (verb "folds")  RUN/folds/1 …  RUN/folds/1-seed-1 …  RUN/choose/1/lr-0.003/1 …  RUN/recipe.json  RUN/folds.json

A fold is an ordinary run of `train` on a dataset of its own: the tokenizer too is trained on nothing but the rows that the fold
trains on. Every fold has the shape, vocabulary size and steps that the first one found, so that they differ in their text only.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch

from chatwright.errors import ChatwrightError, DivergenceError, TrainingError, UsageError
from chatwright.model.checkpoint import read_json_object
from chatwright.text.dataset import Dataset, Row, write_dataset
from chatwright.text.manifest import Kind
from chatwright.text.rows import row_text
from chatwright.training.cross_validation import diverged, locked, say_diverged, say_trial, write_folds
from chatwright.training.distributed import World
from chatwright.training.enough_text import refuse_too_little_text
from chatwright.training.fold_state import FINISHED
from chatwright.training.folds import assign_folds
from chatwright.training.history import History
from chatwright.training.loop import Result
from chatwright.training.pretrain import pretrain, resume_pretraining
from chatwright.training.progress import Progress
from chatwright.training.report import write_report
from chatwright.training.request import Request
from chatwright.training.run import CHECKPOINTS, CONFIG, RESULT, TOKENS, Run, write_json
from chatwright.training.speed import measure_machine
from chatwright.training.stats import text_stats
from chatwright.training.token_count import TokenCount
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

VERB = "folds"
JUDGE = Judge("bits_per_byte", higher_is_better=False)
CHOOSABLE = {"lr": (1e-9, 10.0), "weight_decay": (0.0, 100.0), "dropout": (0.0, 0.95)}  # and their limits
FIRST = "recipe.json"  # what the first fold found


def start_folds(
    dataset_path: Path,
    request: Request,
    out: Path,
    *,
    folds: int,
    seeds: int = 1,
    choose: Choose | None = None,
    device: torch.device,
    n_threads: int,
    progress: Progress,
    world: World,
) -> tuple[Run, Summary | None, int | None]:
    """The run, and the summary or the signal that interrupted it. Raises as `pretrain`, before anything is written where the rows
    cannot be divided so often."""
    if choose is not None:
        _check_choose(choose, request)
    dataset = Dataset.open(dataset_path)
    kinds = text_stats(dataset).kinds
    dataset.verify(kinds)
    plan = FoldPlan(folds, tuple(range(request.seed, request.seed + seeds)), JUDGE, choose)
    parts = _Parts(dataset, kinds, request.seed)
    if request.size is not None and world.is_main:
        count = TokenCount(dataset, text_stats(dataset), measure_machine(device, n_threads))
        refuse_too_little_text(count.recipe(request), count.recipe, share=count.share)
    for fold in range(1, folds + 1):
        parts.check(((folds, fold),) if choose is None else ((folds, fold), (choose.folds, 1)))
    if world.is_main:
        Run.create(
            out,
            VERB,
            {
                "dataset": {"path": dataset.path.resolve(), "fingerprint": dataset.fingerprint, "kinds": list(kinds)},
                "folds": {
                    "folds": folds,
                    "seeds": seeds,
                    "choose": None if choose is None else str(choose),
                    "inner_folds": None if choose is None else choose.folds,
                },
                "request": asdict(request),
                "machine": {"n_threads": n_threads},
            },
        )
    world.barrier()
    try:
        return _run(Run.open(out), plan, parts, device, progress, world, force=False)
    except ChatwrightError:
        if world.is_main and not any(out.glob(f"*/**/{CONFIG}")):  # refused before the first step of the first fold
            shutil.rmtree(out, ignore_errors=True)
        raise


def _check_choose(choose: Choose, request: Request) -> None:
    option = f"--{choose.setting.replace('_', '-')}"
    if getattr(request, choose.setting) is not None:
        raise UsageError("{option} is given, and --choose shall find it: leave one of them out.", option=option)
    least, most = CHOOSABLE[choose.setting]
    for value in choose.values:
        if not least <= value <= most:
            raise UsageError(
                "{option} takes a number from {least} to {most}, not {value!r}.",
                option=option,
                least=least,
                most=most,
                value=value,
            )


def resume_folds(
    run: Run, *, device: torch.device, progress: Progress, world: World, force: bool = False
) -> tuple[Run, Summary | None, int | None]:
    """Goes on with the folds that are not finished. Raises TrainingError where the dataset has changed."""
    described, asked, request = run.section("dataset"), run.section("folds"), _request(run)
    dataset = Dataset.open(Path(described["path"]))
    if dataset.fingerprint != described["fingerprint"]:
        raise TrainingError(
            "The dataset {dataset} has changed since the run {path} began. Put the old one back, or start a new run.",
            dataset=dataset.path,
            path=run.path,
        )
    kinds = cast(tuple[Kind, ...], tuple(described["kinds"]))
    choose = parse_choose(asked["choose"], tuple(CHOOSABLE), asked["inner_folds"]) if "choose" in asked else None
    seeds = tuple(range(request.seed, request.seed + int(asked["seeds"])))
    plan = FoldPlan(int(asked["folds"]), seeds, JUDGE, choose)
    return _run(run, plan, _Parts(dataset, kinds, request.seed), device, progress, world, force=force)


class _Parts:
    """The training rows, and which of them a fold holds out."""

    def __init__(self, dataset: Dataset, kinds: tuple[Kind, ...], seed: int) -> None:
        self.dataset, self.kinds, self.seed = dataset, kinds, seed
        rows = [(row["cluster"], len(row_text(kind, row).encode())) for kind, row in self._rows()]
        self.clusters = [int(cluster) for cluster, _size in rows]
        self.sizes = [size for _cluster, size in rows]

    def check(self, within: Within) -> None:
        """Raises InvalidDatasetError where the rows cannot be divided so."""
        self._divide(within)

    def write(self, within: Within, path: Path) -> tuple[int, int]:
        """The dataset of a fold at `path`, and its numbers of rows."""
        train, held_out = self._divide(within)
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_dataset(
            path,
            {kind: {"train": self._part(kind, train), "held_out": self._part(kind, held_out)} for kind in self.kinds},
        )
        return len(train), len(held_out)

    def _divide(self, within: Within) -> tuple[set[int], set[int]]:
        left, held_out = list(range(len(self.clusters))), set[int]()
        for n_folds, fold in within:
            folds = assign_folds(
                [self.clusters[i] for i in left], n_folds, self.seed, sizes=[self.sizes[i] for i in left]
            )
            held_out = {i for i, own in zip(left, folds, strict=True) if own == fold - 1}
            left = [i for i in left if i not in held_out]
        return set(left), held_out

    def _rows(self) -> Iterator[tuple[Kind, Row]]:
        for kind in self.kinds:
            for row in self.dataset.rows("train", kind):
                yield kind, row

    def _part(self, kind: Kind, numbers: set[int]) -> Iterator[Row]:
        return (row for number, (own, row) in enumerate(self._rows()) if number in numbers and own == kind)


def _run(
    run: Run,
    plan: FoldPlan,
    parts: _Parts,
    device: torch.device,
    progress: Progress,
    world: World,
    *,
    force: bool,
) -> tuple[Run, Summary | None, int | None]:
    with locked(run, world):
        try:
            summary = run_folds(plan, lambda trial: _fit(run, trial, parts, device, progress, world, force), final=True)
        except StoppedError as stopped:
            return run, None, stopped.signal
        if world.is_main:
            write_folds(run, summary)
            write_report(run)
    return run, summary, None


def _fit(
    run: Run, trial: Trial, parts: _Parts, device: torch.device, progress: Progress, world: World, force: bool
) -> Fitted:
    path = run.path / trial.name
    data = path.with_name(f".{path.name}-data")
    train, held_out = (len(part) for part in parts._divide(trial.within))
    # one rank looks for all: another would see, or not yet see, what this one writes
    begun, status, final = world.from_main(_state(path) if world.is_main else None)
    if status in FINISHED:
        if world.is_main:
            _note_first(run, path)  # a run that was killed between a fold's end and this would go on with another shape
        world.barrier()
        return diverged(JUDGE, train, held_out) if status == "diverged" else Fitted(final, train, held_out)
    say_trial(progress, trial, train, held_out)
    if world.is_main:
        parts.write(trial.within, data)
    world.barrier()
    result: Result | None = None
    try:
        if begun:
            result = resume_pretraining(Run.open(path), device=device, progress=progress, world=world, force=force)
        else:
            _made, result = pretrain(
                data,
                replace(_as_first(run, _request(run)), seed=trial.seed, **trial.changes),
                path,
                device=device,
                n_threads=int(run.section("machine")["n_threads"]),
                progress=progress,
                world=world,
                look=False,
            )
    except DivergenceError:
        say_diverged(progress)
    if world.is_main:
        _note_first(run, path)
    world.barrier()
    if result is not None and result.signal is not None:
        raise StoppedError(result.signal)
    if world.is_main:
        for each in (path / CHECKPOINTS, path / RESULT, path / TOKENS, data):
            shutil.rmtree(each, ignore_errors=True)
    return diverged(JUDGE, train, held_out) if result is None else Fitted(result.metrics, train, held_out)


def _state(path: Path) -> tuple[bool, str, dict[str, float]]:
    """Whether a fold has begun, how it stands, and its figures."""
    if not (path / CONFIG).is_file():
        return False, "", {}
    history = History.read(Run.open(path))
    return True, history.status, dict(history.final)


def _note_first(run: Run, fold: Path) -> None:
    """What the first fold found, for all others."""
    if not (run.path / FIRST).is_file():
        write_json(run.path / FIRST, _found(Run.open(fold)))


def _request(run: Run) -> Request:
    """What was asked. Whether the text is enough for the size was asked of all of it: a fold has less, and the size that the first
    one found for its own part must do for the others too."""
    values = run.section("request") | {"size_is_settled": True}
    if "tokenizer" in values:
        values["tokenizer"] = Path(values["tokenizer"])
    return Request(**values)


def _as_first(run: Run, request: Request) -> Request:
    """With the shape and the steps that the first fold found, from the second on."""
    if not (run.path / FIRST).is_file():
        return request
    found = read_json_object(run.path / FIRST)
    if request.tokenizer is not None:
        found.pop("vocab_size")
    return replace(request, minutes=None, **found)


def _found(first: Run) -> Mapping[str, Any]:
    pretraining, training = first.section("pretraining"), first.section("training")
    return {
        "size": pretraining["n_parameters"],
        "vocab_size": pretraining["vocab_size"],
        "context": pretraining["context_length"],
        "steps": training["n_steps"],
        "batch_tokens": training["batch_rows"] * pretraining["context_length"],
    }
