"""Pulling from Hugging Face, against a server that speaks the few routes of it that are needed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from chatwright.errors import PullError
from chatwright.hub import ModelsFolder, pull
from chatwright.hub.selection import select_files
from tests.hub.http_server import Site

REPO = "some-org/Tiny"
COMMIT = hashlib.sha1(REPO.encode()).hexdigest()


@pytest.fixture
def hub(site: Site, tiny_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """A hub with one repository, which also holds things that are not fetched."""
    extra = {
        "pytorch_model.bin": b"\x80\x04.",
        "modeling.py": b"raise SystemExit",
        "onnx/model.onnx": b"x",
        "README.md": b"# Hi",
    }
    site.add_repository(REPO, tiny_files | extra, license="mit", language=["en", "zh"])
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    return site


def resolved(name: str) -> str:
    return f"/{REPO}/resolve/{COMMIT}/{name}"


def test_the_model_is_there_with_its_card_and_without_pickles_or_code(
    models: ModelsFolder, hub: Site, tiny_files: dict[str, bytes]
) -> None:
    model = pull(f"hf:{REPO}", models)
    assert model.name == REPO
    assert {file.name for file in model.folder.iterdir()} == set(tiny_files) | {"README.md", "chatwright.json"}
    assert model.manifest is not None
    assert (model.manifest.license, model.manifest.languages) == ("mit", ("en", "zh"))
    assert model.manifest.revision == COMMIT
    assert all((model.folder / name).read_bytes() == data for name, data in tiny_files.items())


def test_a_second_pull_needs_no_network(models: ModelsFolder, hub: Site) -> None:
    pull(f"hf:{REPO}", models)
    hub.requests.clear()
    pull(f"hf:{REPO}", models)
    assert hub.requests == []


def test_another_revision_under_the_same_name_is_refused(models: ModelsFolder, hub: Site) -> None:
    pull(f"hf:{REPO}", models)
    with pytest.raises(PullError, match="Another model is already called"):
        pull(f"hf:{REPO}@main", models)
    assert pull(f"hf:{REPO}@main", models, name="tiny-main").name == "tiny-main"


def test_a_broken_connection_does_not_end_the_pull(models: ModelsFolder, hub: Site) -> None:
    hub.drop_after[resolved("model.safetensors")] = [300_000]
    pull(f"hf:{REPO}", models)
    assert len(hub.ranges_asked(resolved("model.safetensors"))) == 2
    assert [model.name for model in models.list()] == [REPO]


def test_an_altered_file_is_refused(models: ModelsFolder, hub: Site) -> None:
    altered = bytearray(hub.files[resolved("model.safetensors")])
    altered[-1] ^= 1
    hub.files[resolved("model.safetensors")] = bytes(altered)
    with pytest.raises(PullError, match="not what the repository announces"):
        pull(f"hf:{REPO}", models)
    assert models.list() == []


@pytest.mark.parametrize(
    ("header", "status", "sentence"),
    [
        ("GatedRepo", 403, "is gated: accept its terms"),
        ("RepoNotFound", 404, "does not exist, or is private"),
        ("RevisionNotFound", 404, "has no such revision"),
        ("", 401, "does not exist, or is private|refuses access"),
        ("", 500, "try again later"),
    ],
)
def test_refusals_are_told_in_a_sentence(
    models: ModelsFolder, hub: Site, header: str, status: int, sentence: str
) -> None:
    path = f"/api/models/{REPO}"
    hub.statuses[path] = status
    hub.headers[path] = {"X-Error-Code": header} if header else {}
    with pytest.raises(PullError, match=sentence):
        pull(f"hf:{REPO}", models)


def test_an_unreachable_hub_is_told_in_a_sentence(models: ModelsFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PullError, match=r"127\.0\.0\.1:9"):
        pull(f"hf:{REPO}", models)


def test_one_of_several_ggufs_has_to_be_chosen(models: ModelsFolder, hub: Site) -> None:
    hub.add_repository("o/quants", {"m.Q4_K_M.gguf": b"a", "m.Q8_0.gguf": b"b", "README.md": b""})
    with pytest.raises(PullError, match=r"several GGUF files.*m\.Q4_K_M, m\.Q8_0"):
        pull("hf:o/quants", models)


def test_selection_of_files() -> None:
    ggufs = ["m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-00001-of-00002.gguf", "mmproj-x.gguf", "README.md", "imatrix.dat"]
    assert select_files(ggufs, "q8_0", "x") == ["m-Q8_0.gguf", "README.md"]
    assert select_files(ggufs, "m-Q4_K_M.gguf", "x") == ["m-Q4_K_M.gguf", "README.md"]
    sharded = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    others = [
        "consolidated.safetensors",
        "config.json",
        "sub/model.safetensors",
        "../evil.json",
        "tokenizer.json",
        "x.bin",
    ]
    assert set(select_files(sharded + others, None, "x")) == {*sharded, "config.json", "tokenizer.json"}
    encoder = ["model.safetensors", "config.json", "vocab.txt", "modules.json", "1_Pooling/config.json"]
    assert set(select_files([*encoder, "2_Dense/config.json", "onnx/model.onnx"], None, "x")) == set(encoder)
    assert "1_Pooling/config.json" not in select_files(["model.safetensors", "1_Pooling/config.json"], None, "x")
    with pytest.raises(PullError, match="several"):
        select_files(ggufs, None, "x")
    with pytest.raises(PullError, match="pickle"):
        select_files(["config.json", "pytorch_model.bin"], None, "x")
    with pytest.raises(PullError, match="no model"):
        select_files(["README.md"], None, "x")


def test_the_fake_hub_speaks_json(hub: Site) -> None:
    assert json.loads(hub.files[f"/api/models/{REPO}"])["sha"] == COMMIT
