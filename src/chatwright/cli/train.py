"""`train`: a language model from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chatwright.cli import folds as fold_options
from chatwright.cli import training_options as opt
from chatwright.cli.output import Output, number, read_settings
from chatwright.errors import UsageError
from chatwright.i18n import _

if TYPE_CHECKING:
    from chatwright.training.loop import Result
    from chatwright.training.plan import Plan
    from chatwright.training.recipe import Recipe
    from chatwright.training.request import Request
    from chatwright.training.run import Run
    from chatwright.training.trials import Summary


def train(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The folder of a prepared dataset.")],
    out: Annotated[str, typer.Option("--out", metavar="RUN", help="The folder of the run, made anew.")],
    size: opt.Size = None,
    minutes: opt.Minutes = None,
    arch: opt.Arch = "qwen3",
    cell: opt.Cell = None,
    positions: opt.Positions = None,
    tokenizer: opt.TokenizerFolder = None,
    vocab_size: opt.VocabSize = None,
    length: opt.Context = None,
    steps: opt.Steps = None,
    batch_tokens: opt.BatchTokens = None,
    micro_rows: opt.MicroRows = None,
    lr: Annotated[str | None, typer.Option(metavar="X", help="Learning rate of AdamW.", show_default=False)] = None,
    optimizer: opt.Optimizer = None,
    weight_decay: Annotated[str | None, typer.Option(metavar="X", help="Weight decay.", show_default=False)] = None,
    precision: opt.Precision = "auto",
    compile_: opt.Compile = False,
    dropout: opt.Dropout = None,
    fim: opt.FillInTheMiddle = None,
    patience: Annotated[
        str | None,
        typer.Option(metavar="N", help="Stop after N evaluations without improvement; 0 never.", show_default=False),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            metavar="K",
            help="Cross-validate instead: K folds of the training data, which leave no model.",
            show_default=False,
        ),
    ] = None,
    seeds: fold_options.Seeds = "1",
    choose: fold_options.Choose = None,
    seed: Annotated[str, typer.Option(metavar="N", help="The same seed gives the same run.")] = "0",
    as_json: Annotated[bool, typer.Option("--json", help="With --folds: print JSON.")] = False,
) -> None:
    """Train a language model from nothing on a dataset."""
    request = opt.build_request(
        size=size,
        minutes=minutes,
        arch=arch,
        cell=cell,
        positions=positions,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        context=length,
        steps=steps,
        batch_tokens=batch_tokens,
        micro_rows=micro_rows,
        optimizer=optimizer,
        precision=precision,
        compile_=compile_,
        dropout=dropout,
        fim=fim,
        lr=number(lr, "--lr", least=1e-9, most=10),  # a rate of 0 would train nothing
        weight_decay=number(weight_decay, "--weight-decay", least=0, most=100),
        patience=number(patience, "--patience", least=0, most=1_000_000, whole=True),
        seed=number(seed, "--seed", least=0, most=(1 << 63) - 1, whole=True),
    )
    n_folds = number(folds, "--folds", least=2, most=100, whole=True)
    n_seeds = number(seeds, "--seeds", least=1, most=100, whole=True)
    if n_folds is not None:
        _folds(context.obj, Path(dataset), request, Path(out), n_folds, n_seeds, choose, as_json)
        return
    for option, given in (("--seeds", n_seeds > 1), ("--choose", choose is not None), ("--json", as_json)):
        if given:
            raise UsageError("{option} needs folds to judge by: add --folds 5.", option=option)
    _pretrain(context.obj, Path(dataset), request, Path(out))


def _folds(
    output: Output,
    dataset: Path,
    request: Request,
    out: Path,
    folds: int,
    seeds: int,
    choose: str | None,
    as_json: bool,
) -> None:
    settings = read_settings()
    from chatwright.machine import share_cores

    share_cores()
    from chatwright.cli.training_progress import TrainingProgress
    from chatwright.engine.device import find_device
    from chatwright.training.distributed import joined
    from chatwright.training.memory import out_of_memory
    from chatwright.training.pretrain_folds import CHOOSABLE, start_folds
    from chatwright.training.run import check_new
    from chatwright.training.trials import parse_choose

    check_new(out)
    with (
        joined() as world,
        TrainingProgress(output if world.is_main else Output(quiet=True)) as progress,
        out_of_memory(),
    ):
        run, summary, signal = start_folds(
            dataset,
            request,
            out,
            folds=folds,
            seeds=seeds,
            choose=None if choose is None else parse_choose(choose, tuple(CHOOSABLE)),
            device=find_device(settings.device),
            n_threads=settings.n_threads,
            progress=progress,
            world=world,
        )
    if world.is_main:
        report_folds(output, run, summary, as_json)
    if signal is not None:
        raise typer.Exit(128 + signal)


def report_folds(output: Output, run: Run, summary: Summary | None, as_json: bool = False) -> None:
    """What the folds of `train` found, or how to go on."""
    if summary is None:
        output.say(_("Stopped; everything is saved. Continue: chatwright runs resume {run}", run=run.path))
        return
    if as_json:
        output.json({"run": str(run.path), **summary.to_dict()})
    else:
        fold_options.fold_tables(output, summary)
    output.say(_("Folds leave no model: for that, the same command without --folds."))
    output.say(_("What happened is in {path}.", path=run.path / "report.html"))


def _pretrain(output: Output, dataset: Path, request: Request, out: Path) -> None:
    settings = read_settings()
    from chatwright.machine import share_cores

    share_cores()
    from chatwright.cli.training_progress import TrainingProgress
    from chatwright.engine.device import find_device
    from chatwright.training.distributed import joined
    from chatwright.training.pretrain import pretrain

    device = find_device(settings.device)
    with joined() as world, TrainingProgress(output if world.is_main else Output(quiet=True)) as progress:
        run, result = pretrain(
            dataset,
            request,
            out,
            device=device,
            n_threads=settings.n_threads,
            progress=progress,
            world=world,
            show=lambda plan: progress.say(shown(plan)),
        )
    if world.is_main:
        report_end(output, run, result)
    if result.signal is not None:
        raise typer.Exit(128 + result.signal)


def shown(plan: Plan | Recipe) -> str:
    """The plan of a run, or only its recipe."""
    from chatwright.cli.plan import plan_text
    from chatwright.training.plan import Plan

    return plan_text(plan) if isinstance(plan, Plan) else recipe_text(plan)


def report_end(output: Output, run: Run, result: Result) -> None:
    """Says how a run ended, and what to do next."""
    if result.signal is not None:
        output.say(
            _(
                "Stopped after step {step}; everything is saved. Continue: chatwright runs resume {run}",
                step=result.step,
                run=run.path,
            )
        )
        return
    for name, value in result.metrics.items():
        output.data(f"{name}\t{value:.4f}")
    if result.stopped_early:
        output.say(
            _(
                "It stopped improving; the model is that of step {step}, the best on held-out data.",
                step=result.best_step,
            )
        )
    output.say(
        _(
            'The model is in {path}. Try it: chatwright complete {run} "…" --temperature 0.8',
            path=run.result,
            run=run.path,
        )
    )
    output.say(_("What happened is in {path}.", path=run.path / "report.html"))


def recipe_text(recipe: Recipe) -> str:
    """The plan of a run in some lines, each setting with its reason."""
    training, why = recipe.training, recipe.reasons
    minutes = recipe.request.minutes
    rows: list[tuple[str, str, str]] = [
        (_("parameters"), f"{recipe.n_parameters:,} ({recipe.request.arch})", why.get("size", "")),
        (_("vocabulary"), f"{recipe.vocab_size:,}", why.get("vocab_size", "")),
        (_("context"), str(recipe.context_length), why.get("context_length", "")),
        (_("tokens a step"), f"{recipe.tokens_per_step:,}", why.get("batch_rows", "")),
        (
            _("steps"),
            f"{training.n_steps:,}",
            why.get("n_steps", "") or (_("an estimate, until a step is measured") if minutes else ""),
        ),
        (_("readings of the text"), f"{recipe.epochs:.2f}", _("of {n:,} tokens", n=recipe.n_tokens)),
        (_("optimizer"), training.optimizer, why.get("optimizer", "")),
        (_("precision"), training.precision, why.get("precision", "")),
    ]
    if recipe.dropout:
        rows.append((_("dropout"), f"{recipe.dropout:g}", why.get("dropout", "")))
    if training.patience:
        rows.append((_("patience"), str(training.patience), why.get("patience", "")))
    return "\n".join(f"  {label}: {value}" + (f"  ({reason})" if reason else "") for label, value, reason in rows)
