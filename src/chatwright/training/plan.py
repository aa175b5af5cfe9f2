"""Before the work: what a run will take on this machine and what it should reach, and a refusal of what cannot be.

Nothing is trained but a few steps on random tokens, in another process (`measure`), and a tokenizer on a small sample, for the
bytes of a token. Time is the measured cost of a step, of held-out text and of a checkpoint times how often the recipe has them.
Memory is the measured peak of those steps, or what training the tokenizer takes where that is more. Disk is the checkpoints, the
result and the tokens. Bits per byte: see `expectation`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from chatwright.errors import TrainingError
from chatwright.model.config import ModelConfig
from chatwright.text.dataset import Dataset
from chatwright.tokenizer.corpus import enough_bytes
from chatwright.tokenizer.tokenizer import Tokenizer
from chatwright.training.difficulty import Difficulty, measure_difficulty, sample_texts
from chatwright.training.enough import measured_enough
from chatwright.training.enough_text import refuse_too_little_text
from chatwright.training.expectation import Expectation, Expected, expect
from chatwright.training.measure import StepCost
from chatwright.training.memory import give_back
from chatwright.training.nearest import nearest_size
from chatwright.training.recipe import Recipe, resolve
from chatwright.training.request import Request
from chatwright.training.run import TOKENS
from chatwright.training.speed import Machine, measure_machine
from chatwright.training.stats import TextStats, text_stats
from chatwright.training.token_count import SAMPLE_BYTES, TokenCount, sample_tokenizer
from chatwright.training.tokenizer_memory import tokenizer_training_bytes

# What a process of PyTorch has before any model, for refusals before anything is measured.
PYTHON_BYTES = 300e6
# What the run's process holds beside what the measuring one does: command line, settings and the tokenizer library (65 MB), then
# what the preparation leaves behind, TensorBoard's writer and reports (together 65 to 320 MB in three runs).
COMMAND_BYTES, BESIDE_BYTES = 65e6, 180e6
# Room that is left to the rest of the machine.
MEMORY_SHARE, DISK_SHARE = 0.9, 0.95


@dataclass(frozen=True)
class Plan:
    """`training_s` is what `--minutes` means; `held_out_s` and `saving_s` are parts of it. Memory is the peak of the process (on a
    GPU: of the device). `expectation` is None without held-out text, and for recurrent models: the law was not fitted to them."""

    recipe: Recipe
    machine: Machine
    cost: StepCost
    training_s: float
    held_out_s: float
    saving_s: float
    memory_bytes: int
    memory_available_bytes: int
    disk_bytes: int
    disk_free_bytes: int
    difficulty: Difficulty | None
    expectation: Expectation | None


def make_plan(
    dataset: Dataset, request: Request, *, device: torch.device, n_threads: int, disk: Path | None = None
) -> Plan:
    """Some seconds. `disk`: where the run would lie; the working directory by default.

    Raises UsageError and TrainingError for what is impossible, with the nearest that is possible; InvalidDatasetError.
    """
    stats, machine = text_stats(dataset), measure_machine(device, n_threads)
    tokens = TokenCount(dataset, stats, machine)
    recipe = tokens.recipe(request)
    refuse_too_little_text(recipe, tokens.recipe, share=tokens.share)
    refuse_before_measuring(recipe, stats, machine, disk)
    recipe, cost = measured_enough(stats, recipe, machine)
    return plan_of(dataset, stats, recipe, machine, cost, disk=disk, tokenizer=tokens.tokenizer(request))


def plan_of(
    dataset: Dataset,
    stats: TextStats,
    recipe: Recipe,
    machine: Machine,
    cost: StepCost,
    *,
    disk: Path | None = None,
    tokenizer: Tokenizer | None = None,
) -> Plan:
    """The plan of a recipe whose step was measured; without a `tokenizer` one is made of a sample, to see how hard the text is.

    Raises UsageError and TrainingError as `make_plan`.
    """
    memory = available_bytes(machine)
    memory_bytes = _memory_bytes(dataset, stats, recipe, machine, cost)
    if memory_bytes > memory:
        raise _too_large(stats, machine, recipe, memory_bytes, memory)
    refuse_too_little_disk(stats, machine, recipe, cost.checkpoint_bytes, disk)
    held_out_s, saving_s = _held_out_seconds(recipe, stats, cost), _saving_seconds(recipe, cost)
    difficulty = None
    if isinstance(recipe.model, ModelConfig) and any(dataset.n_bytes("held_out", kind) for kind in stats.kinds):
        tokenizer = tokenizer or sample_tokenizer(dataset, stats, recipe)
        difficulty = measure_difficulty(dataset, stats.kinds, tokenizer)
    give_back()
    return Plan(
        recipe=recipe,
        machine=machine,
        cost=cost,
        training_s=recipe.training.n_steps * cost.step_seconds(recipe.training) + held_out_s + saving_s,
        held_out_s=held_out_s,
        saving_s=saving_s,
        memory_bytes=memory_bytes,
        memory_available_bytes=memory,
        disk_bytes=needed_disk(recipe, cost.checkpoint_bytes),
        disk_free_bytes=shutil.disk_usage(disk or Path.cwd()).free,
        difficulty=difficulty,
        expectation=expect(difficulty, Expected.of(recipe)) if difficulty else None,
    )


def refuse_before_measuring(recipe: Recipe, stats: TextStats, machine: Machine, disk: Path | None = None) -> None:
    """What is impossible without trying: raises TrainingError for too little memory, or disk where the run would lie."""
    memory = available_bytes(machine)
    if (estimated := estimated_bytes(recipe)) > memory:
        raise _too_large(stats, machine, recipe, estimated, memory)
    refuse_too_little_disk(stats, machine, recipe, estimated_checkpoint_bytes(recipe), disk)


def refuse_too_little_disk(
    stats: TextStats, machine: Machine, recipe: Recipe, checkpoint_bytes: float, disk: Path | None
) -> None:
    """Raises TrainingError. `disk`: as for `make_plan`; tokens that lie there already take no more room."""
    needed, free = needed_disk(recipe, checkpoint_bytes), shutil.disk_usage(disk or Path.cwd()).free
    if disk is not None and (disk / TOKENS).is_dir():
        free += token_bytes(recipe)
    if needed > free * DISK_SHARE:
        raise _too_little_disk(stats, machine, recipe, needed, free)


def available_bytes(machine: Machine) -> int:
    """Memory that a run may take: the device's, or of the machine's what is neither used now nor beyond the container's limit."""
    if machine.device.startswith("cuda"):
        return round(torch.cuda.mem_get_info(torch.device(machine.device))[0] * MEMORY_SHARE)
    return round(min(machine.memory_bytes, psutil.virtual_memory().available) * MEMORY_SHARE)


