"""A pretraining run from its beginning: recipe, tokenizer, tokens, measured steps, config.toml, then the loop.

Everything before config.toml can be killed and begun again: the tokenizer and the tokens appear whole in the run's folder and are
used again when they are of the same text; a start that is refused takes them away again. From config.toml on,
`resume_pretraining` continues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch

from chatwright.engine.tokenizers import copy_tokenizer
from chatwright.errors import TrainingError
from chatwright.evaluation.documents import document_boundary
from chatwright.i18n import _
from chatwright.model.config import ModelConfig
from chatwright.model.folder import write_model_folder
from chatwright.model.gpt import GPT
from chatwright.model.init import initialise
from chatwright.model.rnn import RNN
from chatwright.model.rnn_config import RNNConfig
from chatwright.text.dataset import Dataset
from chatwright.text.manifest import Kind
from chatwright.tokenizer.load import load_tokenizer
from chatwright.tokenizer.tokenizer import Tokenizer
from chatwright.training.card import pretraining_card
from chatwright.training.config import TrainingConfig
from chatwright.training.distributed import World
from chatwright.training.enough import measured_enough
from chatwright.training.enough_text import refuse_too_little_text
from chatwright.training.loop import Result, train
from chatwright.training.memory import out_of_memory
from chatwright.training.plan import Plan, plan_of, refuse_before_measuring
from chatwright.training.pretraining import Pretraining, document_names, read_held_out
from chatwright.training.progress import Progress
from chatwright.training.recipe import Recipe, fit_tokens, resolve
from chatwright.training.request import Request
from chatwright.training.run import TOKENIZER, FolderBefore, Run, check_new, locked_folder
from chatwright.training.speed import Machine, measure_machine
from chatwright.training.stats import TextStats, text_stats
from chatwright.training.text_side import prepare_tokenizer, prepare_tokens
from chatwright.training.token_count import TokenCount

VERB = "train"


def pretrain(
    dataset_path: Path,
    request: Request,
    out: Path,
    *,
    device: torch.device,
    n_threads: int,
    progress: Progress,
    world: World,
    show: Callable[[Recipe | Plan], None] = lambda plan: None,
    look: bool = True,
) -> tuple[Run, Result]:
    """A new run in `out`. `show` is given the plan before the first step, on rank 0; only the recipe, where the user fixed the
    number of steps and nothing needs to be measured. `look`: at held-out text on the way, to keep the best; not where its figure is
    what the run is for.

    Raises UsageError, InvalidDatasetError, TrainingError, StorageError, InUseError.
    """
    torch.set_num_threads(n_threads)
    if world.is_main:
        check_new(out)
    before = FolderBefore.of(out)
    with out_of_memory(), locked_folder(out) if world.is_main else nullcontext():
        if world.is_main:
            with before.restored_on_refusal():
                _prepare(dataset_path, request, out, device, n_threads, progress, world, show, look)
        world.barrier()
        run = Run.open(out)
        return run, _train(run, device, progress, world, force=False)


def resume_pretraining(
    run: Run, *, device: torch.device, progress: Progress, world: World, force: bool = False
) -> Result:
    """Goes on with a run from its newest checkpoint. Raises as `pretrain`; TrainingError when the dataset has changed."""
    with out_of_memory(), run.locked() if world.is_main else nullcontext():
        return _train(run, device, progress, world, force=force)


def build_pretraining(run: Run, device: torch.device, dataset: Dataset, progress: Progress) -> Pretraining:
    """The objective that config.toml describes, with the first weights. Makes the token file anew where it is missing."""
    settings, folder = run.section("pretraining"), run.path / TOKENIZER
    kinds = cast(tuple[Kind, ...], tuple(settings["kinds"]))
    tokenizer = load_tokenizer(folder)
    separator = document_boundary(tokenizer)
    training = TrainingConfig.from_dict(run.section("training"))
    tokens = prepare_tokens(run.path, dataset, kinds, float(settings["fim_share"]), training.seed, progress)
    model = build_model(run, device)
    held_out = read_held_out(
        dataset,
        kinds,
        tokenizer,
        separator,
        part_bytes=int(settings["part_bytes"]),
        most_bytes=int(settings["final_bytes"]),
    )
    return Pretraining(
        model,
        tokenizer,
        tokens,
        held_out,
        context_length=int(settings["context_length"]),
        seed=training.seed,
        name_documents=document_names(dataset, kinds),
        write_model=lambda trained, target: _write_model(run, tokenizer, cast(GPT | RNN, trained), target),
    )


def build_model(run: Run, device: torch.device) -> GPT | RNN:
    """The model of config.toml with its first weights."""
    settings = run.section("pretraining")
    values = run.section("model")
    dropout = float(settings["dropout"])
    kind = values.pop("kind")
    model: GPT | RNN = RNN(RNNConfig(**values), dropout) if kind == "rnn" else GPT(ModelConfig(**values), dropout)
    initialise(model, int(run.section("training")["seed"]))
    return model.to(device)


def _prepare(
    dataset_path: Path,
    request: Request,
    out: Path,
    device: torch.device,
    n_threads: int,
    progress: Progress,
    world: World,
    show: Callable[[Recipe | Plan], None],
    look: bool,
) -> None:
    dataset = Dataset.open(dataset_path)
    stats = text_stats(dataset)
    dataset.verify(stats.kinds)
    machine = measure_machine(device, n_threads)
    given = load_tokenizer(request.tokenizer) if request.tokenizer else None
    count = TokenCount(dataset, stats, machine)
    recipe = resolve(stats, request, machine, vocab_size=given.vocab_size if given else None)
    is_asked = request.size is not None and not request.size_is_settled
    if is_asked:  # before a large text is tokenised for nothing
        refuse_too_little_text(count.recipe(request), count.recipe, share=count.share)
    refuse_before_measuring(recipe, stats, machine, out)
    prepare_tokenizer(out, dataset, stats, recipe, progress)
    tokens = prepare_tokens(out, dataset, stats.kinds, recipe.fim_share, request.seed, progress)
    vocab_size = load_tokenizer(out / TOKENIZER).vocab_size
    recipe = fit_tokens(recipe, tokens.n_tokens, tokens.n_bytes, vocab_size)
    if is_asked:  # by an estimate it was enough
        count.correct(recipe)
        refuse_too_little_text(recipe, count.recipe, share=count.share)
    refuse_before_measuring(recipe, stats, machine, out)
    world.check_rows(recipe.training.batch_rows)
    if request.steps is None:
        progress.stage(_("Measuring a step"), None)
        recipe, cost = measured_enough(stats, recipe, machine, world)
        show(plan_of(dataset, stats, recipe, machine, cost, disk=out))
    else:
        show(recipe)
    n_threads = world.threads(n_threads, device)
    if not look:
        recipe = replace(recipe, training=replace(recipe.training, eval_every=0, patience=0))
    Run.create(out, VERB, _sections(recipe, dataset, stats, machine, n_threads), _reasons(recipe))


def _train(run: Run, device: torch.device, progress: Progress, world: World, *, force: bool) -> Result:
    if run.verb != VERB:
        raise TrainingError("{path} is a run of `chatwright {verb}`, not of train.", path=run.path, verb=run.verb)
    described = run.section("dataset")
    dataset = Dataset.open(Path(described["path"]))
    if dataset.fingerprint != described["fingerprint"]:
        raise TrainingError(
            "The dataset {dataset} has changed since the run {path} began. Start a new run on it, or put the old dataset back.",
            dataset=described["path"],
            path=run.path,
        )
    dataset.verify(cast(tuple[Kind, ...], tuple(run.section("pretraining")["kinds"])))
    torch.set_num_threads(int(run.section("machine")["n_threads"]))
    for rank in range(world.size):  # one after the other, so that the token file is made once
        if rank == world.rank:
            objective = build_pretraining(run, device, dataset, progress)
        world.barrier()
    config = TrainingConfig.from_dict(run.section("training"))
    return train(objective, config, run, progress=progress, world=world, force=force)


def _sections(
    recipe: Recipe, dataset: Dataset, stats: TextStats, machine: Machine, n_threads: int
) -> Mapping[str, Mapping[str, Any]]:
    """Of config.toml. `n_threads`: of each process."""
    kind = "rnn" if isinstance(recipe.model, RNNConfig) else "gpt"
    model = {key: value for key, value in asdict(recipe.model).items() if key not in ("windows", "rope_scaling")}
    return {
        "dataset": {
            "path": str(dataset.path.resolve()),
            "fingerprint": dataset.fingerprint,
            "n_bytes": stats.n_bytes,
            "languages": list(stats.languages),
        },
        "model": {"kind": kind, **model},
        "pretraining": {
            "kinds": list(stats.kinds),
            "context_length": recipe.context_length,
            "vocab_size": recipe.vocab_size,
            "n_parameters": recipe.n_parameters,
            "n_tokens": recipe.n_tokens,
            "epochs": round(recipe.epochs, 4),
            "dropout": recipe.dropout,
            "fim_share": recipe.fim_share,
            "part_bytes": recipe.part_bytes,
            "final_bytes": recipe.final_bytes,
        },
        "training": recipe.training.to_dict(),
        "machine": {
            "n_threads": n_threads,
            "fp32_gflops": round(machine.fp32_flops / 1e9),
            "bf16_gflops": round(machine.bf16_flops / 1e9),
        },
    }


def _reasons(recipe: Recipe) -> Mapping[str, Mapping[str, str]]:
    reasons = dict(recipe.reasons)
    if "size" in reasons:
        reasons["n_parameters"] = reasons.pop("size")
    return {"pretraining": reasons, "training": reasons}


def _write_model(run: Run, tokenizer: Tokenizer, model: GPT | RNN, folder: Path) -> None:
    boundary = document_boundary(tokenizer)
    generation = {
        "bos_token_id": boundary,
        "eos_token_id": sorted(tokenizer.eos_ids | {boundary}),
        "pad_token_id": boundary,
        "do_sample": True,
        "temperature": 0.8,
    }
    write_model_folder(
        model,
        folder,
        write_tokenizer=lambda target: copy_tokenizer(run.path / TOKENIZER, target),
        generation=generation,
        card=pretraining_card(run),
        extra={"chatwright": {"fim": True}} if run.section("pretraining")["fim_share"] else None,
    )
