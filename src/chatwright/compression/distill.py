"""`distill`: a small model learns from a large one, by its logits on text or by its answers to questions; with the bill."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from chatwright.compression.answers import answered
from chatwright.compression.bill import Bill, Measured, measured, precision_notes, score
from chatwright.compression.card import bill_scores, learned_text, write_made_card
from chatwright.compression.continued import (
    STEPS,
    build_objective,
    continue_training,
    create_run,
    described,
    trainable,
    write_decoder,
)
from chatwright.compression.decoder import check_decoder, load_decoder
from chatwright.compression.distillation import Distillation, check_same_vocabulary
from chatwright.compression.quantize import scored_documents
from chatwright.errors import ChatwrightError, InvalidDatasetError, UsageError
from chatwright.evaluation.documents import EncodedDocument
from chatwright.i18n import _
from chatwright.model.card import ModelCard, add_scores
from chatwright.model.checkpoint import read_json_object
from chatwright.model.config import parameter_count
from chatwright.model.gpt import GPT
from chatwright.model.load import load_model
from chatwright.text.dataset import Dataset, write_dataset
from chatwright.training.base_model import BaseModel
from chatwright.training.progress import Progress, Silent
from chatwright.training.run import Run, check_new, write_json
from chatwright.training.tune import start_tuning
from chatwright.training.tune_card import held_out_scores
from chatwright.training.tune_recipe import TuneOptions, check_kind

By = Literal["logits", "answers"]
WAYS: tuple[By, ...] = get_args(By)
BILL = "bill.json"


@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """`temperature`, `share` (of what the teacher says in the loss), `minutes`: by logits. `max_tokens`, `epochs`: by answers."""

    by: By = "logits"
    minutes: float = 5.0
    temperature: float = 2.0
    share: float = 0.5
    max_tokens: int = 256
    epochs: float = 3.0
    text: Path | None = None
    seed: int = 0
    measure: bool = True


@dataclass(frozen=True)
class Distilled:
    """`result`: the folder of the student that has learned, None where it was interrupted by `signal`."""

    run: Path
    result: Path | None
    bill: Bill | None
    signal: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        values = {} if self.bill is None else self.bill.to_dict()
        return {
            "run": str(self.run),
            "result": None if self.result is None else str(self.result),
            **values,
            "signal": self.signal,
        }


def distill(
    teacher: BaseModel,
    student: BaseModel,
    dataset: Dataset,
    options: DistillOptions,
    out: Path,
    *,
    n_threads: int,
    progress: Progress | None = None,
) -> Distilled:
    """A new run at `out`. Raises UsageError, InvalidModelError, InvalidDatasetError before anything is written, then as `train`."""
    progress = progress or Silent()
    check_new(out)
    for model in (teacher, student):
        check_decoder(model, "distill")
    torch.set_num_threads(n_threads)
    if options.by == "answers":
        return _by_answers(teacher, student, dataset, options, out, n_threads, progress)
    check_same_vocabulary(teacher.tokenizer(), student.tokenizer())
    run = create_run(
        out,
        "distill",
        student,
        dataset,
        options.seed,
        n_threads,
        {
            "teacher": described(teacher),
            "student": described(student),
            "distill": {
                name: value for name, value in asdict(options).items() if name not in ("seed", "max_tokens", "epochs")
            },
        },
    )
    try:
        return resume_distillation(run, progress=progress)
    except ChatwrightError:
        if not (run.path / STEPS).exists():  # refused before the first step: there is nothing to go on with
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def resume_distillation(run: Run, *, progress: Progress | None = None) -> Distilled:
    """Goes on with a run by logits. Raises TrainingError where teacher, student or dataset have changed."""
    progress = progress or Silent()
    n_threads = int(run.section("machine")["n_threads"])
    torch.set_num_threads(n_threads)
    found = run.section("distill")
    options = DistillOptions(**found | {"text": Path(found["text"]) if "text" in found else None})
    teacher, student = (_opened(run, who) for who in ("teacher", "student"))
    check_same_vocabulary(teacher.tokenizer(), student.tokenizer())
    with run.locked():
        documents = _documents(student, student, Path(run.section("dataset")["path"]), options)
        model = load_decoder(student)
        progress.stage(_("Measuring the model before"), None)
        before = score(model, documents)
        taught_by = load_decoder(teacher)
        make = partial(Distillation, teacher=taught_by, temperature=options.temperature, share=options.share)

        def write(trained: nn.Module, folder: Path) -> None:
            assert isinstance(trained, GPT)
            recipe = {
                "by": "logits",
                "temperature": options.temperature,
                "share": options.share,
                "steps": read_json_object(run.path / STEPS)["n_steps"],
                "minutes": f"{options.minutes:g}",
            }
            dataset, kinds = Dataset.open(Path(run.section("dataset")["path"])), run.section("text")["kinds"]
            made = learned_text(_made(student, teacher, recipe), dataset, kinds, objective.tokens.n_tokens)
            write_decoder(trained, student, folder, made)
            write_made_card(folder, student, made)  # the bill is made when the run is done: a Ctrl-C may come between

        objective = build_objective(run, trainable(model), make, progress, write)
        result = continue_training(run, objective, options.minutes, progress)
        if result.signal is not None:
            return Distilled(run.path, None, None, result.signal)
        progress.stage(_("Measuring the model after"), None)
        after = score(model, documents)
        bill = _bill(student, run.result, teacher, (before, after, score(taught_by, documents)), n_threads, options)
        write_json(run.path / BILL, bill.to_dict())
        add_scores(run.result, bill_scores(bill))
    return Distilled(run.path, run.result, bill)


def _made(student: BaseModel, teacher: BaseModel, recipe: Mapping[str, object]) -> ModelCard:
    return ModelCard(
        title=f"{student.title}, taught by {teacher.title}",
        pipeline_tag="text-generation",
        tags=["distilled"],
        recipe={"teacher": teacher.reference, **recipe},
    )


def _opened(run: Run, who: str) -> BaseModel:
    found = run.section(who)
    model = BaseModel.open(Path(found["path"]), found["name"])
    # runs of earlier versions do not say it
    model.check(found["weights"], found.get("text_side", model.text_fingerprint()))
    return model


def _documents(model: BaseModel, student: BaseModel, dataset: Path, options: DistillOptions) -> list[EncodedDocument]:
    """The same texts for every model, as many as the student's size allows, each in the tokens of the model that reads them."""
    if not options.measure:
        return []
    return scored_documents(
        options.text, dataset, model.tokenizer(), parameter_count(check_decoder(student, "distill"))
    )


