"""Pulling from ModelScope through its client, against a server that speaks the routes that the client needs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

from chatwright.errors import PullError
from chatwright.hub import ModelsFolder, pull
from tests.hub.http_server import Site

LISTING = "/api/v1/models/org/tiny/repo/files"


@pytest.fixture
def hub(site: Site, tiny_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """A ModelScope with one repository."""
    files = tiny_files | {"pytorch_model.bin": b"\x80\x04."}
    entries = [
        {"Path": name, "Name": name, "Type": "blob", "Size": len(data), "Sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    ]
    site.files[LISTING] = json.dumps({"Code": 200, "Success": True, "Data": {"Files": entries}}).encode()
    site.headers[LISTING] = {"Content-Type": "application/json"}
    for name, data in files.items():
        site.files[f"/api/v1/models/org/tiny/repo/{name}"] = data
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", site.url)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return site


def test_the_model_is_there_without_pickles(models: ModelsFolder, hub: Site, tiny_files: dict[str, bytes]) -> None:
    model = pull("modelscope:org/tiny", models)
    assert model.name == "org/tiny"
    assert {file.name for file in model.folder.iterdir()} == set(tiny_files) | {"chatwright.json"}
    assert all((model.folder / name).read_bytes() == data for name, data in tiny_files.items())
    hub.requests.clear()
    pull("modelscope:org/tiny", models)
    assert hub.requests == []


def test_an_unknown_repository_is_told_in_a_sentence(models: ModelsFolder, hub: Site) -> None:
    del hub.files[LISTING]
    with pytest.raises(PullError, match="does not exist, or is private"):
        pull("modelscope:org/tiny", models)
    assert models.list() == []


def test_modelscope_without_its_client_says_how_to_install_it(
    models: ModelsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PullError, match="pip install modelscope"):
        pull("modelscope:o/n", models)
