"""`tune`: a model goes on learning from conversations, preferences or labels, and folds say whether it got better."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chatwright.cli import folds as fold_options
from chatwright.cli.output import Output, choice, number, read_settings
from chatwright.errors import UsageError
from chatwright.i18n import _

if TYPE_CHECKING:
    from chatwright.training.folds import Spread
    from chatwright.training.tune import Tuned
    from chatwright.training.tune_recipe import TuneOptions

COMPARE = "compare"


def tune(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model to tune: a name or a path.")],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The folder of a prepared dataset.")],
    out: Annotated[str, typer.Option("--out", metavar="RUN", help="The folder of the run, made anew.")],
    method: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="lora or full: conversations; dpo: preferences; classify: labelled texts; tag: labelled spans.",
        ),
    ] = "lora",
    folds: Annotated[
        str | None,
        typer.Option(metavar="K", help="Cross-validate: K folds, then the model itself.", show_default=False),
    ] = None,
    seeds: fold_options.Seeds = "1",
    choose: fold_options.Choose = None,
    answers: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Answer N held-out questions when it is over, for token F1. Default: 32 with --folds, else 0.",
            show_default=False,
        ),
    ] = None,
    final: Annotated[
        bool, typer.Option("--final/--no-final", help="After folds, train on all training data too.")
    ] = True,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="word-dropout, word-swap, typos (several with commas between), or compare, which tries each by folds.",
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        str | None, typer.Option(metavar="N", help="How often the data are read.", show_default=False)
    ] = None,
    lr: Annotated[str | None, typer.Option(metavar="X", help="Learning rate.", show_default=False)] = None,
    rank: Annotated[
        str | None,
        typer.Option(metavar="R", help="Of the adapter; 0 with dpo: all weights. Default: 16.", show_default=False),
    ] = None,
    alpha: Annotated[
        str | None, typer.Option(metavar="X", help="Of the adapter. Default: twice the rank.", show_default=False)
    ] = None,
    strength: Annotated[
        str | None,
        typer.Option(
            metavar="X", help="Share of the adapter that is kept; less forgets less. Default: 1.", show_default=False
        ),
    ] = None,
    beta: Annotated[
        str | None,
        typer.Option(metavar="X", help="Of dpo: how dear the reference is. Default: 0.1.", show_default=False),
    ] = None,
    length: Annotated[
        str | None,
        typer.Option("--context", metavar="N", help="Tokens of the longest conversation or text.", show_default=False),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(metavar="N", help="Rows a step: packed conversations, pairs or texts.", show_default=False),
    ] = None,
    micro_rows: Annotated[
        str | None, typer.Option(metavar="N", help="Rows in memory at a time.", show_default=False)
    ] = None,
    packing: Annotated[
        bool, typer.Option("--packing/--no-packing", help="Put several short conversations into a row.")
    ] = True,
    dropout: Annotated[str | None, typer.Option(metavar="P", help="Dropout.", show_default=False)] = None,
    weight_decay: Annotated[str | None, typer.Option(metavar="X", help="Weight decay.", show_default=False)] = None,
    patience: Annotated[
        str | None,
        typer.Option(metavar="N", help="Stop after N evaluations without improvement; 0 never.", show_default=False),
    ] = None,
    precision: Annotated[str, typer.Option(metavar="KIND", help="auto, fp32 or bf16.")] = "auto",
    seed: Annotated[str, typer.Option(metavar="N", help="The same seed gives the same run.")] = "0",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tune a model on a dataset: chat (LoRA or all weights), preferences (DPO), labelled texts, labelled spans."""
    from chatwright.training.augmentation import parse_names
    from chatwright.training.trials import parse_choose
    from chatwright.training.tune_recipe import CHOOSABLE, METHODS, TuneOptions

    compare = augment == COMPARE
    n_folds = number(folds, "--folds", least=2, most=100, whole=True) or 0
    if compare and not n_folds:
        raise UsageError("--augment compare needs folds to judge by: add --folds 5.")
    n_seeds = number(seeds, "--seeds", least=1, most=100, whole=True)
    if compare and (n_seeds > 1 or choose is not None):
        raise UsageError("--augment compare has folds of its own: leave --seeds and --choose out.")
    options = TuneOptions(
        method=choice(method, "--method", *METHODS),
        seed=number(seed, "--seed", least=0, most=(1 << 63) - 1, whole=True),
        epochs=number(epochs, "--epochs", least=1e-6, most=1e4),
        lr=number(lr, "--lr", least=1e-9, most=10),
        rank=number(rank, "--rank", least=0, most=1024, whole=True),
        alpha=number(alpha, "--alpha", least=1e-3, most=1e6),
        strength=number(strength, "--strength", least=0.01, most=1),
        dropout=number(dropout, "--dropout", least=0, most=0.9),
        weight_decay=number(weight_decay, "--weight-decay", least=0, most=100),
        context=number(length, "--context", least=16, most=1 << 20, whole=True),
        batch=number(batch, "--batch", least=1, most=1 << 20, whole=True),
        micro=number(micro_rows, "--micro-rows", least=1, most=1 << 20, whole=True),
        beta=number(beta, "--beta", least=1e-4, most=100),
        patience=number(patience, "--patience", least=0, most=10_000, whole=True),
        packed=packing,
        augmentations=() if compare else parse_names(augment or ""),
        folds=n_folds,
        seeds=n_seeds,
        choose=None if choose is None else parse_choose(choose, tuple(CHOOSABLE)),
        answers=number(answers, "--answers", least=0, most=100_000, whole=True),
        final=final,
        precision=choice(precision, "--precision", "auto", "fp32", "bf16"),
    )
    _tune(context.obj, model, Path(dataset), options, Path(out), compare, as_json)


