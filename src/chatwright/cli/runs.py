"""`runs`: the training runs of a folder, looked at, continued, reported."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatwright.cli.output import Output, read_settings
from chatwright.errors import NotARunError, TrainingError
from chatwright.i18n import _, describe_error

if TYPE_CHECKING:
    from chatwright.training.loop import Result
    from chatwright.training.run import Run
    from chatwright.training.tune import Tuned

JSON_HELP = "Print JSON."
RUN_HELP = "The folder of a run."


def ls(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where runs lie. Default: here.")] = ".",
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """List the runs in a folder."""
    from chatwright.training.history import status_name
    from chatwright.training.run import CONFIG, Run

    output: Output = context.obj
    read_settings()
    paths = sorted(path.parent for path in Path(folder).glob(f"*/{CONFIG}"))
    found = []
    for path in paths:
        try:
            found.append(_summary(Run.open(path)))
        except NotARunError:
            continue  # another program's config.toml
        except TrainingError as error:
            output.say(describe_error(error))
            found.append(_unreadable(path))
    if as_json:
        output.json(found)
        return
    if not found:
        output.say(_("There are no runs in {folder}.", folder=Path(folder).resolve()))
        return
    output.table(
        [_("RUN"), _("VERB"), _("STATE"), _("STEP"), _("HELD-OUT")],
        [[e["name"], e["verb"] or "-", status_name(e["state"]), _where(e), _held_out(e)] for e in found],
    )


def show(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help=RUN_HELP)],
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Show a run: its settings with their reasons, where it is, its figures."""
    from chatwright.training.figures import figure_name
    from chatwright.training.fold_report import augmentation_lines, fold_means
    from chatwright.training.history import status_name
    from chatwright.training.run import Run

    output: Output = context.obj
    read_settings()
    opened = Run.open(Path(run))
    summary = _summary(opened)
    if as_json:
        output.json(summary | {"config": opened.config})
        return
    summary["state"] = status_name(summary["state"])
    labels = {
        "name": _("name"),
        "path": _("path"),
        "verb": _("command"),
        "created_at": _("created at"),
        "state": _("state"),
        "step": _("step"),
        "n_steps": _("steps"),
    }
    folds = summary.pop("folds")
    if folds is not None:  # the steps are those of each of its trainings, which stand in their own folders
        del summary["step"], summary["n_steps"], summary["figures"]
        labels["trainings"], summary["trainings"] = _("trainings of folds"), f"{folds['done']}/{folds['n']}"
    rows = [[labels[key], str(value)] for key, value in summary.items() if key in labels and value not in (None, "")]
    rows += [[figure_name(name), f"{value:.4f}"] for name, value in summary.get("figures", {}).items()]
    rows += [
        [_("{figure}, mean of the folds", figure=figure_name(name)), f"{mean:.4f} ± {sd:.4f}"]
        for name, (mean, sd) in fold_means(opened).items()
    ]
    rows += [
        [_("{figure}, augmentation {name}", figure=figure_name(metric), name=name), found]
        for name, metric, found in augmentation_lines(opened)
    ]
    reasons = opened.reasons()
    for name, section in opened.config.items():
        if isinstance(section, dict):
            for key, value in section.items():
                why = reasons.get(name, {}).get(key, "")
                rows.append([f"{name}.{key}", f"{value}  ({why})" if why else str(value)])
    output.table(["", ""], rows)


