"""The terminal's side of a conversation: reads lines and commands, writes answers as they come.

Nothing that is said is written to disk, except by /save.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

from chatwright.cli.conversation import Conversation
from chatwright.cli.output import Output
from chatwright.cli.terminal import printable
from chatwright.errors import ChatwrightError, StorageError, UsageError
from chatwright.i18n import _, describe_error

FENCE = '"""'


class Repl:
    """Reads, answers, repeats. Ctrl-C stops the answer; at an empty prompt, pressed twice, it leaves (exit code 130)."""

    def __init__(self, conversation: Conversation, runner: asyncio.Runner, output: Output) -> None:
        self.conversation = conversation
        self.runner = runner
        self.output = output
        self.commands: dict[str, tuple[str, Callable[[str], None]]] = {
            "/help": (_("list the commands"), self._help),
            "/clear": (_("forget the conversation"), self._clear),
            "/system": (_("TEXT: instructions to the model; without TEXT, show them"), self._system),
            "/set": (_("NAME VALUE: e.g. /set temperature 0.2; alone, show all"), self._set),
            "/regenerate": (_("another answer to your last message"), self._regenerate),
            "/save": (_("FILE: write the conversation as Markdown, or as JSON to FILE.json"), self._save),
            "/exit": (_("leave (or Ctrl-D)"), self._exit),
        }
        self.leaving = False

    def loop(self) -> int:
        """Talk until the user leaves; the exit code."""
        from chatwright.cli.serve import languages_sentence

        model = self.conversation.model
        self.output.say(_("You are talking with {name}. /help lists the commands.", name=model.name))
        if sentence := languages_sentence(model.name, model.languages):
            self.output.say(sentence)
        read = line_reader()
        interrupted = False
        while not self.leaving:
            try:
                text = self._read_message(read)
            except EOFError:
                return 0
            except KeyboardInterrupt:
                if interrupted:
                    return 130
                interrupted = True
                self.output.say(_("Ctrl-C again, or /exit, leaves."))
                continue
            interrupted = False
            if text.startswith("/"):
                self.run_command(text)
            elif text.strip():
                self.say(text)
        return 0

    def say(self, text: str) -> int:
        """Send a message and write the answer; 0, or 1 when there was none, or 130 when it was stopped."""
        self.conversation.say(text)
        return self._answer()

    def run_command(self, line: str) -> None:
        """Carry out a line such as `/set temperature 0.2`. Errors are told, never raised."""
        name, _space, rest = line.strip().partition(" ")
        matches = [command for command in self.commands if command == name]
        matches = matches or [command for command in self.commands if command.startswith(name) and len(name) > 1]
        if name == "/bye" or name == "/quit":
            matches = ["/exit"]
        if len(matches) != 1:
            self.output.say(_("There is no command {name}; /help lists them.", name=printable(name)))
            return
        try:
            self.commands[matches[0]][1](rest.strip())
        except ChatwrightError as error:
            self.output.say(describe_error(error))

    def _read_message(self, read: Callable[[str], str]) -> str:
        """A line, or, between two lines of `\"\"\"`, several."""
        line = read(">>> ")
        if not line.lstrip().startswith(FENCE):
            return line
        lines = [line.lstrip().removeprefix(FENCE)]
        while not lines[-1].rstrip().endswith(FENCE):
            lines.append(read("... "))
        lines[-1] = lines[-1].rstrip().removesuffix(FENCE)
        return "\n".join(lines).strip("\n")

    def _answer(self) -> int:
        try:
            self.runner.run(self._write_answer())
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            self.output.say(_("Stopped."))
            return 130
        except ChatwrightError as error:
            self.output.say(describe_error(error))
            return 1
        if self.conversation.finish_reason == "length":
            self.output.say(_("(The answer was cut: it reached the length limit.)"))
        return 0

    async def _write_answer(self) -> None:
        show = printable if sys.stdout.isatty() else str
        async with aclosing(self.conversation.answer()) as pieces:
            async for piece in pieces:
                sys.stdout.write(show(piece))
                sys.stdout.flush()
        sys.stdout.write("\n")
        sys.stdout.flush()

    def _help(self, _rest: str) -> None:
        for name, (text, _run) in self.commands.items():
            self.output.say(f"  {name:<12} {text}")
        self.output.say(f"  {FENCE:<12} " + _("starts and ends a message of several lines"))
        self.output.say(f"  {'Ctrl-C':<12} " + _("stops the answer"))

    def _clear(self, _rest: str) -> None:
        self.conversation.turns.clear()
        self.output.say(_("The conversation was forgotten."))

    def _system(self, rest: str) -> None:
        if rest:
            self.conversation.system = rest
        self.output.say(_("System message: {text}", text=printable(self.conversation.system or "-")))

    def _set(self, rest: str) -> None:
        name, _space, value = rest.partition(" ")
        if name and not value:
            raise UsageError("A value is missing: write, for example, /set temperature 0.2.")
        if name:
            self.conversation.set(name, value.strip())
        for key, shown in self.conversation.settings().items():
            if not name or key == name:
                self.output.say(f"  {key} = {_('default') if shown is None else shown}")

    def _regenerate(self, _rest: str) -> None:
        if not self.conversation.forget_answer():
            raise UsageError("There is no message to answer yet.")
        self._answer()

    def _save(self, rest: str) -> None:
        if not rest:
            raise UsageError("A file name is missing: write, for example, /save talk.md.")
        path = Path(rest).expanduser()
        save_conversation(path, self.conversation)
        self.output.say(_("Saved to {path}.", path=path))

    def _exit(self, _rest: str) -> None:
        self.leaving = True


def save_conversation(path: Path, conversation: Conversation) -> None:
    """Write a new file that only its user can read: JSON for `.json`, Markdown else. Raises StorageError, UsageError."""
    if path.suffix == ".json":
        text = json.dumps({"messages": conversation.messages}, ensure_ascii=False, indent=2) + "\n"
    else:
        text = "\n".join(f"**{message['role']}**\n\n{message['content']}\n" for message in conversation.messages)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UsageError("{path} exists already: choose another name.", path=path) from error
    except OSError as error:
        raise StorageError("{path} cannot be written ({reason}).", path=path, reason=error.strerror or error) from error


def line_reader() -> Callable[[str], str]:
    """Reads a line with editing, history (in memory only) and characters of any width."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import InMemoryHistory
    from prompt_toolkit.output import create_output

    session: PromptSession[str] = PromptSession(history=InMemoryHistory(), output=create_output(stdout=sys.stderr))
    return session.prompt
