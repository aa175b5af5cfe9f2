"""From one dial to every setting of a pretraining run, each with its reason: what `plan` and `train` both print.

`resolve` needs the dataset's size, the machine's speed and what the user asked; `fit_minutes` then turns minutes into steps from
what a step was measured to cost. Both are pure: the same arguments give the same run, and nothing after them reads the clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from chatwright.errors import InvalidDatasetError, UsageError
from chatwright.i18n import _
from chatwright.model.config import ModelConfig, parameter_count
from chatwright.model.presets import config_for_size, rnn_config_for_size
from chatwright.model.rnn_config import RNNConfig, rnn_parameter_count
from chatwright.tokenizer.vocab_size import explain_vocab_size
from chatwright.training.config import Precision, TrainingConfig
from chatwright.training.measure import StepCost
from chatwright.training.request import Request
from chatwright.training.speed import Machine
from chatwright.training.stats import TextStats

DEFAULT_MINUTES = 10.0
# Share of the machine's fastest product that a step reaches; nanoGPT's loop has 59–66 % at 10M parameters, smaller models less.
EFFICIENCY = 0.4
# Below, Muon's five products of square matrices a step cost more than they gain (5m/T of a step, see `optimizer`).
MUON_FROM_TOKENS = 2048
MUON_LR = 0.04
# bf16 is worth its rounding from this many times the speed on.
BF16_FROM = 1.3
# Of --minutes: held-out figures on the way, and of the whole held-out data at the end.
EVALUATION_SHARE, FINAL_SHARE = 0.04, 0.06
N_EVALUATIONS, FEWEST_EVALUATIONS = 12, 3
# And the checkpoints at these evaluations, at most.
SAVING_SHARE = 0.15
SECONDS_BETWEEN_CHECKPOINTS = 120.0
MICRO_TOKENS = {"cpu": 4096, "cuda": 32768}
MIN_CONTEXT = 16


@dataclass(frozen=True)
class Recipe:
    """Everything resolved. `reasons`: setting → why, in the user's language. `n_tokens`: of the training text; an estimate until
    the tokenizer is there. `part_bytes`, `final_bytes`: held-out text looked at on the way and at the end."""

    request: Request
    model: ModelConfig | RNNConfig
    training: TrainingConfig
    vocab_size: int
    context_length: int
    n_tokens: int
    bytes_per_token: float
    dropout: float
    fim_share: float
    part_bytes: int = 200_000
    final_bytes: int = 4_000_000
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_parameters(self) -> int:
        """Trained numbers, the embedding included."""
        return count_parameters(self.model)

    @property
    def tokens_per_step(self) -> int:
        """Over all micro-batches and ranks."""
        return self.training.batch_rows * self.context_length

    @property
    def epochs(self) -> float:
        """How often the text is read."""
        return self.training.n_steps * self.tokens_per_step / self.n_tokens


def resolve(stats: TextStats, request: Request, machine: Machine, *, vocab_size: int | None = None) -> Recipe:
    """The recipe with a first estimate of the steps. `vocab_size`: of the tokenizer that is given, if one is.

    Raises UsageError for what contradicts itself, InvalidDatasetError for too little text.
    """
    _check(request)
    why: dict[str, str] = {}
    minutes = request.minutes or (DEFAULT_MINUTES if request.size is None and request.steps is None else None)
    request = replace(request, minutes=minutes)
    size = request.size or _size_for(minutes or DEFAULT_MINUTES, stats, machine, why)
    if request.size:
        why["size"] = _("as asked")
    vocab = _vocabulary(request, vocab_size, stats, size, why)
    bytes_per_token = stats.bytes_per_token(vocab)
    n_tokens = max(1, round(stats.n_bytes / bytes_per_token))
    context = _context(request, size, n_tokens, why)
    model = _model(request, size, vocab, context)
    horizon = _horizon(model, minutes, n_tokens, machine, why)
    batch_tokens = _batch_tokens(request, horizon, context, why)
    batch_rows = max(1, min(batch_tokens // context, max(1, n_tokens // context)))
    n_steps = request.steps or max(1, round(horizon / (batch_rows * context)))
    epochs = n_steps * batch_rows * context / n_tokens
    if request.steps:
        why["n_steps"] = _("as asked")
    training = TrainingConfig(
        n_steps=n_steps,
        batch_rows=batch_rows,
        micro_rows=_micro_rows(request, batch_rows, context, machine),
        seed=request.seed,
        precision=_precision(request, machine, why),
        compile=request.compile,
        patience=_patience(request, epochs, why),
        **_optimizer(request, model, batch_rows * context, why),
    )
    recipe = Recipe(
        request=request,
        model=model,
        training=training,
        vocab_size=vocab,
        context_length=context,
        n_tokens=n_tokens,
        bytes_per_token=bytes_per_token,
        dropout=_dropout(request, epochs, why),
        fim_share=request.fim,
        reasons=why,
    )
    return _paced(recipe, n_steps)


def fit_tokens(recipe: Recipe, n_tokens: int, n_bytes: int, vocab_size: int) -> Recipe:
    """The recipe when the text is tokenised: the model has the tokenizer's vocabulary, and no row or step is longer than the text.

    Raises InvalidDatasetError when not even a short row fits.
    """
    request, context = recipe.request, recipe.context_length
    reasons = dict(recipe.reasons)
    if n_tokens < context + 1:
        nearest = 1 << max(0, (n_tokens - 1).bit_length() - 1)  # the largest power of two that fits
        if request.context or nearest < MIN_CONTEXT:
            raise InvalidDatasetError(
                "The text has only {n_tokens} tokens, too few for a row of {context} and the token after it. Take"
                " --context {nearest} or less, or prepare more text.",
                n_tokens=n_tokens,
                context=context,
                nearest=max(1, nearest),
            )
        context = nearest
        reasons["context_length"] = _("the whole text has only {n} tokens", n=n_tokens)
    rows = max(1, (n_tokens - 1) // context)
    training = recipe.training
    if training.batch_rows > rows:
        reasons["batch_rows"] = _("the text has no more rows")
        training = replace(training, batch_rows=rows, micro_rows=min(training.micro_rows, rows))
    if request.vocab_size is not None and vocab_size < request.vocab_size:
        reasons["vocab_size"] = _("the text gives no more than these of the {n} asked for", n=request.vocab_size)
    model = replace(recipe.model, vocab_size=vocab_size, context_length=context)
    recipe = replace(
        recipe,
        model=model,
        training=training,
        context_length=context,
        vocab_size=vocab_size,
        n_tokens=n_tokens,
        bytes_per_token=n_bytes / n_tokens,
        reasons=reasons,
    )
    if request.steps is None and request.minutes is None:
        horizon = _worth_reading(model, n_tokens, reasons)
        recipe = _paced(recipe, max(1, round(horizon / recipe.tokens_per_step)))
    reasons = _without(reasons, "optimizer", "lr", "weight_decay")
    optimizer = _optimizer(request, model, recipe.tokens_per_step, reasons)
    return _by_readings(replace(recipe, training=replace(recipe.training, **optimizer), reasons=reasons))


def fit_minutes(recipe: Recipe, cost: StepCost) -> Recipe:
    """Minutes become steps, from what a step, a held-out token and a checkpoint cost; then they are not looked at again."""
    minutes, training = recipe.request.minutes, recipe.training
    step_s = cost.step_seconds(training)
    checkpoint_every = max(1, round(SECONDS_BETWEEN_CHECKPOINTS / max(step_s, 1e-9)))
    if minutes is None or recipe.request.steps is not None:
        return replace(recipe, training=replace(training, checkpoint_every=checkpoint_every))
    seconds = minutes * 60
    # each evaluation may have a checkpoint: where that takes long, a short run has fewer of both
    affordable = SAVING_SHARE * seconds / max(cost.save_seconds, 1e-9)
    n_evaluations = round(min(N_EVALUATIONS, max(FEWEST_EVALUATIONS, affordable)))
    # a held-out token is read about twice, since windows overlap by half
    token_s = 2 * cost.eval_seconds
    part_tokens = EVALUATION_SHARE * seconds / n_evaluations / token_s
    final_tokens = FINAL_SHARE * seconds / token_s
    n_saves = n_evaluations + 2 + seconds / SECONDS_BETWEEN_CHECKPOINTS
    left = seconds * (1 - EVALUATION_SHARE - FINAL_SHARE) - n_saves * cost.save_seconds
    n_steps = max(1, round(left / step_s))
    reasons = dict(recipe.reasons) | {
        "n_steps": _(
            "{minutes:g} min at {seconds:.2f} s a step, measured once before the first",
            minutes=minutes,
            seconds=step_s,
        )
    }
    recipe = replace(
        recipe,
        training=replace(training, checkpoint_every=checkpoint_every),
        part_bytes=max(2_000, round(part_tokens * recipe.bytes_per_token)),
        final_bytes=max(10_000, round(final_tokens * recipe.bytes_per_token)),
        reasons=reasons,
    )
    return _by_readings(_paced(recipe, n_steps, n_evaluations))


def count_parameters(model: ModelConfig | RNNConfig) -> int:
    """Trained numbers; a tied head counts once."""
    return rnn_parameter_count(model) if isinstance(model, RNNConfig) else parameter_count(model)


def _paced(recipe: Recipe, n_steps: int, n_evaluations: int = N_EVALUATIONS) -> Recipe:
    """Everything that is a share of the steps."""
    training = replace(
        recipe.training,
        n_steps=n_steps,
        warmup_steps=min(40, n_steps // 10),
        eval_every=-(-n_steps // n_evaluations),
        sample_every=max(1, n_steps // 4),
        checkpoint_every=min(recipe.training.checkpoint_every or n_steps, max(1, n_steps // 5)),
    )
    recipe = replace(recipe, training=training)
    if recipe.request.minutes is not None:
        return recipe  # `fit_minutes` has measured what held-out text costs
    # a held-out token costs two thirds of a trained one: forward only, and read twice where windows overlap
    n_tokens = 1.5 * n_steps * recipe.tokens_per_step
    part, final = (
        n_tokens * share * recipe.bytes_per_token for share in (EVALUATION_SHARE / N_EVALUATIONS, FINAL_SHARE)
    )
    return replace(
        recipe,
        part_bytes=min(max(8_000, round(part)), 200_000),
        final_bytes=min(max(100_000, round(final)), 4_000_000),
    )


def _by_readings(recipe: Recipe) -> Recipe:
    """What depends on how often the text is read, chosen again when that is known better, with reasons that say the new number."""
    why = _without(recipe.reasons, "patience", "dropout")
    training = replace(recipe.training, patience=_patience(recipe.request, recipe.epochs, why))
    return replace(recipe, training=training, dropout=_dropout(recipe.request, recipe.epochs, why), reasons=why)


def _without(reasons: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: why for name, why in reasons.items() if name not in names}


def _check(request: Request) -> None:
    if request.minutes is not None and not 0 < request.minutes <= 1_000_000:
        raise UsageError(
            "--minutes {minutes} leaves no time to train. Give a positive number of minutes, such as 5.",
            minutes=f"{request.minutes:g}",
        )
    if request.cell is not None and request.arch != "rnn":
        raise UsageError("--cell belongs to --arch rnn.")
    if request.positions is not None and request.arch != "gpt2":
        raise UsageError("--positions belongs to --arch gpt2.")
    if request.arch == "rnn" and request.fim:
        raise UsageError("--fim is for qwen3 and gpt2: a recurrent model is not served with a suffix.")


def _size_for(minutes: float, stats: TextStats, machine: Machine, why: dict[str, str]) -> int:
    """Parameters that this machine can train well in the time (see LOG.md: small runs on manuals, 2 cores)."""
    operations = minutes * 60 * machine.flops * EFFICIENCY
    # 6 operations a parameter and token, TOKENS_PER_PARAMETER tokens a parameter, as Hoffmann et al. (2022) count
    size = math.sqrt(operations / 6 / TOKENS_PER_PARAMETER)
    by_text = stats.n_bytes / 3.3 * MOST_EPOCHS / TOKENS_PER_PARAMETER
    if by_text < size:
        why["size"] = _("as much as the text can teach in {epochs} readings", epochs=MOST_EPOCHS)
        size = by_text
    else:
        why["size"] = _("what this machine can train in {minutes:g} min", minutes=minutes)
    if size < SMALLEST_CHOSEN:
        why["size"] = _("the smallest that is chosen by itself")
        if by_text < SMALLEST_CHOSEN:
            why["size"] = _("the smallest that is chosen by itself: so little text would fill a smaller one")
    return min(max(round(size), SMALLEST_CHOSEN), 2_000_000_000)


SMALLEST_CHOSEN = 150_000
TOKENS_PER_PARAMETER = 8.0
MOST_EPOCHS = 4


def _vocabulary(request: Request, given: int | None, stats: TextStats, size: int, why: dict[str, str]) -> int:
    if given is not None:
        why["vocab_size"] = _("that of the tokenizer given")
        return given
    if request.vocab_size is not None:
        why["vocab_size"] = _("as asked")
        return request.vocab_size
    choice = explain_vocab_size(stats.n_bytes, size)
    why["vocab_size"] = {
        "text": _("what so much text can teach"),
        "model": _("a quarter of the parameters for the embedding"),
        "limits": _("the smallest or largest sensible one"),
    }[choice.bound]
    return choice.size


def _context(request: Request, size: int, n_tokens: int, why: dict[str, str]) -> int:
    if request.context is not None:
        why["context_length"] = _("as asked")
        return request.context
    wanted = 256 if size < 20_000_000 else 512 if size < 80_000_000 else 1024
    why["context_length"] = _("short rows are cheap, and what a model of this size can use")
    while wanted > MIN_CONTEXT and n_tokens < 8 * wanted:  # some rows to tell apart
        wanted //= 2
        why["context_length"] = _("the text is short")
    return wanted


def _model(request: Request, size: int, vocab: int, context: int) -> ModelConfig | RNNConfig:
    if request.arch == "rnn":
        return rnn_config_for_size(size, vocab, request.cell or "lstm", context)
    return config_for_size(size, vocab, context, request.arch, positions=request.positions)


def _horizon(
    model: ModelConfig | RNNConfig,
    minutes: float | None,
    n_tokens: int,
    machine: Machine,
    why: dict[str, str],
) -> float:
    """Tokens to train on."""
    if minutes is not None:
        return minutes * 60 * machine.flops * EFFICIENCY / 6 / count_parameters(model)
    return _worth_reading(model, n_tokens, why)


def _worth_reading(model: ModelConfig | RNNConfig, n_tokens: int, why: dict[str, str]) -> float:
    """Tokens to train on when neither minutes nor steps are given."""
    wanted = 12 * count_parameters(model)
    if wanted > MOST_EPOCHS * n_tokens:
        why["n_steps"] = _(
            "{epochs} readings of the text: more teach little (Muennighoff et al. 2023)", epochs=MOST_EPOCHS
        )
        return MOST_EPOCHS * n_tokens
    why["n_steps"] = _("12 tokens a parameter, the best use of the computation for this size")
    return wanted


def _batch_tokens(request: Request, horizon: float, context: int, why: dict[str, str]) -> int:
    if request.batch_tokens is not None:
        why["batch_rows"] = _("as asked")
        if request.batch_tokens < context:
            raise UsageError(
                "--batch-tokens {batch} is less than one row of {context} tokens. Give at least {context}.",
                batch=request.batch_tokens,
                context=context,
            )
        return request.batch_tokens
    why["batch_rows"] = _("the best batch grows with the tokens trained on")
    return best_batch_tokens(horizon)


def best_batch_tokens(n_tokens: float) -> int:
    """Tokens of a step, a power of two, when `n_tokens` are trained on. The best batch grows as tokens^0.383 (Power Lines, Bergsma
    et al. 2025); 4k at 4 million tokens from our own runs (LOG.md).
    """
    wanted = 4096 * (n_tokens / 4e6) ** 0.383
    return int(min(2 ** round(math.log2(max(wanted, 1024))), 2**19))


def _micro_rows(request: Request, batch_rows: int, context: int, machine: Machine) -> int:
    if request.micro_rows is not None:
        return min(request.micro_rows, batch_rows)
    tokens = MICRO_TOKENS["cuda" if machine.device.startswith("cuda") else "cpu"]
    return max(1, min(batch_rows, tokens // context))


def _precision(request: Request, machine: Machine, why: dict[str, str]) -> Precision:
    if request.precision != "auto":
        why["precision"] = _("as asked")
        return request.precision
    precision, why["precision"] = precision_for(machine)
    return precision


def precision_for(machine: Machine) -> tuple[Precision, str]:
    """bf16 where the machine multiplies it clearly faster, and why: weights and their updates are fp32 either way."""
    ratio = machine.bf16_flops / machine.fp32_flops
    why = _("bf16 products are {ratio:.1f} times as fast as fp32 here", ratio=ratio)
    return ("bf16" if ratio >= BF16_FROM else "fp32"), why


def _patience(request: Request, epochs: float, why: dict[str, str]) -> int:
    if request.patience is not None:
        return request.patience
    if epochs <= 2:
        return 0
    why["patience"] = _("the text is read {epochs:.1f} times: held-out text says when to stop", epochs=epochs)
    return 4


def _dropout(request: Request, epochs: float, why: dict[str, str]) -> float:
    if request.dropout is not None:
        why["dropout"] = _("as asked")
        return request.dropout
    if epochs <= 4:
        return 0.0
    why["dropout"] = _("the text is read {epochs:.1f} times", epochs=epochs)
    return 0.1


def _optimizer(
    request: Request, model: ModelConfig | RNNConfig, batch_tokens: int, why: dict[str, str]
) -> dict[str, Any]:
    width = model.d_model
    kind = request.optimizer
    if kind is not None:
        why["optimizer"] = _("as asked")
    elif isinstance(model, RNNConfig):
        kind = "adamw"
        why["optimizer"] = _("Muon is made for Transformers' matrices")
    elif batch_tokens >= MUON_FROM_TOKENS:
        kind = "muon"
        why["optimizer"] = _("a step has {n} tokens or more, which pays for Muon", n=MUON_FROM_TOKENS)
    else:
        kind = "adamw"
        why["optimizer"] = _("a step has less than {n} tokens: Muon would cost more than it gains", n=MUON_FROM_TOKENS)
    # wider models want smaller AdamW rates (muP's 1/width, damped as nanochat has it); beside Muon larger ones are better (LOG.md)
    lr = (6e-3 if kind == "muon" else 3e-3) * (256 / width) ** 0.5
    settings: dict[str, Any] = {"optimizer": kind, "lr": lr, "muon_lr": MUON_LR, "weight_decay": 0.1}
    if request.lr is not None:
        why["lr"] = _("as asked")
        settings["lr"] = request.lr
        if kind == "muon":  # one dial: the matrices' rate moves with it
            settings["muon_lr"] = MUON_LR * request.lr / lr
    if request.weight_decay is not None:
        why["weight_decay"] = _("as asked")
        settings["weight_decay"] = request.weight_decay
    return settings
