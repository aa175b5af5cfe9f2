"""`train`: a language model from nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatwright.cli.output import Output, number, read_settings
from chatwright.errors import UsageError
from chatwright.i18n import _

if TYPE_CHECKING:
    from chatwright.training.loop import Result
    from chatwright.training.plan import Plan
    from chatwright.training.recipe import Recipe
    from chatwright.training.request import Request
    from chatwright.training.run import Run


def train(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The folder of a prepared dataset.")],
    out: Annotated[str, typer.Option("--out", metavar="RUN", help="The folder of the run, made anew.")],
    size: Annotated[
        str | None, typer.Option(metavar="N", help="Parameters, such as 3m or 120m.", show_default=False)
    ] = None,
    minutes: Annotated[
        str | None,
        typer.Option(
            metavar="M", help="Minutes of training; all else follows from it. Default: 10.", show_default=False
        ),
    ] = None,
    arch: Annotated[str, typer.Option(metavar="KIND", help="qwen3, gpt2 or rnn.")] = "qwen3",
    cell: Annotated[str | None, typer.Option(metavar="KIND", help="Of rnn: rnn or lstm.", show_default=False)] = None,
    positions: Annotated[
        str | None, typer.Option(metavar="KIND", help="Of gpt2: learned or sinusoidal.", show_default=False)
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="A tokenizer's or a model's folder; trained anew without.", show_default=False
        ),
    ] = None,
    vocab_size: Annotated[
        str | None, typer.Option(metavar="N", help="Tokens of the tokenizer that is trained.", show_default=False)
    ] = None,
    length: Annotated[
        str | None, typer.Option("--context", metavar="N", help="Tokens of a row.", show_default=False)
    ] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="N", help="Steps, instead of minutes.", show_default=False)
    ] = None,
    batch_tokens: Annotated[str | None, typer.Option(metavar="N", help="Tokens of a step.", show_default=False)] = None,
    micro_rows: Annotated[
        str | None, typer.Option(metavar="N", help="Rows in memory at a time.", show_default=False)
    ] = None,
    lr: Annotated[str | None, typer.Option(metavar="X", help="Learning rate of AdamW.", show_default=False)] = None,
    optimizer: Annotated[
        str | None, typer.Option(metavar="KIND", help="muon (with AdamW) or adamw.", show_default=False)
    ] = None,
    weight_decay: Annotated[str | None, typer.Option(metavar="X", help="Weight decay.", show_default=False)] = None,
    precision: Annotated[str, typer.Option(metavar="KIND", help="auto, fp32 or bf16.")] = "auto",
    compile_: Annotated[bool, typer.Option("--compile", help="Compile the model where a compiler is there.")] = False,
    dropout: Annotated[str | None, typer.Option(metavar="P", help="Dropout.", show_default=False)] = None,
    fim: Annotated[
        str | None,
        typer.Option(metavar="P", help="Share of documents for filling in (suffix).", show_default=False),
    ] = None,
    patience: Annotated[
        str | None,
        typer.Option(metavar="N", help="Stop after N evaluations without improvement; 0 never.", show_default=False),
    ] = None,
    seed: Annotated[str, typer.Option(metavar="N", help="The same seed gives the same run.")] = "0",
) -> None:
    """Train a language model from nothing on a dataset."""
    from chatwright.model.presets import parse_size
    from chatwright.training.request import Request

    if minutes is not None and float(number(minutes, "--minutes", least=0, most=1_000_000)) == 0:
        raise UsageError("--minutes 0 leaves no time to train. Give a positive number of minutes, such as 5.")
    request = Request(
        size=None if size is None else parse_size(size),
        minutes=number(minutes, "--minutes", least=0, most=1_000_000),
        arch=choice(arch, "--arch", "qwen3", "gpt2", "rnn"),
        cell=choice(cell, "--cell", "rnn", "lstm"),
        positions=choice(positions, "--positions", "learned", "sinusoidal"),
        tokenizer=None if tokenizer is None else Path(tokenizer),
        vocab_size=number(vocab_size, "--vocab-size", least=262, most=262_144, whole=True),
        context=number(length, "--context", least=1, most=1 << 20, whole=True),
        steps=number(steps, "--steps", least=1, most=1 << 40, whole=True),
        batch_tokens=number(batch_tokens, "--batch-tokens", least=1, most=1 << 30, whole=True),
        micro_rows=number(micro_rows, "--micro-rows", least=1, most=1 << 20, whole=True),
        lr=number(lr, "--lr", least=0, most=10),
        optimizer=choice(optimizer, "--optimizer", "muon", "adamw"),
        weight_decay=number(weight_decay, "--weight-decay", least=0, most=100),
        precision=choice(precision, "--precision", "auto", "fp32", "bf16"),
        compile=compile_,
        dropout=number(dropout, "--dropout", least=0, most=0.95),
        fim=number(fim, "--fim", least=0, most=1) or 0.0,
        patience=number(patience, "--patience", least=0, most=1_000_000, whole=True),
        seed=number(seed, "--seed", least=0, most=(1 << 63) - 1, whole=True),
    )
    _pretrain(context.obj, Path(dataset), request, Path(out))


def _pretrain(output: Output, dataset: Path, request: Request, out: Path) -> None:
    settings = read_settings()
    _before_torch()
    from chatwright.cli.training_progress import TrainingProgress
    from chatwright.engine.runner import find_device
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


def _before_torch() -> None:
    """One thread pool that does not spin beside several processes of the same run."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def choice(value: str | None, option: str, *choices: str) -> Any:
    """An option that is one of some words. Raises UsageError."""
    if value is not None and value not in choices:
        raise UsageError(
            "{option} is one of {choices}, not {value!r}.", option=option, choices=", ".join(choices), value=value[:40]
        )
    return value
