"""A dataset gives back the rows that were written, and notices when they change."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwright.errors import InvalidDatasetError, UsageError
from chatwright.text.dataset import Dataset, write_dataset
from chatwright.text.manifest import MANIFEST_FILE

CHAT = {"messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "您好！"}]}
ROWS = {
    "documents": {
        "train": [{"text": "One document.\nWith a second line."}, {"text": "第二篇文档，用中文写成。"}],
        "held_out": [{"text": "Held out."}],
    },
    "conversations": {"train": [CHAT]},
}


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return write_dataset(tmp_path / "data", ROWS)


def test_rows_come_back_in_order_with_their_fields(dataset: Dataset) -> None:
    assert dataset.kinds == ("documents", "conversations")
    rows = list(dataset.rows("train", "documents"))
    assert [row["text"] for row in rows] == [row["text"] for row in ROWS["documents"]["train"]]
    assert [row["language"] for row in rows] == ["en", "zh"]
    assert len({row["cluster"] for row in rows} | {row["id"] for row in rows}) == 4
    assert list(dataset.rows("held_out", "conversations")) == []


def test_counts_are_those_of_the_texts(dataset: Dataset) -> None:
    texts = list(dataset.texts("train"))
    assert texts == [*(row["text"] for row in ROWS["documents"]["train"]), "你好\n您好！"]
    assert dataset.n_rows("train", "documents") == 2
    assert dataset.n_bytes("train", "documents") == sum(len(text.encode()) for text in texts[:2])
    assert dataset.languages("train", "documents") == {"zh": len(texts[1].encode()), "en": len(texts[0])}
    assert dataset.n_rows("held_out", "labelled") == 0
    assert list(dataset.texts("train", ["conversations"])) == ["你好\n您好！"]


@settings(deadline=None)
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), min_size=1, max_size=5, unique=True
    )
)
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    dataset = write_dataset(
        tmp_path_factory.mktemp("any") / "data", {"documents": {"train": [{"text": text} for text in texts]}}
    )
    dataset.verify()
    assert list(dataset.texts("train")) == texts


def test_the_fingerprint_changes_exactly_when_rows_change(tmp_path: Path, dataset: Dataset) -> None:
    assert write_dataset(tmp_path / "same", ROWS).fingerprint == dataset.fingerprint
    other = {**ROWS, "conversations": {"held_out": [CHAT]}}
    assert write_dataset(tmp_path / "moved", other).fingerprint != dataset.fingerprint
    reordered = {**ROWS, "documents": {**ROWS["documents"], "train": ROWS["documents"]["train"][::-1]}}
    assert write_dataset(tmp_path / "reordered", reordered).fingerprint != dataset.fingerprint


def test_a_dataset_is_never_overwritten(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="exists already"):
        write_dataset(dataset.path, ROWS)
    dataset.verify()


def test_a_cut_off_shard_is_noticed_at_once_and_a_changed_one_by_verify(dataset: Dataset) -> None:
    shard = dataset.path / dataset.contents("train", "documents").shards[0].name
    whole = shard.read_bytes()
    shard.write_bytes(whole.replace(b"One", b"Two"))
    with pytest.raises(InvalidDatasetError, match="was changed"):
        Dataset.open(dataset.path).verify()
    shard.write_bytes(whole[:-5])
    with pytest.raises(InvalidDatasetError, match="cut off"):
        Dataset.open(dataset.path)
    shard.unlink()
    with pytest.raises(InvalidDatasetError, match="missing"):
        Dataset.open(dataset.path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "no dataset"),
        (b"", "cannot be read"),
        (b"[]", "damaged"),
        (orjson.dumps({"format": 99}), "newer Chatwright"),
        (orjson.dumps({"format": 1, "kinds": {"poems": {}}}), "damaged"),
        (
            orjson.dumps(
                {
                    "kinds": {
                        "documents": {
                            "train": {"shards": [{"name": "../x", "rows": 1, "size_bytes": 1, "sha256": "0" * 64}]}
                        }
                    }
                }
            ),
            "damaged",
        ),
    ],
)
def test_folders_that_are_no_dataset_say_so(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(InvalidDatasetError, match=sentence):
        Dataset.open(tmp_path)


def test_a_missing_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match="chatwright prepare"):
        Dataset.open(tmp_path / "nothing")
