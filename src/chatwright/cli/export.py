"""`export`: a model in the form that other programs read."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chatwright.cli.output import Output, choice, read_settings
from chatwright.cli.progress import LINE_EVERY_S, ProgressBar
from chatwright.errors import UsageError
from chatwright.i18n import _, format_size

if TYPE_CHECKING:
    from chatwright.compression.export_gguf import ExportedGGUF
    from chatwright.compression.source import Source


def export(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, a run, or a path.")],
    to: Annotated[str, typer.Option("--to", metavar="FORM", help="gguf or hf.")],
    out: Annotated[str, typer.Option("--out", metavar="PATH", help="The file (gguf) or folder (hf) to make.")],
    kind: Annotated[
        str | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Of gguf: F32, F16, Q8_0, Q4_0 or Q4_1; default F16, or what a GGUF is already."
            " Of hf: F32, F16 or BF16; default as it is.",
            show_default=False,
        ),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option("--adapter", metavar="DIR", help="Merge a LoRA adapter into the weights.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a model as GGUF (llama.cpp, Ollama) or as a folder that Transformers and vLLM load."""
    from chatwright.cli.adapters import resolve_model
    from chatwright.compression.source import Source
    from chatwright.hub import ModelsFolder

    output: Output = context.obj
    settings = read_settings()
    form = choice(to, "--to", "gguf", "hf")
    path = Path(out).expanduser()
    chosen = resolve_model(model, ModelsFolder(settings.models_dir))
    if adapter is not None and chosen.adapter is not None:
        raise UsageError("{model} is an adapter already; --adapter takes one for a base model.", model=model)
    source = Source.open(chosen.path, chosen.adapter if adapter is None else Path(adapter).expanduser())
    if form == "gguf":
        _to_gguf(output, source, path, kind, as_json, adapter or model)
    else:
        _to_hf(output, source, path, kind, as_json, adapter or model)


def _to_gguf(output: Output, source: Source, path: Path, kind: str | None, as_json: bool, name: str) -> None:
    from chatwright.compression.export_gguf import TYPES, default_type, export_gguf

    with ExportProgress(output) as progress:
        wanted = default_type(source) if kind is None else choice(kind, "--type", *TYPES)
        exported = export_gguf(source, path, wanted, progress)
    _notices(output, exported)
    if as_json:
        output.json(
            {
                "path": str(exported.path.resolve()),
                "size_bytes": exported.size_bytes,
                "types": dict(exported.types),
                "kept": exported.n_kept,
                "in_f16": list(exported.in_f16),
            }
        )
        return
    types = ", ".join(f"{n} × {name}" for name, n in sorted(exported.types.items()))
    output.say(_("{path}: {size} ({types}).", path=exported.path, size=format_size(exported.size_bytes), types=types))
    _to_prove(output, name, f"llama:{exported.path}" if exported.not_loaded is None else str(exported.path))


def _notices(output: Output, exported: ExportedGGUF) -> None:
    if exported.in_f16:
        output.say(
            _(
                "Matrices whose rows do not divide into blocks of 32 are kept in F16: {n} ({names}).",
                n=len(exported.in_f16),
                names=", ".join(exported.in_f16[:3]) + ("…" if len(exported.in_f16) > 3 else ""),
            )
        )
    if exported.n_kept:
        output.say(_("Tensors that had this type already and were taken over block by block: {n}.", n=exported.n_kept))
    if exported.window is not None:
        output.say(
            _(
                "This model looks {window} tokens back; llama.cpp lets its kind see everything, so longer texts get other answers"
                " there.",
                window=exported.window,
            )
        )
    if exported.not_loaded is not None:
        output.say(_("Chatwright loads the file, llama.cpp does not: {reason}", reason=exported.not_loaded))
    if exported.n_ends_lost:
        output.say(
            _(
                "{n} tokens end an answer for which GGUF has no place; give them to llama.cpp as stop texts.",
                n=exported.n_ends_lost,
            )
        )


def _to_hf(output: Output, source: Source, path: Path, kind: str | None, as_json: bool, name: str) -> None:
    from chatwright.compression.export_hf import TYPES, export_hf
    from chatwright.model.folder import check_free

    wanted = choice(kind, "--type", *TYPES)
    check_free(path)
    output.say(_("Writing {path}…", path=path))
    exported = export_hf(source, path, wanted)
    if as_json:
        output.json({"path": str(path.resolve()), "size_bytes": exported.size_bytes, "type": exported.type})
        return
    output.say(_("{path}: {size} ({types}).", path=path, size=format_size(exported.size_bytes), types=exported.type))
    _to_prove(output, name, f"hf:{path}")


def _to_prove(output: Output, *sides: str) -> None:
    """The command with what was named here, to be copied as it is."""
    output.say(_("To prove that it is the same model: {command}", command=shlex.join(["chatwright", "verify", *sides])))


class ExportProgress(ProgressBar):
    """Draws what `chatwright.compression.progress.Progress` reports, counted in bytes."""

    def __init__(self, output: Output) -> None:
        from chatwright.cli.progress import byte_columns

        super().__init__(output, *byte_columns())
        self.label, self.total, self.last_line = "", 0, time.monotonic()

    def begin(self, label: str, total: int) -> None:
        """See Progress."""
        self.label, self.total = label, total
        self.bar.reset(self.task, total=total, completed=0, description=_("Writing {path}…", path=label), visible=True)

    def advance(self, done: int) -> None:
        """See Progress."""
        self.bar.update(self.task, completed=done)
        if not self.drawn and time.monotonic() - self.last_line >= LINE_EVERY_S:
            self.last_line = time.monotonic()
            self.output.say(f"{self.label}: {100 * done // max(1, self.total)} %")
