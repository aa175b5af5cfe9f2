"""The worker of a job, as a process: from files to an adapter, stopped and gone on with, never two, modest towards others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import psutil
import pytest
import torch

from chatwright.jobs import worker
from chatwright.jobs.budget import Budget
from chatwright.jobs.children import Child
from chatwright.jobs.folder import JobFolder, Request
from chatwright.jobs.reading import chosen_of, trained_tokens
from chatwright.jobs.worker import HELD_EXIT_CODE, NICENESS, auto_epochs, options_of
from chatwright.model.adapter import open_adapter
from chatwright.model.tensors import read_tensors
from chatwright.training.history import History
from chatwright.training.run import Run
from tests.jobs.making import BUDGET, CATS, DOGS, PAIRS, make_job, wait_for, wait_until, work

# Workers stand behind everything else that the machine does.
pytestmark = pytest.mark.timeout(600)


def factors_of(folder: JobFolder) -> dict[str, torch.Tensor]:
    adapter = open_adapter(folder.adapter)
    return {name: next(read_tensors([each.b])) for name, each in adapter.factors.items()}


@pytest.mark.slow
def test_a_job_from_its_files_to_its_result_and_on_from_there(tmp_path: Path, base: Path) -> None:
    first = make_job(tmp_path, base, CATS, DOGS, n_epochs=2, batch_size=4, learning_rate_multiplier=0.5)
    work(first, "check")
    assert first.checked() is not None
    assert first.outcome() is None, "checked, and not trained yet"
    assert not first.run.exists()
    work(first)
    outcome = first.outcome()
    assert outcome is not None
    assert outcome.succeeded, first.last_words(20)
    run = Run.open(first.run)
    assert chosen_of(run) == {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}
    assert trained_tokens(run) == 2 * run.section("tune")["n_tokens"]
    assert len(first.checkpoint_steps()) == 2
    assert all(open_adapter(first.checkpoint(step)) for step in first.checkpoint_steps())
    # An ended job is not begun again.
    before = factors_of(first)
    work(first)
    assert all(torch.equal(before[name], each) for name, each in factors_of(first).items())
    # Another job goes on with what this one made, which may be deleted meanwhile.
    second = make_job(tmp_path, base, DOGS, parent=first.adapter, n_epochs=1, learning_rate_multiplier=1e-4)
    first.remove()
    work(second)
    outcome = second.outcome()
    assert outcome is not None
    assert outcome.succeeded, second.last_words(20)
    after = factors_of(second)
    assert after.keys() == before.keys()
    assert any(each.abs().max() > 1e-4 for each in before.values())
    for name, each in after.items():
        torch.testing.assert_close(each, before[name], atol=1e-5, rtol=0)


def test_preferences(tmp_path: Path, base: Path) -> None:
    folder = make_job(tmp_path, base, PAIRS, method="dpo", beta=0.2)
    work(folder)
    outcome = folder.outcome()
    assert outcome is not None
    assert outcome.succeeded, folder.last_words(20)
    assert chosen_of(Run.open(folder.run))["beta"] == 0.2
    assert (trained_tokens(Run.open(folder.run)) or 0) > 0
    assert open_adapter(folder.adapter).factors


@pytest.mark.slow
def test_one_that_is_stopped_saves_and_goes_on(tmp_path: Path, base: Path) -> None:
    folder = make_job(tmp_path, base, CATS, n_epochs=40, batch_size=1)
    child = Child.start(folder, "tune", BUDGET)
    wait_until(lambda: folder.checkpoint_steps(), child)
    process = psutil.Process(child.process.pid)
    assert process.nice() == min(19, psutil.Process().nice() + NICENESS)
    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == str(worker.OOM_SCORE)
    process.suspend()  # or it might be done before the second one has started
    second = Child.start(folder, "tune", BUDGET)
    found = Child.found(folder)
    assert found is not None
    assert found.process.pid == child.process.pid
    wait_for(second)
    assert second.exit_code == HELD_EXIT_CODE, "there are never two"
    process.resume()
    child.stop(to_keep=True)
    wait_for(child)
    assert Child.found(folder) is None
    assert folder.outcome() is None
    history = History.read(Run.open(folder.run))
    assert history.status == "interrupted"
    assert 0 < history.step < 320
    assert folder.checkpoint_steps()[-1] == history.step
    # Killed in the middle, it goes on from the last checkpoint all the same.
    killed = Child.start(folder, "tune", BUDGET)
    wait_until(lambda: folder.checkpoint_steps()[-1] > history.step, killed)
    killed.kill()
    wait_for(killed)
    assert folder.outcome() is None
    work(folder)
    outcome = folder.outcome()
    assert outcome is not None
    assert outcome.succeeded, folder.last_words(20)


def test_failures_are_sentences(tmp_path: Path, base: Path) -> None:
    bad = make_job(tmp_path, base, b'{"messages": []}\n')
    work(bad, "check")
    outcome = bad.outcome()
    assert outcome is not None
    assert (outcome.succeeded, outcome.code, outcome.param) == (False, "invalid_training_file", "training_file")
    assert "Line 1" in outcome.message
    gone = make_job(tmp_path, tmp_path / "no" / "model", CATS)
    work(gone)
    outcome = gone.outcome()
    assert outcome is not None
    assert (outcome.code, outcome.param) == ("model_not_available", "model")
    assert str(tmp_path) not in outcome.message, "paths of this machine are nobody's business"


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux only")
def test_memory_has_a_limit(tmp_path: Path, base: Path) -> None:
    folder = make_job(tmp_path, base, CATS)
    child = work(folder, budget=Budget(1, 120 << 20, "cpu"))
    outcome = folder.outcome()
    assert outcome is None or not outcome.succeeded, json.dumps(str(outcome))
    assert outcome is not None or child.exit_code != 0


@pytest.mark.parametrize(("n_rows", "epochs"), [(1, 25), (10, 20), (40, 5), (66, 4), (67, 3), (100_000, 3)])
def test_few_examples_are_seen_more_often(n_rows: int, epochs: int) -> None:
    assert auto_epochs(n_rows) == epochs


def test_what_is_asked_for_is_what_tune_gets() -> None:
    request = Request("dpo", "x", "", 5, learning_rate_multiplier=2.0, beta=0.5, batch_size=3)
    options = options_of(request, 40, None)
    assert (options.method, options.seed, options.lr, options.beta, options.batch) == ("dpo", 5, 1e-4, 0.5, 3)
    assert options.epochs is None, "the planner's"
    options = options_of(Request("supervised", "x", "", 5), 40, Path("/parent"))
    assert (options.method, options.epochs, options.lr, options.adapter) == ("lora", 5, None, Path("/parent"))
    assert not options.packed, "a batch counts examples"


def test_a_model_that_is_deleted_while_it_is_trained(tmp_path: Path, base: Path) -> None:
    """What runs has it in memory; what is interrupted can not go on without it, and says so."""
    model = tmp_path / "models" / "gone"
    shutil.copytree(base, model)
    folder = make_job(tmp_path / "home", model, CATS, n_epochs=40, batch_size=1)
    child = Child.start(folder, "tune", BUDGET)
    wait_until(lambda: folder.checkpoint_steps(), child)
    shutil.rmtree(model)
    step = folder.checkpoint_steps()[-1]
    wait_until(lambda: folder.checkpoint_steps()[-1] > step, child)
    child.stop(to_keep=True)
    wait_for(child)
    assert folder.outcome() is None, folder.last_words(20)
    assert open_adapter(folder.checkpoint(folder.checkpoint_steps()[-1])).factors, "what it has learned is kept"
    work(folder)
    outcome = folder.outcome()
    assert outcome is not None
    assert (outcome.succeeded, outcome.code, outcome.param) == (False, "model_not_available", "model"), outcome
    assert outcome.message.endswith(".")
    assert str(tmp_path) not in outcome.message


def test_training_ends_well_though_its_model_was_deleted_on_the_way(tmp_path: Path, base: Path) -> None:
    model = tmp_path / "models" / "gone"
    shutil.copytree(base, model)
    folder = make_job(tmp_path / "home", model, CATS, n_epochs=10, batch_size=1)
    child = Child.start(folder, "tune", BUDGET)
    wait_until(lambda: folder.checkpoint_steps(), child)
    shutil.rmtree(model)
    wait_for(child)
    outcome = folder.outcome()
    assert outcome is not None
    assert outcome.succeeded, folder.last_words(20)
    assert open_adapter(folder.adapter).factors
