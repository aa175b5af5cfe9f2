"""Datasets out of files: the same whatever the number of workers and however often killed; nothing lost silently."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pypdf
import pytest

from chatwright.errors import InUseError, InvalidDatasetError, StorageError, UsageError
from chatwright.i18n import describe_error
from chatwright.text.dataset import Dataset
from chatwright.text.options import PrepareOptions
from chatwright.text.prepare import prepare
from chatwright.text.shingles import shingle
from chatwright.text.work import locked, need_space, work_folder, write_atomically
from tests.text.readers.test_documents import PROSE, make_pdf

VOCABULARY = """
harbour wind island boat rope morning river letter garden winter story window street market bridge paper music
mountain engine answer supper candle forest station number teacher orange silver travel memory
"""
WORDS = VOCABULARY.split()


def prose(seed: int, n_words: int = 120) -> str:
    rng = random.Random(seed)
    words = rng.choices(WORDS, k=n_words)
    return "The " + " ".join(" ".join(words[i : i + 12]) + "." for i in range(0, n_words, 12)) + f" And {seed} of them."


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(orjson.dumps(row) for row in rows) + b"\n")
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Documents of several folders, some twice, some nearly; and one file of conversations."""
    folder = tmp_path / "corpus"
    for number in range(120):
        file = folder / f"part{number % 3}" / f"{number:03d}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(prose(number), encoding="utf-8")
    (folder / "copy.txt").write_text(prose(5) + "\n\n", encoding="utf-8")
    (folder / "near.md").write_text(prose(6, 600), encoding="utf-8")
    (folder / "nearly.md").write_text(prose(6, 600).replace("And", "Yet"), encoding="utf-8")
    (folder / "short.txt").write_text("Hi.", encoding="utf-8")
    (folder / "empty.txt").write_text("")
    write_jsonl(folder / "talks.jsonl", [chat(f"What is {n} plus {n}?", f"It is {2 * n}.") for n in range(40)])
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def dropped_of(dataset: Dataset) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (dataset.path / "dropped.jsonl").read_bytes().splitlines()]


def rows_of(dataset: Dataset) -> list[tuple[str, dict[str, Any]]]:
    return [
        (split, row) for kind in dataset.kinds for split in ("train", "held_out") for row in dataset.rows(split, kind)
    ]


def test_a_mixed_folder_becomes_one_dataset(tmp_path: Path, corpus: Path) -> None:
    dataset = prepare([corpus], tmp_path / "data", workers=1)
    dataset.verify()
    assert dataset.kinds == ("documents", "conversations")
    assert dataset.n_rows("train", "documents") + dataset.n_rows("held_out", "documents") == 121
    assert dataset.n_rows("train", "conversations") + dataset.n_rows("held_out", "conversations") == 40
    assert 1 <= dataset.n_rows("held_out", "conversations") <= 10
    reasons = Counter(entry["reason"] for entry in dropped_of(dataset))
    assert reasons == {"exact duplicate": 1, "near duplicate": 1, "too short": 1, "empty": 1}
    ids = {row["id"]: row for _split, row in rows_of(dataset)}
    assert len(ids) == 161
    originals = {
        entry["source"]: ids[entry["duplicate_of"]] for entry in dropped_of(dataset) if "duplicate_of" in entry
    }
    assert {dropped: kept["source"] for dropped, kept in originals.items()} == {
        "corpus/part2/005.txt": "corpus/copy.txt",  # files come before folders
        "corpus/nearly.md": "corpus/near.md",
    }
    for name in ("report.md", "report.html"):
        text = (dataset.path / name).read_text(encoding="utf-8")
        assert "too short" in text
        assert "conversations" in text
    assert "http" not in (dataset.path / "report.html").read_text(encoding="utf-8")