def estimated_bytes(recipe: Recipe) -> float:
    """Peak memory by formula, somewhat low: what is refused by it would surely not fit. float32 weights, gradients, the optimizer's
    moments, activations of a micro-batch, and the process itself."""
    weights = 4 * recipe.n_parameters * (2 + _moments(recipe))
    tokens = recipe.training.micro_rows * recipe.context_length
    model = recipe.model
    if isinstance(model, ModelConfig):
        width = 6 * model.d_model + 2 * (model.n_head + model.n_kv_head) * model.head_dim + 3 * model.d_ff
        per_token = model.n_layer * width
    else:
        per_token = model.n_layer * model.d_model * (8 if model.cell == "lstm" else 2)
    size = 2 if recipe.training.precision == "bf16" else 4
    return PYTHON_BYTES + weights + size * tokens * per_token


def estimated_checkpoint_bytes(recipe: Recipe) -> float:
    """As `StepCost.checkpoint_bytes`, by formula: the weights twice, once in the model's own file, and the moments."""
    return 4 * recipe.n_parameters * (2 + _moments(recipe))


def needed_disk(recipe: Recipe, checkpoint_bytes: float) -> int:
    """The checkpoints kept, the best one, the one being written, the result, and the text as tokens."""
    return round((recipe.training.keep + 2) * checkpoint_bytes + 4 * recipe.n_parameters + token_bytes(recipe))


def token_bytes(recipe: Recipe) -> int:
    """Of the text as tokens, on disk."""
    return recipe.n_tokens * (2 if recipe.vocab_size <= 1 << 16 else 4)


def _moments(recipe: Recipe) -> float:
    """Numbers that the optimizer keeps for each parameter: two of AdamW's, one of Muon's, which has the matrices only."""
    return 1.5 if recipe.training.optimizer == "muon" else 2.0


