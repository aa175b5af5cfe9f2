"""The loop's invariants, on a model of 40,000 parameters: the same losses however a step is cut, and after any interruption."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from chatwright.errors import DivergenceError, InUseError, StorageError, TrainingError
from chatwright.training.checkpoint import checkpoints
from chatwright.training.config import TrainingConfig
from chatwright.training.history import History
from chatwright.training.loop import train
from chatwright.training.progress import Silent
from chatwright.training.run import ENVIRONMENT, Run
from chatwright.training.tensorboard import Curves
from tests.training.toy import Toy, toy_run, weights


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def config(**values: Any) -> TrainingConfig:
    return TrainingConfig(**{"n_steps": 12, "batch_rows": 8, "micro_rows": 4, "warmup_steps": 2, "lr": 3e-3} | values)


def losses(run: Run) -> list[float]:
    return [value for _step, value in History.read(run).series["loss"]]


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class StopsAt(Toy):
    """Sends this process a signal while it computes the loss of its nth micro-batch."""

    def __init__(self, at: int, **values: Any) -> None:
        super().__init__(**values)
        self.at = at

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.at -= 1
        if self.at == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(batch)


class Diverges(Toy):
    """Row 5 says NaN."""

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        bad = (batch[0] == self.ids[5, :-1]).all(dim=1).any()
        return super().loss(batch) * (float("nan") if bad else 1.0)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_one_at_a_time_equals_eight_at_once(tmp_path: Path, optimizer: str) -> None:
    """Rows have different numbers of supervised tokens, some none: a mean of means would differ (nanochat #590)."""
    found = []
    for micro_rows in (8, 1):
        settings = config(n_steps=50, micro_rows=micro_rows, optimizer=optimizer)
        run = toy_run(tmp_path / str(micro_rows), settings)
        train(Toy(masked=True), settings, run)
        found.append(losses(run))
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0][-1] < found[0][0]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("at", [1, 8, 18])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, optimizer: str, at: int) -> None:
    """Interrupted between steps and half-way through one; dropout on, several epochs, evaluations and samples between."""
    settings = config(optimizer=optimizer, eval_every=3, sample_every=4, checkpoint_every=5)
    undisturbed = Toy(dropout=0.1)
    whole = toy_run(tmp_path / "whole", settings)
    train(undisturbed, settings, whole)

    run = toy_run(tmp_path / "run", settings)
    first = train(StopsAt(at, dropout=0.1), settings, run)
    assert first.signal == signal.SIGTERM
    assert first.step < settings.n_steps
    interrupted = History.read(run)
    assert (interrupted.status, interrupted.step) == ("interrupted", first.step)
    second = Toy(dropout=0.1, seed=0)
    torch.manual_seed(1234)  # nothing may depend on what the process did before
    result = train(second, settings, run)
    assert result.step == settings.n_steps
    finished = History.read(run)
    assert (finished.status, finished.step) == ("finished", settings.n_steps)
    assert equal(weights(second.model), weights(undisturbed.model))
    assert losses(run) == losses(whole)
    a, b = ((each.path / "model" / "model.safetensors").read_bytes() for each in (run, whole))
    assert a == b


def test_a_run_that_goes_on_is_where_it_is_now_and_not_where_it_was_interrupted(tmp_path: Path) -> None:
    settings = config()
    run = toy_run(tmp_path / "run", settings)
    first = train(StopsAt(8), settings, run)
    run.event("resumed", step=first.step)
    run.metric(first.step + 1, loss=1.0)
    now = History.read(run)
    assert (now.status, now.step) == ("running", first.step + 1)


