"""complete and chat: text in, text out, and a terminal that stays safe and usable."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwright.cli.conversation import Conversation
from chatwright.cli.output import Output
from chatwright.cli.repl import Repl
from chatwright.cli.terminal import printable
from chatwright.engine.load import load_text_model
from chatwright.settings import Settings
from tests.cli.conftest import Run


class Stdin(io.TextIOWrapper):
    """Piped standard input."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")


def test_the_same_seed_completes_alike(command: Run, tiny: str) -> None:
    args = ["complete", tiny, "The capital", "--seed", "3", "--max-tokens", "8"]
    first = command(*args)
    assert first.code == 0
    assert first.out.strip()
    assert first.err == ""
    assert command(*args).out == first.out


def test_complete_reads_standard_input(command: Run, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = ["--temperature", "0", "--max-tokens", "8"]
    expected = command("complete", tiny, "The capital of", *greedy).out
    monkeypatch.setattr(sys, "stdin", Stdin(b"The capital of"))
    assert command("complete", tiny, "-", *greedy).out == expected
    monkeypatch.setattr(sys, "stdin", Stdin(b"\xff\xfe"))
    result = command("complete", tiny, "-")
    assert (result.code, result.err) == (2, "Standard input is not UTF-8 text (byte 0).\n")


def test_complete_stops_before_the_stop_text(command: Run, tiny: str) -> None:
    args = ["complete", tiny, "The cat", "--temperature", "0", "--max-tokens", "20"]
    whole = command(*args).out.rstrip("\n")
    stop = whole[5:7]
    assert command(*args, "--stop", stop).out.rstrip("\n") == whole[: whole.index(stop)]


def test_a_prompt_that_does_not_fit_is_told_with_the_numbers(command: Run, tiny: str) -> None:
    result = command("complete", tiny, "x", "--max-tokens", "600")
    assert result.code == 1
    assert "512" in result.err

    for n in (300, 600):  # counted, and so long that it need not be
        for more in ([], ["--max-tokens", "8"]):
            result = command("complete", tiny, "x " * n, *more)
            assert result.code == 2
            assert "the 512 tokens that the model can read, or longer: nothing is left for an answer" in result.err


def test_an_answer_without_a_length_of_its_own_takes_what_the_context_leaves(command: Run, tiny: str) -> None:
    prompt = "x " * 225
    result = command("complete", tiny, prompt, "--temperature", "0")
    assert result.code == 0, result.err
    # there was no room for the usual 128 tokens
    refused = command("complete", tiny, prompt, "--max-tokens", "128")
    assert "maximum context length is 512 tokens" in refused.err


def test_a_piped_message_is_answered(command: Run, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin("你好\n第二行\n".encode()))
    result = command("chat", tiny)
    assert result.code == 0
    assert result.out.endswith("\n")
    monkeypatch.setattr(sys, "stdin", Stdin(b" \n"))
    assert command("chat", tiny).code == 2


@pytest.fixture
def repl(tiny_folder: Path, home: Path) -> Iterator[Repl]:
    model = load_text_model(tiny_folder, "tiny", Settings(home=home, threads=1))
    with asyncio.Runner() as runner:
        conversation = Conversation(model)
        conversation.set("max_tokens", "12")
        yield Repl(conversation, runner, Output())
        runner.run(model.close())


def test_a_conversation_keeps_its_turns(repl: Repl) -> None:
    assert repl.say("Hello") == 0
    assert [turn["role"] for turn in repl.conversation.turns] == ["user", "assistant"]
    before = repl.conversation.turns[-1]["content"]
    repl.run_command("/set temperature 2")
    repl.run_command("/regenerate")
    assert [turn["role"] for turn in repl.conversation.turns] == ["user", "assistant"]
    assert repl.conversation.turns[-1]["content"] != before
    repl.run_command("/clear")
    assert repl.conversation.turns == []


def test_every_command_is_listed_and_unknown_ones_are_told(repl: Repl, capsys: pytest.CaptureFixture[str]) -> None:
    repl.run_command("/help")
    listed = capsys.readouterr().err
    for name in ("/clear", "/system", "/set", "/regenerate", "/save", "/exit", '"""', "Ctrl-C"):
        assert name in listed
    repl.run_command("/dance")
    assert "There is no command /dance" in capsys.readouterr().err
    for wrong in ("/set temperature 9", "/set colour red", "/set temperature", "/save", "/regenerate"):
        repl.run_command(wrong)
        assert capsys.readouterr().err.strip(), wrong


def test_a_system_message_reaches_the_model(repl: Repl) -> None:
    repl.run_command("/system Be brief.")
    repl.conversation.say("Hi")
    assert repl.conversation.messages[0] == {"role": "system", "content": "Be brief."}


def test_several_lines_between_triple_quotes_are_one_message(repl: Repl) -> None:
    lines = iter(['"""first', "second", 'third"""', "plain"])
    assert repl._read_message(lambda prompt: next(lines)) == "first\nsecond\nthird"
    assert repl._read_message(lambda prompt: next(lines)) == "plain"
    lines = iter(['"""', "only", '"""'])
    assert repl._read_message(lambda prompt: next(lines)) == "only"


def test_a_message_of_three_quotes_on_one_line(repl: Repl) -> None:
    lines = iter(['"""one line"""', "next"])
    assert repl._read_message(lambda prompt: next(lines)) == "one line"


def test_save_writes_a_private_file_once(repl: Repl, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repl.say("Hello")
    repl.run_command(f"/save {tmp_path / 'talk.json'}")
    saved = json.loads((tmp_path / "talk.json").read_text())
    assert saved["messages"][0] == {"role": "user", "content": "Hello"}
    assert (tmp_path / "talk.json").stat().st_mode & 0o777 == 0o600
    capsys.readouterr()
    repl.run_command(f"/save {tmp_path / 'talk.json'}")
    assert "exists already" in capsys.readouterr().err
    repl.run_command(f"/save {tmp_path / 'no' / 'talk.md'}")
    assert "cannot be written" in capsys.readouterr().err


def test_a_conversation_that_outgrew_the_context_is_told_and_can_go_on(
    repl: Repl, capsys: pytest.CaptureFixture[str]
) -> None:
    assert repl.say("many words " * 400) == 1
    assert "512" in capsys.readouterr().err
    assert repl.conversation.turns == []
    assert repl.say("Hello") == 0


def test_ctrl_c_stops_the_answer_not_the_program(
    repl: Repl, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class InterruptingOutput(io.StringIO):
        def write(self, text: str) -> int:
            if not self.getvalue():
                signal.raise_signal(signal.SIGINT)
            return super().write(text)

    repl.conversation.set("max_tokens", "400")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", InterruptingOutput())
        assert repl.say("Hello") == 130
    assert "Stopped." in capsys.readouterr().err
    assert repl.conversation.turns[-1]["role"] == "assistant"
    repl.runner.run(repl.conversation.model.engine.probe())  # the engine has turned once more
    assert repl.conversation.model.engine.stats().running == 0
    repl.conversation.set("max_tokens", "5")
    assert repl.say("Again") == 0


@given(st.text())
def test_no_control_sequence_reaches_the_terminal(text: str) -> None:
    shown = printable(text)
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in shown if char not in "\n\t")
    assert printable(text[:3]) + printable(text[3:]) == shown
    shown.encode("utf-8")


def test_what_a_person_writes_stays_as_it_is() -> None:
    for text in ("Plain text.\n\tIndented.", "你好，世界！", "🙂 café", "مرحبا"):
        assert printable(text) == text
    assert printable("\x1b[31mred\x1b]0;title\x07") == "␛[31mred␛]0;title␇"
    assert printable("\u202etxt.exe\u009b2J") == "\ufffdtxt.exe\ufffd2J"
