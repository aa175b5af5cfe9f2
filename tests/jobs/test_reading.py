"""Journals of runs become events: each line once, whenever it is read, and what a killed run did twice only the first time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chatwright.jobs import reading
from chatwright.jobs.folder import JobFolder
from chatwright.jobs.reading import checkpoints_of, read_run, results_csv
from chatwright.training.run import Run

TUNE = {"method": "lora", "epochs": 3.0, "n_tokens": 100, "pack_length": 64}
TRAINING = {"n_steps": 4, "batch_rows": 2, "lr": 1e-3, "seed": 1}


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    Run.create(tmp_path / "run", "tune", {"tune": TUNE, "training": TRAINING})
    return JobFolder(tmp_path)


def step(folder: JobFolder, number: int, loss: float = 2.5, **more: Any) -> None:
    Run.open(folder.run).metric(number, loss=loss, lr=1e-3, **more)


def messages(found: reading.Reading) -> list[str]:
    return [event.message for event in found.events]


def test_each_line_is_one_event(folder: JobFolder) -> None:
    run = Run.open(folder.run)
    run.event("started", n_steps=4)
    step(folder, 1)
    first = read_run(folder, {})
    assert messages(first) == ["Fine-tuning job started", "Step 1/4: training loss=2.5000"]
    assert first.got_on
    assert first.chosen == {"n_epochs": 3, "batch_size": 2, "learning_rate_multiplier": 2.0}
    assert first.events[1].data == {"step": 1, "total_steps": 4, "train_loss": 2.5}
    again = read_run(folder, first.journal)
    assert (messages(again), again.got_on, again.journal) == ([], False, first.journal)
    step(folder, 2, 1.5)
    run.metric(2, bits_per_byte=1.0, loss=0.5)
    run.event("checkpoint", step=2, path="x")
    second = read_run(folder, json.loads(json.dumps(again.journal)))
    assert sorted(messages(second)) == [
        "Checkpoint created at step 2",
        "Step 2/4: training loss=1.5000",
        "Step 2/4: validation loss=0.5000",
    ]
    assert second.estimated_finish is not None


def test_a_torn_line_is_left_for_later(folder: JobFolder) -> None:
    step(folder, 1)
    file = folder.run / "metrics.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"step":2,"lr":0.1,"lo')
    found = read_run(folder, {})
    assert messages(found) == ["Step 1/4: training loss=2.5000"]
    file.write_bytes(whole)  # as the run repairs it when it goes on
    step(folder, 2)
    assert messages(read_run(folder, found.journal)) == ["Step 2/4: training loss=2.5000"]


def test_steps_that_a_killed_run_does_again_are_no_news(folder: JobFolder) -> None:
    run = Run.open(folder.run)
    for number in (1, 2, 3):
        step(folder, number)
    found = read_run(folder, {})
    run.event("resumed", step=1)
    for number in (2, 3):
        step(folder, number, 9.0)
    again = read_run(folder, found.journal)
    assert messages(again) == ["Fine-tuning goes on from step 1"]
    assert not again.got_on, "it has not come further than before"
    step(folder, 4)
    assert read_run(folder, again.journal).got_on
    assert results_csv(folder.run).decode().splitlines() == [
        "step,train_loss,valid_loss",
        "1,2.5,",
        "2,9,",
        "3,9,",
        "4,2.5,",
    ]


def test_of_a_long_run_not_every_step_is_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_STEP_EVENTS", 10)
    monkeypatch.setattr(reading, "MOST_BYTES_A_TURN", 1000)
    Run.create(tmp_path / "run", "tune", {"tune": TUNE, "training": {**TRAINING, "n_steps": 95}})
    folder = JobFolder(tmp_path)
    for number in range(1, 96):
        step(folder, number)
    journal: dict[str, Any] = {}
    said = []
    while True:
        found = read_run(folder, journal)
        said += [event.data["step"] for event in found.events if event.data]
        journal = found.journal
        if not found.more:
            break
    assert said == [1, *range(10, 91, 10), 95]


def test_what_is_wrong_with_a_run_is_no_error_here(tmp_path: Path, folder: JobFolder) -> None:
    assert read_run(JobFolder(tmp_path / "nothing"), {"step": 3}).journal == {"step": 3}
    Run.open(folder.run).event("data", split="train", notes={"refused by the chat template": {"n": 2, "first": ["x"]}})
    Run.open(folder.run).metric(1, loss=float("nan"), lr=1e-3)
    (folder.run / "events.jsonl").open("ab").write(b"rubbish\n[]\n")
    found = read_run(folder, {})
    assert [event.level for event in found.events] == ["warn", "info"]
    assert "refused by the chat template (2)" in found.events[0].message
    assert "not a number" in found.events[1].message
    (folder.run / "config.toml").write_text("[[broken")
    assert messages(read_run(folder, {})) == []


def test_checkpoints_are_those_on_the_disk(folder: JobFolder) -> None:
    assert checkpoints_of(folder) == []
    for name in ("step-000002", "step-000010", ".step-000011.writing", ".step-000001.old", "other"):
        (folder.run / "checkpoints" / name).mkdir(parents=True)
    step(folder, 10, 1.25)
    Run.open(folder.run).metric(10, loss=0.5)
    found = checkpoints_of(folder)
    assert [checkpoint.step for checkpoint in found] == [10, 2]
    assert found[0].metrics == {"step": 10.0, "train_loss": 1.25, "valid_loss": 0.5}
    assert folder.remove_checkpoint(2)
    assert not folder.remove_checkpoint(2)
