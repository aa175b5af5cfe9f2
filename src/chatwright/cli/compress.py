"""`quantize`, `prune`, `distill`: a smaller model of a model, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatwright.cli.output import Output, choice, number, read_settings
from chatwright.errors import UsageError
from chatwright.i18n import _, format_size

if TYPE_CHECKING:
    from chatwright.compression.bill import Bill, Measured
    from chatwright.compression.distill import Distilled
    from chatwright.compression.task_bill import TaskBill, TaskScorer
    from chatwright.evaluation.statistics import Interval
    from chatwright.settings import Settings
    from chatwright.training.base_model import BaseModel

MODEL_HELP = "The model: a name or a path."
Text = Annotated[
    str | None,
    typer.Option(
        "--text",
        metavar="DATASET|FILE",
        help="What the table is measured on. Default: what is held out of the other text.",
        show_default=False,
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        metavar="DATASET|FILE", help="Text that the model is for: what matters is measured on it.", show_default=False
    ),
]
Tasks = Annotated[
    str | None,
    typer.Option(
        "--tasks",
        metavar="NAMES",
        help="Score before and after on tasks too, named as for `chatwright evaluate`.",
        show_default=False,
    ),
]
Limit = Annotated[
    str | None,
    typer.Option(
        "--limit", metavar="N", help="N items of each task, drawn at random, always the same.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Folder = Annotated[str, typer.Option("--out", metavar="DIR", help="The folder of the new model; it must not exist.")]
Seed = Annotated[str, typer.Option("--seed", metavar="N", help="The same seed gives the same run.")]
MOST_SEED = (1 << 63) - 1


def quantize(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    to: Annotated[str, typer.Option("--to", metavar="KIND", help="int8 or int4.")],
    out: Folder,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="round, or gptq, which is calibrated and better at 4 bits. Default: gptq for int4 with --calibration.",
            show_default=False,
        ),
    ] = None,
    calibration: Calibration = None,
    eight_bit_share: Annotated[
        str,
        typer.Option(
            metavar="SHARE",
            help="gptq: share of the layers' weights that stay in 8 bits, those that would lose most.",
        ),
    ] = "0.1",
    text: Text = None,
    tasks: Tasks = None,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """Write a model in 8 or 4 bits, and say what that costs: size, speed, bits per byte, before and after."""
    from chatwright.machine import share_cores

    share_cores()
    from chatwright.compression.quantize import METHODS, PRECISIONS, QuantizeOptions
    from chatwright.compression.quantize import quantize as run_quantize

    options = QuantizeOptions(
        to=choice(to, "--to", *PRECISIONS),
        method=choice(method, "--method", *METHODS),
        calibration=_path(calibration),
        eight_bit_share=number(eight_bit_share, "--eight-bit-share", least=0, most=1),
        text=_path(text),
    )
    settings = read_settings()
    from chatwright.cli.training_progress import TrainingProgress
    from chatwright.model.folder import check_new_folder

    output: Output = context.obj
    check_new_folder(Path(out))  # before task scores load a model
    base = _open(model, settings)
    scorer = _scorer(output, tasks, limit, settings, base)
    with TrainingProgress(output) as progress:
        bill = run_quantize(base, options, Path(out), n_threads=settings.n_threads, progress=progress)
    _report(output, bill, Path(out), as_json, tasks=partial(_task_bill, scorer, base, Path(out)))


def prune(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    ratio: Annotated[str, typer.Option(metavar="SHARE", help="Share of the layers' parameters to take out.")],
    out: Folder,
    what: Annotated[
        str, typer.Option(metavar="PARTS", help="heads, ffn, layers (several with commas between).")
    ] = "heads,ffn",
    calibration: Calibration = None,
    heal: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="Train what is left on this dataset, to heal it.", show_default=False),
    ] = None,
    minutes: Annotated[
        str | None, typer.Option(metavar="N", help="Minutes of healing. Default: 5.", show_default=False)
    ] = None,
    unstructured: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="magnitude or wanda: zeros among the weights, for study; nothing gets faster.",
            show_default=False,
        ),
    ] = None,
    low_rank: Annotated[
        bool, typer.Option("--low-rank", help="Matrices of low rank, for study; nothing gets faster.")
    ] = False,
    text: Text = None,
    tasks: Tasks = None,
    limit: Limit = None,
    seed: Seed = "0",
    as_json: Json = False,
) -> None:
    """Take out the heads, channels or layers that matter least, heal the rest, and say what that costs."""
    from chatwright.machine import share_cores

    share_cores()
    from chatwright.compression.pruning import PruneOptions, prune_model
    from chatwright.compression.study import UNSTRUCTURED

    parts: Any = tuple(dict.fromkeys(part.strip() for part in what.split(",") if part.strip()))
    if not parts:
        raise UsageError("--what is empty: name heads, ffn or layers.")
    if minutes is not None and heal is None:
        raise UsageError("--minutes is how long to heal: say with --heal on which dataset.")
    options = PruneOptions(
        ratio=_ratio(ratio),
        what=parts,
        calibration=_path(calibration),
        text=_path(text),
        heal=_path(heal),
        minutes=number("5" if minutes is None else minutes, "--minutes", least=0.01, most=1_000_000),
        unstructured=choice(unstructured, "--unstructured", *UNSTRUCTURED),
        low_rank=low_rank,
        seed=number(seed, "--seed", least=0, most=MOST_SEED, whole=True),
    )
    settings = read_settings()
    from chatwright.cli.training_progress import TrainingProgress
    from chatwright.model.folder import check_new_folder
    from chatwright.training.memory import out_of_memory

    output: Output = context.obj
    check_new_folder(Path(out))
    base = _open(model, settings)
    scorer = _scorer(output, tasks, limit, settings, base)
    with out_of_memory(), TrainingProgress(output) as progress:
        bill = prune_model(base, options, Path(out), n_threads=settings.n_threads, progress=progress)
    _report(output, bill, Path(out), as_json, tasks=partial(_task_bill, scorer, base, Path(out)))


def distill(
    context: typer.Context,
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="The model that teaches: a name or a path.")],
    student: Annotated[str, typer.Argument(metavar="STUDENT", help="The model that learns: a name or a path.")],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The folder of a prepared dataset.")],
    out: Annotated[str, typer.Option("--out", metavar="RUN", help="The folder of the run, made anew.")],
    by: Annotated[
        str,
        typer.Option(
            metavar="KIND", help="logits: on text, of one vocabulary. answers: to the questions of conversations."
        ),
    ] = "logits",
    minutes: Annotated[str, typer.Option(metavar="N", help="Minutes of training.")] = "5",
    temperature: Annotated[
        str, typer.Option(metavar="X", help="Of logits: higher says more of what is unlikely.")
    ] = "2",
    share: Annotated[
        str, typer.Option(metavar="X", help="Of logits: how much the teacher counts beside the text.")
    ] = "0.5",
    epochs: Annotated[str, typer.Option(metavar="N", help="Of answers: how often they are read.")] = "3",
    max_tokens: Annotated[str, typer.Option(metavar="N", help="Of answers: tokens of the longest.")] = "256",
    text: Text = None,
    tasks: Tasks = None,
    limit: Limit = None,
    seed: Seed = "0",
    as_json: Json = False,
) -> None:
    """Let a small model learn from a large one, and say what came of it."""
    from chatwright.machine import share_cores

    share_cores()
    from chatwright.compression.distill import WAYS, DistillOptions
    from chatwright.compression.distill import distill as run_distill

    options = DistillOptions(
        by=choice(by, "--by", *WAYS),
        minutes=number(minutes, "--minutes", least=0.01, most=1_000_000),
        temperature=number(temperature, "--temperature", least=0.1, most=100),
        share=number(share, "--share", least=0, most=1),
        epochs=number(epochs, "--epochs", least=1e-6, most=1e4),
        max_tokens=number(max_tokens, "--max-tokens", least=1, most=1 << 20, whole=True),
        text=_path(text),
        seed=number(seed, "--seed", least=0, most=MOST_SEED, whole=True),
    )
    settings = read_settings()
    from chatwright.cli.training_progress import TrainingProgress
    from chatwright.text.dataset import Dataset
    from chatwright.training.memory import out_of_memory
    from chatwright.training.run import check_new

    output: Output = context.obj
    check_new(Path(out))
    teaches, learns = (_open(name, settings) for name in (teacher, student))
    scorer = _scorer(output, tasks, limit, settings, teaches, learns)
    with out_of_memory(), TrainingProgress(output) as progress:
        done = run_distill(
            teaches,
            learns,
            Dataset.open(Path(dataset)),
            options,
            Path(out),
            n_threads=settings.n_threads,
            progress=progress,
        )
    report_distilled(output, done, as_json, partial(_task_bill, scorer, learns, done.result, teaches))


def report_distilled(
    output: Output, done: Distilled, as_json: bool = False, tasks: Callable[[], TaskBill | None] = lambda: None
) -> None:
    """The bill of a distillation, or how to go on with it."""
    if done.bill is None or done.result is None:
        output.say(_("Stopped; everything is saved. Continue: chatwright runs resume {run}", run=done.run))
        raise typer.Exit(128 + (done.signal or 0))
    _report(output, done.bill, done.result, as_json, done.to_dict(), tasks)


def _open(model: str, settings: Settings) -> BaseModel:
    from chatwright.cli.adapters import resolve_whole_model
    from chatwright.hub import ModelsFolder
    from chatwright.training.base_model import BaseModel

    folder = ModelsFolder(settings.models_dir)
    name, path = resolve_whole_model(model, folder)
    return BaseModel.open(path, name if folder.owns(path) else "")


def _scorer(
    output: Output, tasks: str | None, limit: str | None, settings: Settings, *models: BaseModel
) -> TaskScorer | None:
    """Of the tasks that were asked for; refuses what is none, or what a model cannot do, before any work."""
    if tasks is None:
        if limit is not None:
            raise UsageError("--limit belongs to --tasks: name the tasks that it is for.")
        return None
    from chatwright.compression.task_bill import TaskScorer

    output.say(_("Task scores are measured too, of the model before and of the one after."))
    scorer = TaskScorer(tasks, number(limit, "--limit", least=1, most=1 << 40, whole=True), settings)
    for model in models:
        if model.kind == "decoder":  # others are refused by the verb
            scorer.check(model.path, model.title)
    return scorer


def _task_bill(
    scorer: TaskScorer | None, base: BaseModel, made: Path | None, teacher: BaseModel | None = None
) -> TaskBill | None:
    """Of what was made, into its card too. It takes minutes, so it comes last: all refusals are over, and the bill is out."""
    if scorer is None or made is None:
        return None
    from chatwright.compression.task_bill import TaskBill

    before, after = scorer.score(base.path, base.title), scorer.score(made, made.name)
    bill = TaskBill.of(before, after, () if teacher is None else scorer.score(teacher.path, teacher.title))
    bill.write_card(made)
    return bill


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _ratio(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError("--ratio takes a share between 0 and 1, such as 0.25, not {text!r}.", text=text) from error


def _report(
    output: Output,
    bill: Bill,
    made: Path,
    as_json: bool,
    values: dict[str, Any] | None = None,
    tasks: Callable[[], TaskBill | None] = lambda: None,
) -> None:
    """The table, what it means, and what to do next. `tasks`: measured once the table is out."""
    if as_json:
        scores: dict[str, Any] = {}
        try:
            if (scored := tasks()) is not None:
                scores = {"tasks": scored.to_dict()}
        finally:  # a Ctrl-C takes the scores, not the bill
            output.json((values or {"model": str(made), **bill.to_dict()}) | scores)
    else:
        models = [(_("before"), bill.before), (_("after"), bill.after)]
        if bill.teacher is not None:
            models.append((_("teacher"), bill.teacher))
        headings = [_("MODEL"), _("PARAMETERS"), _("ON DISK"), _("TOKENS/S"), _("BITS PER BYTE"), _("PERPLEXITY")]
        output.table(headings, [[name, *_figures(found)] for name, found in models])
        if (change := bill.perplexity_change) is not None:
            output.data(_perplexity(change, bill.n_documents))
        elif bill.after.scores is None:
            output.say(_("Without held-out text nobody can say what it costs in quality: add --text."))
        if bill.after.n_threads is not None:
            output.say(
                _(
                    "Tokens/s: one conversation on this machine with threads: {n}, a single measurement. What else runs moves it by"
                    " a tenth and more, so small differences mean nothing.",
                    n=bill.after.n_threads,
                )
            )
    for note in bill.notes:
        output.say(note)
    output.say(_('The model is in {path}. Try it: chatwright complete {path} "…"', path=made))
    if not as_json and (scored := tasks()) is not None:
        _task_table(output, scored)


def _perplexity(change: Interval, n_documents: int) -> str:
    if math.isnan(change.low):
        return _(
            "Perplexity {estimate:+.2%} (one held-out document only: there is no interval, and nothing can be told from it)",
            estimate=change.estimate,
        )
    return _(
        "Perplexity {estimate:+.2%} (95 % interval {low:+.2%} to {high:+.2%}; held-out documents: {n})",
        estimate=change.estimate,
        low=change.low,
        high=change.high,
        n=n_documents,
    )


def _task_table(output: Output, tasks: TaskBill) -> None:
    from chatwright.evaluation.report import shown, shown_difference
    from chatwright.evaluation.scores import figure_name, verdict_name

    rows = []
    for number_of, compared in enumerate(tasks.comparisons):
        before, after = tasks.before[number_of], tasks.after[number_of]
        metric, difference = before.measures[0].name, shown_difference(compared)
        if compared.metric != metric:  # of bias what is compared is how far each is from no preference
            difference += f", {figure_name(compared.metric)}"
        row = [compared.task, figure_name(metric), str(before.n)]
        row += [shown(each.figures[metric]) for each in (before, after)]
        row += [shown(tasks.teacher[number_of].figures[metric])] if tasks.teacher else []
        rows.append([*row, difference, verdict_name(compared.verdict)])
    output.data("")
    output.table(
        [
            _("TASK"),
            _("FIGURE"),
            "N",
            _("BEFORE (95 % INTERVAL)"),
            _("AFTER (95 % INTERVAL)"),
            *([_("TEACHER (95 % INTERVAL)")] if tasks.teacher else []),
            _("DIFFERENCE (95 % INTERVAL)"),
            _("VERDICT"),
        ],
        rows,
    )


def _figures(found: Measured) -> list[str]:
    scores = found.scores
    return [
        f"{found.n_parameters:,}",
        format_size(found.size_bytes),
        "-" if found.tokens_per_s is None else f"{found.tokens_per_s:,.0f}",
        "-" if scores is None else f"{scores.bits_per_byte:.4f}",
        "-" if scores is None else f"{scores.perplexity:.3f}",
    ]
