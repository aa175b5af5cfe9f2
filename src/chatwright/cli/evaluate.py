"""`evaluate`: how good a model is on tasks, and whether it is better than another one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatwright.cli.output import Output, choice, number, read_settings
from chatwright.cli.progress import LINE_EVERY_S, ProgressBar
from chatwright.errors import UsageError
from chatwright.i18n import _, describe_error

if TYPE_CHECKING:
    from chatwright.cli.adapters import Chosen
    from chatwright.evaluation.contamination import Overlap
    from chatwright.evaluation.journal import Journal
    from chatwright.evaluation.report import Evaluation
    from chatwright.evaluation.run import Answered, Prepared
    from chatwright.settings import Settings
    from chatwright.text.dataset import Dataset


def evaluate(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name, or a path; with --url its name there.")
    ],
    tasks: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Tasks with commas between: names of shipped ones, all, en, zh, bias, toxicity, memorisation, files (.toml),"
            " or any text (.txt, .jsonl).",
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL2",
            help="Say whether MODEL is better than this one; with --url another name there.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(metavar="N", help="N items of each task, drawn at random, always the same.", show_default=False),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="A new folder for reports and answers; the same command goes on with one that was interrupted.",
            show_default=False,
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            help="Look for the items in this prepared dataset, and score without them too; memorisation is about it.",
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="engine, which is the default, or transformers.", show_default=False),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="An OpenAI-compatible server instead, such as http://127.0.0.1:8000/v1.",
            show_default=False,
        ),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="The key for that server.", show_default=False)
    ] = None,
    quantization: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="auto, int8, int4, bf16 or fp32, of the engine.", show_default=False),
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:0 or mps.")] = None,
    smallest_difference: Annotated[
        str,
        typer.Option(
            "--margin",
            metavar="PERCENT",
            help="The smallest difference of interest: no less is called better or worse. Of bits per byte a share, else points of"
            " 100.",
        ),
    ] = "1",
    no_card: Annotated[
        bool,
        typer.Option("--no-card", help="Leave README.md of our own models alone: the figures are not written into it."),
    ] = False,
    card: Annotated[
        bool,
        typer.Option(
            "--card",
            help="Write figures of your own tasks into cards of the models folder too, not of shipped tasks only.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a model on tasks with confidence intervals, and compare it with another."""
    from chatwright.evaluation.library import find_tasks
    from chatwright.evaluation.run import prepare
    from chatwright.text.dataset import Dataset

    output: Output = context.obj
    choice(backend, "--backend", "engine", "transformers")
    if card and no_card:
        raise UsageError("Give either --card or --no-card.")
    if api_key is not None and url is None:
        raise UsageError("--api-key belongs to --url: without an address there is no server that wants a key.")
    if url is not None and (backend is not None or device is not None):
        raise UsageError(
            "--backend and --device are of this machine: with --url the server chooses what computes, and where."
        )
    if device is not None and backend == "transformers":
        raise UsageError("--device is of our engine: Transformers computes on the processor here.")
    if quantization is not None and (url is not None or backend == "transformers"):
        raise UsageError(
            "--quantization is of our engine: with --url the server chooses its precision, and Transformers computes in float32."
        )
    n_items = number(limit, "--limit", least=1, most=1 << 40, whole=True)
    percent = number(smallest_difference, "--margin", least=0, most=100)
    settings = read_settings({"device": device, "quantization": quantization})
    output.log_to_stderr(settings, warnings_only=True)
    dataset = None if train is None else Dataset.open(Path(train))
    prepared = prepare([task.sampled(n_items) for task in find_tasks(tasks, dataset)])
    request = {
        "models": [each for each in (model, against) if each is not None],
        "tasks": {task.name: task.fingerprint for task, _examples in prepared},
        "limit": n_items,
        "train": train,
        "backend": url or backend or "engine",
        "quantization": settings.quantization if url is None and backend != "transformers" else None,
        "smallest_difference": percent / 100,
    }
    if url is None:
        from chatwright.cli.adapters import resolve_model
        from chatwright.hub import ModelsFolder

        for each in request["models"]:  # before the first has answered everything
            _check(resolve_model(each, ModelsFolder(settings.models_dir)), prepared)
    folder = None if out is None else Path(out)
    try:
        evaluation = _evaluate(output, settings, prepared, request, folder, url, api_key, dataset)
    except KeyboardInterrupt:
        if folder is not None:
            output.say(_("Stopped; what was answered is kept, and the same command goes on from there."))
        raise
    if as_json:
        output.json(evaluation.to_dict())
    else:
        _tables(output, evaluation)
    if not no_card and url is None:
        _write_cards(output, settings, evaluation, own_tasks_too=card)
    if folder is not None:
        output.say(_("The reports are in {path}.", path=folder / "report.html"))


