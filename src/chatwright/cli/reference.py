"""The reference of the command line as Markdown, made from the commands themselves: `python -m chatwright.cli.reference DIR`.

Writes DIR/en/cli.md and DIR/zh/cli.md; a test fails when they are not what this would write.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from chatwright.cli.app import app
from chatwright.i18n import Language, translate
from chatwright.settings import Settings, variable


def reference(language: Language) -> str:
    """The whole page in one language."""
    return "\n".join(_page(language)) + "\n"


def _page(language: Language) -> Iterator[str]:
    def say(text: str) -> str:
        return translate(text, language)

    command: Any = typer.main.get_command(app)
    yield "# " + say("The command line")
    yield ""
    yield say("Made by `python -m chatwright.cli.reference docs`; do not edit.")
    yield ""
    yield say(
        "Data goes to standard output, messages and progress to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage."
    )
    yield from _command("chatwright", command, say)
    yield from _children("chatwright", command, say)
    yield ""
    yield "## " + say("Settings")
    yield ""
    yield say(
        "A flag beats the environment, the environment beats `.env`, that beats `config.toml` in the home folder."
    )
    yield ""
    yield f"| {say('SETTING')} | {say('VARIABLE')} | {say('Default')} |"
    yield "| --- | --- | --- |"
    for field, info in Settings.model_fields.items():
        default = "" if info.default_factory is not None or info.default in (None, ()) else f"`{info.default}`"
        yield f"| `{field}` | `{variable(field)}` | {default} |"


def _children(path: str, command: Any, say: Any) -> Iterator[str]:
    for name, child in getattr(command, "commands", {}).items():
        yield from _command(f"{path} {name}", child, say)
        yield from _children(f"{path} {name}", child, say)


def _command(path: str, command: Any, say: Any) -> Iterator[str]:
    yield ""
    yield f"## {path}"
    yield ""
    yield say(command.help)
    yield ""
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    usage = [path, "[OPTIONS]", *("[COMMAND]" if hasattr(command, "commands") else "",)]
    for argument in arguments:
        name = argument.metavar + ("..." if argument.nargs == -1 else "")
        usage.append(name if argument.required else f"[{name}]")
    yield "```"
    yield " ".join(part for part in usage if part)
    yield "```"
    yield ""
    for argument in arguments:
        yield f"- `{argument.metavar}`: {say(argument.help)}"
    for option in command.params:
        if option.param_type_name == "option":
            names = ", ".join(f"`{name}`" for name in option.opts)
            value = f" `{option.metavar}`" if option.metavar and not option.is_flag else ""
            yield f"- {names}{value}: {say(option.help)}"


def main() -> None:
    """Write the pages into the folder given."""
    folder = Path(sys.argv[1])
    languages: tuple[Language, ...] = ("en", "zh")
    for language in languages:
        page = folder / language / "cli.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(reference(language), encoding="utf-8")


if __name__ == "__main__":
    main()
