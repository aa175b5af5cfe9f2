"""Heads learn labels and entities on a decoder and on an encoder, are scored exactly, and load in Transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
)

from chatwright.errors import InvalidModelError
from chatwright.model.card import SECTIONS
from chatwright.model.head_folder import load_head
from chatwright.model.save import save_model
from chatwright.text.dataset import Dataset, write_dataset
from chatwright.training.base_model import BaseModel
from chatwright.training.chat_rows import Notes
from chatwright.training.head_rows import LONG, UNSEEN, labelled_texts, tagged_texts
from chatwright.training.head_tasks import ClassTask, TagTask
from chatwright.training.progress import Silent
from chatwright.training.spans import spans_of
from chatwright.training.tune import Tuned, start_tuning
from chatwright.training.tune_recipe import TuneOptions
from chatwright.training.tune_task import Rows
from tests.server.tiny import VOCAB, make_model_folder
from tests.training.tuning import tiny_gpt

CPU = torch.device("cpu")
WORDS = ["good", "fine", "great", "bad", "awful", "poor", "the", "food", "was", "and", "service", "in", "ann", "lives"]
WORDS += ["paris", "li", *"北京很好差"]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_model_folder(tmp_path_factory.mktemp("base") / "tiny")
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    save_model(tiny_gpt(VOCAB), folder.parent / "weights")
    for file in (folder.parent / "weights").iterdir():
        file.rename(folder / file.name)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT as Transformers saves it, with a WordPiece vocabulary of the words used here and their letters."""
    folder = tmp_path_factory.mktemp("bert") / "tiny"
    letters = "abcdefghijklmnopqrstuvwxyz."
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    vocab = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = dict(zip(("pad", "unk", "cls", "sep", "mask"), tokens, strict=False))
    PreTrainedTokenizerFast(
        tokenizer_object=backend, **{f"{name}_token": token for name, token in special.items()}
    ).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(vocab),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=96,
            max_position_embeddings=64,
        )
    ).save_pretrained(folder)
    return folder


