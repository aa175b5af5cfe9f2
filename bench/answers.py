"""Whether a student learns as much from its teacher's answers as from the given ones: `distill --by answers` beside plain tuning.

    python -m bench.answers TEXT CHATS EXAM TOKENIZER FOLDER [--seeds 2] [--steps 100] [--epochs 4]

TEXT and CHATS of `chatwright prepare`: documents, and conversations of `python -m examples.shop` (with EXAM of that language);
TOKENIZER of `chatwright tokenizer train`. In FOLDER a teacher of about a million parameters is pretrained on TEXT for `--steps`
steps of 2,048 tokens and tuned on CHATS for twice `--epochs`; a student of a quarter of it is pretrained for half as many steps.
Then with each seed the student is tuned for `--epochs` on the given answers, and on what the teacher says to the same questions.

All are asked the questions of EXAM, in wordings that CHATS does not have: token F1 of greedy answers and bits per byte of the true
ones. What is there already is not made again. One JSON line a figure; differences with 95 % bootstrap intervals over the questions,
seeds averaged.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch

from bench.figures import report
from bench.students import learn, pretraining, random_model, shape
from bench.tutorial_b import Marks, measure
from chatwright.compression.distill import DistillOptions, distill
from chatwright.evaluation.statistics import mean_sd, paired_bootstrap
from chatwright.text.dataset import Dataset
from chatwright.tokenizer.load import load_tokenizer
from chatwright.training.base_model import BaseModel
from chatwright.training.tune import start_tuning
from chatwright.training.tune_recipe import TuneOptions


def tuned(base: Path, chats: Dataset, epochs: float, seed: int, out: Path) -> Path:
    """On the given answers."""
    if not (out / "model" / "config.json").exists():
        options = TuneOptions(method="full", epochs=epochs, seed=seed)
        start_tuning(BaseModel.open(base, ""), chats, options, out, device=torch.device("cpu"), n_threads=1)
    return out / "model"


def taught(teacher: Path, base: Path, chats: Dataset, epochs: float, seed: int, out: Path) -> Path:
    """On the teacher's answers."""
    if not (out / "model" / "config.json").exists():
        options = DistillOptions(by="answers", epochs=epochs, seed=seed, max_tokens=64, measure=False)
        distill(BaseModel.open(teacher, ""), BaseModel.open(base, ""), chats, options, out, n_threads=1)
    return out / "model"


def show(name: str, marks: Sequence[Marks]) -> None:
    """F1, and bits per byte of the true answers, over seeds."""
    n = {"n_questions": len(marks[0].f1), "n_seeds": len(marks)}
    for what, values, unit in (
        ("token F1", [fmean(each.f1) for each in marks], "share"),
        ("bits per byte of the true answers", [each.answers.bits_per_byte for each in marks], "bits/byte"),
    ):
        value, sd = mean_sd(values)
        report(f"{name}: {what}", round(value, 4), unit, sd=None if math.isnan(sd) else round(sd, 4), **n)


def compare(by_teacher: Sequence[Marks], by_given: Sequence[Marks]) -> None:
    """Taught minus tuned."""
    n = {"n_questions": len(by_given[0].f1), "n_seeds": len(by_given)}
    f1, other = ([fmean(each) for each in zip(*(m.f1 for m in marks), strict=True)] for marks in (by_teacher, by_given))
    found = paired_bootstrap(f1, other)
    interval = [round(found.difference.low, 4), round(found.difference.high, 4)]
    report("taught minus tuned: token F1", round(found.difference.estimate, 4), "share", interval_95=interval,
           by_seed=[round(fmean(a.f1) - fmean(b.f1), 4) for a, b in zip(by_teacher, by_given, strict=True)], **n)  # fmt: skip
    nats, others = (
        [fmean(each) for each in zip(*(m.answers.nats.tolist() for m in marks), strict=True)]
        for marks in (by_teacher, by_given)
    )
    bits = (by_given[0].answers.n_bytes * math.log(2)).tolist()
    found = paired_bootstrap(nats, others, bits)
    interval = [round(found.difference.low, 4), round(found.difference.high, 4)]
    report("taught minus tuned: bits per byte of the true answers", round(found.difference.estimate, 4), "bits/byte",
           interval_95=interval, **n)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.answers", description="Taught by answers, with a control.")
    for name in ("text", "chats", "exam", "tokenizer", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--epochs", type=float, default=4)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    text, chats, folder = Dataset.open(chosen.text), Dataset.open(chosen.chats), chosen.folder
    exam = [json.loads(line) for line in chosen.exam.read_text(encoding="utf-8").splitlines()]
    vocabulary = load_tokenizer(chosen.tokenizer).vocab_size
    large, small = shape(128, 3, vocabulary), shape(64, 2, vocabulary)
    first = random_model(large, chosen.tokenizer, 0, folder / "teacher-start")
    teacher = learn(first, text, pretraining(chosen.steps, large.d_model, 0), folder / "teacher-text")
    teacher = tuned(teacher, chats, 2 * chosen.epochs, 0, folder / "teacher")
    first = random_model(small, chosen.tokenizer, 0, folder / "student-start")
    student = learn(first, text, pretraining(chosen.steps // 2, small.d_model, 0), folder / "student-text")
    show("teacher", [measure(teacher, None, exam)])
    by_given, by_teacher = [], []
    for seed in range(chosen.seeds):
        given = tuned(student, chats, chosen.epochs, seed, folder / f"given-{seed}")
        by_given.append(measure(given, None, exam))
        of_teacher = taught(teacher, student, chats, chosen.epochs, seed, folder / f"taught-{seed}")
        by_teacher.append(measure(of_teacher, None, exam))
    show("student, tuned on given answers", by_given)
    show("student, taught by answers", by_teacher)
    compare(by_teacher, by_given)


if __name__ == "__main__":
    main()
