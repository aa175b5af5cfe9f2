"""Exit codes, sentences instead of tracebacks, and a start that loads nothing heavy."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from chatwright import __version__
from chatwright.cli import models
from chatwright.cli.app import app
from chatwright.text.dataset import write_dataset
from tests.cli.conftest import Run

VERBS = [
    "serve",
    "chat",
    "complete",
    "pull",
    "ls",
    "show",
    "rm",
    "bench",
    "usage",
    "evaluate",
    "export",
    "verify",
    "explain",
    "quantize",
    "prune",
    "distill",
    "prepare",
    "plan",
    "train",
    "tune",
    "config",
    "doctor",
]
GROUPS = ["tokenizer", "runs", "adapters", "db", "users", "keys", "limits"]


def test_the_verbs_are_those_of_the_design() -> None:
    assert sorted(typer.main.get_command(app).commands) == sorted([*VERBS, *GROUPS])  # type: ignore[attr-defined]


@pytest.mark.parametrize("args", [["--help"], ["serve", "--help"], ["--version"], ["nonsense"], ["config"]])
def test_the_command_line_starts_without_torch_and_other_heavy_things(args: list[str]) -> None:
    program = (
        "import sys; from chatwright.cli.edge import run\n"
        f"run({args!r})\n"
        "heavy = {'torch', 'openai', 'transformers', 'fastapi', 'huggingface_hub', 'tokenizers'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_version(command: Run) -> None:
    result = command("--version")
    assert (result.code, result.out) == (0, f"chatwright {__version__}\n")


@pytest.mark.parametrize("verb", [*VERBS, *GROUPS])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_help_is_whole_on_a_narrow_terminal(
    verb: str, language: str, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", language)
    result = command(verb, "--help")
    assert result.code == 0
    assert f"chatwright {verb}" in result.out
    assert "…" not in result.out  # where a word was too long for its column


def test_help_in_chinese(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    result = command("--help")
    assert "用法" in result.out
    assert "列出本机的模型" in result.out
    assert "显示此帮助并退出" in result.out
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "en")
    assert "List the models on this machine" in command("--help").out


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["srve"], "There is no command srve. Did you mean serve?"),
        (["ls", "--jsn"], "There is no option --jsn. Did you mean --json?"),
        (["show"], "NAME"),
        (["pull", "a", "b", "c"], "Too many arguments: b c."),
        (["serve", "--port"], "--port needs a value behind it."),
        (["ls", "--json=1"], "--json takes no value."),
        (["serve", "--quantization", "int3"], "auto, int8, int4, bf16, fp32"),
        (["serve", "--port", "0", "--adapter", "x"], "--adapter takes NAME=DIR"),
        (["serve", "--port", "high"], "port"),
        (["serve", "--host", "0.0.0.0"], "needs a key"),
        (["serve", "--host", "nowhere.invalid", "--api-key", "k"], "is not an address of this machine"),
        (["complete", "m", "p", "--temperature", "nan"], "--temperature takes a number from 0 to 2"),
        (["complete", "m", "p", "--max-tokens", "1.5"], "--max-tokens takes a number"),
        (["complete", "m", ""], "The prompt is empty"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_a_sentence(args: list[str], sentence: str, command: Run) -> None:
    result = command(*args)
    assert result.code == 2
    assert sentence in result.err
    assert "Traceback" not in result.err
    assert result.out == ""


def test_no_arguments_show_the_help(command: Run) -> None:
    result = command()
    assert result.code in (0, 2)
    assert "serve" in result.out + result.err


@pytest.mark.parametrize("verb", ["show", "complete", "chat", "serve"])
def test_an_unknown_model_is_exit_code_1(verb: str, command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = ["prompt"] if verb == "complete" else ["--port", "0"] if verb == "serve" else []
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Hello")))
    result = command(verb, "no-such-model", *extra)
    assert result.code == 1
    assert "No model is called no-such-model" in result.err


def test_errors_are_in_the_users_language(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    assert "没有名为 gone 的模型" in command("show", "gone").err
    assert "您是想写 serve 吗" in command("srve").err


def test_a_bug_is_one_sentence_and_a_file(command: Run, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    def broken() -> None:
        raise RuntimeError("a bug\nin two lines")

    monkeypatch.setattr(models, "open_models", broken)
    result = command("ls")
    assert result.code == 1
    assert "Something went wrong inside Chatwright (RuntimeError: a bug)" in result.err
    assert "Traceback" not in result.err
    (log,) = (home / "logs").iterdir()
    assert str(log) in result.err
    assert "in two lines" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert "Traceback" in command("-v", "ls").err


def test_ctrl_c_is_exit_code_130(command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "open_models", interrupted)
    result = command("ls")
    assert (result.code, result.err) == (130, "")


def test_a_reader_that_leaves_is_no_error_message(tiny: str) -> None:
    result = subprocess.run(
        f"{sys.executable} -m chatwright config --json | head -n 1", shell=True, capture_output=True, text=True
    )
    assert result.stdout == "{\n"
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


def test_the_language_of_the_configuration_file_is_spoken(
    command: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHATWRIGHT_LANGUAGE")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    home.mkdir()
    (home / "config.toml").write_text('language = "zh"\n')
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "")  # restored by monkeypatch whatever the command makes of it
    assert "还没有模型" in command("ls").err


@pytest.mark.parametrize(
    "arguments",
    [
        ("prepare", "text.txt", "--out", "taken"),
        ("tokenizer", "train", "data", "--out", "taken"),
        ("train", "data", "--size", "10k", "--out", "taken"),
        ("tune", "MODEL", "data", "--method", "full", "--out", "taken"),
        ("quantize", "MODEL", "--to", "int8", "--out", "taken"),
        ("prune", "MODEL", "--ratio", "0.5", "--calibration", "data", "--out", "taken"),
        ("distill", "MODEL", "MODEL", "data", "--out", "taken"),
        ("export", "MODEL", "--to", "gguf", "--out", "taken"),
        ("export", "MODEL", "--to", "hf", "--out", "taken"),
        ("explain", "MODEL", "hi", "--html", "taken"),
        ("evaluate", "MODEL", "--tasks", "text.txt", "--out", "taken"),
    ],
    ids=lambda arguments: " ".join(arguments[:1] + arguments[3:4]),
)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_output_path_that_is_taken_is_wrong_usage_before_any_work(
    command: Run, tiny: str, arguments: tuple[str, ...], kind: str
) -> None:
    """Some commands called it a failure (1), and some had said what they do, or had loaded a model, before they refused."""
    Path("text.txt").write_text("A line of text.\n")
    write_dataset("data", {"documents": {"train": [{"text": "A line of text."}]}})
    taken = Path("taken") if kind == "file" else Path("taken/mine.txt")
    taken.parent.mkdir(exist_ok=True)
    taken.write_text("mine")
    done = command(*(tiny if argument == "MODEL" else argument for argument in arguments))
    assert done.code == 2, done.err
    assert "taken" in done.err
    assert len(done.err.splitlines()) == 1, "a sentence, and nothing before it"
    assert taken.read_text() == "mine"
    assert done.out == ""
