"""Distilling: the student comes nearer to its teacher, an interrupted run goes on, and vocabularies must agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from chatwright.compression.distill import Distilled, DistillOptions, distill, resume_distillation
from chatwright.errors import InvalidDatasetError, UsageError
from chatwright.model.load import load_model
from chatwright.text.dataset import Dataset, write_dataset
from chatwright.training.base_model import BaseModel
from chatwright.training.run import Run
from tests.compression.models import make_folder, write_text_side
from tests.training.corpus import make_dataset
from tests.training.tuning import chat

SMALL = {"intermediate_size": 32}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return make_folder(folder / "teacher"), make_folder(folder / "student", **SMALL)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("data") / "text", 120, 8)


def run(models: tuple[Path, Path], data: Dataset, out: Path, **options: Any) -> Distilled:
    teacher, student = (BaseModel.open(path, "") for path in models)
    return distill(teacher, student, data, DistillOptions(**options), out, n_threads=1)


def divergence(teacher: Path, student: Path) -> float:
    ids = torch.randint(3, 300, (4, 48), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        p, q = (F.log_softmax(load_model(path)(ids), -1).flatten(0, 1) for path in (teacher, student))
    return float(F.kl_div(q, p, log_target=True, reduction="batchmean"))


def test_by_logits_the_student_comes_nearer(models: tuple[Path, Path], data: Dataset, tmp_path: Path) -> None:
    teacher, student = models
    done = run(models, data, tmp_path / "run", minutes=0.05, share=1.0)
    assert done.result is not None
    assert done.bill is not None
    assert divergence(teacher, done.result) < divergence(teacher, student)
    assert done.bill.teacher is not None
    assert (tmp_path / "run" / "bill.json").is_file()
    with pytest.raises(UsageError, match="already"):
        run(models, data, tmp_path / "run")
    again = resume_distillation(Run.open(tmp_path / "run"))
    assert again.result is not None
    assert divergence(done.result, again.result) < 1e-6


def test_by_answers_the_student_is_tuned_on_what_the_teacher_says(models: tuple[Path, Path], tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"messages": chat(f"What is {n}?", "Never read.")} for n in range(4)]
    questions = write_dataset(tmp_path / "chats", {"conversations": {"train": rows[:3], "held_out": rows[3:]}})
    done = run(models, questions, tmp_path / "run", by="answers", epochs=1.0, max_tokens=12)
    assert done.result is not None
    answers = Dataset.open(tmp_path / "run-answers")
    texts = [row["messages"][-1]["content"] for row in answers.rows("train", "conversations")]
    assert texts
    assert "Never read." not in texts
    assert next(answers.rows("train", "conversations"))["messages"][0]["content"].startswith("What is")


def test_other_vocabularies_and_data_without_questions_are_refused(
    models: tuple[Path, Path], data: Dataset, tmp_path: Path
) -> None:
    other = make_folder(tmp_path / "other", **SMALL)
    write_text_side(other, vocab_size=300)
    with pytest.raises(UsageError, match="different vocabularies"):
        run((models[0], other), data, tmp_path / "run")
    with pytest.raises(InvalidDatasetError, match="conversations"):
        run(models, data, tmp_path / "run", by="answers")
    assert not (tmp_path / "run").exists()