def _evaluate(
    output: Output,
    settings: Settings,
    prepared: Prepared,
    request: dict[str, Any],
    folder: Path | None,
    url: str | None,
    api_key: str | None,
    dataset: Dataset | None,
) -> Evaluation:
    from chatwright.evaluation.journal import Journal
    from chatwright.evaluation.report import Evaluation, write_reports
    from chatwright.evaluation.scores import compare, score

    models: list[str] = request["models"]
    with Journal.open(folder, request) as journal, _Progress(output) as progress:
        overlaps = [None] * len(prepared) if dataset is None else _overlaps(prepared, dataset, progress)
        if url is not None:
            answered = asyncio.run(_ask_server(url, api_key, models, prepared, journal, progress))
        else:
            backend = request["backend"]
            answered = [_ask_model(model, backend, settings, prepared, journal, progress) for model in models]
        scores = [[score(*pair) for pair in zip(each, overlaps, strict=True)] for each in answered]
        comparisons = compare(scores[0], scores[1], request["smallest_difference"]) if len(scores) == 2 else []
        evaluation = Evaluation(models, scores, comparisons, request)
        if folder is not None:
            write_reports(evaluation, folder)
    return evaluation


def _check(chosen: Chosen, prepared: Prepared) -> None:
    """Whether a model that writes can do the tasks, without its weights. Raises EvaluationError, InvalidModelError."""
    from chatwright.evaluation.run import check_able
    from chatwright.model.describe import describe_model

    info = describe_model(chosen.path)
    if not info.writes_text:  # said by its labels, once it is loaded
        return
    chats = info.has_chat_template or chosen.adapter is not None
    check_able(chosen.name, chats, info.context_length, prepared)


def _ask_model(
    model: str, backend: str, settings: Settings, prepared: Prepared, journal: Journal, progress: _Progress
) -> list[Answered]:
    """A model of this machine: with a head, under Transformers, or in our engine."""
    import sys

    from chatwright.cli.adapters import resolve_model
    from chatwright.engine.device import find_device
    from chatwright.evaluation.backends.engine import EngineWriter
    from chatwright.evaluation.backends.protocol import Writer
    from chatwright.evaluation.backends.transformers import TransformersWriter
    from chatwright.evaluation.run import answer_with_labeller
    from chatwright.hub import ModelsFolder
    from chatwright.model.head_checkpoint import is_head
    from chatwright.training.head_labeller import HeadLabeller

    folder = ModelsFolder(settings.models_dir)
    chosen = resolve_model(model, folder)
    progress.say(_("Loading {name}…", name=chosen.name))
    held = folder.in_use(chosen.base or chosen.name, "chatwright " + " ".join(sys.argv[1:2]))
    with held if folder.owns(chosen.path) else nullcontext():
        if is_head(chosen.path):
            labeller = HeadLabeller(chosen.path, chosen.name, find_device(settings.device))
            return answer_with_labeller(labeller, prepared, journal, progress)
        writer: Writer
        if backend == "transformers":
            if chosen.adapter is not None:
                raise UsageError("--backend transformers takes models, and {name} is an adapter.", name=model)
            writer = TransformersWriter(chosen.path, chosen.name, settings.n_threads)
        else:
            from chatwright.engine.load import load_text_model

            writer = EngineWriter(load_text_model(chosen.path, chosen.name, settings, chosen.adapter))
        return asyncio.run(_ask(writer, prepared, journal, progress))


async def _ask_server(
    url: str, api_key: str | None, models: Sequence[str], prepared: Prepared, journal: Journal, progress: _Progress
) -> list[list[Answered]]:
    """Models of a server; all are looked for there before the first is asked anything."""
    from chatwright.evaluation.backends.remote import RemoteWriter
    from chatwright.evaluation.run import answer_with_writer, check_writer

    async with AsyncExitStack() as stack:
        writers = []
        for model in models:
            writers.append(writer := await RemoteWriter.open(url, model, api_key))
            stack.push_async_callback(writer.close)
            check_writer(writer, prepared)
        return [await answer_with_writer(writer, prepared, journal, progress) for writer in writers]


async def _ask(writer: Any, prepared: Prepared, journal: Journal, progress: _Progress) -> list[Answered]:
    from chatwright.evaluation.run import answer_with_writer

    try:
        return await answer_with_writer(writer, prepared, journal, progress)
    finally:
        await writer.close()


