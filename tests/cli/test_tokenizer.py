"""`chatwright tokenizer train`: what it prints, what it writes, and what it never overwrites."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chatwright.cli.edge import run
from chatwright.text.dataset import write_dataset
from chatwright.tokenizer import load_tokenizer

ENGLISH = "The quick brown fox jumps over the lazy dog, and the dog does not mind. "
CHINESE = "今天天气很好，我们去公园散步。明天也去公园，后天还去。"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    documents = [{"text": ENGLISH * 20, "language": "en"}, {"text": CHINESE * 20, "language": "zh"}]
    talk = [{"messages": [{"role": "user", "content": "公园?"}, {"role": "assistant", "content": "Yes, 公园."}]}]
    write_dataset(
        tmp_path / "data",
        {
            "documents": {"train": documents, "held_out": [{"text": CHINESE, "language": "zh"}]},
            "conversations": {"train": talk, "held_out": []},
        },
    )
    return tmp_path / "data"


def test_bytes_per_token_are_printed_by_language(dataset: Path, tmp_path: Path, capsys: Any) -> None:
    assert run(["tokenizer", "train", str(dataset), "--out", str(tmp_path / "out"), "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    tokenizer = load_tokenizer(tmp_path / "out")
    assert report["vocab_size"] == tokenizer.vocab_size <= 512
    train = report["bytes_per_token"]["train"]
    assert set(train) >= {"all", "en", "zh"}
    ids = tokenizer.encode(CHINESE)
    assert report["bytes_per_token"]["held_out"] == {
        "all": pytest.approx(len(CHINESE.encode()) / len(ids), abs=1e-4),
        "zh": pytest.approx(len(CHINESE.encode()) / len(ids), abs=1e-4),
    }
    assert "512 tokens" in err, "the choice is explained"
    assert "fewer than 512" in err, "and so is what the text did not allow"
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {"path": str(tmp_path / "out"), **stored} == report


def test_a_table_goes_to_standard_output(dataset: Path, tmp_path: Path, capsys: Any) -> None:
    arguments = ["tokenizer", "train", str(dataset), "--out", str(tmp_path / "out"), "--vocab-size", "280"]
    assert run([*arguments, "--pattern", "gpt2"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["LANGUAGE", "all", "zh", "en"]
    assert str(tmp_path / "out") in err
    assert (tmp_path / "out" / "merges.txt").is_file()


def test_nothing_is_overwritten(dataset: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    assert run(["tokenizer", "train", str(dataset), "--out", str(tmp_path / "out")]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--vocab-size", "many"], 2, "--vocab-size takes a number"),
        (["--vocab-size", "12"], 2, "from 262"),
        (["--pattern", "llama"], 2, "--pattern is qwen2 or gpt2"),
        (["--size", "big"], 2, "not a size"),
    ],
)
def test_wrong_options_are_explained(
    dataset: Path, tmp_path: Path, capsys: Any, options: list[str], code: int, sentence: str
) -> None:
    assert run(["tokenizer", "train", str(dataset), "--out", str(tmp_path / "out"), *options]) == code
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_empty_dataset_leaves_nothing_behind(tmp_path: Path, capsys: Any) -> None:
    write_dataset(tmp_path / "empty", {"documents": {"train": [], "held_out": []}})
    assert run(["tokenizer", "train", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 1
    assert "no text" in capsys.readouterr().err
    assert not [entry for entry in tmp_path.iterdir() if "out" in entry.name]
