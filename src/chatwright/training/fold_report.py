"""The part of report.html that says what folds found: every figure with its spread, and whether augmentations helped."""

from __future__ import annotations

import html
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chatwright.i18n import _
from chatwright.training.figures import figure_name
from chatwright.training.run import Run

FOLDS_FILE, AUGMENT_FILE = "folds.json", "augmentations.json"


def fold_tables(run: Run) -> Iterator[str]:
    """HTML; nothing for a run without folds, or whose folds are not all finished."""
    if folds := _read(run, FOLDS_FILE):
        yield f"<h2>{_('Folds')}</h2>"
        n, n_seeds = len(folds["rows"]), folds.get("n_seeds", 1)
        heading = [_("FIGURE"), _("MEAN"), _("SD"), "N"]
        heading += [_("SD OF SEEDS")] if n_seeds > 1 else []
        heading += [_("FOLD {n}", n=i) for i in range(1, n + 1)]
        yield _table(
            heading, [[figure_name(name), *_figure(spread, n_seeds)] for name, spread in folds["figures"].items()]
        )
        yield from _choices(folds)
    if compared := _read(run, AUGMENT_FILE):
        metric = compared["metric"]
        yield f"<h2>{_('Augmentations')}</h2>"
        rows = []
        for name, figures in compared["figures"].items():
            mean, sd, *_values = _spread(figures[metric])
            row = [_("none") if name == "none" else name, f"{mean} ± {sd}"]
            if each := compared["differences"].get(name):
                mean, sd, *_values = _spread(each["difference"])
                row += [f"{mean} ± {sd}", f"{each['low']:.4f} … {each['high']:.4f}", _(each["verdict"])]
            rows.append(row)
        yield _table([_("AUGMENTATION"), figure_name(metric), _("DIFFERENCE"), _("95 % INTERVAL"), _("VERDICT")], rows)


def fold_means(run: Run) -> dict[str, tuple[float, float]]:
    """Figure → mean and standard deviation over the folds, which `runs show` says; empty where they are not finished."""
    figures = (_read(run, FOLDS_FILE) or {}).get("figures", {})
    return {name: (spread["mean"], spread["sd"]) for name, spread in figures.items()}


def augmentation_lines(run: Run) -> Iterator[tuple[str, str, str]]:
    """(Augmentation, figure that it is judged by, what its folds found), of a run that has compared them."""
    if compared := _read(run, AUGMENT_FILE):
        for name, figures in compared["figures"].items():
            mean, sd, *_values = _spread(figures[compared["metric"]])
            each = compared["differences"].get(name)
            verdict = f"  ({_(each['verdict'])})" if each else ""
            yield _("none") if name == "none" else name, compared["metric"], f"{mean} ± {sd}{verdict}"


def _read(run: Run, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((run.path / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _figure(spread: Mapping[str, Any], n_seeds: int) -> list[str]:
    """Mean, deviation, n, that of seeds where there are several, and the mean of each fold."""
    values = spread["values"]
    by_fold = [statistics.fmean(values[i : i + n_seeds]) for i in range(0, len(values), n_seeds)]
    seeds = [f"{spread['seed_sd']:.4f}"] if n_seeds > 1 else []
    head = [f"{spread['mean']:.4f}", f"{spread['sd']:.4f}", str(spread["n"])]
    return [*head, *seeds, *(f"{value:.4f}" for value in by_fold)]


def _choices(folds: Mapping[str, Any]) -> Iterator[str]:
    """What was chosen within each fold, and by what."""
    if not folds.get("setting"):
        return
    yield f"<h3>{_('Chosen within each fold: {setting}', setting=html.escape(folds['setting']))}</h3>"
    chosen = [(_("FOLD {n}", n=n), each) for n, each in enumerate(folds["choices"], 1)]
    chosen += [(_("all rows"), folds["chosen"])] if folds["chosen"] else []
    rows = [
        [where, f"{each['value']:g}", *(" ± ".join(_spread(spread)[:2]) for spread in each["figures"].values())]
        for where, each in chosen
    ]
    tried = [f"{figure_name(folds['metric'])}, {folds['setting']} {value}" for value in chosen[0][1]["figures"]]
    yield _table(["", _("CHOSEN"), *tried], rows)


def _spread(spread: Mapping[str, Any]) -> list[str]:
    return [f"{value:.4f}" for value in (spread["mean"], spread["sd"], *spread["values"])]


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in heading)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"
