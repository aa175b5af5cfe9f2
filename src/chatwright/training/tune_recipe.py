"""From what the user asks of a tuning to every number that it needs, each with its reason; decided once and stored in the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from chatwright.errors import Detail, InvalidDatasetError, UsageError
from chatwright.i18n import _
from chatwright.text.dataset import Dataset
from chatwright.text.manifest import Kind
from chatwright.training.config import Precision, TrainingConfig
from chatwright.training.trials import Choose, Judge

Method = Literal["full", "lora", "dpo", "classify", "tag"]
METHODS: tuple[Method, ...] = get_args(Method)
KIND_OF: Mapping[Method, Kind] = {
    "full": "conversations",
    "lora": "conversations",
    "dpo": "preferences",
    "classify": "labelled",
    "tag": "tagged",
}
# The figure of the task, which folds report first, and a setting is chosen and an augmentation judged by.
JUDGE_OF: Mapping[Method, Judge] = {
    "full": Judge("bits_per_byte", higher_is_better=False),
    "lora": Judge("bits_per_byte", higher_is_better=False),
    "dpo": Judge("accuracy", higher_is_better=True),
    "classify": Judge("macro_f1", higher_is_better=True),
    "tag": Judge("f1", higher_is_better=True),
}
# What may be chosen within folds, by method.
CHOOSABLE: Mapping[str, tuple[Method, ...]] = {
    "lr": METHODS,
    "epochs": METHODS,
    "weight_decay": METHODS,
    "dropout": METHODS,
    "strength": ("lora",),
    "alpha": ("lora", "dpo"),
    "beta": ("dpo",),
}
# What a kind of rows is for, in the sentence about the wrong kind.
METHODS_FOR: Mapping[Kind, str] = {
    "documents": "chatwright train",
    "conversations": "--method lora or full",
    "preferences": "--method dpo",
    "labelled": "--method classify",
    "tagged": "--method tag",
}

# Tokens a step, and at a time: what a small model needs for a steady gradient, and what a machine of 4 GB holds of one of 135M.
STEP_TOKENS, MICRO_TOKENS = 4096, 1024
# Longer conversations than this are cut by default: memory grows with the context, and few are longer.
DEFAULT_CONTEXT = 1024
STEPS_AN_EPOCH = 10
MOST_EVALUATIONS = 20
LARGEST_CONTEXT = 1 << 20
ANSWERS = 32


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """What the user asked for; None: decide. `batch`: rows a step (packs of conversations, pairs, texts). `micro`: at a time.

    `rank` 0 trains all weights (dpo only). `strength`: the share of the adapter that is kept when training is over; between the
    base and the tuned weights lie models that are almost as good at what was learned and forgot less (Wortsman et al. 2022).
    `folds`, each with `seeds` seeds from `seed` on; `choose`: a setting within them. `answers`: held-out questions to be answered
    when training is over, for token F1 (None: 32 with folds, none without). `final`: after folds, train on all training data too.
    `adapter`: the folder of one to go on with, instead of a new one. `keep`: how many of the newest checkpoints stay.
    """

    method: Method
    seed: int = 0
    epochs: float | None = None
    lr: float | None = None
    rank: int | None = None
    alpha: float | None = None
    strength: float | None = None
    dropout: float | None = None
    weight_decay: float | None = None
    context: int | None = None
    batch: int | None = None
    micro: int | None = None
    beta: float | None = None
    patience: int | None = None
    packed: bool = True
    augmentations: Sequence[str] = ()
    folds: int = 0
    seeds: int = 1
    choose: Choose | None = None
    answers: int | None = None
    final: bool = True
    adapter: Path | None = None
    keep: int = 1
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        for option, value, least, most in (
            ("--seed", self.seed, 0, (1 << 63) - 1),
            ("--epochs", self.epochs, 1e-6, 1e4),
            ("--lr", self.lr, 1e-9, 10.0),
            ("--rank", self.rank, 0 if self.method == "dpo" else 1, 1024),
            ("--alpha", self.alpha, 1e-3, 1e6),
            ("--strength", self.strength, 0.01, 1.0),
            ("--dropout", self.dropout, 0.0, 0.9),
            ("--weight-decay", self.weight_decay, 0.0, 100.0),
            ("--context", self.context, 16, LARGEST_CONTEXT),
            ("--batch", self.batch, 1, 1 << 20),
            ("--micro-rows", self.micro, 1, 1 << 20),
            ("--beta", self.beta, 1e-4, 100.0),
            ("--patience", self.patience, 0, 10_000),
        ):
            if value is not None and not least <= value <= most:
                raise UsageError(
                    "{option} takes a number from {least} to {most}, not {value!r}.",
                    option=option,
                    least=least,
                    most=most,
                    value=value,
                )
        if self.folds and not 2 <= self.folds <= 100:
            raise UsageError("--folds takes a number from 2 to 100, not {value}.", value=self.folds)
        self._check_folds()
        for option, given, methods in (
            ("--answers", bool(self.answers), ("full", "lora")),
            ("--rank", self.rank is not None, ("lora", "dpo")),
            ("--alpha", self.alpha is not None, ("lora", "dpo")),
            ("--strength", self.strength is not None, ("lora",)),
            ("--beta", self.beta is not None, ("dpo",)),
            ("--adapter", self.adapter is not None, ("lora", "dpo")),
            ("--augment", bool(self.augmentations), ("full", "lora", "classify", "tag")),
        ):
            if given and self.method not in methods:
                raise UsageError(
                    "{option} has no meaning for --method {method}; it is for {methods}.",
                    option=option,
                    method=self.method,
                    methods=", ".join(methods),
                )

    def _check_folds(self) -> None:
        if not 1 <= self.seeds <= 100:
            raise UsageError("--seeds takes a number from 1 to 100, not {value}.", value=self.seeds)
        for option, given in (("--seeds", self.seeds > 1), ("--choose", self.choose is not None)):
            if given and not self.folds:
                raise UsageError("{option} needs folds to judge by: add --folds 5.", option=option)
        if self.choose is None:
            return
        setting = self.choose.setting
        if self.method not in CHOOSABLE[setting]:
            raise UsageError(
                "{option} has no meaning for --method {method}; it is for {methods}.",
                option=f"--choose {setting}",
                method=self.method,
                methods=", ".join(CHOOSABLE[setting]),
            )
        if setting == "alpha" and not self.lora_rank:
            raise UsageError("--choose alpha needs an adapter: --rank 0 trains all weights.")
        if getattr(self, setting) is not None:
            raise UsageError(
                "{option} is given, and --choose shall find it: leave one of them out.",
                option=f"--{setting.replace('_', '-')}",
            )
        for value in self.choose.values:
            tried: dict[str, Any] = {"choose": None, setting: value}
            replace(self, **tried)  # within its own limits

    @property
    def n_answers(self) -> int:
        """Held-out questions to be answered for token F1."""
        if self.method not in ("full", "lora"):
            return 0
        return self.answers if self.answers is not None else (ANSWERS if self.folds else 0)

    @property
    def lora_rank(self) -> int:
        """The rank of the adapter; 0 where all weights are trained."""
        if self.method not in ("lora", "dpo"):
            return 0
        return 16 if self.rank is None else self.rank


def check_kind(dataset: Dataset, method: Method) -> Kind:
    """The kind of rows that the method needs. Raises InvalidDatasetError naming what the dataset has and what that is for."""
    kind = KIND_OF[method]
    if dataset.n_rows("train", kind):
        return kind
    if kind in dataset.kinds:
        raise InvalidDatasetError(
            "{path} has {kind} only among its held-out rows, none to train on. Prepare it again with fewer held-out rows, or add"
            " data.",
            path=dataset.path,
            kind=Detail(kind),
        )
    raise InvalidDatasetError(
        "--method {method} needs {kind}, and {path} has {found}.",
        method=method,
        kind=Detail(kind),
        path=dataset.path,
        found="; ".join(f"{_(found)} ({_(METHODS_FOR[found])})" for found in dataset.kinds) or "-",
    )


@dataclass(frozen=True)
class Shape:
    """What was found in the data and the model: rows to train on, the longest and its tokens; held-out rows; the model's width."""

    n_rows: int
    longest: int
    n_held_out: int
    d_model: int


