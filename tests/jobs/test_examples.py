"""Training files are read strictly: a line that is wrong is named by its number, and what is around the mistake is not repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chatwright.jobs import examples
from chatwright.jobs.examples import InvalidFileError, make_dataset, read_examples
from chatwright.jobs.folder import Checked
from chatwright.text.dataset import Dataset
from tests.jobs.making import CATS, DOGS, PAIRS, chat, lines, make_job, pair

GOOD = chat("a cat?", "a mat")


def read(tmp_path: Path, data: bytes, method: Any = "supervised") -> list[dict[str, Any]]:
    file = tmp_path / "x.jsonl"
    file.write_bytes(data)
    return list(read_examples(file, method, "training_file", examples.Found()))


@pytest.mark.parametrize(
    ("method", "bad", "word"),
    [
        ("supervised", b"not json", "not valid JSON"),
        ("supervised", b'{"messages": [', "not valid JSON"),
        ("supervised", b'{"messages": NaN}', "not valid JSON"),
        ("supervised", b"\xff\xfe{}", "not valid JSON"),
        ("supervised", b'{"messages": "\\ud800"}', "not valid JSON"),
        ("supervised", b"[1, 2]", "not an object"),
        ("supervised", b"null", "not an object"),
        ("supervised", b"{}", "empty text"),
        ("supervised", b'{"messages": []}', "no assistant turn"),
        ("supervised", b'{"messages": "hello"}', "unknown shape"),
        ("supervised", lines({"messages": [{"role": "robot", "content": "x"}]}), "unknown role"),
        ("supervised", lines({"messages": [{"role": "user", "content": "x"}]}), "no assistant turn"),
        ("supervised", lines(chat("x", "  ")), "empty assistant turn"),
        ("supervised", lines({"messages": [{"role": "user", "content": {"a": 1}}]}), "not text"),
        ("supervised", lines({"messages": [{**GOOD["messages"][0]}, {**GOOD["messages"][1], "weight": 2}]}), "weight"),
        ("supervised", lines({"prompt": "x"}), "unknown shape"),
        ("supervised", lines({"text": "a document"}), "documents"),
        ("supervised", lines(pair("x", "a", "b")), "preferences"),
        ("dpo", lines(GOOD), "conversations"),
        ("dpo", lines(pair("x", "a", "a")), "chosen equals rejected"),
        ("dpo", lines({"input": "x", "preferred_output": [], "non_preferred_output": []}), "bad row"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, method: Any, bad: bytes, word: str) -> None:
    good = GOOD if method == "supervised" else pair("x", "a", "b")
    with pytest.raises(InvalidFileError) as error:
        read(tmp_path, lines(good) + b"\n" + bad.rstrip() + b"\n" + lines(good), method)
    assert "Line 3" in str(error.value)
    assert word in str(error.value)
    assert (error.value.code, error.value.param) == ("invalid_training_file", "training_file")


@pytest.mark.parametrize("data", [b"", b"\n \r\n\n", b"\xef\xbb\xbf\n"])
def test_no_examples_are_said_to_be_none(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidFileError, match="no examples"):
        read(tmp_path, data)


def test_a_line_without_an_end_fills_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "LONGEST_LINE_BYTES", 1 << 20)
    with pytest.raises(InvalidFileError, match="Line 2 is longer than 1 MiB"):
        read(tmp_path, lines(GOOD) + b'{"messages": "' + b"x" * (3 << 20))


def test_what_may_stand_in_a_file(tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    data = b"\xef\xbb\xbf" + lines(
        chat("你好", "世界 🙂", tools=tools), {"prompt": "The cat", "completion": " sat"}
    ).replace(b"\n", b"\r\n\n")
    rows = read(tmp_path, data)
    assert [row["id"] for row in rows] == ["line-1", "line-3"]
    assert rows[0]["tools"] == tools
    assert rows[1]["messages"][1] == {"role": "assistant", "content": " sat"}


def test_a_dataset_holds_every_line_once(tmp_path: Path, base: Path) -> None:
    """Also those that are alike: whoever trains by the API gets what they sent."""
    folder = make_job(tmp_path, base, [*CATS, CATS[0], CATS[0]], DOGS)
    assert make_dataset(folder, "supervised") == Checked(10, False) == folder.checked()
    dataset = Dataset.open(folder.path / "dataset")
    assert dataset.n_rows("train", "conversations") == 10
    assert dataset.n_rows("held_out", "conversations") == 3
    pairs = make_job(tmp_path, base, PAIRS, method="dpo")
    make_dataset(pairs, "dpo")
    assert Dataset.open(pairs.path / "dataset").n_rows("train", "preferences") == 6


def test_prompts_and_completions_are_told_from_chats(tmp_path: Path, base: Path) -> None:
    texts = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]
    for rows, all_texts in ((texts, True), ([*texts, GOOD], False), ([GOOD], False)):
        assert make_dataset(make_job(tmp_path, base, rows), "supervised").texts is all_texts


def test_a_bad_validation_file_is_named_by_its_own_name(tmp_path: Path, base: Path) -> None:
    folder = make_job(tmp_path, base, CATS, [{"messages": []}])
    with pytest.raises(InvalidFileError) as error:
        make_dataset(folder, "supervised")
    assert (error.value.code, error.value.param) == ("invalid_validation_file", "validation_file")
    assert folder.checked() is None
