"""`chatwright prepare`: what it prints, where, in which language, and with which exit code."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest

from chatwright.text.dataset import Dataset
from chatwright.text.work import locked
from tests.cli.conftest import Run

STORY = (
    "The harbour was quiet all morning, and the boats lay still while the old men mended their nets. Towards noon a wind came up"
    " from the south, the first in weeks, and within the hour every sail that could be carried was set. Only the widow's boat"
    " stayed behind, because her sons had gone to the town to sell the last of the winter's wool."
)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(30):
        text = f"Note {number}: the boat number {number * 7919} left the harbour with {number**3} baskets of fish for the market."
        (folder / f"{number}.md").write_text(text)
    (folder / "中文.txt").write_text(
        "天色渐渐暗下来，街上的人也少了。他站在桥头，看着河水慢慢流过，想起了小时候的许多事情。"
    )
    (folder / "short.txt").write_text("Hi.")
    return folder


def test_the_report_goes_to_standard_output_and_the_rest_to_standard_error(
    command: Run, corpus: Path, tmp_path: Path
) -> None:
    result = command("prepare", str(corpus), "--out", str(tmp_path / "data"), "--workers", "1")
    assert result.code == 0
    assert "too short" in result.out
    assert "documents" in result.out
    assert "plain text" in result.out
    assert "dropped.jsonl" in result.err
    assert "chatwright train" in result.err
    dataset = Dataset.open(tmp_path / "data")
    assert sum(dataset.n_rows(split, "documents") for split in ("train", "held_out")) == 31


def test_what_surprises_in_a_small_set_is_told(command: Run, corpus: Path, tmp_path: Path) -> None:
    for number in range(20):
        (corpus / f"again {number}.md").write_text(f"{STORY} Copy {number}.")
    said = command("prepare", str(corpus), "--out", str(tmp_path / "a"), "--workers", "1").err
    assert "19 of 51 rows say nearly the same as others and were left out; --near-duplicates off keeps them." in said
    assert "Of the documents, 6 rows of 32 are held out (" in said
    assert "and not the usual 5 %: of a small set 20 rows, or a fifth where that is less." in said
    options = ("--workers", "1", "--near-duplicates", "off", "--held-out", "0")
    said = command("prepare", str(corpus), "--out", str(tmp_path / "b"), *options).err
    assert "nearly the same" not in said
    assert "a fifth" not in said
    assert "Nothing of the documents is held out" in said


def test_json_is_the_manifest(command: Run, corpus: Path, tmp_path: Path) -> None:
    options = ("--json", "--languages", "zh", "--near-duplicates", "off", "--workers", "1", "--held-out", "0.1")
    result = command("-q", "prepare", str(corpus), "--out", str(tmp_path / "data"), *options)
    assert result.code == 0
    assert result.err == ""
    report = json.loads(result.out)
    assert report["fingerprint"] == Dataset.open(tmp_path / "data").fingerprint
    assert {step["name"]: step["dropped"] for step in report["steps"]}["language"] == {"en": 31}


def test_chinese_users_read_chinese(
    command: Run, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    result = command("prepare", str(corpus), "--out", str(tmp_path / "data"), "--workers", "1")
    assert "过短" in result.out
    report = (tmp_path / "data" / "report.md").read_text(encoding="utf-8")
    for kind, split in (("文档（documents）", "训练（train）"), ("文档（documents）", "留出（held_out）")):
        assert f"| {kind} | {split} |" in report
        assert any(kind in line and split in line for line in result.out.splitlines())
    assert "读取与清洗" in result.err
    assert "数据集报告" in (tmp_path / "data" / "report.html").read_text(encoding="utf-8")
    result = command("prepare", str(corpus), "--out", str(tmp_path / "data"))
    assert (result.code, "已存在" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("--held-out", "1.5"), 2, "--held-out takes a number"),
        (("--held-out", "nowhere.jsonl"), 2, "There is no file or folder nowhere.jsonl"),
        (("--languages", "english"), 2, "--languages takes codes"),
        (("--near-duplicates", "0.2"), 2, "--near-duplicates takes a number"),
        (("--on-bad-row", "ask"), 2, "--on-bad-row takes skip or stop"),
        (("--workers", "0"), 2, "--workers takes a number"),
        (("--languages", "ko"), 1, "Nothing is left"),
    ],
)
def test_mistakes_are_sentences(
    command: Run, corpus: Path, tmp_path: Path, options: tuple[str, ...], code: int, sentence: str
) -> None:
    result = command("prepare", str(corpus), "--out", str(tmp_path / "data"), *options)
    assert result.code == code
    assert sentence in " ".join(result.err.split())
    assert not (tmp_path / "data").exists()


def test_a_second_one_on_the_same_dataset_is_refused(command: Run, corpus: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "data"):
        result = command("prepare", str(corpus), "--out", str(tmp_path / "data"))
    assert result.code == 1
    assert "Another process is preparing" in result.err


def test_ctrl_c_says_that_the_command_goes_on(
    process: Callable[..., Popen[str]], command: Run, corpus: Path, tmp_path: Path
) -> None:
    for number in range(120):
        (corpus / f"more{number}.txt").write_text(" ".join(str(n * number) + " words of text" for n in range(2000)))
    running = process("prepare", str(corpus), "--out", str(tmp_path / "data"), "--workers", "2")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".data.preparing/batch-*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _out, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "goes on where it stopped" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "data").exists()
    result = command("prepare", str(corpus), "--out", str(tmp_path / "data"), "--workers", "1")
    assert result.code == 0
    assert "Going on with what an interrupted run has finished" in result.err


def test_a_bad_row_is_named_in_the_language_of_the_user(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": ]}\n')
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    done = command("prepare", str(tmp_path / "rows.jsonl"), "--on-bad-row", "stop", "--out", str(tmp_path / "out"))
    assert done.code == 1
    assert "第 2 行，无法读取（不是 JSON：这里应有一个值（第 10 个字符处））" in done.err
    (tmp_path / "rows.json").write_text('{"train": [{"text": "a"}], "test": [{"text": ""}]}')
    done = command("prepare", str(tmp_path / "rows.json"), "--on-bad-row", "stop", "--out", str(tmp_path / "out"))
    assert "test, 第 1 条" in done.err
    assert not (tmp_path / "out").exists()
