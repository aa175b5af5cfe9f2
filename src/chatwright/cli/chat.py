"""`chat`: a conversation with a model, in the terminal or through a pipe."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from chatwright.cli.output import Output
from chatwright.errors import UsageError


def chat(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A model's name, or a path. Without one, the default model.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="Instructions to the model.")] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:0 or mps.")] = None,
) -> None:
    """Talk with a model; /help lists the commands. Piped input is one message."""
    import asyncio

    from chatwright.cli.complete import loaded_model, read_prompt
    from chatwright.cli.conversation import Conversation
    from chatwright.cli.repl import Repl

    output: Output = context.obj
    message = None
    if not sys.stdin.isatty():
        message = read_prompt().strip()
        if not message:
            raise UsageError("Standard input holds no message.")
    with loaded_model(model, device, output) as text_model, asyncio.Runner() as runner:
        try:
            repl = Repl(Conversation(text_model, system=system), runner, output)
            code = repl.say(message) if message is not None else repl.loop()
        finally:
            runner.run(text_model.close())
    raise typer.Exit(code)