def _held_out_seconds(recipe: Recipe, stats: TextStats, cost: StepCost) -> float:
    """Windows overlap by half, so that a long document is read twice."""
    every = max(1, recipe.training.eval_every)
    n_parts = -(-recipe.training.n_steps // every)
    n_bytes = n_parts * min(recipe.part_bytes, stats.held_out_bytes) + min(recipe.final_bytes, stats.held_out_bytes)
    return 2 * n_bytes / recipe.bytes_per_token * cost.eval_seconds


def _saving_seconds(recipe: Recipe, cost: StepCost) -> float:
    """A checkpoint at each evaluation, as nearly all are better than the one before, and those between."""
    training = recipe.training
    n_saves = -(-training.n_steps // max(1, training.eval_every)) + training.n_steps // max(
        1, training.checkpoint_every
    )
    return n_saves * cost.save_seconds


def _memory_bytes(dataset: Dataset, stats: TextStats, recipe: Recipe, machine: Machine, cost: StepCost) -> int:
    """The peak of the run's process: while it trains, or before that while it trains its tokenizer, whose memory it gives back."""
    if machine.device.startswith("cuda"):
        return cost.peak_bytes
    training = cost.peak_bytes + BESIDE_BYTES
    if recipe.request.tokenizer:
        return round(training)
    n_documents = sum(dataset.n_rows("train", kind) for kind in stats.kinds)
    share = min(1.0, enough_bytes(recipe.vocab_size) / max(1, stats.n_bytes))
    sample = list(sample_texts(dataset, "train", stats.kinds, SAMPLE_BYTES))
    grown = tokenizer_training_bytes(sample, round(share * stats.n_bytes), max(1, round(share * n_documents)))
    return round(max(training, cost.start_bytes + COMMAND_BYTES + grown))


def _too_large(stats: TextStats, machine: Machine, recipe: Recipe, needed: float, available: int) -> TrainingError:
    nearest = _largest_that_fits(stats, machine, recipe, needed, available)
    if nearest is None:
        return TrainingError(
            "Training needs {needed} of memory even for the smallest model, but only {available} are free. Free some memory.",
            needed=shown_bytes(needed),
            available=shown_bytes(available),
        )
    return TrainingError(
        "{n_parameters} parameters need {needed} of memory, but only {available} are free. Take --size {nearest} or smaller, fewer"
        " rows at a time (--micro-rows 1), or free some memory.",
        n_parameters=f"{recipe.n_parameters:,}",
        needed=shown_bytes(needed),
        available=shown_bytes(available),
        nearest=nearest,
    )


def _largest_that_fits(stats: TextStats, machine: Machine, recipe: Recipe, needed: float, available: int) -> str | None:
    """By the formula, scaled to what the refused size was found to need."""
    correction = max(1.0, needed / estimated_bytes(recipe))
    return nearest_size(
        0.8 * recipe.n_parameters,
        lambda size: correction * estimated_bytes(_of_size(stats, machine, recipe, size)) <= available,
        shrink=0.8,
    )


def _of_size(stats: TextStats, machine: Machine, recipe: Recipe, size: int) -> Recipe:
    request = replace(recipe.request, size=size, minutes=None, steps=100)
    return resolve(stats, request, machine, vocab_size=recipe.vocab_size if request.tokenizer else None)


def _too_little_disk(stats: TextStats, machine: Machine, recipe: Recipe, needed: int, free: int) -> TrainingError:
    of_parameter = (needed - token_bytes(recipe)) / recipe.n_parameters

    def fits(size: int) -> bool:
        smaller = _of_size(stats, machine, recipe, size)
        return of_parameter * smaller.n_parameters + token_bytes(recipe) <= free * DISK_SHARE

    said = {"needed": shown_bytes(needed), "free": shown_bytes(free)}
    if (nearest := nearest_size(0.9 * recipe.n_parameters, fits, shrink=0.9)) is None:
        return TrainingError("The run would take {needed} on disk, but only {free} are free. Make room.", **said)
    return TrainingError(
        "The run would take {needed} on disk, but only {free} are free. Make room, or take --size {nearest} or smaller.",
        **said,
        nearest=nearest,
    )


def shown_bytes(n_bytes: float) -> str:
    """In the unit that fits: "1.5 GB"."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.1f} {name}"
    return f"{n_bytes / 1e3:.0f} kB"
