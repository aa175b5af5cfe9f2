"""`pull`, `ls`, `show`, `rm`: the models on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatwright.cli.output import Output, read_settings
from chatwright.errors import InvalidModelError, ModelNotFoundError, UsageError
from chatwright.i18n import _, describe_error, format_size

if TYPE_CHECKING:
    from chatwright.hub import InstalledModel, ModelsFolder
    from chatwright.hub.catalogue import Terms

JSON_HELP = "Print JSON."
MAX_LABELS_SHOWN = 20


def pull(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="NAME, hf:ORG/NAME, modelscope:ORG/NAME (both with @REVISION or :FILE behind) or a PATH.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Call the model NAME here.", show_default=False)
    ] = None,
    accept_terms: Annotated[
        bool, typer.Option("--accept-terms", help="Accept the model's terms of use without being asked.")
    ] = False,
) -> None:
    """Fetch a model; an interrupted pull continues where it stopped."""
    from chatwright.cli.progress import PullProgress, interactive
    from chatwright.hub import check_name
    from chatwright.hub import pull as pull_model

    output: Output = context.obj
    models = open_models()
    if name is not None:
        check_name(name)
    with PullProgress(output) as progress:

        def accept(terms: Terms, text: str) -> bool:
            if accept_terms:
                progress.say(_("Accepted by --accept-terms: {terms} ({url}).", terms=terms.name, url=terms.url))
                return True
            with progress.paused():
                typer.echo(f"{text}\n\n{terms.name}: {terms.url}", err=True)
                return typer.confirm(_("Do you accept the {terms}?", terms=terms.name), err=True)

        can_be_asked = accept_terms or interactive()
        model = pull_model(source, models, progress, name=name, accept=accept if can_be_asked else None)
    output.say(_("{name} is ready in {path}.", name=model.name, path=model.folder))


def ls(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """List the models on this machine."""
    output: Output = context.obj
    models = open_models()
    summaries = [summary(model) for model in models.list()]
    if as_json:
        output.json(summaries)
        return
    if not summaries:
        output.say(
            _("No models yet in {path}. `chatwright pull smollm2:135m` fetches the default one.", path=models.root)
        )
        return
    output.table(
        [_("NAME"), _("SIZE"), _("PARAMETERS"), _("QUANTIZATION"), _("CONTEXT"), _("LANGUAGES"), _("SOURCE")],
        [
            [
                entry["name"],
                format_size(entry["size_bytes"]),
                _count(entry["parameters"]) if entry["error"] is None else _("broken"),
                entry["quantization"] or "-",
                str(entry["context_length"] or "-"),
                ", ".join(entry["languages"]) or "-",
                entry["source"] or "-",
            ]
            for entry in summaries
        ],
    )


def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name, or a path.")],
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Show the details of a model: origin, license, size, chat template, checksums."""
    output: Output = context.obj
    details = _details(name, open_models())
    if as_json:
        output.json(details)
        return
    template, writes_text = details.pop("chat_template"), details["writes_text"]
    files, gives = details.pop("files"), details.pop("labels")
    labels = {
        "name": _("Name"),
        "path": _("Path"),
        "source": _("Source"),
        "revision": _("Revision"),
        "pulled_at": _("Pulled at"),
        "license": _("License"),
        "terms": _("Terms of use"),
        "languages": _("Languages"),
        "architecture": _("Architecture"),
        "parameters": _("Parameters"),
        "quantization": _("Quantization"),
        "context_length": _("Context length"),
        "vocabulary": _("Vocabulary"),
        "size_bytes": _("Size on disk"),
    }
    shown = {
        "languages": ", ".join(details["languages"]),
        "parameters": f"{details['parameters']:,}" if details["parameters"] else None,
        "size_bytes": format_size(details["size_bytes"]),
        "terms": _(
            "{terms} ({url}), accepted at {time}", terms=terms["name"], url=terms["url"], time=terms["accepted_at"]
        )
        if (terms := details["terms"])
        else None,
    }
    rows = [[label, str(shown.get(key, details.get(key)) or "-")] for key, label in labels.items()]
    for file, entry in files.items():
        rows.append([file, f"{format_size(entry['size_bytes'])}  sha256 {entry['sha256']}"])
    output.table(["", ""], rows)
    if template is None and writes_text:
        template = _("none: this is a base model, it continues text")
    elif template is None and gives:
        template = _("none: this model gives texts labels: {labels}", labels=", ".join(gives[:MAX_LABELS_SHOWN]))
    elif template is None:
        template = _("none: this is an encoder, it turns texts into vectors")
    output.data("\n" + _("Chat template") + "\n" + template)