def _bill(
    student: BaseModel, result: Path, teacher: BaseModel, scores: Sequence[Any], n_threads: int, options: DistillOptions
) -> Bill:
    before, after, of_teacher = scores
    figures: list[Measured] = [
        measured(path, check_decoder(model, "distill"), found, n_threads, options.measure)
        for path, model, found in (
            (student.path, student, before),
            (result, student, after),
            (teacher.path, teacher, of_teacher),
        )
    ]
    return Bill(figures[0], figures[1], precision_notes(student.path, result), figures[2])


def _by_answers(
    teacher: BaseModel,
    student: BaseModel,
    dataset: Dataset,
    options: DistillOptions,
    out: Path,
    n_threads: int,
    progress: Progress,
) -> Distilled:
    """The teacher answers the questions of the dataset, and the student is tuned on that."""
    if "conversations" not in dataset.kinds:
        raise InvalidDatasetError(
            "--by answers needs conversations, whose questions the teacher answers, and {path} has {found}. From text a student"
            " learns with --by logits.",
            path=dataset.path,
            found=", ".join(_(kind) for kind in dataset.kinds),
        )
    check_kind(dataset, "full")
    student.chat()  # before minutes of answers: it refuses a model that cannot chat
    answers = out.with_name(f"{out.name}-answers")
    if answers.exists():
        raise UsageError(
            "{path} is there already: the teacher's answers would go there. Remove it or choose another run.",
            path=answers,
        )
    # before minutes of answers: they refuse a --text without text
    documents, of_teacher = (_documents(model, student, dataset.path, options) for model in (student, teacher))
    taught_by = load_decoder(teacher)
    kept = out.with_name(f"{out.name}-answers.partial")
    try:
        rows = answered(taught_by, teacher, dataset, options.max_tokens, kept, progress)
    except KeyboardInterrupt:
        progress.say(_("Stopped; what was answered is kept, and the same command goes on from there."))
        raise
    if not rows["train"]:
        kept.unlink()
        raise InvalidDatasetError("The teacher answered none of the questions of {path}.", path=dataset.path)
    written = write_dataset(answers, {"conversations": rows})
    kept.unlink()
    tuned = start_tuning(
        student,
        written,
        TuneOptions(method="full", epochs=options.epochs, seed=options.seed),
        out,
        device=torch.device("cpu"),
        n_threads=n_threads,
        progress=progress,
    )
    if tuned.result is None:
        return Distilled(out, None, None, tuned.signal)
    scores = [score(model, documents) for model in (load_decoder(student), load_model(tuned.result))]
    scores.append(score(taught_by, of_teacher))
    bill = _bill(student, tuned.result, teacher, scores, n_threads, options)
    bill = replace(
        bill, notes=[*bill.notes, _("The teacher's answers ({n}) are in {path}.", n=len(rows["train"]), path=answers)]
    )
    write_json(out / BILL, bill.to_dict())
    # instead of the card of tuning, which knows no teacher
    made = replace(
        _made(student, teacher, {"by": "answers", "epochs": f"{options.epochs:g}, at most"}),
        dataset_fingerprint=written.fingerprint,
        data={
            "text": f"{len(rows['train'])} answers of the teacher, to questions of the dataset {dataset.fingerprint}",
            "learned from before": "see the base model",
        },
        scores=held_out_scores(out),
    )
    write_made_card(tuned.result, student, made, bill)
    return Distilled(out, tuned.result, bill)
