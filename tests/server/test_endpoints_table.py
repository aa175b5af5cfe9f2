"""docs/*/endpoints.md says what the server does: made anew it is the same, and what it says of paths and fields happens."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.harness import MODEL, RunningServer

ROOT = Path(__file__).parents[2]
MESSAGES = [{"role": "user", "content": "Hi"}]
GOOD: dict[str, dict[str, Any]] = {
    "POST /v1/chat/completions": {"messages": MESSAGES, "max_tokens": 1},
    "POST /v1/completions": {"prompt": "x", "max_tokens": 1},
    "POST /v1/responses": {"input": "x", "max_output_tokens": 1},
    "POST /v1/embeddings": {"input": "x"},
    "POST /v1/messages": {"messages": MESSAGES, "max_tokens": 1},
}


@pytest.fixture(scope="module")
def maker() -> Iterator[Any]:
    """scripts/make_endpoints.py."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import make_endpoints

    yield make_endpoints
    sys.path.remove(str(ROOT / "scripts"))


@pytest.fixture(scope="module")
def surface(maker: Any) -> Any:
    return maker.Surface.read()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_pages_are_current(maker: Any, surface: Any, language: str) -> None:
    """`make docs` writes them."""
    written = (ROOT / "docs" / language / "endpoints.md").read_text(encoding="utf-8")
    assert written == maker.page(language, surface)


def test_paths_are_there_or_not_as_it_says(server: RunningServer, surface: Any) -> None:
    told = [path for family in surface.notes["family"] for path in family["paths"]]
    assert len(told) == len(set(told))
    assert len(told) > 100
    with server.http() as http:
        for path in told:
            method, _, place = path.partition(" ")
            body = {"json": {}} if method == "POST" else {}
            response = http.request(method, re.sub(r"\{\}", "no-such-id", place), **body)
            is_missing = response.status_code == 405 or "Nothing is served" in response.text
            assert is_missing == (surface.fate_of_path(path) == "no"), (path, response.status_code)


@pytest.mark.parametrize("path", GOOD)
def test_fields_are_refused_and_ignored_as_it_says(server: RunningServer, maker: Any, surface: Any, path: str) -> None:
    fates = surface.fates_of_fields(path)
    assert set(maker.BODIES) == set(GOOD)
    assert set(fates) >= set(GOOD[path]) | {"model"}
    for name, fate in fates.items():
        if fate not in ("no", "ignored"):
            continue
        response = server.post(path.partition(" ")[2], {"model": MODEL, **GOOD[path], name: "something"})
        assert response.status_code == (400 if fate == "no" else 200), (name, response.text)
        if fate == "no":
            assert name in response.json()["error"]["message"]


def test_nothing_is_written_about_what_is_not_there(maker: Any, surface: Any) -> None:
    notes = surface.notes
    fates = {path: surface.fates_of_fields(path) for path in maker.BODIES}
    told = {path for family in notes["family"] for path in family["paths"]}
    assert set(notes["partly"]) <= surface.served & told
    for path, described in notes["parameters"].items():
        assert all(fates[path][name] in ("yes", "partly", "own") for name in described), path
    for kind, key in (("ignored", "ignored"), ("no", "refused")):
        found = {name for fields in fates.values() for name, fate in fields.items() if fate == kind}
        assert found == set(notes[key])
