"""A plan says what a run takes and refuses what cannot be, with what can be in its place."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chatwright.errors import TrainingError, UsageError
from chatwright.model.presets import parse_size, shown_size
from chatwright.text.dataset import Dataset, write_dataset
from chatwright.text.manifest import Manifest
from chatwright.tokenizer.train import train_tokenizer
from chatwright.training import plan as planning
from chatwright.training.config import TrainingConfig
from chatwright.training.difficulty import Difficulty, measure_difficulty
from chatwright.training.enough_text import MOST_PARAMETERS_PER_TOKEN, refuse_too_little_text
from chatwright.training.expectation import Expected, expect
from chatwright.training.measure import StepCost, measure_step
from chatwright.training.plan import (
    Plan,
    estimated_bytes,
    make_plan,
    plan_of,
    refuse_before_measuring,
    shown_bytes,
)
from chatwright.training.recipe import Recipe, fit_minutes, resolve
from chatwright.training.request import Arch, Request
from chatwright.training.speed import Machine
from chatwright.training.stats import TextStats, text_stats
from tests.training.corpus import make_dataset

GIB = 1 << 30
MACHINE = Machine("cpu", 1, 8 * GIB, 1e11, 1e11)
STATS = TextStats(("documents",), 30_000_000, 1_000_000, {"en": 20_000_000, "zh": 10_000_000})
COST = StepCost(
    micro_seconds=0.2,
    update_seconds=0.01,
    eval_seconds=2e-5,
    save_seconds=0.05,
    checkpoint_bytes=20_000_000,
    peak_bytes=800_000_000,
    start_bytes=250_000_000,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("plan") / "dataset")


def recipe(stats: TextStats = STATS, machine: Machine = MACHINE, **request: object) -> Recipe:
    return resolve(stats, Request(**request), machine)  # type: ignore[arg-type]


def suggested(error: BaseException) -> str:
    [size] = re.findall(r"--size ([0-9.]+[kmb]?)", str(error))
    return str(size)


def test_a_plan_is_measured_and_trains_nothing(dataset: Dataset, tmp_path: Path) -> None:
    request = Request(size=60_000, vocab_size=320, context=32, batch_tokens=256, minutes=0.5, precision="fp32")
    made = make_plan(dataset, request, device=torch.device("cpu"), n_threads=1, disk=tmp_path)
    assert made.recipe.n_parameters == pytest.approx(60_000, rel=0.3)
    assert made.training_s == pytest.approx(30, rel=0.2), "the steps are those that fit into the minutes"
    assert 100e6 < made.cost.start_bytes < made.memory_bytes < 2e9
    assert 0 < made.disk_bytes < made.disk_free_bytes
    assert made.expectation is not None
    assert 0 < made.expectation.low < made.expectation.bits_per_byte < made.expectation.high < 8.8
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_cannot_be_done_is_a_sentence(dataset: Dataset) -> None:
    config = TrainingConfig(n_steps=1, batch_rows=1, micro_rows=1)
    with pytest.raises(TrainingError, match="One step of this model failed"):
        measure_step(recipe(size=300_000).model, config, 32, device="cuda:7")


def test_a_step_of_many_micro_batches_costs_so_many_and_one_update() -> None:
    config = TrainingConfig(n_steps=10, batch_rows=32, micro_rows=8)
    assert COST.step_seconds(config) == pytest.approx(4 * 0.2 + 0.01)


def test_the_minutes_hold_steps_held_out_text_and_checkpoints() -> None:
    made = plan_for(fit_minutes(recipe(size=3_000_000, minutes=10), COST))
    assert made.training_s == pytest.approx(600, rel=0.1)
    assert made.held_out_s < 0.15 * made.training_s


def plan_for(resolved: Recipe, cost: StepCost = COST, stats: TextStats = STATS) -> Plan:
    nothing = Dataset(Path(), Manifest(created_by="test", kinds={}, fingerprint=""))
    return plan_of(nothing, stats, resolved, MACHINE, cost)


@pytest.mark.parametrize("arch", ["qwen3", "gpt2"])
@pytest.mark.parametrize(
    "n_bytes", [20_000, 50_000, 100_000, 200_000, 300_000, 400_000, 700_000, 1_000_000, 30_000_000]
)
def test_too_little_text_names_a_size_that_it_is_enough_for(n_bytes: int, arch: str) -> None:
    text = replace(STATS, n_bytes=n_bytes, languages={"en": n_bytes})
    with pytest.raises(UsageError, match="learn it by heart") as refused:
        refuse_too_little_text(recipe(text, size=2_000_000_000, arch=arch), partial(resolve, text, machine=MACHINE))
    named = recipe(text, size=parse_size(suggested(refused.value)), arch=arch)
    refuse_too_little_text(named, partial(resolve, text, machine=MACHINE))
    assert named.n_parameters > 0.7 * MOST_PARAMETERS_PER_TOKEN * named.n_tokens, "the nearest that is possible"


def test_text_that_is_too_little_for_any_model_is_told_so_without_a_size() -> None:
    text = replace(STATS, n_bytes=3_000, languages={"en": 3_000})
    with pytest.raises(UsageError, match="smallest model") as refused:
        refuse_too_little_text(recipe(text, size=1_000_000), partial(resolve, text, machine=MACHINE))
    assert "--size" not in str(refused.value)


@pytest.mark.parametrize("arch", ["qwen3", "gpt2"])
def test_a_plan_of_a_named_size_is_not_refused(arch: Arch, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", 80, 5)
    request = Request(size=111_000, arch=arch, steps=4)
    with pytest.raises(UsageError, match="learn it by heart") as refused:
        make_plan(dataset, request, device=torch.device("cpu"), n_threads=1, disk=tmp_path)
    request = replace(request, size=parse_size(suggested(refused.value)))
    make_plan(dataset, request, device=torch.device("cpu"), n_threads=1, disk=tmp_path)


def test_too_little_memory_names_a_size_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "available_bytes", lambda machine: 2 * GIB)  # this machine may have more, or less
    asked = recipe(size=120_000_000)
    with pytest.raises(TrainingError, match="of memory") as refused:
        refuse_before_measuring(asked, STATS, MACHINE)
    refuse_before_measuring(recipe(size=parse_size(suggested(refused.value))), STATS, MACHINE)
    with pytest.raises(TrainingError, match="of memory"):  # also when only the measurement shows it
        plan_for(recipe(size=3_000_000), replace(COST, peak_bytes=3 * GIB))


def test_no_memory_at_all_is_said_without_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "available_bytes", lambda machine: 100_000_000)
    with pytest.raises(TrainingError, match="even for the smallest"):
        refuse_before_measuring(recipe(size=3_000_000), STATS, MACHINE)


def test_too_little_disk_is_refused() -> None:
    with pytest.raises(TrainingError, match="on disk"):
        plan_for(recipe(size=3_000_000), replace(COST, checkpoint_bytes=1 << 60))


def test_the_formula_refuses_nothing_that_the_measurement_would_allow() -> None:
    small = recipe(size=500_000, vocab_size=1024, context=128, batch_tokens=2048)
    cost = measure_step(small.model, small.training, small.context_length, n_threads=1)
    assert 0.25 * cost.peak_bytes < estimated_bytes(small) < 1.1 * cost.peak_bytes


def test_difficulty_tells_hard_text_from_easy_and_is_the_same_each_time(tmp_path: Path, dataset: Dataset) -> None:
    same = ["the cat sat on the mat and looked at the dog " * 20] * 40
    easy = write_dataset(tmp_path / "easy", {"documents": {"train": _rows(same), "held_out": _rows(same[:2])}})
    kinds = text_stats(dataset).kinds
    tokenizer = train_tokenizer(dataset.texts("train", kinds), 320).tokenizer
    hard = measure_difficulty(dataset, kinds, tokenizer)
    assert hard == measure_difficulty(dataset, kinds, tokenizer)
    simple = measure_difficulty(easy, kinds, tokenizer)
    assert hard is not None
    assert simple is not None
    assert simple.trigram < 0.3 < hard.trigram < hard.unigram < 8
    alone = write_dataset(tmp_path / "alone", {"documents": {"train": _rows(same)}})
    assert measure_difficulty(alone, kinds, tokenizer) is None


def _rows(texts: list[str]) -> list[dict[str, str]]:
    return [{"text": text, "language": "en"} for text in texts]


@given(
    n_hidden=st.floats(1e4, 1e9),
    n_bytes=st.floats(1e5, 1e11),
    text=st.floats(1e5, 1e11),
    trigram=st.floats(0.5, 3.5),
    structure=st.floats(0.8, 4.0),
)
def test_more_of_anything_is_never_expected_to_be_worse(
    n_hidden: float, n_bytes: float, text: float, trigram: float, structure: float
) -> None:
    difficulty = Difficulty(trigram * structure, trigram, 1 << 21)

    def bits(n: float, read: float, there: float) -> float:
        return expect(difficulty, Expected(round(n), read, there)).bits_per_byte

    value = bits(n_hidden, n_bytes, text)
    assert 0 < value <= 8
    assert bits(2 * n_hidden, n_bytes, text) <= value
    assert bits(n_hidden, 2 * n_bytes, text) <= value
    assert bits(n_hidden, n_bytes, 2 * text) <= value * 1.0001


def test_reading_again_teaches_less_than_new_text_but_something() -> None:
    new, again = Expected(10**6, 8e6, 8e6), Expected(10**6, 8e6, 2e6)
    once = Expected(10**6, 2e6, 2e6)
    assert once.bytes_learnt_from < again.bytes_learnt_from < new.bytes_learnt_from == 8e6


@pytest.mark.parametrize(
    ("n", "shown"), [(12_345_678, "12m"), (1_290_000, "1.2m"), (999_999, "999k"), (2.5e9, "2.5b"), (15_000, "15k")]
)
def test_sizes_are_shown_as_the_flag_takes_them_and_never_larger(n: float, shown: str) -> None:
    assert shown_size(n) == shown
    assert parse_size(shown) <= n


def test_bytes_are_shown_in_a_unit_that_fits() -> None:
    assert [shown_bytes(n) for n in (1500, 2.5e6, 1.25e9)] == ["2 kB", "2.5 MB", "1.2 GB"]
