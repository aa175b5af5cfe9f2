"""Data sets from Hugging Face and ModelScope, against a server that speaks the few routes of them that are needed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

from chatwright.errors import PullError, StorageError
from chatwright.hub.datasets import resolve_dataset, select_data_files
from chatwright.text.readers import Limits, Record, find_units, read_unit
from tests.hub.http_server import Site

ROWS = b'{"text": "one"}\n{"text": "two"}\n'
FILES = {
    "README.md": b"# About",
    "dataset_infos.json": b"{}",
    "load.py": b"raise SystemExit",
    "data/train.jsonl": ROWS,
    "zh/train.jsonl": '{"text": "三"}\n'.encode(),
    "../../evil.jsonl": ROWS,
    "picture.png": b"x",
}
HF = "some-org/texts"
COMMIT = hashlib.sha1(HF.encode()).hexdigest()
TREE = "/api/v1/datasets/org/texts/repo/tree"


@pytest.fixture
def huggingface(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    siblings = [{"rfilename": name, "size": len(data)} for name, data in FILES.items()]
    info = json.dumps({"id": HF, "sha": COMMIT, "siblings": siblings}).encode()
    for path in (f"/api/datasets/{HF}", f"/api/datasets/{HF}/revision/{COMMIT}"):
        site.files[path] = info
        site.headers[path] = {"Content-Type": "application/json"}
    for name, data in FILES.items():
        site.files[f"/datasets/{HF}/resolve/{COMMIT}/{name}"] = data
        site.headers[f"/datasets/{HF}/resolve/{COMMIT}/{name}"] = {"X-Repo-Commit": COMMIT}
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    return site


@pytest.fixture
def modelscope(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    entries = [
        {"Path": name, "Name": name, "Type": "blob", "Size": len(data), "Sha256": hashlib.sha256(data).hexdigest()}
        for name, data in FILES.items()
    ]
    site.files[TREE] = json.dumps({"Code": 200, "Success": True, "Data": {"Files": entries}}).encode()
    site.headers[TREE] = {"Content-Type": "application/json"}
    for name, data in FILES.items():
        site.files[f"/api/v1/datasets/org/texts/repo/{name}"] = data
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", site.url)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return site


def texts_of(spec: str, folder: Path) -> tuple[list[str], list[str]]:
    """(sources, texts) of a data set."""
    units, skipped = find_units([resolve_dataset(spec, folder)], Limits())
    assert skipped == []
    found = [found for unit in units for found in read_unit(unit, Limits())]
    return [unit.source for unit in units], [found.payload["text"] for found in found if isinstance(found, Record)]


@pytest.mark.parametrize("spec", ["hf:some-org/texts", "modelscope:org/texts"])
def test_the_texts_of_a_data_set_are_read_under_its_name_and_fetched_once(
    spec: str, huggingface: Site, modelscope: Site, tmp_path: Path
) -> None:
    folder = tmp_path / "datasets"
    expected = ([f"{spec}/data/train.jsonl", f"{spec}/zh/train.jsonl"], ["one", "two", "三"])
    assert texts_of(spec, folder) == expected
    huggingface.requests.clear()
    assert texts_of(spec, folder) == expected
    assert huggingface.requests == []
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("spec", ["hf:some-org/texts:zh", "modelscope:org/texts:zh"])
def test_one_part_of_a_data_set(spec: str, huggingface: Site, modelscope: Site, tmp_path: Path) -> None:
    assert texts_of(spec, tmp_path / "datasets")[1] == ["三"]


def test_a_broken_connection_leaves_nothing_that_is_taken_for_whole(
    huggingface: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/datasets/{HF}/resolve/{COMMIT}/zh/train.jsonl"
    huggingface.statuses[path] = 404
    with pytest.raises(PullError):
        resolve_dataset(f"hf:{HF}", tmp_path / "datasets")
    assert [entry.name for entry in (tmp_path / "datasets").iterdir() if not entry.name.startswith(".")] == []
    del huggingface.statuses[path]
    assert len(texts_of(f"hf:{HF}", tmp_path / "datasets")[1]) == 3


@pytest.mark.parametrize("spec", ["hf:some-org/other", "modelscope:org/other"])
def test_an_unknown_data_set_is_told_in_a_sentence(
    spec: str, huggingface: Site, modelscope: Site, tmp_path: Path
) -> None:
    huggingface.statuses["/api/datasets/some-org/other"] = 404
    huggingface.headers["/api/datasets/some-org/other"] = {"X-Error-Code": "RepoNotFound"}
    with pytest.raises(PullError, match="does not exist, or is private"):
        resolve_dataset(spec, tmp_path)


@pytest.mark.parametrize(("spec", "variable"), [("hf:o/n", "HF_ENDPOINT"), ("modelscope:o/n", "MODELSCOPE_ENDPOINT")])
def test_an_unreachable_hub_is_told_in_a_sentence(
    spec: str, variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(PullError, match="check the network connection"):
        resolve_dataset(spec, tmp_path)


@pytest.mark.parametrize("spec", ["hf:", "hf:../../x", "hf:a/b/c", "modelscope:a\\b", "hf:a/b@../c"])
def test_what_names_no_repository_is_told_in_a_sentence(spec: str, tmp_path: Path) -> None:
    with pytest.raises(PullError, match="does not name a repository"):
        resolve_dataset(spec, tmp_path)


def test_modelscope_without_its_client_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PullError, match="pip install modelscope"):
        resolve_dataset("modelscope:o/n", tmp_path)


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        resolve_dataset("hf:o/n", tmp_path / "file")


def test_selection_of_data_files() -> None:
    files = [
        "README.md",
        "data/a.parquet",
        "zh/b.jsonl.gz",
        "zh-Hant/c.csv",
        ".git/x.txt",
        "dataset_info.json",
        "../d.txt",
    ]
    assert select_data_files(files, None, "x") == ["data/a.parquet", "zh-Hant/c.csv", "zh/b.jsonl.gz"]
    assert select_data_files(files, "zh/b", "x") == ["zh/b.jsonl.gz"]
    assert select_data_files(files, "zh", "x") == ["zh/b.jsonl.gz"]
    shards = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.parquet"]
    assert select_data_files(shards, "train", "x") == shards[:2]
    with pytest.raises(PullError, match="has no data under fr: it has data, zh, zh-Hant"):
        select_data_files(files, "fr", "x")
    with pytest.raises(PullError, match="holds no files of text"):
        select_data_files(["README.md", "a.py", "a.png"], None, "x")
