"""`plan`: the run that `train` would do, with what it takes; or why it cannot be, and what can."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.training.corpus import make_dataset

SMALL = ("--size", "60k", "--context", "32", "--steps", "40", "--micro-rows", "4", "--precision", "fp32")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_dataset(tmp_path_factory.mktemp("plan") / "dataset").path)


def test_a_plan_as_json_has_every_figure(command: Run, dataset: str) -> None:
    done = command("plan", dataset, *SMALL, "--json")
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    assert plan["steps"] == 40
    assert plan["tokens"] == 40 * plan["tokens_per_step"]
    assert plan["seconds"] > 0
    assert 0 < plan["memory_bytes"] < plan["memory_available_bytes"]
    assert 0 < plan["disk_bytes"] < plan["disk_free_bytes"]
    assert 0 < plan["expected_bits_per_byte"]["bits_per_byte"] < 8
    assert plan["basis"]["trigram"] > 0
    assert plan["reasons"]["n_steps"] == "as asked"


def test_a_plan_is_read_in_the_users_language(
    command: Run, dataset: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    done = command("plan", dataset, *SMALL, "--out", str(tmp_path / "not" / "there" / "yet"))
    assert done.code == 0, done.err
    for word in ("参数", "时间", "内存", "磁盘", "预期", "每字节"):
        assert word in done.out
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        (("--minutes", "0"), 2, "leaves no time to train"),
        (("--minutes", "soon"), 2, "--minutes takes a number"),
        (("--size", "huge"), 2, "is not a size"),
        (("--size", "2b"), 2, "learn it by heart"),
        (("--arch", "bert"), 2, "--arch is one of"),
        (("--cell", "lstm"), 2, "--cell belongs to --arch rnn"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    command: Run, dataset: str, flags: tuple[str, ...], code: int, sentence: str
) -> None:
    done = command("plan", dataset, *flags)
    assert (done.code, done.out) == (code, "")
    assert sentence in done.err
    assert "Traceback" not in done.err


def test_a_folder_that_is_no_dataset_is_named(command: Run, tmp_path: Path) -> None:
    done = command("plan", str(tmp_path))
    assert done.code == 1
    assert str(tmp_path) in done.err.replace("\n", "")