def test_every_row_that_came_in_is_there_or_named(tmp_path: Path, corpus: Path) -> None:
    make_pdf(PROSE * 2, header="The yearly report", footer=True).output(str(corpus / "report.pdf"))
    dataset = prepare([corpus], tmp_path / "data", PrepareOptions(languages=("en",)), workers=1)
    read = dataset.manifest.steps[1]
    assert read.notes["repeated line"] >= 1
    assert "repeated line" not in read.dropped
    assert read.rows_in == 165  # files and conversations: lines that a pdf repeats are none
    before = None
    for step in dataset.manifest.steps[1:]:
        assert step.rows_in == step.rows_out + sum(step.dropped.values())
        if before is not None:
            assert (step.rows_in, step.bytes_in) == (before.rows_out, before.bytes_out)
        before = step
    assert before is not None
    assert before.rows_out == len(rows_of(dataset))
    n_dropped = sum(sum(step.dropped.values()) for step in dataset.manifest.steps)
    assert n_dropped == len(dropped_of(dataset)) - read.notes["repeated line"]
    assert before.bytes_out == sum(dataset.n_bytes(s, k) for k in dataset.kinds for s in ("train", "held_out"))
    sources = [orjson.loads(line) for line in (dataset.path / "sources.jsonl").read_bytes().splitlines()]
    assert sum(source["records"] for source in sources) == dataset.manifest.steps[1].rows_out


def test_workers_change_nothing(tmp_path: Path, corpus: Path) -> None:
    alone = prepare([corpus], tmp_path / "a" / "data", workers=1)
    together = prepare([corpus], tmp_path / "b" / "data", workers=3)
    assert files_of(alone.path) == files_of(together.path)


def test_the_seed_chooses_other_rows_and_nothing_else(tmp_path: Path, corpus: Path) -> None:
    one = prepare([corpus], tmp_path / "one", workers=1)
    two = prepare([corpus], tmp_path / "two", PrepareOptions(seed=2), workers=1)
    held = [{row["id"] for split, row in rows_of(each) if split == "held_out"} for each in (one, two)]
    assert held[0] != held[1]
    assert {row["id"] for _s, row in rows_of(one)} == {row["id"] for _s, row in rows_of(two)}


def test_near_duplicates_and_equal_questions_never_straddle(tmp_path: Path) -> None:
    rows: list[Any] = []
    for number in range(60):
        base = prose(number, 60)
        rows += [{"text": f"{base} {' '.join(WORDS[k * 8 : k * 8 + 8])}"} for k in range(3)]
        rows += [chat(f"{base}?", f"Answer {number} {k}, {prose(number * 7 + k, 12)}") for k in range(3)]
    data = write_jsonl(tmp_path / "in" / "rows.jsonl", rows)
    for seed in range(3):
        options = PrepareOptions(seed=seed, held_out=0.3, near_duplicates=None)
        dataset = prepare([data], tmp_path / f"data{seed}", options, workers=1)
        side: dict[str, set[str]] = {}
        cluster: dict[str, set[int]] = {}
        for split, row in rows_of(dataset):
            question = row["messages"][0]["content"] if "messages" in row else row["text"][:200]
            side.setdefault(question, set()).add(split)
            cluster.setdefault(question, set()).add(row["cluster"])
        assert all(len(splits) == 1 for splits in side.values())
        assert all(len(clusters) == 1 for clusters in cluster.values())
        held = sum(split == "held_out" for split, _row in rows_of(dataset))
        assert 0.2 < held / len(rows_of(dataset)) < 0.4


def three_kinds(folder: Path, texts: list[str]) -> Path:
    """Each text as a file, as a labelled row, and as an answer to a long question."""
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:03d}.txt").write_text(text)
    write_jsonl(folder / "labels.jsonl", [{"text": text, "label": "good"} for text in texts])
    write_jsonl(folder / "talks.jsonl", [chat(prose(1000 + n, 400), text) for n, text in enumerate(texts)])
    return folder


