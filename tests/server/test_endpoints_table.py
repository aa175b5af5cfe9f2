"""docs/*/endpoints.md says what the server does: made anew it is the same, and what it says of paths and fields happens."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatwright.store.database import Database
from chatwright.store.migrate import upgrade
from chatwright.store.url import sqlite_url
from tests.server.harness import MODEL, RunningServer, start_server
from tests.server.people import ADMIN_TOKEN, bearer

ROOT = Path(__file__).parents[2]
MESSAGES = [{"role": "user", "content": "Hi"}]
GOOD: dict[str, dict[str, Any]] = {
    "POST /v1/chat/completions": {"messages": MESSAGES, "max_tokens": 1},
    "POST /v1/completions": {"prompt": "x", "max_tokens": 1},
    "POST /v1/responses": {"input": "x", "max_output_tokens": 1},
    "POST /v1/responses/input_tokens": {"input": "x"},
    "POST /v1/conversations/{}/items": {"items": MESSAGES},
    "POST /v1/embeddings": {"input": "x"},
    "POST /v1/moderations": {"input": "x"},
    "POST /v1/messages": {"messages": MESSAGES, "max_tokens": 1},
    "POST /v1/messages/count_tokens": {"messages": MESSAGES},
    "POST /v1/tokenize": {"prompt": "x"},
    "POST /v1/classify": {"input": "x"},
    "POST /v1/rerank": {"query": "x", "documents": ["y"]},
    "POST /v1/detokenize": {"tokens": [1]},
    "POST /v1/edits": {"instruction": "x"},
    "POST /v1/chat/completions/{}": {"metadata": {}},
    "POST /v1/conversations/{}": {"metadata": {}},
    "POST /v1/uploads": {"filename": "x", "purpose": "batch", "bytes": 1, "mime_type": "text/plain"},
    "POST /v1/uploads/{}/complete": {"part_ids": ["x"]},
    "POST /v1/batches": {"input_file_id": "x", "endpoint": "/v1/completions", "completion_window": "24h"},
    "POST /v1/evals": {
        "data_source_config": {"type": "custom", "item_schema": {}},
        "testing_criteria": [{"type": "string_check", "input": "x", "operation": "eq", "reference": "x"}],
    },
    "POST /v1/evals/{}": {"name": "x"},
    "POST /v1/evals/{}/runs": {
        "data_source": {"type": "jsonl", "source": {"type": "file_content", "content": [{"item": {}}]}}
    },
    "POST /v1/fine_tuning/jobs": {"model": MODEL, "training_file": "x"},
    "POST /v1/fine-tunes": {"training_file": "x"},
    "POST /v1/load_lora_adapter": {"lora_name": "x"},
    "POST /v1/unload_lora_adapter": {"lora_name": "x"},
}
# Paths with the fields of others, that are told there.
OTHER_NAMES = re.compile(
    r"POST /v1/(engines|openai/deployments)/|GET /v1/(organization/(costs|usage/(embeddings|moderations))|fine-tunes/{}/events)$"
)
FORMS = ("POST /v1/files", "POST /v1/uploads/{}/parts")  # in test_files.py
# Of no kind that any field has, and beyond every number's range.
WRONG: tuple[Any, ...] = (77.5, {"wrong": 77.5})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("table")


@pytest.fixture(scope="module")
def http(home: Path, model_folder: Path) -> Iterator[httpx.Client]:
    """The operator of a server that keeps things."""
    url = sqlite_url(home / "chatwright.db")
    asyncio.run(upgrade(url))
    server = start_server(model_folder, database=Database(url), admin_token=ADMIN_TOKEN, home=home)
    with server.http(headers=bearer(ADMIN_TOKEN)) as http:
        yield http
    server.stop()


@pytest.fixture(scope="module")
def there(http: httpx.Client) -> dict[str, list[str]]:
    """Ids for paths of things that are there."""
    asked = {"model": MODEL, "store": True}
    response = http.post("/v1/responses", json={**asked, **GOOD["POST /v1/responses"]}).json()["id"]
    completion = http.post("/v1/chat/completions", json={**asked, **GOOD["POST /v1/chat/completions"]}).json()["id"]
    conversation = http.post("/v1/conversations", json={"items": MESSAGES}).json()["id"]
    item = http.get(f"/v1/conversations/{conversation}/items").json()["data"][0]["id"]
    its_eval = http.post("/v1/evals", json=GOOD["POST /v1/evals"]).json()["id"]
    run = http.post(f"/v1/evals/{its_eval}/runs", json=GOOD["POST /v1/evals/{}/runs"]).json()["id"]
    return {
        "/v1/evals/": [its_eval, run],
        "/v1/responses/": [response],
        "/v1/chat/completions/": [completion],
        "/v1/conversations/": [conversation, item],
    }


def place_of(path: str, there: dict[str, list[str]]) -> str:
    """An address for a path, with the ids of what is there."""
    place = path.partition(" ")[2]
    ids = next((ids for start, ids in there.items() if place.startswith(start)), ["none", "none"])
    return place.replace("{}", "%s") % tuple(ids[: place.count("{}")])


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


def test_every_field_is_told(maker: Any, surface: Any) -> None:
    """Of every path that clients know and that has any."""
    told = {path for family in surface.notes["family"] for path in family["paths"]}
    with_fields = {path for path, fields in surface.served.items() if path in told and fields}
    assert {path for path in with_fields if not OTHER_NAMES.match(path)} - set(maker.OFFICIAL) == set()
    assert set(maker.OFFICIAL) <= told & set(surface.served)


def test_fields_are_refused_and_ignored_as_it_says(
    http: httpx.Client, there: dict[str, list[str]], maker: Any, surface: Any
) -> None:
    n_tried = 0
    for path in maker.OFFICIAL:
        for name, fate in surface.fates_of_fields(path).items():
            if fate not in ("no", "ignored"):
                continue
            n_tried += 1
            place = place_of(path, there)
            if path.startswith("GET"):
                response = http.get(place, params={name: "something"})
            else:
                response = http.post(place, json={"model": MODEL, **GOOD[path], name: "something"})
            assert response.status_code == (400 if fate == "no" else 200), (path, name, response.text)
            if fate == "no":
                assert name in response.json()["error"]["message"]
    assert n_tried > 60


def test_every_other_field_is_read(http: httpx.Client, there: dict[str, list[str]], maker: Any, surface: Any) -> None:
    """A value of the wrong kind is a 400 that names it. (What they do is in test_fields_act.py.)"""
    unread, n_tried = [], 0
    for path in maker.OFFICIAL:
        for name, fate in surface.fates_of_fields(path).items():
            if fate in ("no", "ignored") or path in FORMS or path.startswith("GET"):
                continue
            n_tried += 1
            answers = [
                http.post(place_of(path, there), json={"model": MODEL, **GOOD.get(path, {}), name: wrong})
                for wrong in WRONG
            ]
            errors = [answer.json()["error"] for answer in answers if answer.status_code == 400]
            if not any(error.get("param") == name or f"'{name}" in error["message"] for error in errors):
                unread.append((path, name, [answer.text for answer in answers]))
    assert unread == []
    assert n_tried > 150


def test_every_field_of_an_address_is_read(
    http: httpx.Client, there: dict[str, list[str]], maker: Any, surface: Any
) -> None:
    for path in maker.OFFICIAL:
        fates = surface.fates_of_fields(path) if path.startswith("GET") else {}
        for name, fate in fates.items():
            if fate == "ignored" or path.startswith("GET /v1/organization"):  # in test_usage.py
                continue
            answer = http.get(place_of(path, there), params={f"{name}[k]" if name == "metadata" else name: "@" * 513})
            # Filters find nothing; anything else of that kind is none.
            found_nothing = answer.status_code == 200 and answer.json()["data"] == []
            assert answer.status_code in (400, 404) or found_nothing, (path, name, answer.text)


def test_nothing_is_written_about_what_is_not_there(maker: Any, surface: Any) -> None:
    notes = surface.notes
    fates = {path: surface.fates_of_fields(path) for path in maker.OFFICIAL}
    told = {path for family in notes["family"] for path in family["paths"]}
    assert set(notes["partly"]) <= set(surface.served) & told
    for path, described in notes["parameters"].items():
        assert all(fates[path][name] in ("yes", "partly", "own") for name in described), path
    for kind, key in (("ignored", "ignored"), ("no", "refused")):
        found = {name for fields in fates.values() for name, fate in fields.items() if fate == kind}
        assert found == set(notes[key])