def _write_cards(output: Output, settings: Settings, evaluation: Evaluation, *, own_tasks_too: bool) -> None:
    """Into README.md of each model of the models folder, and of each other one whose card these tools wrote.

    All who use the models folder read its cards, and a person's own tasks are not for them to see: not without `own_tasks_too`.
    """
    from chatwright.cli.adapters import resolve_model
    from chatwright.errors import StorageError
    from chatwright.evaluation.card import add_figures, holds_our_card
    from chatwright.evaluation.library import is_shipped
    from chatwright.hub import ModelsFolder

    models = ModelsFolder(settings.models_dir)
    backend, quantization = evaluation.request["backend"], evaluation.request["quantization"]
    how = f"{backend}, {quantization}" if quantization else backend
    for name, scores in dict(zip(evaluation.models, evaluation.scores, strict=True)).items():
        chosen = resolve_model(name, models)
        folder = chosen.adapter or (chosen.path if chosen.path.is_dir() else chosen.path.parent)
        if not (holds_our_card(folder) or (models.owns(folder) and chosen.adapter is None)):
            continue
        told = [each for each in scores if own_tasks_too or not models.owns(folder) or is_shipped(each.answered.task)]
        if len(told) < len(scores):
            output.say(
                _(
                    "The card of {model} belongs to all who use the models folder: figures of your own tasks are not written into"
                    " it. --card writes them too.",
                    model=name,
                )
            )
        if not told:
            continue
        try:
            written, kept = add_figures(folder, told, how)
        except StorageError as error:  # a shared models folder may be read only: the figures are printed all the same
            output.say(describe_error(error))
            continue
        if written:
            output.say(_("The figures of {model} stand in its card, {path}.", model=name, path=folder / "README.md"))
        if kept:
            output.say(
                _(
                    "The card of {model} keeps older figures, which are of more items or of a whole task: {names}. A run without"
                    " --limit renews them.",
                    model=name,
                    names="; ".join(kept),
                )
            )


def _overlaps(prepared: Prepared, dataset: Dataset, progress: _Progress) -> list[Overlap | None]:
    """One reading of the training texts for all tasks. What memorisation asks for stands in them by intent."""
    from chatwright.evaluation.contamination import find_overlaps

    looked_for = [task for task, _examples in prepared if task.kind != "memorisation"]
    if not looked_for:
        return [None] * len(prepared)
    n_bytes = sum(dataset.n_bytes("train", kind) for kind in dataset.kinds)
    progress.begin("", _("looking for the items in the training data"), n_bytes, 0)
    wanted = [(task.items, task.groups) for task in looked_for]
    found = iter(find_overlaps(wanted, dataset.texts("train"), progress.advance))
    return [None if task.kind == "memorisation" else next(found) for task, _examples in prepared]


def _tables(output: Output, evaluation: Evaluation) -> None:
    from chatwright.evaluation.report import comparison_notes, shown, shown_difference
    from chatwright.evaluation.scores import figure_name, verdict_name

    several = len(evaluation.models) > 1
    rows = []
    for name, scores in zip(evaluation.models, evaluation.scores, strict=True):
        for each in scores:
            for metric, interval in each.figures.items():
                row = [each.answered.task.name, figure_name(metric), shown(interval), str(each.n_of(metric))]
                rows.append([name, *row] if several else row)
            n_found = len(each.overlap.items) if each.overlap is not None else 0
            for metric, interval in each.clean.items():
                label = f"{figure_name(metric)} ({_('without those items')})"
                row = [
                    each.answered.task.name,
                    label,
                    shown(interval),
                    str(each.n - n_found),
                ]
                rows.append([name, *row] if several else row)
    headings = [_("TASK"), _("FIGURE"), _("SCORE (95 % INTERVAL)"), "N"]
    output.table([_("MODEL"), *headings] if several else headings, rows)
    if evaluation.comparisons:
        output.data("")
        output.table(
            [_("TASK"), _("FIGURE"), _("DIFFERENCE (95 % INTERVAL)"), "P", _("VERDICT")],
            [
                [
                    each.task,
                    figure_name(each.metric),
                    shown_difference(each),
                    f"{each.p_value:.3g}",
                    verdict_name(each.verdict),
                ]
                for each in evaluation.comparisons
            ],
        )
    for note in comparison_notes(evaluation):
        output.say(note)
    for each in evaluation.scores[0]:
        for note in each.notes:
            output.say(f"{each.answered.task.name}: {note}")


class _Progress(ProgressBar):
    """Draws what `chatwright.evaluation.run.Progress` reports."""

    def __init__(self, output: Output) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

        super().__init__(output, BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
        self.label, self.total, self.last_line = "", 0, 0.0

    def begin(self, model: str, task: str, total: int, done: int) -> None:
        """See Progress."""
        label = self.label = f"{model} · {task}" if model else task
        self.total, self.last_line = total, time.monotonic()
        self.bar.reset(self.task, total=total, completed=done, description=label, visible=True)
        if done:
            self.say(_("{label}: {done} of {total} items were answered before.", label=label, done=done, total=total))
        elif not self.drawn:
            self.say(f"{label}…")

    def advance(self, done: int) -> None:
        """See Progress."""
        self.bar.update(self.task, completed=done)
        if not self.drawn and self.total and time.monotonic() - self.last_line >= LINE_EVERY_S:
            self.last_line = time.monotonic()
            self.say(f"{self.label}: {100 * done // self.total} %")
