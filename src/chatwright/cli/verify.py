"""`verify`: whether two forms of a model, or two programs that run it, say the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatwright.cli.output import Output, number, read_settings
from chatwright.cli.progress import ProgressBar
from chatwright.i18n import _

if TYPE_CHECKING:
    from chatwright.compression.verify.report import Figures, Finding, Report

_SIDE_HELP = (
    "MODEL (our decoder, float32), torch/bf16:MODEL, engine:MODEL or engine/int8:MODEL (as served), hf:DIR (Transformers),"
    " llama:FILE (llama.cpp), http://HOST (a server; #NAME names its model)."
)


def verify(
    context: typer.Context,
    a: Annotated[str, typer.Argument(metavar="A", help=_SIDE_HELP)],
    b: Annotated[str, typer.Argument(metavar="B", help="What is compared with it, named in the same way.")],
    tokens: Annotated[str, typer.Option(metavar="N", help="Greedy tokens of each prompt. Default: 24.")] = "24",
    tie: Annotated[
        str, typer.Option(metavar="X", help="Two tokens whose logits are less apart than X are a tie. Default: 0.1.")
    ] = "0.1",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two forms of a model: token ids, template, logits, greedy tokens; exit status 1 for a real difference."""
    from chatwright.cli.adapters import resolve_model
    from chatwright.hub import ModelsFolder

    output: Output = context.obj
    settings = read_settings()
    n_greedy = number(tokens, "--tokens", least=1, most=4096, whole=True)
    tolerance = number(tie, "--tie", least=0, most=100)
    folder = ModelsFolder(settings.models_dir)

    def resolve(name: str) -> tuple[Path, Path | None]:
        chosen = resolve_model(name, folder)
        return chosen.path, chosen.adapter

    from chatwright.compression.verify.naming import verify as run

    with VerifyProgress(output) as progress:
        report = run(a, b, settings, resolve, n_greedy=n_greedy, tie=tolerance, progress=progress)
    if as_json:
        output.json(report.as_json(_sentence))
    else:
        _show(output, report)
    if report.differs:
        raise typer.Exit(1)


def _sentence(found: Finding) -> str:
    return _(found.template, **found.params)


def _show(output: Output, report: Report) -> None:
    rows = [[_("texts"), *_ids(report.texts)]]
    if report.chats:
        rows.append([_("conversations"), *_ids(report.chats)])
    for name, each in report.by_text.items():
        rows.append([_("logits of {name}", name=name), _("{n} places", n=each.n), _figures(each)])
    if report.figures is not None:
        rows.append([_("all logits"), _("{n} places", n=report.figures.n), _figures(report.figures)])
    for greedy in report.greedy:
        apart = (
            _("the same")
            if greedy.gap is None
            else _(
                "part at {place}; the reference's logits of the two are {gap:.2g} apart",
                place=greedy.same,
                gap=greedy.gap,
            )
        )
        rows.append([_("greedy {name}", name=greedy.name), _("{n} tokens", n=greedy.n_tokens), apart])
    output.table([_("COMPARED"), _("HOW MUCH"), _("RESULT")], rows)
    output.data("")
    for found in report.findings:
        output.data(f"{'✗' if found.real else '·'} {found.kind}: {_sentence(found)}")
    verdict = (
        _("DIFFERENT: {a} and {b} are not the same model.", a=report.a, b=report.b)
        if report.differs
        else _("THE SAME: {a} and {b} give the same tokens and logits, but for rounding.", a=report.a, b=report.b)
    )
    output.data(verdict)


def _ids(compared: list[Any]) -> list[str]:
    different = [
        _("{name} from token {place} on", name=each.name, place=each.first)
        for each in compared
        if each.first is not None
    ]
    total = sum(each.n_tokens for each in compared)
    return [_("{n} tokens", n=total), ", ".join(different) or _("the same ids")]


def _figures(each: Figures) -> str:
    return _(
        "max {max_abs:.2g}  rms {rms:.2g}  KL {kl_mean:.2g} (max {kl_max:.2g})  same best token {top1:.1f} %",
        max_abs=each.max_abs,
        rms=each.rms,
        kl_mean=each.kl_mean,
        kl_max=each.kl_max,
        top1=100 * each.top1,
    )


class VerifyProgress(ProgressBar):
    """Draws what `chatwright.compression.progress.Progress` reports."""

    def __init__(self, output: Output) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn

        super().__init__(output, BarColumn(bar_width=20), MofNCompleteColumn())

    def begin(self, label: str, total: int) -> None:
        """See Progress."""
        self.bar.reset(self.task, total=total, completed=0, description=label, visible=True)

    def advance(self, done: int) -> None:
        """See Progress."""
        self.bar.update(self.task, completed=done)
