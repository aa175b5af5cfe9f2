"""Folders of jobs: there whole or not at all, one worker each, nothing private kept for longer than it is needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import String

from chatwright.errors import InUseError, StorageError
from chatwright.hub.names import LONGEST_NAME
from chatwright.jobs import folder as folder_module
from chatwright.jobs.folder import Inputs, JobsFolder, Outcome, Request
from chatwright.jobs.names import checkpoint_model, clean_suffix, is_result_name, new_model_name, split_checkpoint
from chatwright.store.tables import Base
from tests.jobs.making import CATS, make_job


def test_a_folder_that_can_not_be_made_is_not_there(tmp_path: Path) -> None:
    jobs = JobsFolder(tmp_path)
    request = Request("supervised", "x", "", 0)
    with pytest.raises(StorageError):
        jobs.make("ftjob-1", Inputs(tmp_path / "no such file", request=request))
    assert jobs.jobs() == []
    assert not list((tmp_path / "jobs").glob(".*"))


def test_a_file_that_is_deleted_stays_until_the_job_needs_it_no_more(tmp_path: Path, base: Path) -> None:
    folder = make_job(tmp_path, base, CATS)
    (tmp_path / "training.jsonl").unlink()
    assert (folder.path / "training.jsonl").read_bytes()
    folder.forget_inputs()
    assert not (folder.path / "training.jsonl").exists()
    assert folder.request().seed == 1


def test_one_worker_at_a_time(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "LOCK_WAIT_S", 0.1)
    folder = make_job(tmp_path, base, CATS)
    assert folder.worker() is None
    with folder.held():
        with pytest.raises(InUseError), folder.held():
            pass
        worker = folder.worker()
        assert worker is not None
        assert worker.is_running()
    assert folder.worker() is None


def test_the_number_of_a_process_that_is_another_by_now_is_nobody(tmp_path: Path, base: Path) -> None:
    folder = make_job(tmp_path, base, CATS)
    with folder.held():
        (folder.path / "worker.json").write_text('{"pid": 1, "started_at": 5.0}')
        assert folder.worker() is None, "it must not be sent a signal"


def test_an_outcome_that_was_torn_is_none(tmp_path: Path, base: Path) -> None:
    folder = make_job(tmp_path, base, CATS)
    assert folder.outcome() is None
    (folder.path / "outcome.json").write_text('{"succeeded": tr')
    assert folder.outcome() is None
    folder.end(Outcome(True))
    assert folder.outcome() == Outcome(True)


def test_what_a_kill_left_half_made_is_swept(tmp_path: Path, base: Path) -> None:
    folder, jobs = make_job(tmp_path, base, CATS), JobsFolder(tmp_path)
    for name in (".ftjob-1.writing", ".ftjob-2.removed"):
        (jobs.path / name).mkdir()
    jobs.sweep_half_made()
    assert sorted(entry.name for entry in jobs.path.iterdir()) == [folder.id]


def test_a_place_keeps_its_name(tmp_path: Path) -> None:
    jobs = JobsFolder(tmp_path)
    assert jobs.known_place() is None
    assert jobs.place() == JobsFolder(tmp_path).place() == jobs.known_place()
    assert not jobs.is_of("sqlite:///a")
    jobs.claim("sqlite:///a")
    jobs.claim("sqlite:///b")
    assert jobs.is_of("sqlite:///a")


def test_no_id_leads_out_of_the_folder(tmp_path: Path) -> None:
    for bad in ("../x", "ftjob-1/../x", "/etc", "", "ftjob-", "ftjob-1\0", ".place", "FTJOB-1"):
        with pytest.raises(AssertionError):
            JobsFolder(tmp_path).job(bad)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [("Customer Support!", "Customer-Support"), ("客服 v2", "客服-v2"), ("a:b/../c", "a-b-c"), ("---", ""), ("", "")],
)
def test_suffixes_become_what_can_stand_in_a_name(asked: str, kept: str) -> None:
    assert clean_suffix(asked) == kept


def test_names_of_results_and_of_their_checkpoints() -> None:
    name = new_model_name("smollm2:135m", "acme", "support")
    assert name.startswith("ft:smollm2:135m:acme:support:")
    assert new_model_name("smollm2:135m", "acme", "support") != name
    assert split_checkpoint(checkpoint_model(name, 88)) == (name, 88)
    assert split_checkpoint(name) == (name, None)
    assert is_result_name(name)
    for other in ("smollm2:135m", "ft", f"{name}:ckpt-step-x", f"{name}:ckpt-step-01", f"{name}:ckpt-step-9999999999"):
        assert split_checkpoint(other) == (other, None)
    assert not is_result_name("ft:" + "x" * 500)


@pytest.mark.parametrize("base", ["b", "b" * 60, f"{'o' * 60}/{'n' * 60}:{'t' * 78}"])
@pytest.mark.parametrize("suffix", ["", "s" * 64, "s" * 20 + "-" + "s" * 43])
def test_no_name_is_longer_than_what_has_to_hold_it(base: str, suffix: str) -> None:
    """Requests, the books, messages and batches take names of models so long, and PostgreSQL refuses a letter more."""
    name = new_model_name(base, "o" * 40, suffix)
    assert re.fullmatch(r"ft:.+:o{40}:s*(-s+)?:\w{8}", name)
    assert base.startswith(name.split(":")[1])
    if len(base) + len(suffix) < 110:
        assert name.startswith(f"ft:{base}:{'o' * 40}:{suffix}:")
    assert len(checkpoint_model(name, 999_999_999)) <= LONGEST_NAME
    widths = {
        str(column): column.type.length
        for table in Base.metadata.tables.values()
        for column in table.columns
        if column.name in ("model", "model_name") and isinstance(column.type, String)
    }
    assert len(widths) >= 6
    assert all(width >= LONGEST_NAME for width in widths.values() if width is not None), widths
