"""Cross-validation as a plan of trainings: folds, seeds, and a setting that is chosen within each fold. Without torch.

With a setting to choose, folds are nested (Varma & Simon 2006): the rows that a fold trains on are divided again, each value is
tried on those inner folds, and the best of them is trained on all rows of the outer fold. What the outer fold holds out has
then been seen by nothing that the figure depends on. The best of several figures of the same folds would be too good.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from chatwright.errors import UsageError
from chatwright.training.folds import Spread, summarise

INNER_FOLDS = 3
NO_FIGURE = Spread(math.nan, math.nan, 0, ())  # of a value whose folds do not all have the judge's
# (Number of folds, fold from 1), from the outermost division inwards: all but the last say what is left to train on, the last says
# what is held out.
Within = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Choose:
    """A setting and the values to choose from, by `folds` inner folds."""

    setting: str
    values: tuple[float, ...]
    folds: int = INNER_FOLDS

    def __str__(self) -> str:
        """As `parse_choose` reads it, for config.toml."""
        return f"{self.setting}={','.join(map(repr, self.values))}"


def parse_choose(text: str, settings: Sequence[str], folds: int = INNER_FOLDS) -> Choose:
    """`lr=1e-4,5e-4`. Raises UsageError."""
    setting, equals, given = text.partition("=")
    try:
        values = tuple(dict.fromkeys(float(each) for each in given.split(",")))
    except ValueError:
        values = ()
    if not equals or setting.strip() not in settings or len(values) < 2 or not all(map(math.isfinite, values)):
        raise UsageError(
            "--choose takes one setting and two values or more to choose from, such as {example}, not {text!r}. Settings:"
            " {settings}.",
            example="lr=1e-4,5e-4",
            text=text[:100],
            settings=", ".join(settings),
        )
    return Choose(setting.strip(), values, folds)


@dataclass(frozen=True)
class Judge:
    """The figure of the task: what a setting is chosen by. `tie`: the one that decides where it is equal, lower being better."""

    metric: str
    higher_is_better: bool
    tie: str = "loss"

    def rank(self, figures: Mapping[str, Spread]) -> tuple[float, float]:
        """Lower is better; a figure that is no number is the worst."""
        mean = figures[self.metric].mean if self.metric in figures else math.nan
        mean = math.inf if math.isnan(mean) else (-mean if self.higher_is_better else mean)
        return mean, figures[self.tie].mean if self.tie in figures else 0.0


@dataclass(frozen=True)
class Trial:
    """One training. `name`: its folder within the run. `changes`: settings unlike the run's."""

    name: str
    within: Within
    seed: int
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fitted:
    """What one training said on what it held out, and its numbers of rows."""

    figures: Mapping[str, float]
    n_train: int
    n_held_out: int


class Fit(Protocol):
    """Does one training, or reads what it said when it was done before. Raises StoppedError."""

    def __call__(self, trial: Trial, /) -> Fitted: ...


class StoppedError(Exception):
    """A signal ended a training before its time."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


@dataclass(frozen=True)
class FoldPlan:
    """`seeds`: of training, the first being the run's; the division of the rows is the same for all."""

    folds: int
    seeds: tuple[int, ...]
    judge: Judge
    choose: Choose | None = None

    def count(self, final: bool) -> int:
        """Trainings of it, the final one's choice included."""
        inner = self.choose.folds * len(self.choose.values) if self.choose else 0
        return self.folds * (len(self.seeds) + inner) + (inner if final else 0)


@dataclass(frozen=True)
class Chosen:
    """What the inner folds found: value → the judge's figure over them."""

    value: float
    figures: Mapping[str, Spread]

    def to_dict(self) -> dict[str, Any]:
        """For folds.json."""
        return {"value": self.value, "figures": {name: spread.to_dict() for name, spread in self.figures.items()}}


