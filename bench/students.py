"""Whether a teacher, or healing, is worth its time: `distill` and `prune` beside models that had the same steps without them.

    python -m bench.students DATASET TOKENIZER FOLDER [--seeds 3] [--steps 400]

DATASET of `chatwright prepare`, TOKENIZER of `chatwright tokenizer train`. In FOLDER a teacher of about a million parameters is
trained for `--steps` steps of 2,048 tokens and a student of a quarter of it for half as many. Then with each seed, always on the
same text and for as many steps of the same recipe (that of `compression.continued`, AdamW at a low rate):

* the student learns on, by the teacher's logits and without a teacher (`share` 0 is the plain loss), half of `--steps`;
* the teacher is pruned by a quarter, and healed for a quarter of `--steps`; the unpruned teacher learns on for as long; a model
  of the pruned shape begins with random weights and is pretrained, by that recipe, for as many steps as healing had, and for as
  many as teacher and healing had together: what the room and the time would have bought without pruning.

What is there already is not made again, so an interrupted run goes on. Held-out documents are scored by all; one JSON line a model
(mean and deviation of bits per byte over seeds) and one a comparison (a 95 % bootstrap interval over documents, seeds averaged).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import nn

from bench.figures import report
from chatwright.compression.bill import score
from chatwright.compression.continued import build_objective, create_run, trainable, write_decoder
from chatwright.compression.decoder import load_decoder
from chatwright.compression.distillation import Distillation
from chatwright.compression.pruning import PruneOptions, prune_model
from chatwright.compression.texts import held_out_documents, held_out_texts
from chatwright.engine.tokenizers import copy_tokenizer
from chatwright.evaluation.documents import DocumentScores, EncodedDocument
from chatwright.evaluation.statistics import mean_sd, paired_bootstrap
from chatwright.model.card import ModelCard
from chatwright.model.config import ModelConfig, parameter_count
from chatwright.model.folder import write_model_folder
from chatwright.model.gpt import GPT
from chatwright.model.init import initialise
from chatwright.model.load import load_model
from chatwright.text.dataset import Dataset
from chatwright.tokenizer.load import load_tokenizer
from chatwright.training.base_model import BaseModel
from chatwright.training.config import TrainingConfig
from chatwright.training.loop import train
from chatwright.training.pretraining import Pretraining
from chatwright.training.progress import Silent
from chatwright.training.run import CONFIG, Run

ROWS, MICRO_ROWS, CONTEXT = 8, 4, 256
RATIO = 0.25


def shape(d_model: int, n_layer: int, vocab_size: int) -> ModelConfig:
    """As `train` makes it, with heads enough that a quarter of them can go."""
    return ModelConfig(
        family="qwen3", vocab_size=vocab_size, n_layer=n_layer, d_model=d_model, n_head=4, n_kv_head=4, head_dim=d_model // 4,
        d_ff=3 * d_model, context_length=CONTEXT, norm="rmsnorm", norm_eps=1e-6, positions="rotary", activation="silu",
        gated=True, qk_norm=True, tied=True,
    )  # fmt: skip


def random_model(config: ModelConfig, tokenizer: Path, seed: int, folder: Path) -> Path:
    """A folder with the first weights."""
    if not folder.exists():
        model = GPT(config)
        initialise(model, seed)
        copy = partial(copy_tokenizer, tokenizer)
        card = ModelCard(title=folder.name, pipeline_tag="text-generation").render()
        write_model_folder(model, folder, write_tokenizer=copy, generation={}, card=card)
    return folder


def pretraining(n_steps: int, width: int, seed: int) -> TrainingConfig:
    """The recipe of `train` for steps of this size."""
    lr = 6e-3 * (256 / width) ** 0.5
    return TrainingConfig(n_steps=n_steps, batch_rows=ROWS, micro_rows=MICRO_ROWS, seed=seed, optimizer="muon", lr=lr, keep=1,
                          warmup_steps=n_steps // 20)  # fmt: skip


def continuing(n_steps: int, width: int, seed: int) -> TrainingConfig:
    """The recipe of `prune --heal` and `distill`."""
    lr = 1e-3 * (256 / width) ** 0.5 * (ROWS * CONTEXT / 4096) ** 0.5
    return TrainingConfig(n_steps=n_steps, batch_rows=ROWS, micro_rows=MICRO_ROWS, seed=seed, lr=lr, weight_decay=0.01, keep=1,
                          warmup_steps=n_steps // 20, warmdown_share=0.9)  # fmt: skip


def learn(
    start: Path, dataset: Dataset, config: TrainingConfig, out: Path, make: Callable[..., Pretraining] = Pretraining
) -> Path:
    """The folder of the model that came of `start`."""
    made = out / "model"
    if not made.exists():
        base = BaseModel.open(start, "")
        begun = (out / CONFIG).is_file()
        run = (
            Run.open(out) if begun else create_run(out, "heal", base, dataset, config.seed, torch.get_num_threads(), {})
        )

        def write(trained: nn.Module, folder: Path) -> None:
            assert isinstance(trained, GPT)
            write_decoder(trained, base, folder, ModelCard(title=out.name, pipeline_tag="text-generation"))

        with run.locked():
            train(build_objective(run, trainable(load_decoder(base)), make, Silent(), write), config, run)
    return made


def pruned(teacher: Path, dataset: Path, seed: int, folder: Path) -> Path:
    """By a quarter, not healed."""
    if not folder.exists():
        options = PruneOptions(ratio=RATIO, calibration=dataset, seed=seed, measure=False)
        prune_model(BaseModel.open(teacher, ""), options, folder, n_threads=torch.get_num_threads())
    return folder


class Table:
    """What each model costs on the same documents, over seeds."""

    def __init__(self, documents: Sequence[EncodedDocument]) -> None:
        self.documents = documents
        self.scores: dict[str, list[DocumentScores]] = {}
        self.parameters: dict[str, int] = {}

    def add(self, name: str, folder: Path) -> None:
        model = load_model(folder)
        found = score(model, self.documents)
        assert found is not None
        self.scores.setdefault(name, []).append(found)
        self.parameters[name] = parameter_count(model.config)

    def show(self, name: str) -> None:
        bits = [each.bits_per_byte for each in self.scores[name]]
        mean, sd = mean_sd(bits)
        report(f"{name}: bits per byte", round(mean, 4), "", sd=None if len(bits) < 2 else round(sd, 4), n_seeds=len(bits),
               n_documents=len(self.documents), n_parameters=self.parameters[name])  # fmt: skip

    def compare(self, name: str, other: str) -> None:
        first, second = (np.mean([each.nats for each in self.scores[who]], 0) for who in (name, other))
        bits = [float(n) * float(np.log(2)) for n in self.scores[name][0].n_bytes]
        found = paired_bootstrap(first.tolist(), second.tolist(), bits, n_resamples=4000).difference
        pairs = list(zip(self.scores[name], self.scores[other], strict=False))
        report(f"{name} minus {other}", round(found.estimate, 4), "bits per byte", low=round(found.low, 4),
               high=round(found.high, 4), n_documents=len(self.documents), n_seeds=len(pairs),
               by_seed=[round(a.bits_per_byte - b.bits_per_byte, 4) for a, b in pairs],
               mean_by_seed=round(fmean(a.bits_per_byte - b.bits_per_byte for a, b in pairs), 4))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.students", description="Teachers and healing, with controls."
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--bytes", type=int, default=100_000, help="held-out text to score")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    dataset, folder, tokenizer = Dataset.open(chosen.dataset), chosen.folder, load_tokenizer(chosen.tokenizer)
    documents = held_out_documents(held_out_texts(chosen.dataset, None), tokenizer, chosen.bytes)
    large, small = shape(128, 3, tokenizer.vocab_size), shape(64, 2, tokenizer.vocab_size)
    healing, learning = chosen.steps // 4, chosen.steps // 2

    first = random_model(large, chosen.tokenizer, 0, folder / "teacher-start")
    teacher = learn(first, dataset, pretraining(chosen.steps, large.d_model, 0), folder / "teacher")
    first = random_model(small, chosen.tokenizer, 0, folder / "student-start")
    student = learn(first, dataset, pretraining(learning, small.d_model, 0), folder / "student")
    less = pruned(teacher, chosen.dataset, 0, folder / "pruned")
    table = Table(documents)
    for name, path in (("teacher", teacher), ("student before", student), ("pruned, not healed", less)):
        table.add(name, path)
        table.show(name)
    taught_by = load_decoder(BaseModel.open(teacher, ""))
    by_logits = partial(Distillation, teacher=taught_by, temperature=2.0, share=0.5)
    small_shape = load_model(less).config
    for seed in range(chosen.seeds):
        config = continuing(learning, small.d_model, seed)
        table.add("student, taught", learn(student, dataset, config, folder / f"taught-{seed}", by_logits))
        table.add("student, untaught", learn(student, dataset, config, folder / f"untaught-{seed}"))
        config = continuing(healing, large.d_model, seed)
        table.add("pruned and healed", learn(less, dataset, config, folder / f"healed-{seed}"))
        table.add("teacher, tuned as long", learn(teacher, dataset, config, folder / f"unpruned-{seed}"))
        first = random_model(small_shape, chosen.tokenizer, 100 + seed, folder / f"scratch-start-{seed}")
        for name, n_steps in (("healing", healing), ("all", chosen.steps + healing)):
            config = pretraining(n_steps, small_shape.d_model, seed)
            table.add(
                f"from scratch, the steps of {name}", learn(first, dataset, config, folder / f"scratch-{name}-{seed}")
            )
        for name in [*table.scores][3:]:
            table.show(name)
    table.compare("student, taught", "student, untaught")
    table.compare("pruned and healed", "teacher, tuned as long")
    table.compare("pruned and healed", "from scratch, the steps of healing")
    table.compare("pruned and healed", "from scratch, the steps of all")
    table.compare("pruned and healed", "teacher")


if __name__ == "__main__":
    main()
