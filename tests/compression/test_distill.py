"""Distilling: the student comes nearer to its teacher, an interrupted run goes on, and vocabularies must agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from chatwright.compression import answers
from chatwright.compression.bill import score
from chatwright.compression.distill import Distilled, DistillOptions, distill, resume_distillation
from chatwright.compression.quantize import QuantizeOptions, quantize
from chatwright.compression.texts import held_out_documents
from chatwright.errors import InvalidDatasetError, InvalidModelError, TrainingError, UsageError
from chatwright.model.checkpoint import read_json_object
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


def test_that_a_small_student_becomes_floats_is_said(models: tuple[Path, Path], data: Dataset, tmp_path: Path) -> None:
    quantize(BaseModel.open(models[1], ""), QuantizeOptions(to="int4", measure=False), tmp_path / "small", n_threads=1)
    done = run((models[0], tmp_path / "small"), data, tmp_path / "run", minutes=0.01, measure=False)
    assert done.bill is not None
    assert done.bill.after.size_bytes > done.bill.before.size_bytes
    [note] = done.bill.notes
    assert "are written in float32" in note


def test_by_answers_the_student_is_tuned_on_what_the_teacher_says(models: tuple[Path, Path], tmp_path: Path) -> None:
    done = run(models, questions_in(tmp_path / "chats"), tmp_path / "run", by="answers", epochs=1.0, max_tokens=12)
    assert done.result is not None
    answers = Dataset.open(tmp_path / "run-answers")
    texts = [row["messages"][-1]["content"] for row in answers.rows("train", "conversations")]
    assert texts
    assert "Never read." not in texts
    assert next(answers.rows("train", "conversations"))["messages"][0]["content"].startswith("What is")


def card_of(folder: Path) -> dict[str, list[str]]:
    """Heading → lines that say something."""
    parts = (folder / "README.md").read_text(encoding="utf-8").split("\n## ")
    return {
        part.splitlines()[0]: [line for line in part.splitlines() if line.startswith(("- ", "_"))] for part in parts
    }


def bits_per_byte(done: Distilled) -> str:
    """As the card has to say them."""
    assert done.bill is not None
    assert done.bill.teacher is not None
    after, before, teacher = (each.scores for each in (done.bill.after, done.bill.before, done.bill.teacher))
    assert after is not None
    assert before is not None
    assert teacher is not None
    found = [each.bits_per_byte for each in (after, before, teacher)]
    return "- bits per byte: {:.4f} (before: {:.4f}, teacher: {:.4f})".format(*found)


def test_the_card_says_what_was_learned_from_by_whom_and_what_came_of_it(
    models: tuple[Path, Path], data: Dataset, tmp_path: Path
) -> None:
    done = run(models, data, tmp_path / "run", minutes=0.01)
    assert done.result is not None
    assert done.bill is not None
    card = card_of(done.result)
    assert card["Data"][0] == f"- fingerprint: {data.fingerprint}"
    assert card["Data"][1].startswith(f"- text: {data.n_bytes('train', 'documents'):,} bytes, ")
    n_steps = read_json_object(tmp_path / "run" / "steps.json")["n_steps"]
    before, after = done.bill.before.size_bytes, done.bill.after.size_bytes
    assert {
        f"- base model: {models[1]}",
        f"- teacher: {models[0]}",
        f"- steps: {n_steps}",
        "- minutes: 0.01",
        f"- weights: {after:,} bytes (before: {before:,})",
    } <= set(card["Recipe"])
    assert card["Scores"][0] == bits_per_byte(done)
    assert card["Scores"][1].startswith("- perplexity: ")
    assert len(card["Scores"]) == 2


def test_the_card_of_a_student_of_answers_names_its_teacher_and_has_the_bill(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    chats, text = questions_in(tmp_path / "chats"), tmp_path / "text.txt"
    text.write_text("The cat sees the printer.\n", encoding="utf-8")
    done = run(models, chats, tmp_path / "run", by="answers", epochs=1.0, max_tokens=8, text=text)
    assert done.result is not None
    card = card_of(done.result)
    answers = Dataset.open(tmp_path / "run-answers")
    n = answers.n_rows("train", "conversations")
    assert card["Data"][:2] == [
        f"- fingerprint: {answers.fingerprint}",
        f"- text: {n} answers of the teacher, to questions of the dataset {chats.fingerprint}",
    ]
    assert {f"- teacher: {models[0]}", "- by: answers", "- epochs: 1, at most"} <= set(card["Recipe"])
    assert bits_per_byte(done) in card["Scores"]
    assert [line for line in card["Scores"] if line.startswith("- held-out bits_per_byte: ")], (
        "tuning's own figures stay"
    )


def questions_in(folder: Path) -> Dataset:
    rows: list[dict[str, Any]] = [{"messages": chat(f"What is {n}?", "Never read.")} for n in range(4)]
    return write_dataset(folder, {"conversations": {"train": rows[:3], "held_out": rows[3:]}})


def test_by_answers_the_teacher_goes_on_where_it_was_interrupted(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatwright.compression.answers.ASKED_AT_ONCE", 1)
    chats, options = questions_in(tmp_path / "chats"), {"by": "answers", "epochs": 1.0, "max_tokens": 12}
    options["measure"] = False
    run(models, chats, tmp_path / "whole", **options)
    asked: list[int] = []
    real = answers.generate_answers

    def interrupted(*args: Any, **more: Any) -> Any:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(*args, **more)

    monkeypatch.setattr("chatwright.compression.answers.generate_answers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(models, chats, tmp_path / "run", **options)
    kept = tmp_path / "run-answers.partial"
    kept.write_bytes(kept.read_bytes() + b'{"split": "tra')  # a line that was cut off
    with pytest.raises(UsageError, match="answers of another teacher"):
        run((models[1], models[1]), chats, tmp_path / "run", **options)
    with pytest.raises(UsageError, match=rf"of a command with --max-tokens {options['max_tokens']}\. Repeat"):
        run(models, chats, tmp_path / "run", **{**options, "max_tokens": 99})
    done = run(models, chats, tmp_path / "run", **options)
    assert done.result is not None
    assert len(asked) == 5, "of four questions two were answered, and the third was asked twice"
    assert not kept.exists()
    texts = [
        list(Dataset.open(tmp_path / f"{name}-answers").rows("train", "conversations")) for name in ("run", "whole")
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("smaller", ["teacher", "student"])
def test_by_answers_each_model_is_measured_in_its_own_tokens(tmp_path: Path, smaller: str) -> None:
    """A teacher that read the student's ids either failed on those it does not have, or was given a figure that says nothing."""
    folders = {
        name: make_folder(tmp_path / name, vocab_size=300 if name == smaller else 384, **SMALL)
        for name in ("teacher", "student")
    }
    write_text_side(folders[smaller], vocab_size=300)
    text = tmp_path / "text.txt"
    text.write_text("The cat sees the printer, and the printer sees the cat.\n", encoding="utf-8")
    done = run(
        (folders["teacher"], folders["student"]), questions_in(tmp_path / "chats"), tmp_path / "run",
        by="answers", epochs=1.0, max_tokens=8, text=text,
    )  # fmt: skip
    assert done.bill is not None
    teacher = done.bill.teacher
    assert teacher is not None
    assert teacher.scores is not None
    expected = score(
        load_model(folders["teacher"]),
        held_out_documents([text.read_text()], BaseModel.open(folders["teacher"], "").tokenizer(), 10**6),
    )
    assert expected is not None
    assert teacher.scores.bits_per_byte == pytest.approx(expected.bits_per_byte)
    # the few pieces of a text that nobody learned from are measured whole: nothing of it is kept for a calibration
    assert done.bill.n_documents == 1
    assert int(teacher.scores.n_bytes.sum()) == len(text.read_bytes())


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_a_run_is_not_continued_with_another_tokenizer(tmp_path: Path, data: Dataset, who: str) -> None:
    folders = make_folder(tmp_path / "teacher", **SMALL), make_folder(tmp_path / "student", **SMALL)
    run(folders, data, tmp_path / "run", minutes=0.01, measure=False)
    write_text_side(tmp_path / who, vocab_size=300)
    with pytest.raises(TrainingError, match="tokenizer or chat template has changed"):
        resume_distillation(Run.open(tmp_path / "run"))


