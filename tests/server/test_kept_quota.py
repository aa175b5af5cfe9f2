"""What programs of one user may leave on /v1, and on whose account goes what they begin and leave alone."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from sqlalchemy import func, select

from chatwright.store import kept
from chatwright.store.accounts.service import Accounts
from chatwright.store.database import Database
from chatwright.store.tables import ResponseRow, Usage
from tests.server.conftest import StartServer
from tests.server.harness import MODEL, assert_error, wait_until
from tests.server.people import ADMIN_TOKEN, bearer, settle
from tests.server.test_usage import Server
from tests.store.people import quick_accounts

QUOTA = 64 * 1024
LONGER = "Hello " * 40
SAME = {"type": "string_check", "name": "same", "operation": "eq", "input": "{{item.a}}", "reference": "b"}
EVAL: dict[str, Any] = {
    "data_source_config": {"type": "custom", "item_schema": {"type": "object"}},
    "testing_criteria": [SAME],
}


@pytest.fixture
def small(start: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """Little may be kept on it."""
    people = settle(tmp_path_factory.mktemp("kept"))
    return Server(
        start(accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN, kept_quota=QUOTA), people
    )


def chat(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, **more}


def run_of(size: int) -> dict[str, Any]:
    source = {"type": "file_content", "content": [{"item": {"a": "x" * size}}]}
    return {"data_source": {"type": "jsonl", "source": source}}


def respond(http: httpx.Client, **more: Any) -> httpx.Response:
    return http.post("/v1/responses", json={"model": MODEL, "input": "Hello", "max_output_tokens": 2, **more})


def test_all_kinds_together_have_one_quota(small: Server) -> None:
    with small.program("full key") as http, small.program("full key of other") as other:
        made = http.post("/v1/evals", json=EVAL).json()
        assert_error(http.post(f"/v1/evals/{made['id']}/runs", json=run_of(QUOTA)), 413, "storage_quota_exceeded")
        run = http.post(f"/v1/evals/{made['id']}/runs", json=run_of(QUOTA - 3000))
        assert run.status_code == 201, run.text
        path = f"/v1/evals/{made['id']}/runs"
        while http.post(path, json=run_of(100)).status_code == 201:
            pass
        items = [{"type": "message", "role": "user", "content": "x" * 4000}]
        refused = {
            "/v1/responses": {"model": MODEL, "input": LONGER, "max_output_tokens": 2},
            "/v1/chat/completions": chat(store=True, messages=[{"role": "user", "content": LONGER}]),
            "/v1/conversations": {"items": items},
            "/v1/evals": {**EVAL, "testing_criteria": [{**SAME, "reference": "x" * 4000}]},
            f"/v1/evals/{made['id']}/runs": run_of(4000),
        }
        before = small.used()
        for path, body in refused.items():
            sentence = assert_error(http.post(path, json=body), 413, "storage_quota_exceeded")
            assert "0.0625 MiB" in sentence
        assert_error(respond(http, background=True, input=LONGER), 413, "storage_quota_exceeded")
        assert small.used() == before, "it is said before anything is computed"
        assert respond(http, store=False).status_code == 200
        assert http.post("/v1/chat/completions", json=chat()).status_code == 200
        assert respond(other).status_code == 200, "it is one user's"
        assert http.delete(f"/v1/evals/{made['id']}").status_code == 200
        for path, body in list(refused.items())[:4]:
            answer = http.post(path, json=body)
            assert answer.status_code in (200, 201), answer.text


def test_a_conversation_grows_within_it_and_gives_back(small: Server) -> None:
    item = {"type": "message", "role": "user", "content": "x" * (QUOTA // 3)}
    with small.program() as http:
        conversation = http.post("/v1/conversations", json={"items": [item]}).json()["id"]
        path = f"/v1/conversations/{conversation}/items"
        assert http.post(path, json={"items": [item]}).status_code == 200
        assert_error(http.post(path, json={"items": [item]}), 413, "storage_quota_exceeded")
        found = http.get(path).json()["data"]
        assert len(found) == 2
        assert http.delete(f"{path}/{found[0]['id']}").status_code == 200
        assert http.post(path, json={"items": [item]}).status_code == 200


@pytest.mark.parametrize(
    ("most", "path", "body", "code"),
    [
        (
            "MOST_RESPONSES",
            "/v1/responses",
            {"model": MODEL, "input": "x", "max_output_tokens": 2},
            "too_many_responses",
        ),
        ("MOST_COMPLETIONS", "/v1/chat/completions", chat(store=True), "too_many_completions"),
        ("MOST_CONVERSATIONS", "/v1/conversations", {}, "too_many_conversations"),
    ],
)
def test_there_are_so_many_of_a_kind_at_most(
    small: Server, monkeypatch: pytest.MonkeyPatch, most: str, path: str, body: Any, code: str
) -> None:
    monkeypatch.setattr(kept, most, 2)
    with small.program() as http:
        first, second = (http.post(path, json=body) for _ in range(2))
        assert (first.status_code, second.status_code) == (200, 200)
        assert "2" in assert_error(http.post(path, json=body), 413, code)
        assert http.delete(f"{path}/{first.json()['id']}").status_code == 200
        assert http.post(path, json=body).status_code == 200


def test_a_response_counts_with_its_answer(small: Server) -> None:
    with small.program() as http:
        response = respond(http, max_output_tokens=30).json()

    async def sizes(accounts: Accounts) -> Any:
        async with accounts.database.read() as session:
            row = await session.get_one(ResponseRow, response["id"])
            return row.size_bytes, len(row.head.encode()) + len((row.pieces or "").encode())

    size, own = small.people.do(sizes)
    assert size > own + 2 * len("Hello")


@pytest.mark.parametrize("what", ["eval", "batch"])
def test_what_a_key_begins_goes_on_its_account(small: Server, what: str) -> None:
    key_id = small.people.key_ids["full key"]

    def used_by_key() -> int:
        async def work(accounts: Accounts) -> Any:
            query = select(func.coalesce(func.sum(Usage.requests), 0)).where(Usage.key_id == key_id)
            async with accounts.database.read() as session:
                return int(await session.scalar(query) or 0)

        found: int = small.people.do(work)
        return found

    small.limit({"tokens_per_month": 60}, key_id=key_id)
    asked = {"messages": [{"role": "user", "content": "Hello"}], "max_completion_tokens": 4}
    with openai.OpenAI(
        base_url=f"{small.running.url}/v1", api_key=small.people.keys["full key"], max_retries=0
    ) as client:
        if what == "eval":
            made = client.evals.create(**EVAL)
            source: Any = {
                "type": "completions",
                "model": MODEL,
                "source": {"type": "file_content", "content": [{"item": {"a": "b"}}] * 12},
                "input_messages": {"type": "template", "template": [{"role": "user", "content": "Hello"}]},
                "sampling_params": {"max_completion_tokens": 4},
            }
            run = client.evals.runs.create(made.id, data_source=source)
            wait_until(lambda: client.evals.runs.retrieve(run.id, eval_id=made.id).status == "completed")
            done = client.evals.runs.retrieve(run.id, eval_id=made.id).result_counts
            n_good, n_refused = done.passed, done.errored
            failed = client.evals.runs.output_items.list(run.id, eval_id=made.id, status="fail")
            assert not list(failed)
        else:
            lines = [
                {
                    "custom_id": str(n),
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": {"model": MODEL, **asked},
                }
                for n in range(12)
            ]
            file = client.files.create(file=("b.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
            batch = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            wait_until(lambda: client.batches.retrieve(batch.id).status == "completed")
            counts = client.batches.retrieve(batch.id).request_counts
            assert counts is not None
            n_good, n_refused = counts.completed, counts.failed
    assert n_good + n_refused == 12
    assert n_good, "as long as the key has something left"
    assert n_refused, "its limit holds for what it left alone, too"
    assert used_by_key() == n_good
    with small.running.http(headers=bearer(small.people.keys["inference key"])) as another:
        assert another.post("/v1/chat/completions", json=chat()).status_code == 200
