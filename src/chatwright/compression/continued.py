"""A decoder that goes on learning from running text, in a run of the training loop: to heal after pruning, or from a teacher.

The recipe is short: AdamW at a third of the rate that pretraining would take, falling to zero, for the minutes that are given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

from torch import nn

from chatwright.errors import InvalidDatasetError, TrainingError
from chatwright.evaluation.documents import document_boundary
from chatwright.hub.manifest import pulled_license
from chatwright.i18n import _
from chatwright.model.card import ModelCard
from chatwright.model.checkpoint import read_json_object
from chatwright.model.describe import describe_model
from chatwright.model.folder import write_model_folder
from chatwright.model.gpt import GPT
from chatwright.text.dataset import Dataset
from chatwright.text.manifest import Kind
from chatwright.tokenizer.load import load_tokenizer
from chatwright.tokenizer.tokenizer import Tokenizer
from chatwright.training.base_model import BaseModel
from chatwright.training.config import TrainingConfig
from chatwright.training.loop import Result, train
from chatwright.training.pretraining import HeldOut, Pretraining, document_names, read_held_out
from chatwright.training.progress import Progress
from chatwright.training.run import TOKENIZER, Run, write_json
from chatwright.training.stats import text_stats
from chatwright.training.text_side import prepare_tokens
from chatwright.training.tokens import TokenFile

ROW_TOKENS, STEP_TOKENS, MICRO_TOKENS = 256, 4096, 1024
LEAST_STEPS = 40  # where there is little time, smaller steps rather than fewer
N_EVALUATIONS = 4
STEPS = "steps.json"
PART_BYTES, MOST_BYTES = 10_000, 20_000


class MakeObjective(Protocol):
    """`Pretraining` or what is derived from it."""

    def __call__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        tokens: TokenFile,
        held_out: HeldOut,
        *,
        context_length: int,
        seed: int,
        name_documents: Callable[[Sequence[int]], list[str]],
        write_model: Callable[[nn.Module, Path], None],
    ) -> Pretraining:
        """See Pretraining."""
        ...


def check_text(dataset: Dataset, base: BaseModel) -> tuple[Kind, ...]:
    """The kinds of rows that are text. Raises InvalidDatasetError where there is less than one window of it."""
    kinds, tokenizer, length = text_stats(dataset).kinds, base.tokenizer(), min(ROW_TOKENS, base.context_length)
    n_tokens = 1  # the boundary behind the last document
    for text in dataset.texts("train", kinds):
        n_tokens += 1 + len(tokenizer.encode(text, add_special_tokens=False))
        if n_tokens > length:
            return kinds
    raise InvalidDatasetError(
        "{path} has {found} tokens of text, less than one window of {needed}. Train on more text.",
        path=dataset.path,
        found=n_tokens,
        needed=length + 1,
    )


def create_run(
    path: Path,
    verb: str,
    base: BaseModel,
    dataset: Dataset,
    seed: int,
    n_threads: int,
    more: Mapping[str, Mapping[str, Any]],
) -> Run:
    """The folder of a run without [training], which `continue_training` finds out by measuring. Its tokenizer is the base's.

    Raises InvalidDatasetError as `check_text`, before anything is written.
    """
    kinds = check_text(dataset, base)
    sections: dict[str, Mapping[str, Any]] = {
        "dataset": {"path": str(dataset.path.resolve()), "fingerprint": dataset.fingerprint},
        "text": {"kinds": list(kinds), "seed": seed, "context_length": min(ROW_TOKENS, base.context_length)},
        "machine": {"n_threads": n_threads},
        **more,
    }
    run = Run.create(path, verb, sections)
    base.write_tokenizer(run.path / TOKENIZER)
    return run


def described(model: BaseModel) -> dict[str, Any]:
    """A model as config.toml says it, and as a resume knows it again."""
    return {
        "path": model.path.resolve(),
        "name": model.name,
        "weights": model.fingerprint(),
        "text_side": model.text_fingerprint(),
    }


def build_objective(
    run: Run,
    model: GPT,
    make: MakeObjective,
    progress: Progress,
    write_model: Callable[[nn.Module, Path], None],
) -> Pretraining:
    """What the run trains. Raises TrainingError where its text has changed."""
    found, text = run.section("dataset"), run.section("text")
    dataset = Dataset.open(Path(found["path"]))
    if dataset.fingerprint != found["fingerprint"]:
        raise TrainingError(
            "The dataset {dataset} has changed since the run {path} began. Start a new run on it, or put the old dataset back.",
            dataset=found["path"],
            path=run.path,
        )
    kinds = cast(tuple[Kind, ...], tuple(text["kinds"]))
    tokenizer = load_tokenizer(run.path / TOKENIZER)
    boundary = document_boundary(tokenizer)
    tokens = prepare_tokens(run.path, dataset, kinds, 0.0, int(text["seed"]), progress)
    context_length = int(text["context_length"])
    held_out = read_held_out(dataset, kinds, tokenizer, boundary, part_bytes=PART_BYTES, most_bytes=MOST_BYTES)
    return make(
        model,
        tokenizer,
        tokens,
        held_out,
        context_length=context_length,
        seed=int(text["seed"]),
        name_documents=document_names(dataset, kinds),
        write_model=write_model,
    )


def continue_training(
    run: Run, objective: Pretraining, minutes: float, progress: Progress, *, force: bool = False
) -> Result:
    """Trains for about so many minutes; the caller holds the run's lock. A run that was interrupted goes on with the steps
    that were measured when it began; in another environment only with `force`."""
    plan = run.path / STEPS
    config = _planned(plan) or _measured(objective, minutes, int(run.section("text")["seed"]), progress)
    if not plan.exists():
        write_json(plan, config.to_dict())
    return train(objective, config, run, progress=progress, force=force)


def _planned(plan: Path) -> TrainingConfig | None:
    return TrainingConfig.from_dict(read_json_object(plan)) if plan.is_file() else None


def _measured(objective: Pretraining, minutes: float, seed: int, progress: Progress) -> TrainingConfig:
    progress.stage(_("Measuring a step"), None)
    micro_rows = min(objective.n_rows, max(1, MICRO_TOKENS // objective.context_length))
    seconds = _seconds(objective, micro_rows)
    n_rows = max(micro_rows, minutes * 60 / seconds * micro_rows)  # that there is time for
    batch_rows = int(min(STEP_TOKENS // objective.context_length, max(micro_rows, n_rows // LEAST_STEPS)))
    n_steps = max(1, round(n_rows / batch_rows))
    every = -(-n_steps // N_EVALUATIONS)
    width = cast(GPT, objective.model).config.d_model
    # a third of the rate of pretraining for this width, less for smaller steps, whose gradients are noisier
    lr = 1e-3 * (256 / width) ** 0.5 * (batch_rows * objective.context_length / STEP_TOKENS) ** 0.5
    return TrainingConfig(
        n_steps=n_steps,
        batch_rows=batch_rows,
        micro_rows=min(micro_rows, batch_rows),
        seed=seed,
        lr=float(f"{lr:.3g}"),
        weight_decay=0.01,
        warmup_steps=min(n_steps - 1, -(-n_steps // 20)),
        warmdown_share=0.9,
        eval_every=every,
        checkpoint_every=every,
        keep=1,
    )


def _seconds(objective: Pretraining, micro_rows: int) -> float:
    """Of forward and backward of a micro-batch; the gradients are thrown away."""
    times = []
    for _repeat in range(3):
        began = time.perf_counter()
        objective.loss(objective.batch(range(micro_rows), 0)).backward()  # type: ignore[no-untyped-call]
        times.append(time.perf_counter() - began)
    for parameter in objective.model.parameters():
        parameter.grad = None
    return 1.1 * min(times[1:])  # the first pays for what later ones find; a tenth for the optimizer


def write_decoder(model: GPT, base: BaseModel, folder: Path, card: ModelCard) -> None:
    """A model that was made of `base`, in float32, with its tokenizer, template and ends."""
    info, tokenizer = describe_model(base.path), base.tokenizer()
    ends = {"eos_token_id": sorted(tokenizer.eos_ids), "bos_token_id": tokenizer.bos_id}
    write_model_folder(
        model,
        folder,
        write_tokenizer=base.write_tokenizer,
        generation={key: value for key, value in ends.items() if value not in (None, [])},
        card=replace(
            card, languages=info.languages, license=info.license or pulled_license(base.path) or "unknown"
        ).render(),
        extra={"chatwright": {"fim": True}} if info.fills_in else None,
    )


def trainable(model: GPT) -> GPT:
    """All weights."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model