@pytest.mark.parametrize("seed", range(3))
def test_a_text_stands_on_one_side_whatever_kinds_of_rows_hold_it(tmp_path: Path, seed: int) -> None:
    texts = [prose(number, 60) for number in range(60)]
    folder = three_kinds(tmp_path / "in", texts)
    dataset = prepare([folder], tmp_path / "data", PrepareOptions(seed=seed), workers=1)
    assert sum(not step.dropped for step in dataset.manifest.steps) == len(dataset.manifest.steps)
    side: dict[str, set[str]] = {}
    clusters: dict[str, set[int]] = {}
    for split, row in rows_of(dataset):
        text = row["messages"][1]["content"] if "messages" in row else row["text"]
        side.setdefault(text, set()).add(split)
        clusters.setdefault(text, set()).add(row["cluster"])
    assert len(side) == 60
    assert all(len(splits) == 1 for splits in side.values())
    assert all(len(own) == 1 for own in clusters.values())
    assert len(set.union(*clusters.values())) == 60
    for kind in dataset.kinds:
        assert 10 <= dataset.n_rows("held_out", kind) <= 14  # a fifth, as of each kind alone
    report = (dataset.path / "report.md").read_text(encoding="utf-8")
    assert "60 clusters" in report
    assert "180 rows in all; the largest has 3" in report


