"""The command line, run in this process or in its own, on a home folder of the test's own with one tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chatwright.cli.edge import run
from chatwright.hub import ModelsFolder, pull
from tests.server.tiny import make_model_folder


@dataclass
class Result:
    """What a command did."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("cli") / "tiny")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, English, and nothing of the user's own settings."""
    for name in list(os.environ):
        if name.startswith(("CHATWRIGHT_", "HF_", "PIP_")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("CHATWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "en")
    monkeypatch.setenv("CHATWRIGHT_THREADS", "1")
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "home"


@pytest.fixture
def tiny(home: Path, tiny_folder: Path) -> str:
    """The name of a model in the home folder."""
    return pull(str(tiny_folder), ModelsFolder(home / "models")).name


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process."""

    def command(*args: str) -> Result:
        capsys.readouterr()
        code = run(args)
        return Result(code, *capsys.readouterr())

    return command


@pytest.fixture
def process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts commands in processes of their own; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def process(*args: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "chatwright", *args],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield process
    for each in started:
        each.kill()
        each.communicate()