def _tune(
    output: Output, model: str, dataset: Path, options: TuneOptions, out: Path, compare: bool, as_json: bool
) -> None:
    settings = read_settings()
    from chatwright.machine import share_cores

    share_cores()
    from chatwright.cli.adapters import resolve_whole_model
    from chatwright.cli.training_progress import TrainingProgress
    from chatwright.engine.device import find_device
    from chatwright.hub import ModelsFolder
    from chatwright.text.dataset import Dataset
    from chatwright.training.base_model import BaseModel
    from chatwright.training.distributed import joined
    from chatwright.training.memory import out_of_memory
    from chatwright.training.run import check_new
    from chatwright.training.tune import start_tuning

    check_new(out)
    folder = ModelsFolder(settings.models_dir)
    name, path = resolve_whole_model(model, folder)
    with out_of_memory("tune"):  # the header of a file needs the file's address space
        base = BaseModel.open(path, name if folder.owns(path) else "")
    device = find_device(settings.device)
    with joined() as world, TrainingProgress(output if world.is_main else Output(quiet=True)) as progress:
        tuned = start_tuning(
            base,
            Dataset.open(dataset),
            options,
            out,
            device=device,
            n_threads=settings.n_threads,
            compare=compare,
            progress=progress,
            world=world,
        )
    if world.is_main:
        report_tuned(output, tuned, as_json=as_json)
    if tuned.signal is not None:
        raise typer.Exit(128 + tuned.signal)


def report_tuned(output: Output, tuned: Tuned, *, as_json: bool = False) -> None:
    """The figures to standard output, and what to do next."""
    if as_json:
        output.json(tuned.to_dict())
    else:
        _tables(output, tuned)
    run = tuned.run.path
    if tuned.signal is not None:
        output.say(_("Stopped; everything is saved. Continue: chatwright runs resume {run}", run=run))
        return
    if tuned.stopped_early:
        output.say(
            _(
                "It stopped improving; the model is that of step {step}, the best on held-out data.",
                step=tuned.best_step,
            )
        )
    if tuned.result is not None:
        output.say(_next(tuned))
    output.say(_("What happened is in {path}.", path=run / "report.html"))


def _next(tuned: Tuned) -> str:
    run, method = tuned.run, tuned.run.section("tune")["method"]
    if tuned.result is not None and tuned.result.name == "adapter":
        model = run.section("model")
        return _(
            "The adapter is in {path}. Serve it: chatwright serve {base} --adapter NAME={run}",
            path=tuned.result,
            base=model["name"] or model["path"],
            run=run.path,
        )
    if method in ("classify", "tag"):
        return _("The model is in {path}; Transformers loads it from there.", path=tuned.result)
    return _("The model is in {path}. Talk with it: chatwright chat {path}", path=tuned.result)


def _tables(output: Output, tuned: Tuned) -> None:
    if tuned.folds is not None:
        fold_options.fold_tables(output, tuned.folds)
    if tuned.comparisons is not None:
        _comparisons(output, tuned)
    for name, value in tuned.metrics.items():
        earlier = _("before: {value}", value=f"{tuned.before[name]:.4f}") if name in tuned.before else ""
        output.data(f"{name}\t{value:.4f}" + (f"\t{earlier}" if earlier else ""))
    if "confusion_matrix" in tuned.details:
        labels = tuned.details["labels"]
        output.data("")
        output.table(
            [_("TRUE \\ PREDICTED"), *labels],
            [[label, *map(str, row)] for label, row in zip(labels, tuned.details["confusion_matrix"], strict=True)],
        )
    elif "by_label" in tuned.details:
        output.data("")
        output.table(
            [_("LABEL"), _("PRECISION"), _("RECALL"), "F1"],
            [
                [label, *(f"{scores[name]:.4f}" for name in ("precision", "recall", "f1"))]
                for label, scores in tuned.details["by_label"].items()
            ],
        )


def _comparisons(output: Output, tuned: Tuned) -> None:
    from chatwright.training.figures import figure_name

    assert tuned.comparisons is not None
    metric, figures = tuned.comparisons.metric, tuned.comparisons.figures
    verdicts = {"helped": _("helped"), "hurt": _("hurt"), "cannot tell": _("cannot tell")}
    rows = [[_("none"), _plus_minus(figures["none"], metric), "", "", ""]]
    for name, each in tuned.comparisons.differences.items():
        difference = each.difference
        rows.append(
            [
                name,
                _plus_minus(figures[name], metric),
                f"{difference.mean:+.4f} ± {difference.sd:.4f}",
                f"{each.low:+.4f} … {each.high:+.4f}",
                verdicts[each.verdict],
            ]
        )
    output.table([_("AUGMENTATION"), figure_name(metric), _("DIFFERENCE"), _("95 % INTERVAL"), _("VERDICT")], rows)


def _plus_minus(figures: Mapping[str, Spread], metric: str) -> str:
    return f"{figures[metric].mean:.4f} ± {figures[metric].sd:.4f}"