@pytest.fixture(params=["decoder", "encoder"])
def base(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def labelled() -> list[dict[str, Any]]:
    good, bad = ("good", "fine", "great"), ("bad", "awful", "poor")
    rows = [{"text": f"the {thing} was {word}", "label": "好评"} for thing in ("food", "service") for word in good]
    rows += [{"text": f"the {thing} was {word}", "label": "差评"} for thing in ("food", "service") for word in bad]
    return rows


def tagged() -> list[dict[str, Any]]:
    rows = []
    for name in ("Ann", "Li"):
        for place in ("Paris", "北京"):
            text = f"{name} lives in {place} and {name}"
            at, again = text.index(place), text.rindex(name)
            spans = [(0, len(name), "person"), (at, at + len(place), "place"), (again, again + len(name), "person")]
            rows.append({"text": text, "spans": [dict(zip(("start", "end", "label"), s, strict=True)) for s in spans]})
    return rows


def tune(model: Path, data: Dataset, path: Path, method: Any, **options: Any) -> Tuned:
    values = {"lr": 3e-3, "epochs": 12, "batch": 4, "dropout": 0.0, "precision": "fp32"} | options
    return start_tuning(BaseModel.open(model, ""), data, TuneOptions(method=method, **values), path, device=CPU)


def test_a_classifier_learns_labels_and_loads_in_transformers(base: Path, tmp_path: Path) -> None:
    rows = labelled()
    data = write_dataset(tmp_path / "data", {"labelled": {"train": rows, "held_out": rows[::2]}})
    tuned = tune(base, data, tmp_path / "run", "classify")
    assert tuned.metrics["accuracy"] == tuned.metrics["macro_f1"] == 1.0
    assert tuned.details["labels"] == sorted(["好评", "差评"])
    assert tuned.details["confusion_matrix"] == [[3, 0], [0, 3]]
    assert json.loads((tmp_path / "run" / "held_out.json").read_text()) == tuned.details
    assert tuned.result is not None
    theirs = AutoModelForSequenceClassification.from_pretrained(tuned.result).eval()
    card = (tuned.result / "README.md").read_text(encoding="utf-8")
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == list(SECTIONS)
    head = load_head(tuned.result)
    encode = BaseModel.open(base, "").encode_text()
    for row in rows:
        ids = torch.tensor([encode(row["text"])[0]])
        with torch.no_grad():
            logits = theirs(ids).logits[0]
            assert torch.allclose(logits, head(ids)[0], atol=1e-4)
        assert theirs.config.id2label[int(logits.argmax())] == row["label"]
    assert (tuned.result / "tokenizer.json").is_file()
    assert "held-out accuracy: 1.0000\n" in (tuned.result / "README.md").read_text()


def test_a_tagger_finds_entities_by_their_exact_place_also_in_chinese(base: Path, tmp_path: Path) -> None:
    rows = tagged()
    data = write_dataset(tmp_path / "data", {"tagged": {"train": rows, "held_out": rows}})
    tuned = tune(base, data, tmp_path / "run", "tag", epochs=25, batch=2)
    assert tuned.metrics["f1"] == 1.0
    assert tuned.details["labels"] == ["person", "place"]
    assert tuned.result is not None
    theirs = AutoModelForTokenClassification.from_pretrained(tuned.result).eval()
    ids, ranges = BaseModel.open(base, "").encode_text()(rows[3]["text"])
    assert ranges is not None
    with torch.no_grad():
        best = theirs(torch.tensor([ids])).logits[0].argmax(-1).tolist()
    found = spans_of(rows[3]["text"], ranges, [theirs.config.id2label[number] for number in best])
    assert [rows[3]["text"][start:end] for start, end, _label in found] == ["Li", "北京", "Li"]


def task_of(kind: type[ClassTask] | type[TagTask], base: Path, data: Dataset, context: int) -> ClassTask | TagTask:
    method = "classify" if kind is ClassTask else "tag"
    return kind(BaseModel.open(base, ""), Rows(data, method, Silent()), context, CPU)  # type: ignore[arg-type]


def test_a_text_longer_than_the_context_loses_no_entity(base: Path, tmp_path: Path) -> None:
    text = "the food was good and " * 12 + "Ann lives in 北京"
    rows = [{"text": text, "spans": [{"start": len(text) - 2, "end": len(text), "label": "place"}]}] * 2
    data = write_dataset(tmp_path / "data", {"tagged": {"train": rows, "held_out": rows[:1]}})
    task = task_of(TagTask, base, data, 16)
    tune_section = {
        "labels": ["place"],
        "augmentations": [],
        "dropout": 0.0,
        "method": "tag",
        "epochs": 1.0,
        "data": "",
    }
    objective = task.objective(task.train, task.held_out, tune_section, 0, tmp_path)
    n_tokens = sum(item.n_tokens for item in task.train)
    assert objective.n_rows == task.shape(task.train, [], True).n_rows > len(task.train)
    batch = objective.batch(range(objective.n_rows), 0)
    assert batch.ids.shape[1] <= 16
    assert objective.weight(batch) == n_tokens
    assert int((batch.targets > 0).sum()) >= 2  # the last window has the entity
    assert 0 <= objective.evaluate(full=True)["recall"] <= 1


def test_augmented_texts_keep_their_labels_and_entities(base: Path, tmp_path: Path) -> None:
    rows = tagged()
    data = write_dataset(tmp_path / "data", {"tagged": {"train": rows}})
    task = task_of(TagTask, base, data, 64)
    names = ["word-dropout", "word-swap", "typos"]
    section = {
        "labels": ["person", "place"],
        "augmentations": names,
        "dropout": 0.0,
        "method": "tag",
        "epochs": 1.0,
        "data": "",
    }
    objective: Any = task.objective(task.train, [], section, 0, tmp_path)
    seen = set()
    for epoch in range(30):
        ids, tags = objective._reworded(task.train[0], epoch)
        seen.add(tuple(ids))
        assert sum(tag.startswith("B-") for tag in tags) == 3
    assert len(seen) > 3


def test_long_texts_and_unseen_labels_are_counted(decoder: Path, tmp_path: Path) -> None:
    rows = labelled()
    held_out = [*rows[:2], {"text": "so so", "label": "neutral"}]
    data = write_dataset(
        tmp_path / "data",
        {"labelled": {"train": [*rows, {"text": "good " * 200, "label": "好评"}], "held_out": held_out}},
    )
    task = task_of(ClassTask, decoder, data, 64)
    assert task.notes["train"].counts == {LONG: 1}
    assert task.notes["held_out"].counts == {UNSEEN: 1}
    assert len(task.held_out) == 2
    assert max(len(item.ids) for item in task.train) == 64


def test_folds_of_a_classifier_have_every_label(decoder: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", {"labelled": {"train": labelled()}})
    tuned = tune(decoder, data, tmp_path / "run", "classify", folds=3, final=False, epochs=1)
    assert tuned.folds is not None
    assert set(tuned.folds.figures) == {"loss", "accuracy", "macro_f1"}
    assert tuned.folds.rows == [(8, 4)] * 3


def test_an_encoder_cannot_be_tuned_to_chat(encoder: Path, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    data = write_dataset(tmp_path / "data", {"conversations": {"train": [{"messages": messages}]}})
    with pytest.raises(InvalidModelError, match="is an encoder"):
        start_tuning(BaseModel.open(encoder, ""), data, TuneOptions(method="lora"), tmp_path / "run", device=CPU)


def test_texts_are_cut_but_keep_the_mark_of_their_end(encoder: Path) -> None:
    encode = BaseModel.open(encoder, "").encode_text()
    [text] = labelled_texts([{"id": "a", "cluster": 0, "text": "good " * 30, "label": "x"}], encode, 8, Notes())
    assert len(text.ids) == 8
    assert (text.ids[0], text.ids[-1]) == (2, 3)  # [CLS] … [SEP]
    [tagged_text] = tagged_texts(
        [{"id": "a", "cluster": 0, "text": "Ann 北京", "spans": [{"start": 4, "end": 6, "label": "place"}]}],
        encode,
        8,
        Notes(),
    )
    assert [window.tags for window in tagged_text.windows] == [("O", "O", "B-place", "I-place", "O")]


@pytest.mark.parametrize("context", [5, 8, 16, 64])
@pytest.mark.parametrize("n_words", [0, 1, 6, 40])
def test_an_encoder_reads_long_texts_as_transformers_cuts_them(
    encoder: Path, tmp_path: Path, context: int, n_words: int
) -> None:
    text = " ".join(WORDS[i % len(WORDS)] for i in range(n_words))
    row = {"id": "a", "cluster": 0, "text": text, "label": "x", "spans": []}
    encode = BaseModel.open(encoder, "").encode_text()
    theirs = AutoTokenizer.from_pretrained(encoder)
    [ours] = labelled_texts([row], encode, context, Notes())
    assert list(ours.ids) == theirs(text, truncation=True, max_length=context).input_ids
    cut = theirs(text, truncation=True, max_length=context, return_overflowing_tokens=True, return_offsets_mapping=True)
    [tagged_text] = tagged_texts([row], encode, context, Notes())
    assert [list(window.ids) for window in tagged_text.windows] == cut.input_ids
    assert [list(window.ranges) for window in tagged_text.windows] == cut.offset_mapping


def test_a_reworded_text_is_cut_as_the_others_are(encoder: Path, tmp_path: Path) -> None:
    rows = [{"text": "good food and fine service " * 10, "label": label} for label in ("x", "y")]
    task = task_of(ClassTask, encoder, write_dataset(tmp_path / "data", {"labelled": {"train": rows}}), 16)
    section = {"labels": ["x", "y"], "augmentations": ["word-swap"], "dropout": 0.0, "method": "classify"}
    section |= {"epochs": 1.0, "data": ""}
    batch = task.objective(task.train, [], section, 0, tmp_path).batch([0, 1], 0)
    assert batch.ids.shape == (2, 16)
    assert batch.ids[:, 0].tolist() == [2, 2]  # [CLS]
    assert batch.ids[:, -1].tolist() == [3, 3]  # [SEP]


def test_a_decoder_keeps_the_beginning_of_a_long_text(decoder: Path) -> None:
    encode = BaseModel.open(decoder, "").encode_text()
    text = "the food was good and the service was bad"
    [ours] = labelled_texts([{"id": "a", "cluster": 0, "text": text, "label": "x"}], encode, 8, Notes())
    assert list(ours.ids) == encode(text)[0][:8]