@pytest.mark.parametrize("by", ["logits", "answers"])
def test_a_text_without_text_to_measure_on_leaves_nothing(
    models: tuple[Path, Path], data: Dataset, tmp_path: Path, by: str
) -> None:
    learned_from = data if by == "logits" else questions_in(tmp_path / "chats")
    (tmp_path / "empty.txt").write_bytes(b"")
    before = set(tmp_path.iterdir())
    with pytest.raises(InvalidDatasetError, match="no text to measure on"):
        run(models, learned_from, tmp_path / "run", by=by, text=tmp_path / "empty.txt", max_tokens=8)
    assert set(tmp_path.iterdir()) == before


def test_too_little_text_and_a_broken_teacher_leave_no_run(
    models: tuple[Path, Path], data: Dataset, tmp_path: Path
) -> None:
    short = write_dataset(tmp_path / "short", {"documents": {"train": [{"text": "Too little."}]}})
    with pytest.raises(InvalidDatasetError, match="less than one window"):
        run(models, short, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    broken = make_folder(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidModelError, match="not finite"):
        run((broken, models[1]), data, tmp_path / "run", measure=False)
    assert not (tmp_path / "run").exists()


def test_other_vocabularies_and_data_without_questions_are_refused(
    models: tuple[Path, Path], data: Dataset, tmp_path: Path
) -> None:
    other = make_folder(tmp_path / "other", **SMALL)
    write_text_side(other, vocab_size=300)
    with pytest.raises(UsageError, match="different vocabularies"):
        run((models[0], other), data, tmp_path / "run")
    with pytest.raises(InvalidDatasetError, match=r"--by answers needs conversations, .* has documents") as refused:
        run(models, data, tmp_path / "run", by="answers")
    assert "--method" not in str(refused.value), "an option of another command"
    assert not (tmp_path / "run").exists()
