"""Folds within folds: what chooses a setting never sees what the figure is taken on; every task reports its own, over seeds."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwright.errors import InvalidDatasetError, UsageError
from chatwright.model.save import save_model
from chatwright.text.dataset import Dataset, write_dataset
from chatwright.training.base_model import BaseModel
from chatwright.training.cross_validation import check_divisible, fold_items
from chatwright.training.distributed import World
from chatwright.training.enough_text import MOST_PARAMETERS_PER_TOKEN
from chatwright.training.fold_state import FoldState
from chatwright.training.folds import Spread, compare
from chatwright.training.history import History
from chatwright.training.pretrain_folds import _Parts, resume_folds, start_folds
from chatwright.training.progress import Silent
from chatwright.training.report import write_report
from chatwright.training.request import Request
from chatwright.training.run import Run
from chatwright.training.trials import Choose, Fitted, FoldPlan, Judge, StoppedError, Trial, parse_choose, run_folds
from chatwright.training.tune import Tuned, resume_tuning, start_tuning
from chatwright.training.tune_recipe import TuneOptions
from chatwright.training.tune_task import Task
from tests.server.tiny import VOCAB, make_model_folder
from tests.training.corpus import make_dataset
from tests.training.tuning import chat, tiny_gpt

CPU = torch.device("cpu")
ACCURACY = Judge("accuracy", higher_is_better=True)


@dataclass(frozen=True)
class Item:
    number: int
    cluster: int


class Items:
    """A task of items alone."""

    def __init__(self, clusters: list[int]) -> None:
        self.train = [Item(number, cluster) for number, cluster in enumerate(clusters)]

    def sizes(self) -> list[int]:
        return [1] * len(self.train)

    def labels(self) -> None:
        return None


def recorded(
    plan: FoldPlan, figures: Any = lambda trial: {"accuracy": 0.5}, final: bool = False
) -> tuple[Any, list[Trial]]:
    trials: list[Trial] = []

    def fit(trial: Trial) -> Fitted:
        trials.append(trial)
        return Fitted(figures(trial), 1, 1)

    return run_folds(plan, fit, final=final), trials


@settings(deadline=None)  # another's work on the machine is no failure
@given(st.lists(st.integers(0, 40), min_size=20, max_size=80), st.integers(2, 4), st.integers(0, 3))
def test_no_choice_sees_what_its_fold_holds_out_nor_a_near_duplicate_of_it(
    clusters: list[int], n_folds: int, seed: int
) -> None:
    task = cast(Task, Items(clusters))
    plan = FoldPlan(n_folds, (seed,), ACCURACY, Choose("lr", (1.0, 2.0), 2))
    try:
        check_divisible(task, n_folds, plan.choose, seed)
    except InvalidDatasetError:
        return  # and whatever passes here must go through
    _summary, trials = recorded(plan, final=True)
    held_out_of = {}
    for trial in trials:
        train, held_out = fold_items(task, trial.within, seed)
        assert not {item.cluster for item in train} & {item.cluster for item in held_out}
        if trial.name.startswith("folds/"):
            held_out_of[trial.within[0]] = {item.cluster for item in held_out}
            # all that the fold does not hold out is trained on
            assert len(train) + len(held_out) == len(clusters)
    for trial in trials:
        if trial.name.startswith("choose/") and len(trial.within) == 2:
            train, held_out = fold_items(task, trial.within, seed)
            assert not {item.cluster for item in (*train, *held_out)} & held_out_of[trial.within[0]]
    assert Counter(trial.name.split("/")[0] for trial in trials) == {"folds": n_folds, "choose": 4 * (n_folds + 1)}
    assert len(trials) == plan.count(final=True)


def test_inner_folds_choose_by_the_task_s_figure_and_the_outer_fold_reports_what_was_chosen() -> None:
    def figures(trial: Trial) -> dict[str, float]:
        lr = trial.changes["lr"]
        # the outer fold would have liked another value: it must not be asked
        best = 2.0 if len(trial.within) == 2 else 3.0
        return {"accuracy": 1.0 if lr == best else 0.0, "loss": 0.0}

    summary, trials = recorded(FoldPlan(3, (0,), ACCURACY, Choose("lr", (1.0, 2.0, 3.0), 2)), figures)
    assert [each.value for each in summary.choices] == [2.0] * 3
    assert summary.figures["accuracy"].values == (0.0,) * 3
    assert all(trial.changes == {"lr": 2.0} for trial in trials if trial.name.startswith("folds/"))
    assert summary.choices[0].figures["2"].mean == 1.0


def test_a_tie_is_decided_by_the_loss_and_a_figure_that_is_no_number_never_wins() -> None:
    figures = {1.0: {"accuracy": 0.5, "loss": 2.0}, 2.0: {"accuracy": 0.5, "loss": 1.0}}
    figures[3.0] = {"accuracy": math.nan, "loss": 0.0}
    plan = FoldPlan(2, (0,), ACCURACY, Choose("lr", (3.0, 1.0, 2.0), 2))
    summary, _trials = recorded(plan, lambda trial: figures[trial.changes["lr"]], final=True)
    assert summary.chosen.value == 2.0
    lower = Judge("loss", higher_is_better=False)
    assert lower.rank({"loss": Spread.of([1.0])}) < lower.rank({"loss": Spread.of([2.0])})


def test_seeds_share_their_folds_and_their_own_spread_is_told_apart() -> None:
    values = {(1, 5): 1.0, (1, 6): 3.0, (2, 5): 10.0, (2, 6): 10.0}
    plan = FoldPlan(2, (5, 6), ACCURACY)
    summary, trials = recorded(plan, lambda trial: {"accuracy": values[trial.within[0][1], trial.seed]})
    assert [(trial.name, trial.seed) for trial in trials] == [
        ("folds/1", 5), ("folds/1-seed-6", 6), ("folds/2", 5), ("folds/2-seed-6", 6),
    ]  # fmt: skip
    spread = summary.figures["accuracy"]
    assert (spread.n, spread.mean) == (4, 6.0)
    assert spread.sd == pytest.approx(statistics.stdev([1, 3, 10, 10]))
    assert summary.by_fold("accuracy") == [2.0, 10.0]
    assert summary.seed_sd["accuracy"] == pytest.approx(1.0)  # the variances are 2 and 0


@pytest.mark.parametrize("text", ["lr", "lr=", "lr=1", "lr=1,1", "lr=1,x", "lr=1,nan", "size=1,2", "=1,2"])
def test_a_choice_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--choose takes one setting and two values"):
        parse_choose(text, ("lr", "dropout"))


def test_a_choice_is_written_as_it_is_read() -> None:
    choose = parse_choose("lr=1e-4,0.1,3", ("lr",))
    assert choose == Choose("lr", (1e-4, 0.1, 3.0))
    assert parse_choose(str(choose), ("lr",)) == choose


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 2}, "--seeds needs folds"),
        ({"choose": Choose("lr", (0.1, 0.2))}, "--choose needs folds"),
        ({"folds": 2, "choose": Choose("beta", (0.1, 0.2))}, "no meaning for --method lora"),
        ({"folds": 2, "choose": Choose("lr", (0.1, 0.2)), "lr": 0.1}, "--lr is given"),
        ({"folds": 2, "choose": Choose("dropout", (0.1, 2.0))}, "--dropout takes a number"),
        ({"method": "classify", "answers": 3}, "--answers has no meaning"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TuneOptions(**{"method": "lora"} | options)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_model_folder(tmp_path_factory.mktemp("base") / "tiny")
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    save_model(tiny_gpt(VOCAB), folder.parent / "weights", extra={"eos_token_id": 2})
    for file in (folder.parent / "weights").iterdir():
        file.rename(folder / file.name)
    return folder


def tune(base: Path, data: Dataset, path: Path, method: str, **options: Any) -> Tuned:
    values = {"method": method, "folds": 2, "batch": 2, "epochs": 1, "precision": "fp32", "final": False} | options
    return start_tuning(BaseModel.open(base, ""), data, TuneOptions(**values), path, device=CPU)


def labelled() -> list[dict[str, Any]]:
    return [{"text": f"{word} {n}", "label": label} for n in range(4) for word, label in (("good", "+"), ("bad", "-"))]


def tagged() -> list[dict[str, Any]]:
    return [{"text": f"Ann lives {n}", "spans": [{"start": 0, "end": 3, "label": "person"}]} for n in range(6)]


def preferences() -> list[dict[str, Any]]:
    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    return [{"messages": chat(f"Is {n} open?"), "chosen": said("Yes."), "rejected": said("No.")} for n in range(6)]


def conversations(n: int) -> list[dict[str, Any]]:
    return [{"messages": chat(f"What is {a} and {a}?", f"It is {a + a}.")} for a in range(n)]


@pytest.mark.parametrize(
    ("method", "kind", "rows", "metric", "more"),
    [
        ("full", "conversations", conversations(6), "bits_per_byte", {"token_f1", "token_f1_before"}),
        ("classify", "labelled", labelled(), "macro_f1", {"accuracy", "loss"}),
        ("tag", "tagged", tagged(), "f1", {"precision", "recall"}),
        ("dpo", "preferences", preferences(), "accuracy", {"margin"}),
    ],
)
def test_every_method_has_seeds_a_figure_of_its_task_and_a_choice(
    base: Path, tmp_path: Path, method: str, kind: Any, rows: list[dict[str, Any]], metric: str, more: set[str]
) -> None:
    data = write_dataset(tmp_path / "data", {kind: {"train": rows}})
    # a rate of nothing against one that learns
    choose = Choose("lr", (1e-9, 3e-3), 2)
    tuned = tune(base, data, tmp_path / "run", method, seeds=2, choose=choose, answers=2 if method == "full" else None)
    found = tuned.folds
    assert found is not None
    assert found.metric == metric
    assert {metric, *more} <= set(found.figures)
    assert found.figures[metric].n == 4
    assert len(found.choices) == 2
    assert set(found.choices[0].figures) == {"1e-09", "0.003"}
    written = json.loads((tmp_path / "run" / "folds.json").read_text())
    assert written["figures"][metric]["seed_sd"] == found.seed_sd[metric]
    assert [each["value"] for each in written["choices"]] == [each.value for each in found.choices]
    again = resume_tuning(Run.open(tmp_path / "run"))
    assert again.folds == found
    if method == "full":
        assert [each.value for each in found.choices] == [3e-3] * 2
        inner = Run.open(tmp_path / "run" / "choose" / "1" / "lr-0.003" / "1")
        assert inner.section("training")["lr"] == 3e-3
        assert inner.section("tune")["within"] == [[2, 1], [2, 1]]


@pytest.mark.slow
def test_the_model_itself_is_trained_with_what_all_rows_chose(base: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"conversations": {"train": conversations(6)}})
    choose = Choose("strength", (0.01, 1.0), 2)
    tuned = tune(base, data, tmp_path / "run", "lora", choose=choose, final=True, rank=4, lr=1e-2, answers=0)
    assert tuned.folds is not None
    assert tuned.folds.chosen is not None
    assert tuned.folds.chosen.value == 1.0
    assert tuned.result is not None
    config = json.loads((tuned.result / "adapter_config.json").read_text())
    assert config["lora_alpha"] == 8.0  # twice the rank, all of it
    assert "<h3>Chosen within each fold: strength</h3>" in (tmp_path / "run" / "report.html").read_text()


def test_rows_that_cannot_be_divided_twice_are_refused_before_anything_is_written(base: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"conversations": {"train": conversations(4)}})
    with pytest.raises(InvalidDatasetError, match="too few for 3 folds"):
        tune(base, data, tmp_path / "run", "lora", choose=Choose("lr", (1e-3, 1e-2)))
    assert not (tmp_path / "run").exists()


@pytest.mark.timeout(600)  # fourteen trainings
@pytest.mark.slow
def test_pretraining_is_cross_validated_with_a_tokenizer_of_each_fold_s_own_text(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", 300, 12)
    request = Request(size=60_000, vocab_size=300, context=32, batch_tokens=256, precision="fp32", steps=6, seed=3)
    choose = Choose("lr", (1e-6, 6e-3), 2)
    run, summary, signal = start_folds(
        dataset.path, request, tmp_path / "run", folds=2, choose=choose, device=CPU, n_threads=1,
        progress=Silent(), world=World(),
    )  # fmt: skip
    assert signal is None
    assert summary is not None
    assert summary.figures["bits_per_byte"].n == 2
    assert [each.value for each in summary.choices] == [6e-3] * 2
    assert sum(n for _train, n in summary.rows) == 288  # every training row is held out once
    first = Run.open(run.path / "folds" / "1")
    assert first.section("training")["lr"] == 6e-3
    assert first.section("training")["eval_every"] == 0  # nothing is chosen by what is held out
    origins = {
        json.loads((run.path / "folds" / fold / "tokenizer" / "origin.json").read_text())["dataset"] for fold in "12"
    }
    assert len(origins) == 2
    assert dataset.fingerprint not in origins
    assert not list(run.path.glob("**/*.safetensors"))  # figures, no models
    assert not list(run.path.glob("**/*-data"))
    before = {path: path.read_bytes() for path in run.path.glob("**/events.jsonl") if path.parent != run.path}
    _run, again, _signal = resume_folds(Run.open(run.path), device=CPU, progress=Silent(), world=World())
    assert again == summary
    assert all(path.read_bytes() == content for path, content in before.items())


def test_every_fold_of_a_small_text_has_the_size_that_the_first_one_found(tmp_path: Path) -> None:
    dataset = make_dataset(
        tmp_path / "dataset", 80, 5
    )  # half of it is too little for the smallest size of our own choice
    request = Request(vocab_size=300, context=32, batch_tokens=256, precision="fp32", steps=1)
    run, summary, signal = start_folds(
        dataset.path, request, tmp_path / "run", folds=2, device=CPU, n_threads=1, progress=Silent(), world=World()
    )
    assert signal is None
    assert summary is not None
    folds = [Run.open(run.path / "folds" / fold).section("pretraining") for fold in "12"]
    assert folds[0]["n_parameters"] == folds[1]["n_parameters"] > MOST_PARAMETERS_PER_TOKEN * folds[1]["n_tokens"]


def test_a_size_that_the_text_is_too_little_for_is_refused_before_the_first_fold(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", 80, 5)
    with pytest.raises(UsageError, match="learn it by heart"):
        start_folds(
            dataset.path, Request(size=150_000, steps=1), tmp_path / "run", folds=2, device=CPU, n_threads=1,
            progress=Silent(), world=World(),
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_a_fold_of_pretraining_keeps_near_duplicates_together(tmp_path: Path) -> None:
    rows = [{"text": f"Text {n} " * 3, "source": "", "language": "en", "cluster": n // 3} for n in range(12)]
    dataset = write_dataset(tmp_path / "data", {"documents": {"train": rows}})
    _Parts(dataset, ("documents",), 0).write(((2, 1),), tmp_path / "fold")
    fold = Dataset.open(tmp_path / "fold")
    clusters = [{row["cluster"] for row in fold.rows(split, "documents")} for split in ("train", "held_out")]
    assert not clusters[0] & clusters[1]
    assert clusters[0] | clusters[1] == set(range(4))


# A rate of 10 with this decay multiplies the weights by about a thousand in each step.
DIVERGING = Choose("lr", (10.0, 1e-3), 2)


@pytest.mark.slow
def test_a_value_that_diverges_in_pretraining_is_the_worst_and_stops_nothing(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", 300, 12)
    request = Request(
        size=60_000, vocab_size=300, context=32, batch_tokens=256, precision="fp32", steps=20, weight_decay=100.0
    )
    run, summary, signal = start_folds(
        dataset.path, request, tmp_path / "run", folds=2, choose=DIVERGING, device=CPU, n_threads=1,
        progress=Silent(), world=World(),
    )  # fmt: skip
    assert signal is None
    assert summary is not None
    assert [each.value for each in summary.choices] == [1e-3] * 2
    assert math.isnan(summary.choices[0].figures["10"].mean)
    assert math.isfinite(summary.figures["bits_per_byte"].mean)
    assert not list(run.path.glob("**/checkpoints"))
    # killed after the first fold's end: what it found is found again, and nothing is trained once more
    (run.path / "recipe.json").rename(tmp_path / "recipe.json")
    before = {path: path.read_bytes() for path in run.path.glob("**/events.jsonl") if path.parent != run.path}
    _run, again, _signal = resume_folds(Run.open(run.path), device=CPU, progress=Silent(), world=World())
    assert again is not None
    assert again.choices[0].value == 1e-3
    assert again.figures == summary.figures
    assert all(path.read_bytes() == content for path, content in before.items())
    assert (run.path / "recipe.json").read_bytes() == (tmp_path / "recipe.json").read_bytes()


@pytest.mark.slow
def test_a_value_that_diverges_in_tuning_is_the_worst_and_stops_nothing(base: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"conversations": {"train": conversations(6)}})
    options = {"choose": DIVERGING, "weight_decay": 100.0, "epochs": 16, "answers": 0, "patience": 0}
    tuned = tune(base, data, tmp_path / "run", "full", **options)
    assert tuned.folds is not None
    assert [each.value for each in tuned.folds.choices] == [1e-3] * 2
    assert math.isnan(tuned.folds.choices[0].figures["10"].mean)
    again = resume_tuning(Run.open(tmp_path / "run"))
    assert again.folds is not None
    assert again.folds.figures == tuned.folds.figures
    assert [each.value for each in again.folds.choices] == [1e-3] * 2


def test_figures_that_are_no_numbers_are_read_back_as_such(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "tune", {})
    run.event("finished", metrics={"accuracy": math.nan, "loss": 1.0})
    final = History.read(run).final
    assert math.isnan(final["accuracy"])
    assert final["loss"] == 1.0
    summary, _trials = recorded(FoldPlan(2, (0,), ACCURACY), lambda trial: final)
    assert math.isnan(summary.figures["accuracy"].mean)


def test_a_value_without_the_judge_s_figure_is_the_worst() -> None:
    plan = FoldPlan(2, (0,), ACCURACY, Choose("lr", (1.0, 2.0), 2))
    summary, _trials = recorded(
        plan, lambda trial: {"loss": 0.0} if trial.changes["lr"] == 1.0 else {"accuracy": 0.1, "loss": 1.0}
    )
    assert [each.value for each in summary.choices] == [2.0] * 2
    assert math.isnan(summary.choices[0].figures["1"].mean)


def test_a_way_of_training_that_diverged_in_a_fold_is_neither_better_nor_worse() -> None:
    assert compare([1.0, 1.0], [0.5, math.nan], lower_is_better=True).verdict == "cannot tell"


def fold_state(path: Path) -> tuple[str, int, int]:
    run = Run.open(path)
    state = FoldState.of(run, History.read(run))
    assert state is not None
    return state.status, state.n_done, state.n


class StopsInTheSecond(Silent):
    """Sends this process a signal in the first step of the second training."""

    n_trainings = 0

    def begin(self, step: int, n_steps: int) -> None:
        self.n_trainings += 1

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        if self.n_trainings == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_of_folds_stands_where_its_folds_stand(base: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"labelled": {"train": labelled()}})
    options = TuneOptions(method="classify", folds=2, seeds=2, batch=1, epochs=1, precision="fp32", final=False)
    run = tmp_path / "run"
    stopped = start_tuning(BaseModel.open(base, ""), data, options, run, device=CPU, progress=StopsInTheSecond())
    assert stopped.signal == signal.SIGTERM
    assert fold_state(run) == ("interrupted", 1, 4)
    assert "1 of 4 trainings of folds" in write_report(Run.open(run)).read_text()
    assert resume_tuning(Run.open(run)).signal is None
    assert fold_state(run) == ("finished", 4, 4)
    fold = Run.open(run / "folds" / "1")
    assert FoldState.of(fold, History.read(fold)) is None  # it has steps, as any run


def test_all_that_folds_train_is_counted(base: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"labelled": {"train": labelled()}})
    tune(base, data, tmp_path / "chosen", "classify", choose=Choose("lr", (1e-9, 3e-3), 2))
    assert fold_state(tmp_path / "chosen") == (
        "finished",
        10,
        10,
    )  # in each fold two values in two inner folds, and itself
    options = TuneOptions(method="classify", folds=2, batch=2, epochs=1, precision="fp32")
    start_tuning(BaseModel.open(base, ""), data, options, tmp_path / "compared", device=CPU, compare=True)
    assert fold_state(tmp_path / "compared") == ("finished", 8, 8)  # without any augmentation, and with each of three
    report = (tmp_path / "compared" / "report.html").read_text()
    assert "finished" in report
    assert "8 of 8 trainings of folds" in report


def test_an_interrupted_fold_ends_all(tmp_path: Path) -> None:
    def fit(trial: Trial) -> Fitted:
        raise StoppedError(2)

    with pytest.raises(StoppedError):
        run_folds(FoldPlan(2, (0,), ACCURACY), fit)
