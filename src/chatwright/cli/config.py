"""`config`: every setting, its value, and where the value came from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from chatwright.cli.output import Output, read_settings
from chatwright.i18n import _


def config(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the settings, where each came from, and its environment variable."""
    from chatwright.settings import CONFIG_FILE, Origin, variable

    output: Output = context.obj
    settings = read_settings()
    file = settings.home / CONFIG_FILE
    rows = [
        {"setting": name, "value": _shown(getattr(settings, name)), "origin": origin, "variable": variable(name)}
        for name, origin in settings.origins().items()
    ]
    if as_json:
        entries = [row | {"origin": {"layer": row["origin"].layer, "where": row["origin"].where}} for row in rows]
        output.json({"config_file": str(file), "config_file_exists": file.is_file(), "settings": entries})
        return

    def origin_text(origin: Origin) -> str:
        match origin.layer:
            case "default":
                return _("default")
            case ".env":
                return f".env ({origin.where})"
            case _:
                return origin.where

    output.table(
        [_("SETTING"), _("VALUE"), _("ORIGIN"), _("VARIABLE")],
        [[row["setting"], _text(row["value"]), origin_text(row["origin"]), row["variable"]] for row in rows],
    )
    there = _("exists") if file.is_file() else _("does not exist; create it to keep settings in it")
    output.say("\n" + _("Configuration file: {path} ({there}).", path=file, there=there))


def _shown(value: Any) -> Any:
    """The value as JSON; secrets are never printed."""
    from pydantic import SecretStr

    if isinstance(value, SecretStr):
        return "***"
    if isinstance(value, tuple):
        return list(value)
    return value if value is None or isinstance(value, (int, float, str)) else str(value)


def _text(value: Any) -> str:
    if value is None or value in ([], ""):
        return "-"
    return ", ".join(value) if isinstance(value, list) else str(value)