@dataclass(frozen=True)
class Summary:
    """Figures over all folds and seeds, fold by fold, its seeds side by side. `metric`: the judge's. `rows`: training and held-out
    items of each fold. `seed_sd`: figure → deviation between the seeds of one fold (n - 1, pooled), where there are several.
    `choices`: of each fold; `chosen`: for the model itself, on all rows.
    """

    metric: str
    figures: Mapping[str, Spread]
    rows: Sequence[tuple[int, int]]
    n_seeds: int = 1
    seed_sd: Mapping[str, float] = field(default_factory=dict)
    setting: str | None = None
    choices: Sequence[Chosen] = ()
    chosen: Chosen | None = None

    def to_dict(self) -> dict[str, Any]:
        """For folds.json."""
        return {
            "metric": self.metric,
            "n_seeds": self.n_seeds,
            "figures": {
                name: spread.to_dict() | ({"seed_sd": self.seed_sd[name]} if name in self.seed_sd else {})
                for name, spread in self.figures.items()
            },
            "rows": [{"train": n, "held_out": n_held_out} for n, n_held_out in self.rows],
            "setting": self.setting,
            "choices": [each.to_dict() for each in self.choices],
            "chosen": None if self.chosen is None else self.chosen.to_dict(),
        }

    def by_fold(self, name: str) -> list[float]:
        """The mean of the seeds of each fold."""
        values = self.figures[name].values
        return [statistics.fmean(values[i : i + self.n_seeds]) for i in range(0, len(values), self.n_seeds)]


def run_folds(plan: FoldPlan, fit: Fit, *, final: bool = False) -> Summary:
    """All trainings of a plan. `final`: choose a setting for all rows, too. Raises StoppedError."""
    results: list[Mapping[str, float]] = []
    rows: list[tuple[int, int]] = []
    choices: list[Chosen] = []
    for fold in range(1, plan.folds + 1):
        within = ((plan.folds, fold),)
        changes: dict[str, Any] = {}
        if plan.choose is not None:
            choices.append(_choose(plan, plan.choose, str(fold), within, fit))
            changes[plan.choose.setting] = choices[-1].value
        for seed in plan.seeds:
            name = f"folds/{fold}" if seed == plan.seeds[0] else f"folds/{fold}-seed-{seed}"
            fitted = fit(Trial(name, within, seed, changes))
            results.append(fitted.figures)
        rows.append((fitted.n_train, fitted.n_held_out))
    chosen = _choose(plan, plan.choose, "all", (), fit) if final and plan.choose is not None else None
    figures = summarise(results)
    n_seeds = len(plan.seeds)
    return Summary(
        plan.judge.metric,
        figures,
        rows,
        n_seeds,
        {name: _within(spread.values, n_seeds) for name, spread in figures.items()} if n_seeds > 1 else {},
        plan.choose.setting if plan.choose else None,
        choices,
        chosen,
    )


def _choose(plan: FoldPlan, choose: Choose, name: str, within: Within, fit: Fit) -> Chosen:
    """Every value on the same inner folds, with the first seed; the earlier of equals."""
    tried: dict[float, dict[str, Spread]] = {}
    for value in choose.values:
        fitted = [
            fit(
                Trial(
                    f"choose/{name}/{choose.setting}-{value:.12g}/{inner}",
                    (*within, (choose.folds, inner)),
                    plan.seeds[0],
                    {choose.setting: value},
                )
            )
            for inner in range(1, choose.folds + 1)
        ]
        tried[value] = summarise([each.figures for each in fitted])
    best = min(choose.values, key=lambda value: plan.judge.rank(tried[value]))
    return Chosen(best, {f"{value:.12g}": found.get(plan.judge.metric, NO_FIGURE) for value, found in tried.items()})


def _within(values: Sequence[float], n_seeds: int) -> float:
    """The deviation between seeds of the same fold, pooled over folds."""
    groups = [values[i : i + n_seeds] for i in range(0, len(values), n_seeds)]
    if not all(map(math.isfinite, values)):
        return math.nan
    return math.sqrt(statistics.fmean(statistics.variance(group) for group in groups))