def test_a_finished_run_finishes_again_without_training(tmp_path: Path) -> None:
    settings = config(eval_every=4)
    run = toy_run(tmp_path / "run", settings)
    train(Toy(), settings, run)
    before = (run.result / "model.safetensors").read_bytes()
    train(Toy(), settings, run)
    assert (run.result / "model.safetensors").read_bytes() == before


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    settings = config(n_steps=20, eval_every=2, patience=3, keep=1)
    toy = Toy()
    toy.figures = [5.0, 4.0, 4.5, 4.4, 4.1, 1.0]
    run = toy_run(tmp_path / "run", settings)
    result = train(toy, settings, run)
    assert (result.step, result.best_step, result.stopped_early) == (10, 4, True)
    assert [path.name for path in checkpoints(run)] == ["step-000004", "step-000010"]
    best = (run.path / "checkpoints" / "step-000004" / "model.safetensors").read_bytes()
    assert (run.result / "model.safetensors").read_bytes() == best
    # a resume of a run that has stopped does not go on
    assert train(Toy(), settings, run).step == 10


def test_a_final_figure_that_is_not_the_last_one_on_the_way_is_explained(tmp_path: Path) -> None:
    said: list[str] = []

    class Says(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    class Glances(Toy):
        off = 0.5

        def evaluate(self, *, full: bool) -> Mapping[str, float]:
            return {name: value + (0.0 if full else self.off) for name, value in super().evaluate(full=full).items()}

    settings = config(eval_every=2)
    found = train(Glances(), settings, toy_run(tmp_path / "run", settings), progress=Says())
    [words] = said
    value = found.metrics["nats"]
    assert f"a quick look at the held-out data gave {value + 0.5:.4f}" in words
    assert f"all of it, in float32 ({value:.4f})" in words
    said.clear()

    class OfAPart(Glances):
        measured = (15, 56)

    train(OfAPart(), settings, toy_run(tmp_path / "part", settings), progress=Says())
    assert f"of 15 of its 56 documents, in float32 ({value:.4f})" in said.pop()

    class Weakened(Glances):
        strength = 0.5

    train(Weakened(), settings, toy_run(tmp_path / "weak", settings), progress=Says())
    assert "the result keeps 0.5 of it" in said.pop()
    Glances.off = 0.0
    train(Glances(), settings, toy_run(tmp_path / "same", settings), progress=Says())
    assert not said, "nothing to explain"


def test_divergence_names_the_documents_and_touches_nothing(tmp_path: Path) -> None:
    settings = config(micro_rows=1, batch_rows=4, checkpoint_every=1, n_steps=50)
    toy = Diverges()
    run = toy_run(tmp_path / "run", settings)
    with pytest.raises(DivergenceError) as raised:
        train(toy, settings, run)
    assert "document 5" in str(raised.value)
    newest = checkpoints(run)
    assert all(p.isfinite().all() for p in toy.model.parameters())
    diverged = next(entry for entry in run.events.read() if entry["event"] == "diverged")
    assert diverged["step"] == (int(newest[-1].name[5:]) if newest else 0)
    assert f"step {diverged['step'] + 1}" in str(raised.value)


def test_a_step_without_supervised_tokens_changes_nothing(tmp_path: Path) -> None:
    toy = Toy(masked=True)
    toy.targets[:] = -100
    before = weights(toy.model)
    settings = config(n_steps=3)
    toy.evaluate = lambda full: {}  # type: ignore[method-assign, assignment, misc]
    train(toy, settings, toy_run(tmp_path / "run", settings))
    assert equal(weights(toy.model), before)


def test_old_checkpoints_go_and_the_best_stays(tmp_path: Path) -> None:
    settings = config(n_steps=12, checkpoint_every=1, eval_every=3, keep=2)
    toy = Toy()
    toy.figures = [1.0, 2.0, 3.0, 4.0]
    run = toy_run(tmp_path / "run", settings)
    train(toy, settings, run)
    assert [path.name for path in checkpoints(run)] == ["step-000003", "step-000011", "step-000012"]


def test_a_full_disk_leaves_the_older_checkpoint_and_a_run_to_continue(tmp_path: Path) -> None:
    settings = config(checkpoint_every=4, n_steps=8, eval_every=8)
    whole = Toy()
    train(whole, settings, toy_run(tmp_path / "whole", settings))

    run = toy_run(tmp_path / "run", settings)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Fills(Toy):
        def documents(self, rows: Sequence[int], epoch: int) -> list[str]:
            return []

        def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            if checkpoints(run):  # from the first checkpoint on no file may be larger than 100 kB
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
            return super().loss(batch)

    try:
        with pytest.raises(StorageError) as raised:
            train(Fills(), settings, run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "step 4" in str(raised.value)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-000004"]
    again = Toy()
    assert train(again, settings, run).step == 8
    assert equal(weights(again.model), weights(whole.model))


def fill(curves: Curves) -> None:
    """Whatever is written to the file of the curves from now on meets a full disk."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, curves.writer._py_recordio_writer._writer.fileno())
    os.close(full)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_curves_on_a_full_disk_hide_no_error_and_are_one_themselves(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", config())
    with pytest.raises(StorageError, match="the checkpoint"), Curves(run, 0) as curves:  # noqa: PT012
        fill(curves)
        curves.add(1, {"loss": 1.0})
        raise StorageError("the checkpoint")
    with pytest.raises(StorageError, match=r"tensorboard cannot be written: No space left"), Curves(run, 0) as curves:
        fill(curves)
    curves = Curves(run, 0)
    fill(curves)
    with pytest.raises(StorageError, match=r"tensorboard cannot be written: No space left"):
        curves.flush()
    with pytest.raises(StorageError), curves:
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_under_every_writer_is_a_sentence_and_an_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(checkpoint_every=4)
    run = toy_run(tmp_path / "run", settings)
    opened: list[Curves] = []
    monkeypatch.setattr(
        "chatwright.training.loop.Curves", lambda run, step: opened.append(Curves(run, step)) or opened[-1]
    )

    class Fills(Toy):
        def save_model(self, folder: Path) -> None:
            fill(opened[-1])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match="The checkpoint of step 4 cannot be written"):
        train(Fills(), settings, run)
    assert History.read(run).status == "failed"
    assert "step 4" in list(run.events.read())[-1]["error"]

    def fill_last(step: int, every: int) -> bool:
        fill(opened[-1])
        return False

    monkeypatch.setattr("chatwright.training.loop._due", fill_last)
    with pytest.raises(StorageError, match="tensorboard cannot be written"):
        train(Toy(), settings, run)
    assert "tensorboard" in list(run.events.read())[-1]["error"]


def test_what_a_killed_write_left_is_not_a_checkpoint(tmp_path: Path) -> None:
    settings = config(checkpoint_every=6)
    run = toy_run(tmp_path / "run", settings)
    assert train(StopsAt(14), settings, run).signal == signal.SIGTERM
    half = run.path / "checkpoints" / ".step-000009.writing"
    half.mkdir()
    (half / "state.json").write_text('{"step": 9}')
    assert train(Toy(), settings, run).step == 12
    assert not half.exists()


def test_a_damaged_checkpoint_is_a_sentence(tmp_path: Path) -> None:
    settings = config(checkpoint_every=6)
    run = toy_run(tmp_path / "run", settings)
    train(StopsAt(14), settings, run)
    tensors = checkpoints(run)[-1] / "optimizer.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:1000])
    with pytest.raises(TrainingError, match="damaged"):
        train(Toy(), settings, run)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    settings = config(checkpoint_every=6)
    run = toy_run(tmp_path / "run", settings)
    train(StopsAt(14), settings, run)
    other = Toy()
    other.model.layers = other.model.layers[:1]
    with pytest.raises(TrainingError, match="another model"):
        train(other, settings, run)


def test_another_environment_is_refused_unless_forced(tmp_path: Path) -> None:
    settings = config()
    run = toy_run(tmp_path / "run", settings)
    train(StopsAt(14), settings, run)
    environment = json.loads((run.path / ENVIRONMENT).read_text())
    (run.path / ENVIRONMENT).write_text(json.dumps(environment | {"torch": "1.0"}))
    with pytest.raises(TrainingError, match=r"torch: 1\.0"):
        train(Toy(), settings, run)
    assert train(Toy(), settings, run, force=True).step == 12
    assert "environment_changed" in [entry["event"] for entry in run.events.read()]


def test_other_threads_are_another_environment(tmp_path: Path) -> None:
    """They decide in which order sums are made."""
    settings = config()
    run = toy_run(tmp_path / "run", settings)
    train(StopsAt(14), settings, run)
    torch.set_num_threads(2)
    with pytest.raises(TrainingError, match="threads: 1 → 2"):
        train(Toy(), settings, run)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", config())
    with run.locked(), pytest.raises(InUseError, match=str(os.getpid())), Run.open(run.path).locked():
        pass
    with run.locked():
        pass


def test_bfloat16_keeps_float32_weights(tmp_path: Path) -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        settings = config(n_steps=30, precision=precision)
        toy = Toy()
        run = toy_run(tmp_path / precision, settings)
        train(toy, settings, run)
        found[precision] = losses(run)
        assert all(p.dtype == torch.float32 for p in toy.model.parameters())
    assert found["bf16"] == pytest.approx(found["fp32"], rel=2e-2)
    assert found["bf16"] != found["fp32"]


def test_settings_are_read_back_as_they_were(tmp_path: Path) -> None:
    settings = config(optimizer="muon", precision="bf16", compile=True, lr=1.5e-3)
    run = toy_run(tmp_path / "run", settings)
    assert TrainingConfig.from_dict(Run.open(run.path).section("training")) == settings
    for wrong in ({"surprise": 1}, {"n_steps": "many"}, {"lr": -1.0}, {"optimizer": "sgd"}, {"n_steps": True}):
        with pytest.raises(TrainingError):
            TrainingConfig.from_dict(settings.to_dict() | wrong)


def test_a_signal_in_the_middle_of_writing_is_announced_and_saves(tmp_path: Path) -> None:
    """Python refuses to write where it is writing already, and the announcement is made wherever the signal comes."""
    written, announced = bytearray(), threading.Event()

    class Terminal(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            if not written:
                os.kill(os.getpid(), signal.SIGTERM)
            written.extend(data)
            return len(data)

    terminal = io.TextIOWrapper(io.BufferedWriter(Terminal()), encoding="utf-8")

    class Says(Silent):
        def say(self, text: str) -> None:
            print(text, file=terminal, flush=True)
            announced.set()

    class Writes(Toy):
        def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            print("in a step", file=terminal, flush=True)
            return super().loss(batch)

    settings = config()
    run = toy_run(tmp_path / "run", settings)
    result = train(Writes(), settings, run, progress=Says())
    assert (result.signal, result.step) == (signal.SIGTERM, 0)
    assert announced.wait(30)
    assert written.decode().splitlines()[0] == "in a step"
    assert "Stopping: saving a checkpoint first." in written.decode()


def test_a_second_signal_ends_at_once_and_the_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Half-way through step 7 of a process of its own, the checkpoint of step 6 behind it."""
    settings = config(checkpoint_every=3)
    whole = Toy(dropout=0.1)
    train(whole, settings, toy_run(tmp_path / "whole", settings))

    run = toy_run(tmp_path / "run", settings)
    code = """
import sys, time, torch
from pathlib import Path
from chatwright.training.config import TrainingConfig
from chatwright.training.loop import train
from chatwright.training.progress import Silent
from chatwright.training.run import Run
from tests.training.toy import Toy

class Waits(Toy):
    n = 0
    def loss(self, batch):
        self.n += (run.path / "checkpoints" / "step-000006").exists()
        if self.n == 2:  # half-way through step 7
            print("in a step", flush=True)
            time.sleep(600)  # goes on after a signal whose handler returns
        return super().loss(batch)

class Says(Silent):
    def say(self, text):
        print(text, flush=True)

torch.set_num_threads(1)
run = Run.open(Path(sys.argv[1]))
train(Waits(dropout=0.1), TrainingConfig.from_dict(run.section("training")), run, progress=Says())
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "in a step\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline().startswith("Stopping: saving a checkpoint first. Once more")
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 128 + signal.SIGTERM
        finally:
            process.kill()
    assert [path.name for path in checkpoints(run)] == ["step-000003", "step-000006"]
    again = Toy(dropout=0.1)
    assert train(again, settings, run).step == 12
    assert equal(weights(again.model), weights(whole.model))
    assert [entry["step"] for entry in run.events.read() if entry["event"] == "resumed"] == [6]
