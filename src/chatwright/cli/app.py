"""The command line's tree of verbs, its global options, and its translation into the user's language."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from chatwright import __version__
from chatwright.cli import (
    adapter_verbs,
    bench,
    chat,
    complete,
    compress,
    config,
    db,
    doctor,
    evaluate,
    explain,
    keys,
    limits,
    models,
    plan,
    prepare,
    runs,
    serve,
    tokenizer,
    train,
    tune,
    usage,
    users,
)
from chatwright.cli.export import export
from chatwright.cli.output import Output
from chatwright.cli.verify import verify
from chatwright.i18n import _, detect_language


class _Translated:
    """A command whose own words (`Usage:`, the text of `--help`) are in the user's language too."""

    def get_usage(self, ctx: Any) -> str:
        usage: str = super().get_usage(ctx)  # type: ignore[misc]
        return usage.replace("Usage:", _("Usage:"), 1)

    def get_help_option(self, ctx: Any) -> Any:
        option: Any = super().get_help_option(ctx)  # type: ignore[misc]
        option.help = _("Show this message and exit.")
        option.display_type_rich = _no_type
        return option


class _Command(_Translated, TyperCommand):
    pass


class _Group(_Translated, TyperGroup):
    pass


def _no_type(ctx: Any) -> None:
    """Shown beside an option instead of its type: `<bool>` beside --quiet tells nobody anything."""
    return None


app = typer.Typer(
    name="chatwright",
    cls=_Group,
    help="Build, train and run your own ChatGPT.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve", cls=_Command)(serve.serve)
app.command("chat", cls=_Command)(chat.chat)
app.command("complete", cls=_Command)(complete.complete)
app.command("pull", cls=_Command)(models.pull)
app.command("ls", cls=_Command)(models.ls)
app.command("show", cls=_Command)(models.show)
app.command("rm", cls=_Command)(models.rm)
app.command("prepare", cls=_Command)(prepare.prepare)
tokenizer_app = typer.Typer(cls=_Group, help="Train tokenizers.", no_args_is_help=True)
tokenizer_app.command("train", cls=_Command)(tokenizer.train)
app.add_typer(tokenizer_app, name="tokenizer")
app.command("plan", cls=_Command)(plan.plan)
app.command("train", cls=_Command)(train.train)
app.command("tune", cls=_Command)(tune.tune)
app.command("quantize", cls=_Command)(compress.quantize)
app.command("prune", cls=_Command)(compress.prune)
app.command("distill", cls=_Command)(compress.distill)
runs_app = typer.Typer(cls=_Group, help="Look at training runs and continue them.", no_args_is_help=True)
runs_app.command("ls", cls=_Command)(runs.ls)
runs_app.command("show", cls=_Command)(runs.show)
runs_app.command("resume", cls=_Command)(runs.resume)
runs_app.command("report", cls=_Command)(runs.report)
app.add_typer(runs_app, name="runs")
adapters_app = typer.Typer(cls=_Group, help="Load and unload LoRA adapters of a running server.", no_args_is_help=True)
adapters_app.command("ls", cls=_Command)(adapter_verbs.ls)
adapters_app.command("load", cls=_Command)(adapter_verbs.load)
adapters_app.command("unload", cls=_Command)(adapter_verbs.unload)
app.add_typer(adapters_app, name="adapters")
app.command("explain", cls=_Command)(explain.explain)
app.command("evaluate", cls=_Command)(evaluate.evaluate)
app.command("export", cls=_Command)(export)
app.command("verify", cls=_Command)(verify)
users_app = typer.Typer(cls=_Group, help="Who may sign in.", no_args_is_help=True)
users_app.command("ls", cls=_Command)(users.ls)
users_app.command("add", cls=_Command)(users.add)
users_app.command("link", cls=_Command)(users.link)
users_app.command("role", cls=_Command)(users.role)
users_app.command("suspend", cls=_Command)(users.suspend)
users_app.command("resume", cls=_Command)(users.resume)
users_app.command("rm", cls=_Command)(users.rm)
app.add_typer(users_app, name="users")
keys_app = typer.Typer(cls=_Group, help="API keys of users.", no_args_is_help=True)
keys_app.command("ls", cls=_Command)(keys.ls)
keys_app.command("add", cls=_Command)(keys.add)
keys_app.command("revoke", cls=_Command)(keys.revoke)
app.add_typer(keys_app, name="keys")
limits_app = typer.Typer(cls=_Group, help="What keys, users and models may use.", no_args_is_help=True)
limits_app.command("ls", cls=_Command)(limits.ls)
limits_app.command("set", cls=_Command)(limits.set_)
limits_app.command("rm", cls=_Command)(limits.rm)
app.add_typer(limits_app, name="limits")
app.command("usage", cls=_Command)(usage.usage)
db_app = typer.Typer(cls=_Group, help="Look after the database of accounts.", no_args_is_help=True)
db_app.command("upgrade", cls=_Command)(db.upgrade)
db_app.command("backup", cls=_Command)(db.backup)
db_app.command("restore", cls=_Command)(db.restore)
db_app.command("migrate-to", cls=_Command)(db.migrate_to)
app.add_typer(db_app, name="db")
app.command("config", cls=_Command)(config.config)
app.command("doctor", cls=_Command)(doctor.doctor)
app.command("bench", cls=_Command)(bench.bench)


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"chatwright {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what went wrong.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more, and show tracebacks.")] = False,
) -> None:
    """Global options, before the verb."""
    context.obj = Output(quiet=quiet, verbose=verbose)


def build_command() -> TyperGroup:
    """The command tree with its help texts in the user's language."""
    command: Any = typer.main.get_command(app)
    for parameter in parameters(command):
        if parameter.param_type_name == "argument" or getattr(parameter, "is_flag", False):
            parameter.display_type_rich = _no_type
    if detect_language() != "en":
        for text_owner, attribute in help_texts(command):
            setattr(text_owner, attribute, _breakable(_(getattr(text_owner, attribute))))
        _translate_headings()
    return command  # type: ignore[no-any-return]


def _breakable(text: str) -> str:
    """Chinese with a space behind punctuation: the library wraps at spaces only, and cuts off what is longer than a line."""
    return re.sub(r"([，。；：、）])(?=[^\s，。；：、）])", r"\1 ", text)


def help_texts(command: Any) -> Iterator[tuple[Any, str]]:
    """Every (object, attribute) of the tree that holds a help text."""
    for attribute in ("help", "short_help"):
        if getattr(command, attribute, None):
            yield command, attribute
    for parameter in command.params:
        if getattr(parameter, "help", None):
            yield parameter, "help"
    for child in getattr(command, "commands", {}).values():
        yield from help_texts(child)


def parameters(command: Any) -> Iterator[Any]:
    """Every option and argument of the tree."""
    yield from command.params
    for child in getattr(command, "commands", {}).values():
        yield from parameters(child)


def _translate_headings() -> None:
    """The library's own words. It keeps them as constants of a module and offers no other way to set them."""
    from typer import rich_utils

    rich_utils.ARGUMENTS_PANEL_TITLE = _("Arguments")
    rich_utils.OPTIONS_PANEL_TITLE = _("Options")
    rich_utils.COMMANDS_PANEL_TITLE = _("Commands")
    rich_utils.REQUIRED_LONG_STRING = _("[required]")