def test_nearly_the_same_text_stands_on_one_side_too(tmp_path: Path) -> None:
    texts = [prose(number, 60) for number in range(60)]
    rows: list[Any] = [{"text": text} for text in texts]
    rows += [{"text": f"{text} So it was.", "label": "good"} for text in texts]
    rows += [chat(prose(1000 + n, 12), f"Well. {text}") for n, text in enumerate(texts)]
    options = PrepareOptions(held_out=0.3)
    dataset = prepare([write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path / "data", options, workers=1)
    assert not dataset.manifest.steps[-2].dropped
    assert dataset.manifest.clusters["clusters"] == 60
    for kind in dataset.kinds:
        assert 15 <= dataset.n_rows("held_out", kind) <= 20


def test_a_row_of_another_kind_between_two_duplicates_hides_neither(tmp_path: Path) -> None:
    text = prose(1, 60)
    rows: list[Any] = [{"text": text, "label": "good"}, {"text": text}]
    rows += [{"text": text, "label": "bad"}, {"text": f"{text}!"}]  # the same phrases, so that all four meet everywhere
    rows += [{"text": prose(n, 60)} for n in range(2, 12)]
    dataset = prepare([write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path / "data", workers=1)
    assert [(entry["where"], entry["reason"]) for entry in dropped_of(dataset)] == [("line 4", "near duplicate")]
    assert dataset.n_rows("train", "labelled") + dataset.n_rows("held_out", "labelled") == 2


def test_what_many_conversations_say_makes_no_cluster_of_them(tmp_path: Path) -> None:
    system = "You are a patient teacher of the history of harbours, and you answer in full sentences."
    answer = "That is a question which nobody at this desk has the right to answer."
    folder = tmp_path / "in"
    talks = [chat(f"{prose(n, 60)}?", answer if n % 2 else "Yes.") for n in range(60)]
    for talk in talks:
        talk["messages"].insert(0, {"role": "system", "content": system})
    write_jsonl(folder / "talks.jsonl", talks)
    write_jsonl(folder / "labels.jsonl", [{"text": "Yes.", "label": "short"}, {"text": system, "label": "long"}])
    dataset = prepare([folder], tmp_path / "data", workers=1)
    assert dataset.manifest.clusters["largest"] == 1
    assert "No two rows are alike" in (dataset.path / "report.md").read_text(encoding="utf-8")


def test_few_examples_among_many_documents_are_held_out_too(tmp_path: Path) -> None:
    texts = [prose(number, 60) for number in range(400)]
    rows: list[Any] = [{"text": text} for text in texts]
    rows += [{"text": text, "label": "good"} for text in texts[:10]]
    dataset = prepare([write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path / "data", workers=1)
    assert 2 <= dataset.n_rows("held_out", "labelled") <= 4
    assert 15 <= dataset.n_rows("held_out", "documents") <= 23


@pytest.mark.parametrize("seed", range(3))
def test_a_document_that_many_conversations_give_is_not_held_out_with_all_of_them(tmp_path: Path, seed: int) -> None:
    texts = [prose(number, 60) for number in range(20)]
    rows: list[Any] = [{"text": text} for text in texts]
    rows += [chat(prose(1000 + n, 60), texts[n % 10]) for n in range(400)]
    rows += [chat(prose(2000 + n, 60), prose(3000 + n, 60)) for n in range(200)]
    options = PrepareOptions(seed=seed)
    dataset = prepare([write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path / "data", options, workers=1)
    assert 20 <= dataset.n_rows("held_out", "conversations") <= 30
    assert 2 <= dataset.n_rows("held_out", "documents") <= 4


def test_labels_are_kept_with_texts_that_are_nearly_alike(tmp_path: Path) -> None:
    text = prose(1, 60)
    rows = [{"text": text, "label": "good"}, {"text": text, "label": "bad"}, {"text": text + " x", "label": "good"}]
    rows.append({"text": text.upper(), "label": "good"})
    rows += [{"text": prose(n), "label": "good"} for n in range(2, 12)]
    dataset = prepare([write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path / "data", workers=1)
    kept = [row for _split, row in rows_of(dataset)]
    assert len(kept) == 13  # only the one that differs in case alone is gone
    assert len({row["cluster"] for row in kept if row["text"].startswith(text)}) == 1


def test_given_held_out_rows_stay_held_out_and_their_like_leaves_train(tmp_path: Path) -> None:
    test = write_jsonl(tmp_path / "test.jsonl", [chat(f"Where is {prose(n, 12)}?", "There.") for n in range(5)])
    rows = [chat(f"Where is {prose(n, 12)}?", f"Here, {n}.") for n in range(3, 30)]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    dataset = prepare([train], tmp_path / "data", held_out=[test], workers=1)
    assert dataset.n_rows("held_out", "conversations") == 5
    assert dataset.n_rows("train", "conversations") == 25
    reasons = Counter(entry["reason"] for entry in dropped_of(dataset))
    assert set(reasons) <= {"too near to a held-out row", "near duplicate"}
    assert reasons["too near to a held-out row"] + reasons["near duplicate"] == 2


def test_conversations_that_teach_nothing_are_named(tmp_path: Path) -> None:
    rows = [
        chat("What?", ""),
        {"messages": [{"role": "user", "content": "Alone?"}]},
        {"prompt": "Which?", "chosen": "This.", "rejected": "This. "},
        {"prompt": "Which?", "chosen": "This.", "rejected": "That."},
        chat("Well?", "Well."),
        chat("Good?", "Good."),
    ]
    dataset = prepare([write_jsonl(tmp_path / "rows.jsonl", rows)], tmp_path / "data", workers=1)
    assert len(rows_of(dataset)) == 3
    assert len(dropped_of(dataset)) == 3
    assert all(entry["reason"] and entry["where"] for entry in dropped_of(dataset))


def test_personal_data_is_masked_in_every_kind_and_counted(tmp_path: Path) -> None:
    rows: list[Any] = [chat("My mail is jane.doe@company-mail.com, write me", "I wrote to jane.doe@company-mail.com.")]
    rows.append({"text": "Ask jane.doe@company-mail.com about " + prose(1)})
    rows.append(
        {"text": "Jane wrote from jane.doe@company-mail.com", "spans": [{"start": 0, "end": 4, "label": "PER"}]}
    )
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    dataset = prepare([data], tmp_path / "data", PrepareOptions(mask=True), workers=1)
    everything = b"".join(content for name, content in files_of(dataset.path).items() if name != "sources.jsonl")
    assert b"jane.doe" not in everything
    assert everything.count(b"[EMAIL]") >= 4
    step = next(step for step in dataset.manifest.steps if step.name == "personal data")
    assert step.notes == {"email": 4}
    (tagged,) = [row for _s, row in rows_of(dataset) if "spans" in row]
    assert [tagged["text"][s["start"] : s["end"]] for s in tagged["spans"]] == ["Jane"]


def test_a_single_long_text_can_be_held_out_in_part(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("\n\n".join(prose(n) for n in range(300)))
    dataset = prepare([tmp_path / "book.txt"], tmp_path / "data", workers=1)
    assert dataset.n_rows("held_out", "documents") >= 1
    share = dataset.n_bytes("held_out", "documents") / dataset.n_bytes("train", "documents")
    assert 0.02 < share < 0.25
    text = "".join(text for split in ("train", "held_out") for text in dataset.texts(split))
    assert sum(text.count(f"And {n} of them.") for n in range(300)) == 300


def test_bad_rows_are_left_out_or_stop_everything(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    lines = [json.dumps({"text": prose(n)}) for n in range(5)]
    data.write_text("\n".join([*lines[:3], '{"text": "cut of', *lines[3:]]))
    dataset = prepare([data], tmp_path / "data", workers=1)
    assert len(rows_of(dataset)) == 5
    (entry,) = dropped_of(dataset)
    assert (entry["source"], entry["where"], entry["step"]) == ("rows.jsonl", "line 4", "read")
    for workers in (1, 2):
        with pytest.raises(InvalidDatasetError, match=r"rows.jsonl, line 4, cannot be read"):
            prepare([data], tmp_path / "other", PrepareOptions(on_bad_row="stop"), workers=workers)
    assert not (tmp_path / "other").exists()


GOOD = [{"text": prose(n)} for n in range(3)]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", b'[{"text": "one"}, {"text": "tw', r"a\.json cannot be read \(the file ends inside an array"),
        ("a.jsonl", {"text": 5}, "a.jsonl, line 4, cannot be read .the field text is a number"),
        ("a.jsonl", {"text": ""}, "a.jsonl, line 4, cannot be read .the field text is empty"),
        ("a.jsonl", {}, "a.jsonl, line 4, cannot be read .the row has no fields"),
        ("a.jsonl", {"url": "http://x"}, "line 4, cannot be read .its fields are url"),
        ("a.jsonl", {"messages": [{"role": "user", "content": "Hello?"}]}, "line 4, cannot be read .no assistant turn"),
        ("a.jsonl", {"messages": [{"role": "assistant", "content": "Hello!"}]}, "line 4, cannot be read .no user turn"),
        ("a.jsonl", chat("Hello?", " "), "line 4, cannot be read .empty assistant turn"),
        ("a.jsonl", {"text": "x", "label": None}, "line 4, cannot be read .the field label is empty"),
        ("a.jsonl", {"text": "x", "label": ["a", "b"]}, "line 4, cannot be read .a text has one label here, not 2"),
        ("a.jsonl", {"text": "abc", "spans": [[0, 9, "X"]]}, "line 4, cannot be read .0 to 9 does not lie inside"),
        ("a.jsonl", {"prompt": "a", "chosen": "b", "rejected": "b"}, "line 4, cannot be read .chosen equals rejected"),
        ("a.jsonl", chat("Hello?", "\u200b"), "line 4, cannot be read .1 of 1 assistant turns"),  # found by the checks
        ("a.yaml", b"conversations:\n- - *b\n", r"a\.yaml cannot be read \(it uses aliases"),
        ("a.txt.gz", gzip.compress(prose(1).encode())[:-20], r"a\.txt\.gz cannot be read \(the compressed data ends"),
        ("a.zip", b"PK\x03\x04 cut off", r"a\.zip cannot be read \(no zip file"),  # found before anything is read
    ],
)
def test_on_bad_row_stop_stops_at_whatever_was_meant_to_be_read(
    tmp_path: Path, name: str, content: Any, sentence: str
) -> None:
    data = content if isinstance(content, bytes) else b"\n".join(orjson.dumps(row) for row in [*GOOD, content])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(data)
    (tmp_path / "in" / "good.txt").write_text(prose(9))
    with pytest.raises(InvalidDatasetError, match=sentence):
        prepare([tmp_path / "in"], tmp_path / "data", PrepareOptions(on_bad_row="stop"), workers=1)
    assert not (tmp_path / "data").exists()


def test_on_bad_row_stop_goes_on_at_what_is_of_another_kind_or_merely_unwanted(tmp_path: Path, corpus: Path) -> None:
    (corpus / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\0" * 50)
    (corpus / "sheet.xlsx").write_bytes(b"PK\x03\x04")
    (corpus / "link.txt").symlink_to(corpus / "copy.txt")
    (corpus / ".hidden").write_text("x")
    make_pdf(PROSE * 2, header="The yearly report", footer=True).output(str(corpus / "report.pdf"))
    dataset = prepare([corpus], tmp_path / "data", PrepareOptions(on_bad_row="stop"), workers=1)
    reasons = {entry["reason"] for entry in dropped_of(dataset)}
    assert {"exact duplicate", "too short", "empty", "binary", "unsupported format", "link", "hidden"} <= reasons
    assert "repeated line" in reasons


def test_nothing_found_and_nothing_left_say_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidDatasetError, match="holds no files"):
        prepare([tmp_path / "empty"], tmp_path / "data")
    (tmp_path / "empty" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\0" * 50)
    with pytest.raises(InvalidDatasetError, match=r"no file that can be read.*binary"):
        prepare([tmp_path / "empty"], tmp_path / "data")
    (tmp_path / "empty" / "a.txt").write_text("Hi.")
    with pytest.raises(InvalidDatasetError, match=r"Nothing is left.*too short \(1\)"):
        prepare([tmp_path / "empty"], tmp_path / "data", workers=1)
    (tmp_path / "empty" / "a.txt").write_text(prose(1))
    with pytest.raises(InvalidDatasetError, match=r"Nothing is left.*en \(1\)"):
        prepare([tmp_path / "empty"], tmp_path / "data", PrepareOptions(languages=("zh",)), workers=1)
    with pytest.raises(UsageError, match="no file or folder"):
        prepare([tmp_path / "nowhere"], tmp_path / "data")
    assert {path.name for path in tmp_path.iterdir()} == {"empty"}


def test_when_nothing_is_left_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(bytes(make_pdf(PROSE).output())))
    writer.encrypt("secret", "owner", algorithm="AES-256")
    writer.write(str(folder / "locked.pdf"))
    write_jsonl(folder / "a.jsonl", [{"text": 5}])
    with pytest.raises(InvalidDatasetError) as caught:
        prepare([folder], tmp_path / "data", workers=1)
    assert "encrypted pdf (1): it opens with a password only: save a copy without one" in str(caught.value)
    assert "not text (1): the field text is a number" in str(caught.value)
    assert "--min-chars" not in str(caught.value)  # no filter had anything to do with it
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    with pytest.raises(InvalidDatasetError) as caught:
        prepare([folder], tmp_path / "data", workers=1)
    assert "字段 text 是数字" in describe_error(caught.value)
    assert "请另存一份没有密码的副本" in describe_error(caught.value)


def test_when_no_file_can_be_read_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "old.doc").write_bytes(b"\xd0\xcf\x11\xe0")
    with zipfile.ZipFile(tmp_path / "in" / "a.zip", "w") as archive:
        archive.writestr("../../etc/passwd.txt", prose(1))
    with pytest.raises(InvalidDatasetError, match=r"doc files are not read: save it as docx") as caught:
        prepare([tmp_path / "in"], tmp_path / "data", workers=1)
    assert "unpack it yourself if you trust it, and name the folder" in str(caught.value)


@pytest.mark.parametrize(
    "bad", [{"held_out": 1.5}, {"near_duplicates": 0.1}, {"languages": ("English",)}, {"seed": -1}]
)
def test_options_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        PrepareOptions(**bad)


def test_a_dataset_is_never_overwritten(tmp_path: Path, corpus: Path) -> None:
    dataset = prepare([corpus], tmp_path / "data", workers=1)
    before = files_of(dataset.path)
    with pytest.raises(UsageError, match="exists already"):
        prepare([corpus], tmp_path / "data", PrepareOptions(seed=1), workers=1)
    assert files_of(dataset.path) == before


def test_two_at_once_on_one_dataset_are_refused(tmp_path: Path, corpus: Path) -> None:
    with locked(tmp_path / "data"), pytest.raises(InUseError, match="Another process"):
        prepare([corpus], tmp_path / "data")
    prepare([corpus], tmp_path / "data", workers=1)
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "data"}


COMMAND = (
    "import sys; from chatwright.text.prepare import prepare\n"
    "if __name__ == '__main__': prepare([sys.argv[1]], sys.argv[2], workers=int(sys.argv[3]))"
)


def start(corpus: Path, out: Path, workers: int, **options: Any) -> subprocess.Popen[bytes]:
    script = out.parent / "prepare_script.py"
    script.write_text(COMMAND)
    return subprocess.Popen(
        [sys.executable, str(script), str(corpus), str(out), str(workers)], stderr=subprocess.PIPE, **options
    )


@pytest.fixture(scope="module")
def long_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough for some seconds of work in many items."""
    folder = tmp_path_factory.mktemp("long") / "corpus"
    folder.mkdir()
    for number in range(30):
        rows = [{"text": prose(number * 1000 + n % 180, 60)} for n in range(200)]
        write_jsonl(folder / f"{number:02d}.jsonl", rows)
    return folder


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(tmp_path: Path, long_corpus: Path) -> None:
    began = time.monotonic()
    undisturbed = prepare([long_corpus], tmp_path / "undisturbed" / "data", workers=1)
    duration = time.monotonic() - began
    out = tmp_path / "killed" / "data"
    out.parent.mkdir()
    rng = random.Random(7)
    n_kills = 0
    for attempt in range(8):
        process = start(long_corpus, out, 1 + attempt % 2)
        try:
            process.wait(timeout=0.2 + rng.random() * duration)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            n_kills += 1
        _out, errors = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors
        if out.exists():  # killed behind the last step; the next call tidies up
            start(long_corpus, out, 1).wait()
            break
    else:
        assert start(long_corpus, out, 1).wait() == 0
    assert n_kills >= 1
    assert files_of(out) == files_of(undisturbed.path)
    assert {path.name for path in out.parent.iterdir()} == {"data", "prepare_script.py"}


def test_a_kill_between_the_last_two_steps_is_no_failure(tmp_path: Path, corpus: Path) -> None:
    dataset = prepare([corpus], tmp_path / "data", workers=1)
    work = work_folder(dataset.path)
    work.mkdir()
    (work / "renaming.json").write_bytes(orjson.dumps({"fingerprint": dataset.fingerprint}))
    assert prepare([corpus], tmp_path / "data").fingerprint == dataset.fingerprint
    assert not work.exists()


def test_changed_input_or_options_begin_anew(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return shingle(*args)

    monkeypatch.setattr("chatwright.text.cleaning.shingle", counted)
    with pytest.raises(KeyboardInterrupt):
        prepare([corpus], tmp_path / "data", workers=1)
    (corpus / "new.txt").write_text(prose(999))
    dataset = prepare([corpus], tmp_path / "data", workers=1)
    assert any(row["source"] == "corpus/new.txt" for _split, row in rows_of(dataset))


def test_columns_of_another_meaning_are_not_gone_on_with(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_args: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("chatwright.text.prepare.COLUMNS_VERSION", 1)
        patch.setattr("chatwright.text.prepare.decide", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare([corpus], tmp_path / "data", workers=1)
    columns = list(work_folder(tmp_path / "data").glob("*.columns"))
    assert columns
    for file in columns:
        file.write_bytes(bytes(file.stat().st_size))  # what this version cannot read
    prepare([corpus], tmp_path / "data", workers=1).verify()


def test_the_dataset_may_lie_inside_its_input(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = prepare([corpus], tmp_path / "data", workers=1)
    monkeypatch.setattr("chatwright.text.prepare.decide", lambda *_args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare([corpus], corpus / "data", workers=1)
    monkeypatch.undo()
    assert files_of(prepare([corpus], corpus / "data", workers=1).path) == files_of(expected.path)


def test_a_dataset_inside_its_input_is_not_read_the_next_time(tmp_path: Path, corpus: Path) -> None:
    first = prepare([corpus], corpus / "data", workers=1)
    second = prepare([corpus], tmp_path / "again", workers=1)
    assert second.fingerprint == first.fingerprint
    named = [entry for entry in dropped_of(second) if entry["source"].startswith("corpus/data")]
    assert [(entry["source"], entry["step"], entry["reason"]) for entry in named] == [
        ("corpus/data", "find", "prepared dataset")
    ]
    assert second.manifest.steps[0].dropped["prepared dataset"] == 1
    with pytest.raises(UsageError, match=r"data is a dataset already"):
        prepare([corpus / "data"], tmp_path / "third", workers=1)
    assert not (tmp_path / "third").exists()


def test_what_an_interrupted_run_has_left_is_no_input(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatwright.text.prepare.decide", lambda *_args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        prepare([corpus], tmp_path / "data", workers=1)
    monkeypatch.undo()
    left = work_folder(tmp_path / "data")
    for path in (left, next(left.iterdir())):
        with pytest.raises(UsageError, match="is what an interrupted run has made"):
            prepare([corpus, path], tmp_path / "data", workers=1)
    assert left.exists()


def test_a_full_disk_leaves_nothing_half_written_and_can_be_gone_on_with(tmp_path: Path, long_corpus: Path) -> None:
    out = tmp_path / "data"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    process = start(long_corpus, out, 1, preexec_fn=limit)
    _out, errors = process.communicate()
    assert process.returncode == 1
    assert b"is full. Free some space and run the same command again" in errors
    assert not out.exists()
    assert start(long_corpus, out, 1).wait() == 0
    Dataset.open(out).verify()


def test_a_file_that_did_not_get_to_the_disk_leaves_no_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "marker", b"finished")
    assert list(tmp_path.iterdir()) == []


def test_too_little_space_is_said_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Not enough disk space"):
        need_space(tmp_path, 1 << 60)


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path, corpus: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        prepare([corpus], tmp_path / "file" / "data")


def test_names_of_files_need_not_be_utf8(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / os.fsdecode(b"\xb2\xe2.txt")).write_text(prose(1))
    dataset = prepare([tmp_path / "in"], tmp_path / "data", workers=1)
    assert [row["source"] for _split, row in rows_of(dataset)] == ["in/\\xb2\\xe2.txt"]


def test_the_name_of_an_input_need_not_be_utf8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    with pytest.raises(InvalidDatasetError, match=r"caf\\xe9 holds no files"):
        prepare([folder], tmp_path / "data", workers=1)
    (folder / "a.txt").write_text(prose(1))
    dataset = prepare([folder], tmp_path / "data", workers=1)
    assert dataset.manifest.sources.inputs == ("caf\\xe9",)
    assert "caf\\xe9" in (dataset.path / "report.md").read_text(encoding="utf-8")


def test_every_source_has_a_hash(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text(prose(1))
    with zipfile.ZipFile(folder / "b.zip", "w") as archive:
        archive.writestr("b.txt", prose(2))
        archive.writestr("c.txt", prose(3))
    with tarfile.open(folder / "d.tar", "w") as tar:
        tar.add(folder / "a.txt", "d.txt")
    noise = random.Random(1).randbytes(3 << 20).hex()  # two units of row groups
    texts = [prose(n) + noise[at : at + 100_000] for n, at in enumerate(range(0, len(noise), 100_000))]
    pq.write_table(pa.table({"text": texts}), folder / "e.parquet", row_group_size=4, compression="none")
    dataset = prepare([folder], tmp_path / "data", workers=1)
    sources = [orjson.loads(line) for line in (dataset.path / "sources.jsonl").read_bytes().splitlines()]
    assert len({source["source"] for source in sources}) == len(sources) == 6
    for source in sources:
        name = source["source"].removeprefix("in/").partition("!/")[0].partition("#")[0]
        assert source["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest(), source["source"]


def test_every_line_of_dropped_keeps_source_and_place_apart(tmp_path: Path) -> None:
    rows: list[Any] = [{"text": prose(1)}, {"text": prose(2)}, {"text": prose(1)}, {"text": 5}, {"text": "Hi."}]
    dataset = prepare([write_jsonl(tmp_path / "a: b.jsonl", rows)], tmp_path / "data", workers=1)
    entries = [(entry["source"], entry["where"], entry["reason"]) for entry in dropped_of(dataset)]
    assert sorted(entries) == [
        ("a: b.jsonl", "line 3", "exact duplicate"),
        ("a: b.jsonl", "line 4", "not text"),
        ("a: b.jsonl", "line 5", "too short"),
    ]