@dataclass
class Recipe:
    """Sections of config.toml, with the reason of each number."""

    training: TrainingConfig
    tune: dict[str, Any]
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)


def choose_context(options: TuneOptions, model_context: int) -> tuple[int, str]:
    """The longest row in tokens, and why. Raises UsageError for more than the model can read."""
    if options.context is not None:
        if options.context > model_context:
            raise UsageError(
                "--context {context} is more than the model can read ({most} tokens).",
                context=options.context,
                most=model_context,
            )
        return options.context, _("as asked")
    if model_context <= DEFAULT_CONTEXT:
        return model_context, _("all that the model can read")
    return DEFAULT_CONTEXT, _(
        "few rows are longer, and memory grows with it; the model could read {n}", n=model_context
    )


def resolve(options: TuneOptions, shape: Shape, precision: Precision) -> Recipe:
    """Everything that is not said by the user, from the shape of data and model. `precision`: resolved already."""
    why: dict[str, str] = {}
    method = options.method

    def choose(name: str, asked: Any, default: Any, reason: str) -> Any:
        why[name] = _("as asked") if asked is not None else reason
        return default if asked is None else asked

    epochs = choose("epochs", options.epochs, *_epochs(method))
    sequences = 2 if method == "dpo" else 1
    batch_rows, why["batch_rows"] = _batch_rows(options, shape, sequences)
    micro_default = max(1, MICRO_TOKENS // (sequences * max(1, shape.longest)))
    micro_rows = min(batch_rows, options.micro or micro_default)
    why["micro_rows"] = _("as asked") if options.micro else _("about {n} tokens at a time", n=MICRO_TOKENS)
    why["n_steps"] = _("{epochs:g} epochs of {n} rows", epochs=epochs, n=shape.n_rows)
    lr = choose("lr", options.lr, *_learning_rate(options, shape.d_model))
    patience = choose("patience", options.patience, 2 if shape.n_held_out else 0, _("evaluations without improvement"))
    if not shape.n_held_out:
        why["patience"] = _("no held-out rows to judge by")
    adapts = options.lora_rank > 0
    training = TrainingConfig(
        n_steps=1,
        batch_rows=batch_rows,
        micro_rows=micro_rows,
        seed=options.seed,
        optimizer="adamw",
        lr=lr,
        beta2=0.999,
        weight_decay=choose("weight_decay", options.weight_decay, 0.0 if adapts else 0.01, _("as usual")),
        warmdown_share=0.9,
        clip=1.0,
        precision=precision,
        keep=options.keep,
        patience=patience,
    )
    why |= {
        "eval_every": _("once an epoch"),
        "warmdown_share": _("the rate falls to zero"),
        "keep": _("and the best one"),
    }
    tune: dict[str, Any] = {
        "method": method,
        "epochs": float(epochs),
        "packed": options.packed,
        "dropout": options.dropout if options.dropout is not None else (0.1 if method in ("classify", "tag") else 0.0),
        "augmentations": list(options.augmentations),
        "rank": options.lora_rank,
    }
    if adapts:
        tune["alpha"] = float(options.alpha if options.alpha is not None else 2 * options.lora_rank)
    if options.adapter is not None and adapts:
        tune["adapter"] = str(options.adapter.resolve())
    if method == "lora":
        tune["strength"] = options.strength if options.strength is not None else 1.0
    if options.n_answers:
        tune["answers"] = options.n_answers
    if method == "dpo":
        tune["beta"] = options.beta if options.beta is not None else 0.1
    reasons = {"tune": {"epochs": why.pop("epochs")}, "training": why}
    return Recipe(for_part(training, epochs, shape.n_rows, shape.n_held_out), tune, reasons)


def for_fold(training: TrainingConfig, epochs: float, n_rows: int) -> TrainingConfig:
    """The same training on the rows of a fold, for as many epochs. Its held-out rows are looked at once, when it is over: to keep
    the best of several looks would flatter the figure that the fold is for.
    """
    return replace(for_part(training, epochs, n_rows, 0), eval_every=0, patience=0)


def for_part(training: TrainingConfig, epochs: float, n_rows: int, n_held_out: int) -> TrainingConfig:
    """The same training on another number of rows: steps for as many epochs, evaluated once an epoch."""
    batch_rows = min(training.batch_rows, n_rows)
    n_steps = max(1, math.ceil(epochs * n_rows / batch_rows))
    # once an epoch, and not more often than is worth the time where epochs are short and many
    every = max(1, math.ceil(n_rows / batch_rows), math.ceil(n_steps / MOST_EVALUATIONS))
    return replace(
        training,
        batch_rows=batch_rows,
        micro_rows=min(training.micro_rows, batch_rows),
        n_steps=n_steps,
        warmup_steps=min(n_steps - 1, math.ceil(0.05 * n_steps)),
        eval_every=every if n_held_out else 0,
        sample_every=every,
        checkpoint_every=every,
        patience=training.patience if n_held_out else 0,
    )


def _epochs(method: Method) -> tuple[float, str]:
    if method == "dpo":
        return 1, _("preferences are learned fast, and by heart in a second epoch")
    return (3 if method in ("full", "lora") else 5), _("held-out rows end it sooner when it is enough")


def _batch_rows(options: TuneOptions, shape: Shape, sequences: int) -> tuple[int, str]:
    if options.batch is not None:
        if options.batch > shape.n_rows:
            return shape.n_rows, _(
                "{asked} asked for, but there are only {n} rows", asked=options.batch, n=shape.n_rows
            )
        return options.batch, _("as asked")
    by_tokens = max(1, STEP_TOKENS // (sequences * max(1, shape.longest)))
    by_steps = max(1, shape.n_rows // STEPS_AN_EPOCH)
    if by_steps < by_tokens:
        return by_steps, _("so that an epoch of {n} rows has about {steps} steps", n=shape.n_rows, steps=STEPS_AN_EPOCH)
    return by_tokens, _("about {n} tokens a step", n=STEP_TOKENS)


def usual_learning_rate(method: Method) -> float:
    """Of an adapter."""
    return 5e-5 if method == "dpo" else 5e-4


def _learning_rate(options: TuneOptions, d_model: int) -> tuple[float, str]:
    if options.lora_rank:
        reason = _("usual for LoRA: about ten times that of full tuning")
        return usual_learning_rate(options.method), _("usual for DPO with LoRA") if options.method == "dpo" else reason
    rate = 5e-6 if options.method == "dpo" else 5e-5
    # the best rate falls with the width (Yang et al. 2022)
    reason = _("{rate} at a width of 768, and inversely to it: {width} here", rate=f"{rate:g}", width=d_model)
    return float(f"{rate * 768 / d_model:.3g}"), reason
