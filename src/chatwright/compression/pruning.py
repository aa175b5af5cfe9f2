"""`prune` from a model to a folder: what matters is measured, the least of it taken out, the rest healed, and the bill made.

Healing is a run beside the result's folder until it is done: what was interrupted goes on with the same command.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chatwright.compression.bill import Bill, measured, precision_notes, score
from chatwright.compression.card import learned_text, write_made_card
from chatwright.compression.continued import (
    STEPS,
    build_objective,
    check_text,
    continue_training,
    create_run,
    described,
    trainable,
    write_decoder,
)
from chatwright.compression.decoder import check_decoder, load_decoder
from chatwright.compression.importance import measure_importance
from chatwright.compression.prune import PARTS, Part, Shape, prune, pruned_shape
from chatwright.compression.quantize import default_windows, scored_documents
from chatwright.compression.study import Unstructured, reduce_rank, zero_weights
from chatwright.compression.texts import calibration_texts, calibration_windows
from chatwright.errors import UsageError
from chatwright.i18n import _
from chatwright.model.card import ModelCard
from chatwright.model.config import ModelConfig, parameter_count
from chatwright.model.folder import new_folder
from chatwright.model.gpt import GPT
from chatwright.text.dataset import Dataset
from chatwright.training.base_model import BaseModel
from chatwright.training.pretraining import Pretraining
from chatwright.training.progress import Progress, Silent
from chatwright.training.run import Run

WINDOW_SHARE = 4  # importance needs a backward pass, and less text than GPTQ


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """`calibration`: a dataset or file whose text says what matters, by default that of `heal`. `minutes`: of healing."""

    ratio: float
    what: Sequence[Part] = ("heads", "ffn")
    calibration: Path | None = None
    text: Path | None = None
    heal: Path | None = None
    minutes: float = 5.0
    unstructured: Unstructured | None = None
    low_rank: bool = False
    seed: int = 0
    measure: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:  # NaN too
            raise UsageError(
                "--ratio takes a share between 0 and 1, such as 0.25, not {ratio:g}: 0 takes out nothing, and 1 would leave"
                " nothing.",
                ratio=self.ratio,
            )
        if unknown := [part for part in self.what if part not in PARTS]:
            raise UsageError(
                "--what is one or more of {parts}, not {unknown!r}.", parts=", ".join(PARTS), unknown=unknown[0]
            )
        if self.unstructured and self.low_rank:
            raise UsageError("--unstructured and --low-rank are two studies: choose one.")
        if self.heal and (self.unstructured or self.low_rank):
            raise UsageError("--heal belongs to structured pruning: training would fill the zeros of a study again.")
        if self.text_needed and self.source is None:
            raise UsageError(
                "prune needs text to see what matters: add --calibration with a dataset or a text file, or --heal."
            )

    @property
    def text_needed(self) -> bool:
        """Whether the choice is made on text."""
        return not self.low_rank and self.unstructured != "magnitude"

    @property
    def source(self) -> Path | None:
        """What is calibrated on."""
        return self.calibration or self.heal


def prune_model(
    base: BaseModel, options: PruneOptions, out: Path, *, n_threads: int, progress: Progress | None = None
) -> Bill:
    """Writes the folder `out`, whole or not at all. Raises as `quantize`; KeyboardInterrupt where healing was stopped, which the
    same call goes on with."""
    progress = progress or Silent()
    config = check_decoder(base, "prune")
    torch.set_num_threads(n_threads)
    study = bool(options.unstructured or options.low_rank)
    shape = None if study else pruned_shape(config, options.ratio, options.what)
    healing = out.with_name(f"{out.name}-healing")
    if options.heal is not None:
        check_text(Dataset.open(options.heal), base)
        _check_healing(healing, base, options)
    with new_folder(out) as whole:
        tokenizer = base.tokenizer()
        windows = _windows(base, options) if options.text_needed else None
        documents = (
            scored_documents(options.text, options.source, tokenizer, parameter_count(config))
            if options.measure
            else []
        )
        model = load_decoder(base)
        progress.stage(_("Measuring the model before"), None)
        before = score(model, documents)
        model = _pruned(model, options, shape, windows, progress)
        notes = _notes(options, config, model.config)
        title = f"{base.title}, " + ("for study" if study else "pruned")
        made = ModelCard(title=title, pipeline_tag="text-generation", tags=["pruned"], recipe=_recipe(options))
        if options.heal is not None:
            if documents:
                progress.stage(_("Measuring the pruned model"), None)
                unhealed = score(model, documents)
                assert unhealed is not None
                notes.append(_("Before healing: {bpb:.4f} bits per byte.", bpb=unhealed.bits_per_byte))
            made = _heal(model, base, options, healing, n_threads, progress, made)
        progress.stage(_("Measuring the model after"), None)
        after = score(model, documents)
        write_decoder(model, base, whole, made)
        notes += precision_notes(base.path, whole)
        bill = Bill(
            measured(base.path, config, before, n_threads, options.measure),
            measured(whole, model.config, after, n_threads, options.measure),
            notes,
        )
        write_made_card(whole, base, replace(made, notes=notes), bill)
    if options.heal is not None:
        shutil.rmtree(healing, ignore_errors=True)
    return bill


def _windows(base: BaseModel, options: PruneOptions) -> Tensor:
    assert options.source is not None
    n = max(8, default_windows(parameter_count(check_decoder(base, "prune"))) // WINDOW_SHARE)
    texts = calibration_texts(options.source, options.text)
    return calibration_windows(texts, options.source, base.tokenizer(), base.context_length, n)


def _pruned(model: GPT, options: PruneOptions, shape: Shape | None, windows: Tensor | None, progress: Progress) -> GPT:
    if shape is None:
        progress.stage(_("Changing the weights"), model.config.n_layer)
        if options.low_rank:
            reduce_rank(model, options.ratio)
        else:
            assert options.unstructured is not None
            zero_weights(model, options.ratio, options.unstructured, windows, progress)
        return model
    assert windows is not None
    progress.stage(_("Measuring what matters"), len(windows))
    importance = measure_importance(model, windows, progress)
    progress.stage(_("Fitting what is left, layer by layer"), shape.n_layer)
    return prune(model, shape, importance, windows, progress)


def _settings(base: BaseModel, options: PruneOptions) -> dict[str, dict[str, Any]]:
    """What healing depends on, as its run says it."""
    return {
        "base": described(base),
        "prune": {
            "ratio": options.ratio,
            "what": ",".join(options.what),
            "calibration": str(options.calibration or options.heal),
            "minutes": options.minutes,
            "seed": options.seed,
        },
    }


def _check_healing(path: Path, base: BaseModel, options: PruneOptions) -> None:
    """What lies at `path` is nothing, or a healing of just this. Raises UsageError, which says what to repeat, TrainingError."""
    if not path.exists():
        return
    assert options.heal is not None
    run, wanted, dataset = Run.open(path), _settings(base, options), Dataset.open(options.heal)
    of_base, of_prune, of_text = (run.section(name) for name in ("base", "prune", "dataset"))
    other_text = of_text.get("fingerprint") != dataset.fingerprint
    differing = {}
    if of_base.get("path") != str(wanted["base"]["path"]):
        differing["MODEL"] = of_base.get("path")
    if other_text and of_text.get("path") != str(dataset.path.resolve()):
        differing["--heal"] = of_text.get("path")
    differing |= {
        f"--{name}": of_prune.get(name)
        for name, value in wanted["prune"].items()
        # without --calibration it is the dataset of --heal, which has been looked at
        if of_prune.get(name) != value and not (name == "calibration" and options.calibration is None and differing)
    }
    if differing:
        raise UsageError(
            "{path} holds a healing that was interrupted, of a command with {settings}. Repeat that command to go on, or remove the"
            " folder.",
            path=path,
            settings=" ".join(f"{name} {shlex.quote(_as_given(value))}" for name, value in differing.items()),
        )
    if other_text or any(of_base.get(name) != wanted["base"][name] for name in ("weights", "text_side")):
        raise UsageError(
            "{path} holds a healing that was interrupted, and {changed} has changed since. Put the old files back to go on, or"
            " remove the folder.",
            path=path,
            changed=dataset.path if other_text else base.path,
        )


def _as_given(value: object) -> str:
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _heal(
    model: GPT,
    base: BaseModel,
    options: PruneOptions,
    path: Path,
    n_threads: int,
    progress: Progress,
    made: ModelCard,
) -> ModelCard:
    """Trains the pruned model in place, in a run at `path` that stays where it is interrupted; the card then says that."""
    assert options.heal is not None

    def write(trained: nn.Module, target: Path) -> None:
        target.mkdir()  # the result is the model in memory

    dataset = Dataset.open(options.heal)
    if path.exists():
        run = Run.open(path)
    else:
        run = create_run(path, "heal", base, dataset, options.seed, n_threads, _settings(base, options))
    try:
        with run.locked():
            objective = build_objective(run, trainable(model), Pretraining, progress, write)
            result = continue_training(run, objective, options.minutes, progress, force=True)  # no bits are promised
    except BaseException as error:
        if not (path / STEPS).exists():  # before the first step: there is nothing to go on with
            shutil.rmtree(path, ignore_errors=True)
        elif isinstance(error, KeyboardInterrupt):
            _say_kept(path, progress)
        raise
    if result.signal is not None:
        _say_kept(path, progress)
        raise KeyboardInterrupt
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    recipe = {"steps of healing": result.step, "minutes of healing": f"{options.minutes:g}"}
    made = replace(made, recipe={**made.recipe, **recipe})
    return learned_text(made, dataset, run.section("text")["kinds"], objective.tokens.n_tokens)


def _say_kept(path: Path, progress: Progress) -> None:
    progress.say(_("Stopped; the healing is kept in {path}, and the same command goes on with it.", path=path))


def _recipe(options: PruneOptions) -> dict[str, Any]:
    method = "low rank" if options.low_rank else options.unstructured or "structured"
    recipe: dict[str, Any] = {"method": method, "ratio": f"{options.ratio:g}"}
    if method == "structured":
        recipe["taken out of"] = ", ".join(options.what)
    return recipe


def _notes(options: PruneOptions, before: ModelConfig, after: ModelConfig) -> list[str]:
    if options.unstructured:
        return [_("For study: zeros among the weights make neither the file smaller nor an answer faster.")]
    if options.low_rank:
        return [
            _(
                "For study: matrices of low rank, written out in full, make neither the file smaller nor an answer faster."
            )
        ]
    if "heads" in options.what and after.n_head == before.n_head:
        return [
            _(
                "All {n_head} heads stay: with {n_kv_head} key heads a step would take out more than was asked for.",
                n_head=before.n_head,
                n_kv_head=before.n_kv_head,
            )
        ]
    return []