def resume(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help=RUN_HELP)],
    force: Annotated[bool, typer.Option("--force", help="Go on in another environment too.")] = False,
) -> None:
    """Continue a run from its newest checkpoint."""
    output: Output = context.obj
    settings = read_settings()
    from chatwright.machine import share_cores

    share_cores()
    from chatwright.cli.train import report_end
    from chatwright.cli.training_progress import TrainingProgress
    from chatwright.cli.tune import report_tuned
    from chatwright.engine.device import find_device
    from chatwright.training.distributed import joined
    from chatwright.training.run import Run

    opened = Run.open(Path(run))
    device = find_device(settings.device)
    result: Result | None = None
    tuned: Tuned | None = None
    with joined() as world, TrainingProgress(output if world.is_main else Output(quiet=True)) as progress:
        if opened.verb == "train" and opened.result.is_dir() and _is_finished(opened):
            output.say(_("The run {run} is finished already; its model is in {path}.", run=run, path=opened.result))
            return
        if opened.verb == "train":
            from chatwright.training.pretrain import resume_pretraining

            result = resume_pretraining(opened, device=device, progress=progress, world=world, force=force)
        elif opened.verb == "tune":
            from chatwright.training.tune import resume_tuning

            tuned = resume_tuning(opened, device=device, progress=progress, world=world, force=force)
        elif opened.verb == "folds":
            from chatwright.cli.train import report_folds
            from chatwright.training.pretrain_folds import resume_folds

            _run, summary, signal = resume_folds(opened, device=device, progress=progress, world=world, force=force)
            if world.is_main:
                report_folds(output, opened, summary)
            if signal is not None:
                raise typer.Exit(128 + signal)
            return
        elif opened.verb == "distill":
            from chatwright.cli.compress import report_distilled
            from chatwright.compression.distill import resume_distillation

            report_distilled(output, resume_distillation(opened, progress=progress))
            return
        elif opened.verb == "heal":
            raise TrainingError(
                "{path} is the healing of a pruned model: repeat the `chatwright prune` command that began it, and it goes on.",
                path=run,
            )
        else:
            raise TrainingError(
                "The run {path} is of a kind that cannot be continued ({verb}).", path=run, verb=opened.verb
            )
    if world.is_main and result is not None:
        report_end(output, opened, result)
    if world.is_main and tuned is not None:
        report_tuned(output, tuned)
    signal = next((ended.signal for ended in (result, tuned) if ended is not None), None)
    if signal is not None:
        raise typer.Exit(128 + signal)


def report(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN", help=RUN_HELP)],
) -> None:
    """Write the report of a run anew, in your language, and print its path."""
    from chatwright.training.report import write_report
    from chatwright.training.run import Run

    output: Output = context.obj
    read_settings()
    output.data(str(write_report(Run.open(Path(run)))))


def _summary(run: Run) -> dict[str, Any]:
    from chatwright.training.fold_report import fold_means
    from chatwright.training.fold_state import FoldState
    from chatwright.training.history import History

    history = History.read(run)
    folds = FoldState.of(run, history)
    state = folds.status if folds else history.status
    if folds:
        figures = {name: mean for name, (mean, _sd) in fold_means(run).items()}
    else:
        figures = {name: points[-1][1] for name, points in history.series.items() if points} | dict(history.final)
    return {
        "name": run.path.resolve().name,
        "path": str(run.path.resolve()),
        "verb": run.verb,
        "created_at": run.config.get("created_at"),
        "state": "killed" if state == "running" and not run.is_held() else state,
        "step": history.step,
        "n_steps": run.config.get("training", {}).get("n_steps"),
        "folds": {"done": folds.n_done, "n": folds.n} if folds else None,
        "figures": {name: value for name, value in figures.items() if math.isfinite(value)},
    }


def _unreadable(path: Path) -> dict[str, Any]:
    """In the place of a summary; why it cannot be read is said beside it."""
    unknown = dict.fromkeys(("verb", "created_at", "step", "n_steps", "folds"))
    return {"name": path.name, "path": str(path.resolve()), "state": "unreadable", **unknown, "figures": {}}


def _where(summary: dict[str, Any]) -> str:
    if (folds := summary["folds"]) is not None:
        return _("{done}/{n} trainings", done=folds["done"], n=folds["n"])
    if summary["state"] == "unreadable":
        return "-"
    return f"{summary['step']}/{summary['n_steps'] or '?'}"


def _is_finished(run: Run) -> bool:
    from chatwright.training.history import History

    return History.read(run).status in ("finished", "stopped early")


def _held_out(summary: dict[str, Any]) -> str:
    from chatwright.training.figures import figure_name

    for name in ("bits_per_byte", "accuracy", "f1"):
        if name in summary["figures"]:
            return f"{figure_name(name)} {summary['figures'][name]:.4f}"
    return "-"
