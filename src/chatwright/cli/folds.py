"""What folds found, as tables: of `tune --folds` and of `train --folds`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from chatwright.cli.output import Output
from chatwright.i18n import _

if TYPE_CHECKING:
    from chatwright.training.trials import Summary

Seeds = Annotated[str, typer.Option("--seeds", metavar="N", help="Seeds of each fold, from --seed on.")]
Choose = Annotated[
    str | None,
    typer.Option(
        "--choose",
        metavar="KEY=X,Y",
        help="Choose a setting within each fold, such as lr=1e-4,5e-4; what the fold holds out is not looked at for it.",
        show_default=False,
    ),
]


def fold_tables(output: Output, summary: Summary) -> None:
    """Mean, deviation and n of every figure, each fold's, and what was chosen."""
    from chatwright.training.figures import figure_name

    several = summary.n_seeds > 1
    output.table(
        [
            _("FIGURE"),
            _("MEAN"),
            _("SD"),
            "N",
            *([_("SD OF SEEDS")] if several else []),
            *(_("FOLD {n}", n=n) for n in range(1, len(summary.rows) + 1)),
        ],
        [
            [
                figure_name(name),
                f"{spread.mean:.4f}",
                f"{spread.sd:.4f}",
                str(spread.n),
                *([f"{summary.seed_sd[name]:.4f}"] if several else []),
                *(f"{value:.4f}" for value in summary.by_fold(name)),
            ]
            for name, spread in summary.figures.items()
        ],
    )
    if summary.setting is None:
        return
    chosen = [(_("FOLD {n}", n=n), each) for n, each in enumerate(summary.choices, 1)]
    chosen += [(_("all rows"), summary.chosen)] if summary.chosen else []
    output.data("")
    output.data(_("Chosen within each fold: {setting}", setting=summary.setting))
    output.table(
        [
            "",
            _("CHOSEN"),
            *(f"{figure_name(summary.metric)}, {summary.setting} {value}" for value in chosen[0][1].figures),
        ],
        [
            [where, f"{each.value:g}", *(f"{found.mean:.4f} ± {found.sd:.4f}" for found in each.figures.values())]
            for where, each in chosen
        ],
    )