def rm(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name, as `chatwright ls` shows it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a model from this machine."""
    from chatwright.cli.progress import interactive
    from chatwright.engine.kernels.packed import sweep

    output: Output = context.obj
    models = open_models()
    model = models.find(name)
    if model is None:
        raise ModelNotFoundError(
            "No model is called {name!r} here: `chatwright ls` lists those that are.",
            name=name[:200],
        )
    if not yes:
        if not interactive():
            raise UsageError("Nobody can be asked whether to remove {name}: add --yes.", name=name)
        question = _("Remove {name} ({size})?", name=name, size=format_size(model.size_bytes))
        if not typer.confirm(question, err=True):
            output.say(_("Nothing was removed."))
            raise typer.Exit(1)
    models.remove(name)
    sweep(read_settings().packed_weights_dir)
    output.say(_("{name} was removed.", name=name))


def open_models() -> ModelsFolder:
    """The models folder of the user's settings."""
    from chatwright.hub import ModelsFolder

    return ModelsFolder(read_settings().models_dir)


def summary(model: InstalledModel) -> dict[str, Any]:
    """One row of `ls`. A model that cannot be read is listed with the reason, not hidden."""
    from chatwright.model.describe import describe_model

    row: dict[str, Any] = {
        "name": model.name,
        "size_bytes": model.size_bytes,
        "parameters": None,
        "quantization": None,
        "context_length": None,
        "languages": list(model.manifest.languages) if model.manifest else [],
        "source": model.manifest.source if model.manifest else None,
        "error": None,
    }
    try:
        info = describe_model(model.path)
    except InvalidModelError as error:
        return row | {"error": describe_error(error)}
    return row | {
        "parameters": info.n_parameters,
        "quantization": info.quantization,
        "context_length": info.context_length,
        "languages": row["languages"] or list(info.languages),
    }


def _details(name: str, models: ModelsFolder) -> dict[str, Any]:
    from chatwright.hub import Manifest
    from chatwright.model.describe import describe_model

    name, path = models.resolve(name, allow_path=True)
    model = models.find(name)
    manifest = model.manifest if model and model.path == path else None
    info = describe_model(path)
    known = manifest or Manifest(name=name, source=str(path))
    return {
        "name": name,
        "path": str(path),
        "source": known.source,
        "revision": known.revision,
        "pulled_at": known.pulled_at.isoformat() if manifest else None,
        "license": known.license or info.license,
        "terms": known.terms.model_dump(mode="json") if known.terms else None,
        "languages": list(known.languages or info.languages),
        "architecture": info.config.family,
        "parameters": info.n_parameters,
        "quantization": info.quantization,
        "context_length": info.context_length,
        "vocabulary": info.config.vocab_size,
        "writes_text": info.writes_text,
        "labels": list(info.labels),
        "size_bytes": _bytes_on_disk(path),
        "files": {file: entry.model_dump() for file, entry in known.files.items()},
        "chat_template": _chat_template(path) if info.has_chat_template else None,
    }


def _chat_template(path: Path) -> str | None:
    from chatwright.model.gguf import GGUFFile
    from chatwright.tokenizer import load_chat_template

    metadata = GGUFFile.open(path).metadata if path.is_file() else None
    template = load_chat_template(path.parent if path.is_file() else path, metadata)
    if template is None:
        return None
    template.close()
    return template.source


def _bytes_on_disk(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def _count(n: int | None) -> str:
    """`135 M`, `1.7 B`."""
    if n is None:
        return "-"
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= scale:
            value = n / scale
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
    return str(n)
