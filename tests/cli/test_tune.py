"""`chatwright tune` and `runs resume` from the command line: figures to standard output, what to do next, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chatwright.model.save import save_model
from chatwright.text.dataset import write_dataset
from tests.cli.conftest import Run
from tests.server.tiny import VOCAB, make_model_folder
from tests.training.tuning import chat, tiny_gpt

FAST = ["--batch", "2", "--epochs", "1", "--precision", "fp32"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model_folder(tmp_path_factory.mktemp("tune") / "tiny"))


@pytest.fixture
def data(tmp_path: Path) -> str:
    rows: list[dict[str, Any]] = [{"messages": chat(f"What is {n}?", f"It is {n}.")} for n in range(6)]
    write_dataset(tmp_path / "data", {"conversations": {"train": rows[:4], "held_out": rows[4:]}})
    return str(tmp_path / "data")


def test_an_adapter_is_trained_served_by_name_and_not_trained_over(
    command: Run, model: str, data: str, tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    done = command("tune", model, data, "--rank", "4", "--out", run, *FAST)
    assert done.code == 0, done.err
    assert [line.split("\t")[0] for line in done.out.splitlines()] == ["bits_per_byte", "loss"]
    assert all("before: " in line for line in done.out.splitlines())
    assert f"chatwright serve {model} --adapter NAME={run}" in done.err
    again = command("tune", model, data, "--rank", "4", "--out", run, *FAST)
    assert again.code == 2
    assert f"chatwright runs resume {run}" in again.err
    shown = command("runs", "show", run)
    assert "finished" in shown.out
    resumed = command("runs", "resume", run)
    assert resumed.code == 0, resumed.err
    assert resumed.out == done.out
    # an adapter has no weights to tune: what it says to do is what can be done
    refused = command("tune", run, data, "--out", str(tmp_path / "more"), *FAST)
    assert refused.code == 2
    assert f"{run} is a LoRA adapter of {model}" in refused.err
    assert f"chatwright export {run} --to hf --out DIR" in refused.err
    whole = str(tmp_path / "whole")
    assert command("export", run, "--to", "hf", "--out", whole).code == 0
    assert command("tune", whole, data, "--rank", "4", "--out", str(tmp_path / "more"), *FAST).code == 0


def test_folds_print_a_table_and_land_in_the_report(command: Run, model: str, data: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = command("tune", model, data, "--folds", "2", "--no-final", "--out", str(run), *FAST)
    assert done.code == 0, done.err
    heading, bits, loss, answers, bits_before, _loss_before, _answers_before = done.out.splitlines()
    assert heading.split() == ["FIGURE", "MEAN", "SD", "N", "FOLD", "1", "FOLD", "2"]
    assert bits.startswith("bits per byte ")
    assert bits.split()[5] == "2"
    assert loss.split()[0] == "loss"
    assert answers.startswith("token F1 of answers ")
    assert bits_before.startswith("bits per byte, before training ")
    report = (run / "report.html").read_text()
    assert "<h2>Folds</h2>" in report
    assert "<td>bits per byte, before training</td>" in report
    assert "<td>token_f1</td>" not in report
    one = json.loads((run / "folds.json").read_text())["figures"]["loss"]
    assert loss.split()[1] == f"{one['mean']:.4f}"
    listed = command("runs", "ls", str(tmp_path)).out
    assert "finished" in listed
    assert "2/2 trainings" in listed
    shown = command("runs", "show", str(run)).out
    assert f"{one['mean']:.4f} ± {one['sd']:.4f}" in shown
    entry = json.loads(command("runs", "show", str(run), "--json").out)
    assert (entry["state"], entry["folds"]) == ("finished", {"done": 2, "n": 2})
    assert entry["figures"]["loss"] == one["mean"]


def test_comparing_augmentations_says_whether_each_helped(
    command: Run, model: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = command(
        "tune", model, data, "--augment", "compare", "--folds", "2", "--out", str(tmp_path / "run"), "--json", *FAST
    )
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert set(report["comparisons"]["differences"]) == {"word-dropout", "word-swap", "typos"}
    assert report["result"] is None
    shown = command("runs", "show", str(tmp_path / "run")).out
    assert "8/8" in shown
    assert "augmentation typos" in shown
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    table = command("runs", "resume", str(tmp_path / "run"))
    assert "word-dropout" in table.out
    assert "结论" in table.out
    assert "每字节比特数" in table.out
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<th>每字节比特数</th>" in report
    assert "<td>无</td>" in report


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "rlhf"], "--method is one of full, lora, dpo, classify, tag"),
        (["--augment", "synonyms"], "word-dropout, word-swap, typos"),
        (["--augment", "compare"], "add --folds 5"),
        (["--folds", "1"], "--folds"),
        (["--lr", "nan"], "--lr"),
        (["--method", "full", "--rank", "8"], "--rank has no meaning for --method full"),
        (["--context", "100000"], "more than the model can read (512 tokens)"),
    ],
)
def test_wrong_usage_is_a_sentence_and_leaves_nothing(
    command: Run, model: str, data: str, tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = command("tune", model, data, "--out", str(tmp_path / "run"), *arguments)
    assert done.code == 2
    assert words in done.err
    assert not (tmp_path / "run").exists()


def test_the_wrong_dataset_names_the_method_that_fits(command: Run, model: str, tmp_path: Path) -> None:
    write_dataset(tmp_path / "labels", {"labelled": {"train": [{"text": "a", "label": "x"}]}})
    done = command("tune", model, str(tmp_path / "labels"), "--out", str(tmp_path / "run"))
    assert done.code == 1
    assert "--method classify" in done.err


@pytest.mark.parametrize(("method", "limit_mb"), [("full", 40), ("full", 90), ("dpo", 90)])
def test_a_memory_limit_is_a_sentence(tmp_path: Path, data: str, method: str, limit_mb: int) -> None:
    """As under `ulimit -v`: too little for the file of the model, and for its weights."""
    folder = make_model_folder(tmp_path / "large")
    (folder / "model.safetensors").unlink()
    save_model(tiny_gpt(VOCAB, n_layer=4, d_ff=20_000), tmp_path / "weights", extra={"eos_token_id": 2})  # 63 MB
    for file in (tmp_path / "weights").iterdir():
        file.replace(folder / file.name)
    if method == "dpo":
        pair = {"messages": chat("Open?"), **{side: chat("", side)[1:] for side in ("chosen", "rejected")}}
        data = str(write_dataset(tmp_path / "pairs", {"preferences": {"train": [pair] * 3}}).path)
    code = (
        "import resource, sys, psutil, torch._dynamo; from chatwright.cli import main; import chatwright.training.tune;"
        f"limit = psutil.Process().memory_info().vms + {limit_mb} * 2**20;"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit)); sys.argv[0] = 'chatwright'; main()"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "tune",
            str(folder),
            data,
            "--method",
            method,
            "--out",
            str(tmp_path / "run"),
            *FAST,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    said = " ".join(done.stderr.split())
    assert "Memory ran out. Take fewer rows at a time (--micro-rows), a shorter context (--context)" in said
    assert "--size" not in said
    assert "Traceback" not in said
