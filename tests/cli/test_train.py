"""`train`: from a dataset to a model that serves, and everything that can go wrong on the way, as a sentence."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from chatwright.evaluation.bits_per_byte import bits_per_byte
from chatwright.evaluation.documents import encode_documents
from chatwright.model.card import SECTIONS
from chatwright.model.load import load_language_model
from chatwright.model.rnn import RNN
from chatwright.text.dataset import Dataset, write_dataset
from chatwright.tokenizer.load import load_tokenizer
from chatwright.training import pacing, token_count
from chatwright.training.history import History
from chatwright.training.measure import StepCost
from chatwright.training.run import Run as TrainingRun
from tests.cli.conftest import Run
from tests.training.corpus import make_dataset

SMALL = ("--size", "60k", "--vocab-size", "320", "--context", "32", "--batch-tokens", "256", "--precision", "fp32")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_dataset(tmp_path_factory.mktemp("train") / "dataset").path)


@pytest.mark.parametrize("flags", [(), ("--arch", "gpt2"), ("--arch", "gpt2", "--positions", "sinusoidal")])
def test_a_trained_model_answers_here_and_in_transformers(
    command: Run, dataset: str, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = tmp_path / "run"
    done = command("train", dataset, *SMALL, *flags, "--steps", "30", "--out", str(run))
    assert done.code == 0, done.err
    figures = dict(line.split("\t") for line in done.out.splitlines())
    assert 0 < float(figures["bits_per_byte"]) < 5
    assert "parameters:" in done.err

    theirs = AutoModelForCausalLM.from_pretrained(run / "model")
    assert type(theirs).__name__ == ("GPT2LMHeadModel" if flags else "Qwen3ForCausalLM")
    ids = AutoTokenizer.from_pretrained(run / "model")("The cat sees 打印机", return_tensors="pt")["input_ids"]
    tokenizer = load_tokenizer(run / "model")
    assert ids[0].tolist() == tokenizer.encode("The cat sees 打印机")
    ours = load_language_model(run / "model")
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(ours.hidden(ids)), theirs(ids).logits, rtol=1e-4, atol=1e-4)
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == list(SECTIONS)
    # what training says of the result is true of the files
    texts = Dataset.open(dataset).texts("held_out")
    end = tokenizer.special_ids["<|endoftext|>"]
    documents = encode_documents(tokenizer, texts, start_id=end, end_id=end)
    assert float(figures["bits_per_byte"]) == pytest.approx(bits_per_byte(ours, documents, 32), abs=1e-3)
    # what `train` says to try: the usual length of an answer is more than this context holds
    spoken = command("complete", str(run), "The cat", "--temperature", "0.8", "--seed", "1")
    assert spoken.code == 0, spoken.err
    assert spoken.out.strip()


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_a_recurrent_model_learns_on_the_same_loop(command: Run, dataset: str, tmp_path: Path, cell: str) -> None:
    run = tmp_path / "run"
    done = command("train", dataset, *SMALL, "--arch", "rnn", "--cell", cell, "--steps", "30", "--out", str(run))
    assert done.code == 0, done.err
    assert isinstance(load_language_model(run / "model"), RNN)
    losses = [value for _step, value in History.read(TrainingRun.open(run)).series["loss"]]
    assert losses[-1] < losses[0] - 1


def test_filling_in_is_trained_and_marked(command: Run, dataset: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = command("train", dataset, *SMALL, "--steps", "3", "--fim", "0.5", "--out", str(run))
    assert done.code == 0, done.err
    assert json.loads((run / "model" / "config.json").read_text())["chatwright"] == {"fim": True}
    middle = load_tokenizer(run / "model").special_ids["<|fim_middle|>"]
    import numpy as np

    assert 100 < (np.fromfile(run / "tokens" / "train.bin", dtype=np.uint16) == middle).sum() < 190


@pytest.mark.slow
def test_minutes_become_steps_once(command: Run, dataset: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = command("train", dataset, *SMALL, "--minutes", "0.03", "--out", str(run))
    assert done.code == 0, done.err
    config = TrainingRun.open(run)
    assert "0.03" in config.reasons()["training"]["n_steps"]
    history = History.read(config)
    assert history.step == config.section("training")["n_steps"]
    assert history.status == "finished"


def test_a_given_tokenizer_is_used_as_it_is(command: Run, dataset: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert command("train", dataset, *SMALL, "--steps", "2", "--out", str(first)).code == 0
    done = command(
        "train", dataset, "--size", "60k", "--context", "32", "--steps", "2", "--tokenizer", str(first / "model"),
        "--out", str(second),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert load_tokenizer(second / "model").vocab_size == 320
    assert (first / "tokens" / "train.bin").read_bytes() == (second / "tokens" / "train.bin").read_bytes()


@pytest.mark.slow
def test_folds_of_pretraining_are_a_table_a_report_and_no_model(command: Run, dataset: str, tmp_path: Path) -> None:
    data, run = dataset, tmp_path / "run"
    flags = (*SMALL, "--steps", "3")
    done = command("train", data, *flags, "--folds", "2", "--seeds", "2", "--out", str(run))
    assert done.code == 0, done.err
    heading, bits, *_rest = done.out.splitlines()
    assert heading.split()[:7] == ["FIGURE", "MEAN", "SD", "N", "SD", "OF", "SEEDS"]
    assert bits.startswith("bits per byte ")
    assert bits.split()[5] == "4"
    assert "the same command without --folds" in done.err
    assert "<h2>Folds</h2>" in (run / "report.html").read_text()
    assert not (run / "model").exists()
    assert TrainingRun.open(run / "folds" / "2-seed-1").section("training")["seed"] == 1
    again = command("runs", "resume", str(run))
    assert again.out == done.out
    for arguments, words in (
        (["--seeds", "2"], "--seeds needs folds"),
        (["--choose", "lr=1,2"], "--choose needs folds"),
        (["--json"], "--json needs folds"),
        (["--folds", "2", "--choose", "size=1,2"], "Settings: lr, weight_decay, dropout"),
        (["--folds", "2", "--choose", "dropout=0,2"], "--dropout takes a number from 0.0 to 0.95"),
        (["--folds", "1000"], "--folds"),
        (["--folds", "2", "--size", "50m"], "Take --size"),  # found out within the first fold: nothing is left behind
    ):
        refused = command("train", data, *flags, *arguments, "--out", str(tmp_path / "none"))
        assert refused.code in (1, 2)
        assert words in refused.err
    assert not (tmp_path / "none").exists()
    assert command("train", data, *flags, "--folds", "2", "--out", str(run)).code == 2  # it is there


def test_everything_of_a_run_is_there_to_be_read(command: Run, dataset: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert command("train", dataset, *SMALL, "--steps", "8", "--out", str(run)).code == 0
    report = (run / "report.html").read_text()
    assert report.count("<svg") >= 4
    assert "http://" not in report.replace("http://www.w3.org", "")
    assert "https://" not in report
    assert "currentColor" in report
    assert list((run / "tensorboard").glob("events.out.tfevents*"))
    sample = (run / "samples" / "step-000008.md").read_text()
    assert "▶" in sample
    figures = [entry for entry in TrainingRun.open(run).metrics.read() if "bits_per_byte" in entry]
    assert {"bits_per_byte_en", "bits_per_byte_zh"} <= figures[-1].keys()


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--minutes", "0"), 2, "--minutes 0"),
        (("--lr", "0"), 2, "--lr takes a number from 1e-09 to 10"),  # it would train nothing
        (("--folds", "2", "--choose", "lr=0,0.1"), 2, "--lr takes a number from 1e-09 to 10"),
        (("--size", "huge"), 2, "huge"),
        (("--arch", "mamba"), 2, "qwen3, gpt2, rnn"),
        (("--cell", "lstm"), 2, "--arch rnn"),
        (("--positions", "learned"), 2, "--arch gpt2"),
        (("--arch", "rnn", "--fim", "0.5"), 2, "--fim"),
        (("--context", "64", "--batch-tokens", "32"), 2, "at least 64"),
        (("--context", "100000", "--size", "60k", "--steps", "1"), 1, "--context"),
        (("--size", "20k", "--vocab-size", "4000"), 2, "vocabulary"),
        (("--tokenizer", "nowhere"), 1, "nowhere"),
    ],
)
def test_what_cannot_be_is_said(
    command: Run, dataset: str, tmp_path: Path, flags: tuple[str, ...], code: int, words: str
) -> None:
    done = command("train", dataset, *flags, "--out", str(tmp_path / "run"))
    assert (done.code, words in done.err) == (code, True), done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_refused_start_leaves_the_folder_as_it_was(
    command: Run, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused when tokenizer and tokens are ready: a row of more tokens than the text has, and too few minutes."""
    monkeypatch.setattr(pacing, "measure_step", lambda *_, **__: StepCost(0.1, 0.01, 1e-5, 0.01, 1, 1, 1))
    (tmp_path / "there").mkdir()
    for run in (tmp_path / "new" / "one", tmp_path / "there"):
        for flags in (("--context", "100000", "--steps", "1"), ("--minutes", "0.00001", "--context", "32")):
            done = command("train", dataset, "--size", "60k", "--vocab-size", "320", *flags, "--out", str(run))
            assert done.code, done.err
            assert sorted(path.name for path in tmp_path.iterdir() if path.name in ("new", "there")) == ["there"]
            assert list((tmp_path / "there").iterdir()) == []
    # what an earlier start made ready is not the refused one's to take away
    run = tmp_path / "run"
    assert command("train", dataset, *SMALL, "--steps", "1", "--out", str(run)).code == 0
    for entry in run.iterdir():
        if entry.name not in ("tokenizer", "tokens"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    ready = {file.relative_to(run): file.read_bytes() for file in run.rglob("*") if file.is_file()}
    assert command("train", dataset, *SMALL, "--minutes", "0.00001", "--out", str(run)).code == 2
    assert {file.relative_to(run): file.read_bytes() for file in run.rglob("*") if file.is_file()} == ready


def test_little_text_is_trained_on_and_hardly_any_is_refused(command: Run, tmp_path: Path) -> None:
    make_dataset(tmp_path / "short", n=40)
    done = command(
        "train",
        str(tmp_path / "short"),
        "--size",
        "20k",
        "--vocab-size",
        "300",
        "--steps",
        "2",
        "--out",
        str(tmp_path / "run"),
    )
    assert done.code == 0, done.err
    assert 16 <= TrainingRun.open(tmp_path / "run").section("pretraining")["context_length"] <= 256

    write_dataset(tmp_path / "tiny", {"documents": {"train": [{"text": "Hi."}]}})
    done = command("train", str(tmp_path / "tiny"), "--size", "30k", "--steps", "2", "--out", str(tmp_path / "run2"))
    assert done.code != 0
    assert "too few" in done.err

    write_dataset(tmp_path / "empty", {"documents": {"held_out": [{"text": "Hi."}]}})
    done = command("train", str(tmp_path / "empty"), "--size", "30k", "--out", str(tmp_path / "run3"))
    assert "no text to train on" in done.err
    assert "no dataset" in command("train", str(tmp_path), "--out", str(tmp_path / "run4")).err


@pytest.mark.parametrize("sample_bytes", [token_count.SAMPLE_BYTES, 200])
def test_what_a_plan_calls_impossible_is_not_trained(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample_bytes: int
) -> None:
    """Nor where only the tokens of the whole text tell, as of a sample so small the tokenizer knows no words."""
    dataset = str(make_dataset(tmp_path / "dataset", 80, 5).path)
    planned = command("plan", dataset, "--size", "80k", "--steps", "1")
    monkeypatch.setattr(token_count, "SAMPLE_BYTES", sample_bytes)
    done = command("train", dataset, "--size", "80k", "--steps", "1", "--out", str(tmp_path / "run"))
    assert done.code == planned.code == 2
    tokens = re.findall("has ([0-9,]+) tokens", planned.err)
    assert tokens == re.findall("has ([0-9,]+) tokens", done.err) != []
    assert not (tmp_path / "run").exists()
    [named] = re.findall("--size ([0-9.]+k)", done.err)
    flags = ("--steps", "1", "--batch-tokens", "256", "--out", str(tmp_path / "run"))
    assert command("train", dataset, "--size", named, *flags).code == 0


def test_a_run_of_so_many_steps_is_refused_too_where_the_disk_has_no_room(
    command: Run, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    done = command("train", dataset, *SMALL, "--steps", "1", "--out", str(tmp_path / "run"))
    assert done.code == 1
    assert "on disk, but only 1.0 MB are free" in done.err
    assert not (tmp_path / "run").exists()


def test_nothing_is_overwritten(command: Run, dataset: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = command("train", dataset, *SMALL, "--steps", "1", "--out", str(tmp_path / "mine"))
    assert done.code == 2
    assert [entry.name for entry in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_memory_limit_is_a_sentence(tmp_path: Path) -> None:
    """As under `ulimit -v`: the allocator's error comes out of the middle of a step."""
    dataset = str(make_dataset(tmp_path / "dataset", 1200).path)  # enough for so many parameters
    code = (
        "import resource, sys, psutil, torch._dynamo; from chatwright.cli import main; import chatwright.training.pretrain;"
        "limit = psutil.Process().memory_info().vms + 200 * 2**20;"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit)); sys.argv[0] = 'chatwright'; main()"
    )
    flags = ("--size", "600k", "--steps", "1", "--batch-tokens", "30000", "--micro-rows", "9999", "--precision", "fp32")
    done = subprocess.run(
        [sys.executable, "-c", code, "train", dataset, *flags, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Memory ran out" in done.stderr
    assert "Traceback" not in done.stderr


def start(dataset: str, run: Path, *flags: str, python: tuple[str, ...] = ()) -> list[str]:
    return [
        sys.executable, *python, "-m", "chatwright", "train", dataset, *SMALL, "--steps", "60", "--dropout", "0.1",
        "--out", str(run), *flags,
    ]  # fmt: skip


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_bits(command: Run, dataset: str, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert command(*start(dataset, whole)[3:]).code == 0
    generator = random.Random(7)
    arguments = start(dataset, run)
    for _ in range(2):
        known = set((run / "checkpoints").glob("*"))
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        wait_for(lambda known=known: set((run / "checkpoints").glob("*")) - known, process)  # type: ignore[misc]
        time.sleep(generator.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        arguments = [sys.executable, "-m", "chatwright", "runs", "resume", str(run)]
    assert command("runs", "resume", str(run)).code == 0
    for file in ("model/model.safetensors", "checkpoints/step-000060/optimizer.safetensors"):
        assert (run / file).read_bytes() == (whole / file).read_bytes(), file


@pytest.mark.parametrize("at", ["prepare_tokens", "fit_tokens"])  # with a tokenizer, and with the tokens too
def test_killed_while_preparing_it_begins_again(command: Run, dataset: str, tmp_path: Path, at: str) -> None:
    run = tmp_path / "run"
    code = (
        "import sys, time; import chatwright.training.pretrain as pretrain; from chatwright.cli import main;"
        f"pretrain.{at} = lambda *arguments: (print('reached', flush=True), time.sleep(600));"
        "sys.argv[0] = 'chatwright'; main()"
    )
    arguments = [sys.executable, "-c", code, *start(dataset, run)[3:]]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    reached = process.stdout.readline()
    process.kill()
    process.communicate()
    assert reached == "reached\n"
    ready = [file for file in ("tokenizer/tokenizer.json", "tokens/train.bin") if (run / file).exists()]
    assert ready == ["tokenizer/tokenizer.json", "tokens/train.bin"][: 1 if at == "prepare_tokens" else 2]
    assert not (run / "config.toml").exists()
    inodes = [(run / file).stat().st_ino for file in ready]
    assert "start it again" in command("runs", "resume", str(run)).err
    done = command("train", dataset, *SMALL, "--steps", "2", "--out", str(run))
    assert done.code == 0, done.err
    assert [(run / file).stat().st_ino for file in ready] == inodes  # kept, not made anew


@pytest.mark.parametrize("name", ["tokenizer", "tokens"])
def test_a_tokenizer_that_the_user_made_in_the_folder_is_not_replaced(
    command: Run, dataset: str, tmp_path: Path, name: str
) -> None:
    run = tmp_path / "run"
    made = command("tokenizer", "train", dataset, "--vocab-size", "300", "--out", str(run / name))
    assert made.code == 0, made.err
    files = {file.name: file.read_bytes() for file in (run / name).iterdir()}
    assert files
    done = command("train", dataset, *SMALL, "--steps", "1", "--out", str(run))
    assert (done.code, "is there already" in done.err) == (2, True), done.err
    assert {file.name: file.read_bytes() for file in (run / name).iterdir()} == files
    assert "not the folder of a run" in command("runs", "resume", str(run)).err


def test_sigterm_saves_and_says_how_to_go_on(command: Run, dataset: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(start(dataset, run), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (run / "metrics.jsonl").exists(), process)
    assert "in use by process" in command("runs", "resume", str(run)).err
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, err
    assert f"chatwright runs resume {run}" in err
    assert "Traceback" not in err
    listed = json.loads(command("runs", "ls", str(tmp_path), "--json").out)
    assert [(entry["state"], entry["n_steps"]) for entry in listed] == [("interrupted", 60)]


@pytest.mark.slow
def test_two_processes_train_as_one(command: Run, dataset: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    flags = ("--dropout", "0", "--micro-rows", "4")
    assert command(*start(dataset, one, *flags)[3:]).code == 0
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    done = subprocess.run(
        [sys.executable, *launcher, *start(dataset, two, *flags)[1:]],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CHATWRIGHT_THREADS": "2"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert TrainingRun.open(two).section("machine")["n_threads"] == 1, "of each process: they share the cores"
    assert len(done.stdout.splitlines()) == 4  # one process speaks
    a, b = ([value for _step, value in History.read(TrainingRun.open(run)).series["loss"]] for run in (one, two))
    assert a[:50] == pytest.approx(b[:50], rel=1e-5)
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (one, two))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-3)


def test_a_dataset_that_changed_is_refused(command: Run, dataset: str, tmp_path: Path) -> None:
    run, copy = tmp_path / "run", tmp_path / "copy"
    make_dataset(copy)
    assert command("train", str(copy), *SMALL, "--steps", "2", "--out", str(run)).code == 0
    assert "finished already" in command("runs", "resume", str(run)).err
    shutil.rmtree(run / "model")  # there is something to do again
    for split in ("train", "held_out"):
        shard = copy / "documents" / f"{split}-00000.jsonl"
        whole = shard.read_bytes()
        shard.write_bytes(whole.replace(b"printer", b"pointer"))  # the same size
        for done in (
            command("runs", "resume", str(run)),
            command("train", str(copy), *SMALL, "--out", str(copy / "r")),
        ):
            assert (done.code, f"{shard} was changed" in done.err.replace("\n", "")) == (1, True), done.err
        shard.write_bytes(whole)
    shutil.rmtree(copy)
    make_dataset(copy, n=200)
    assert "has changed" in command("runs", "resume", str(run)).err
    shutil.rmtree(copy)
    assert "There is no dataset" in command("runs", "resume", str(run)).err
    assert "not the folder of a run" in command("runs", "resume", dataset).err


def test_a_run_is_shown_and_reported(
    command: Run, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert command("train", dataset, *SMALL, "--steps", "4", "--out", str(run)).code == 0
    shown = json.loads(command("runs", "show", str(run), "--json").out)
    assert (shown["state"], shown["step"], shown["config"]["training"]["n_steps"]) == ("finished", 4, 4)
    assert "as asked" in command("runs", "show", str(run)).out
    (run / "report.html").unlink()
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    assert command("runs", "report", str(run)).out.strip() == str(run / "report.html")
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "学习率" in report
    assert "<figcaption>困惑度（留出集）</figcaption>" in report
    assert "<td>每字节比特数</td>" in report
    before_the_events = report[: report.index("<h2>事件</h2>")]
    assert "bits_per_byte" not in before_the_events  # that is what files and JSON call it


def test_a_run_that_cannot_be_read_is_listed_and_said(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (
        ("damaged", "x=["),
        ("newer", 'format = 99\nverb = "train"'),
        ("foreign", 'title = "a site"'),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(content)
    listed = command("runs", "ls", str(tmp_path))
    assert listed.code == 0
    assert [line.split() for line in listed.out.splitlines()[1:]] == [
        ["damaged", "-", "unreadable", "-", "-"], ["newer", "-", "unreadable", "-", "-"],
    ]  # fmt: skip
    assert f"config.toml of the run {tmp_path / 'damaged'} cannot be read" in listed.err
    assert "newer Chatwright" in listed.err
    entries = json.loads(command("runs", "ls", str(tmp_path), "--json").out)
    assert [(entry["name"], entry["state"]) for entry in entries] == [
        ("damaged", "unreadable"),
        ("newer", "unreadable"),
    ]
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    assert "无法读取" in command("runs", "ls", str(tmp_path)).out
