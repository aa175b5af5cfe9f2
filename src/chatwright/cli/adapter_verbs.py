"""`adapters`: LoRA adapters of a running server, listed, loaded and unloaded without a restart."""

from __future__ import annotations

from typing import Annotated

import typer

from chatwright.cli.output import Output, read_settings
from chatwright.i18n import _

URL_HELP = "The server's address. Default: the one that serves your home folder."
JSON_HELP = "Print JSON."


def ls(
    context: typer.Context,
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help=URL_HELP, show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """List the adapters that a running server answers with, and those that it could load."""
    from chatwright.cli.remote import ServerClient

    output: Output = context.obj
    with ServerClient.of(read_settings(), url) as server:
        adapters = server.get("/v1/lora_adapters")["data"]
    if as_json:
        output.json(adapters)
        return
    if not adapters:
        output.say(
            _("There are no adapters: `chatwright adapters load NAME=DIR` copies one to where the server looks.")
        )
        return
    output.table(
        [_("ADAPTER"), _("STATE"), _("MODEL"), _("FOLDER")],
        [
            [
                adapter["id"],
                _("loaded") if adapter["loaded"] else _("not loaded"),
                adapter.get("base_model") or "-",
                (adapter.get("source") or "-") if adapter["loaded"] else adapter["id"],
            ]
            for adapter in adapters
        ],
    )


def load(
    context: typer.Context,
    adapter: Annotated[
        str,
        typer.Argument(
            metavar="NAME[=DIR]",
            help="An adapter in adapters, runs or models of the home folder; with DIR it is first copied there.",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NAME", help="What it shall be called as a model. Default: the same.", show_default=False
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base", metavar="MODEL", help="The model it is for, where several are served.", show_default=False
        ),
    ] = None,
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help=URL_HELP, show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Load an adapter into a running server: it answers at once as a model of its own, beside the others."""
    from pathlib import Path

    from chatwright.cli.remote import ServerClient
    from chatwright.hub.adapters import AdapterFolders

    output: Output = context.obj
    settings = read_settings()
    source, equals, folder = adapter.partition("=")
    with ServerClient.of(settings, url) as server:
        if equals:
            path = AdapterFolders.of(settings).add(source, Path(folder).expanduser())
            output.say(_("Copied to {path}.", path=path))
        body = {"lora_name": name or source, "lora_path": source}
        loaded = server.post("/v1/load_lora_adapter", body | ({"base_model_name": base} if base else {}))
    if as_json:
        output.json(loaded)
        return
    output.say(_("{name} is loaded: {url} answers with it as a model of its own.", name=loaded["id"], url=server.url))


def unload(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the adapter is called as a model.")],
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help=URL_HELP, show_default=False)] = None,
) -> None:
    """Unload an adapter from a running server; answers under way end with it."""
    from chatwright.cli.remote import ServerClient

    output: Output = context.obj
    with ServerClient.of(read_settings(), url) as server:
        server.post("/v1/unload_lora_adapter", {"lora_name": name})
    output.say(_("{name} is unloaded. Its files are where they were.", name=name))
