"""Nothing that the API's description allows or forbids makes a server with accounts fail: every route × who gets in × databases."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, not_a_server_error
from schemathesis.core.failures import FailureGroup

from chatwright.jobs import children
from chatwright.server.permission import route_policies
from chatwright.store.database import Database
from chatwright.store.url import parse_url
from tests.server.conftest import StartServer
from tests.server.harness import MODEL, RunningServer, wait_until
from tests.server.people import ADMIN_TOKEN, People, bearer, browser, settle
from tests.server.test_evals import CUSTOM, SAME
from tests.server.test_openapi import TWINS
from tests.store.people import quick_accounts

LINES = b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}\n'
BATCH = (
    json.dumps(
        {
            "custom_id": "1",
            "method": "POST",
            "url": "/v1/completions",
            "body": {"model": MODEL, "prompt": "x", "max_tokens": 1},
        }
    ).encode()
    + b"\n"
)
# What takes away what others need comes last, and who signs out comes last of all.
LAST = ("DELETE", "PUT /api/limits", "/unload_lora_adapter", "/api/account/password", "/cancel", "/complete")
VERY_LAST = ("DELETE /api/account/sessions", "DELETE /api/session", "DELETE /api/users")
LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of")
# What good requests say, where they have such a field.
SENSE: dict[str, Any] = {
    "model": MODEL,
    "prompt": "x",
    "input": "x",
    "instruction": "x",
    "messages": [{"role": "user", "content": "x"}],
    "content": "x",
    "query": "x",
    "documents": ["x"],
    "tokens": [5],
    "title": "x",
    "name": "x",
    "role": "member",
    "purpose": "batch",
    "filename": "x",
    "bytes": 3,
    "mime_type": "text/jsonl",
    "endpoint": "/v1/completions",
    "training_file": "x",
    "input_file_id": "x",
    "parent_id": None,
    "max_tokens": 1,
    "max_output_tokens": 1,
}


@dataclass
class Caller:
    """Somebody who gets in, and what is theirs: ids by the name of the path's parameter."""

    name: str
    server: RunningServer
    headers: dict[str, str]
    ids: dict[str, str]
    database: str = ""
    statuses: Counter[int] = field(default_factory=Counter)


def caller(name: str, server: RunningServer, people: People) -> Caller:
    if name == "admin token":
        headers = bearer(ADMIN_TOKEN)
    elif name.endswith("key"):
        headers = bearer(people.keys[name])
    else:
        with browser(server, name) as http:
            cookie = f"chatwright_session={http.cookies['chatwright_session']}"
            headers = {"Cookie": cookie, "Origin": server.url, "X-CSRF-Token": http.headers["X-CSRF-Token"]}
    with server.http(headers=headers) as http:
        return Caller(name, server, headers, theirs(http, people), people.url.get_backend_name())


def theirs(http: httpx.Client, people: People) -> dict[str, str]:
    """Something of everything that has an id, as far as this caller may make it."""

    def made(path: str, body: Any = None, method: str = "POST", **options: Any) -> dict[str, Any]:
        answer = http.request(method, path, json=body, **options)
        found: dict[str, Any] = answer.json()
        assert answer.status_code in (200, 201, 403), (path, answer.text)
        return found if answer.status_code != 403 else {}

    def uploaded(purpose: str, content: bytes) -> str:
        form = {"files": {"file": ("x.jsonl", content)}, "data": {"purpose": purpose}}
        return str(http.post("/v1/files", **form).json().get("id", "file-none"))  # type: ignore[arg-type]

    training, batch = uploaded("fine-tune", LINES), uploaded("batch", BATCH)
    conversation = made("/v1/conversations", {"items": [{"role": "user", "content": "x"}]}).get("id", "conv_none")
    items = http.get(f"/v1/conversations/{conversation}/items").json().get("data") or [{"id": "msg_none"}]
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    announced = {"filename": "a", "purpose": "batch", "bytes": 3, "mime_type": "text/jsonl"}
    asked = {"input_file_id": batch, "endpoint": "/v1/completions", "completion_window": "24h"}
    own = made("/api/conversations", {})
    message = made(f"/api/conversations/{own['id']}/messages", {"content": "x"}) if own else {}
    evaluation = made("/v1/evals", {"data_source_config": CUSTOM, "testing_criteria": [SAME]}).get("id", "eval-none")
    source = {"type": "file_content", "content": [{"item": {"ask": "x", "want": "y"}, "sample": {"output_text": "y"}}]}
    run = {"data_source": {"type": "jsonl", "source": source}}
    run_id = (
        made(f"/v1/evals/{evaluation}/runs", run).get("id", "evalrun-none") if evaluation != "eval-none" else "none"
    )
    graded = f"/v1/evals/{evaluation}/runs/{run_id}/output_items"
    if run_id != "none":
        wait_until(lambda: bool(http.get(graded).json()["data"]))
    limit = {"user_id": people.ids["other"], "tokens_per_month": 10**9}
    return {
        "file_id": training,
        "training_file": training,
        "input_file_id": batch,
        "upload_id": made("/v1/uploads", announced).get("id", "upload-none"),
        "batch_id": made("/v1/batches", asked).get("id", "batch-none"),
        "job_id": made("/v1/fine_tuning/jobs", {"model": MODEL, "training_file": training}).get("id", "ftjob-none"),
        "response_id": made("/v1/responses", {"model": MODEL, "input": "x", "max_output_tokens": 1}).get("id", "no"),
        "completion_id": made("/v1/chat/completions", {**chat, "store": True}).get("id", "no"),
        "conversation_id": conversation,
        "item_id": items[0]["id"],
        "eval_id": evaluation,
        "run_id": run_id,
        "output_item_id": http.get(graded).json()["data"][0]["id"] if run_id != "none" else "none",
        "own_conversation_id": own.get("id", "conv-none"),
        "message_id": message.get("id", "msg-none"),
        "user_id": people.ids["other"],
        "key_id": made("/api/keys", {"name": "to be revoked"}).get("id") or people.key_ids["full key of other"],
        "session_id": "session-none",
        "limit_id": made("/api/limits", limit, "PUT").get("id", "limit-none"),
        "name": MODEL,
    }


@pytest.fixture
def callers(
    start: StartServer, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Caller]]:
    # What is trained is for other tests. The module's own `sys` is exchanged: everybody's would end other processes too.
    monkeypatch.setattr(children, "sys", SimpleNamespace(executable="/bin/false", platform=sys.platform))
    found = []
    for place in (tmp_path, parse_url(postgres_url)):
        people = settle(place)
        server = start(accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN, max_jobs=1)
        found += [caller(name, server, people) for name in ("full key", "admin token", "owner")]
    yield found
    for server in {id(each.server): each.server for each in found}.values():
        server.stop()


def rank(operation: Any) -> tuple[int, str]:
    where = f"{operation.method.upper()} {operation.path}"
    last = 2 * any(where.startswith(each) for each in VERY_LAST) or any(each in where for each in LAST)
    return int(last), where


def description(app: FastAPI) -> dict[str, Any]:
    """Without what it says of keys: a random one in each request would keep everybody out."""
    api: dict[str, Any] = deepcopy(app.openapi())
    del api["components"]["securitySchemes"]
    for methods in api["paths"].values():
        for operation in methods.values():
            operation.pop("security", None)
    return api


def with_few_options(case: schemathesis.Case, described: dict[str, Any], number: int) -> None:
    """Values that make sense, and two random ones beside them: of ten one is always refused, and nothing behind it is reached."""
    properties, required = described.get("properties", {}), set(described.get("required", ()))
    options = sorted(set(case.body) & set(properties) - (set() if number % 3 == 2 else set(SENSE)))
    chance = Random(f"{case.operation.path} {number}")
    few = chance.sample(options, min(2, len(options)))
    sense = {name: value for name, value in SENSE.items() if name in properties}
    kept = {name: value for name, value in case.body.items() if name in few or name in required}
    case.body = {**kept, **{name: value for name, value in sense.items() if name not in few}}
    if "prompt" in properties and "messages" in properties:  # one of them says what the other one would
        case.body.pop("messages", None)
    if "email" in properties:
        case.body["email"] = f"{chance.random()}@example.org"


def as_this_caller(case: schemathesis.Case, who: Caller, *, good: bool) -> None:
    """Most random ids are nobody's, and say nothing: good requests name what there is."""
    ids = dict(who.ids)
    if case.path.startswith("/api/conversations"):
        ids["conversation_id"] = ids["own_conversation_id"]
    if case.path_parameters and (good or case.method != "DELETE"):
        case.path_parameters = {name: ids[name] for name in case.path_parameters}
    if not isinstance(case.body, dict):
        return
    for name in ("model", "training_file", "input_file_id"):
        if isinstance(case.body.get(name), str):
            case.body[name] = MODEL if name == "model" else ids[name]
    for name in LENGTHS:  # long answers say no more than short ones
        if isinstance(case.body.get(name), int):
            case.body[name] = min(case.body[name], 2)


class Sender:
    """Sends each request as everybody, and keeps what was wrong with the answers: one mistake shall not hide the others."""

    def __init__(self, callers: list[Caller], api: dict[str, Any]) -> None:
        self.callers = callers
        self.api = api
        self.good: Counter[str] = Counter()
        self.failures: list[str] = []
        self.checks = [
            not_a_server_error,
            *CHECKS.get_by_names(
                ["status_code_conformance", "content_type_conformance", "response_schema_conformance"]
            ),
        ]

    def body_of(self, operation: Any) -> dict[str, Any]:
        """How a body of this operation is described."""
        request = self.api["paths"][operation.path][operation.method.lower()].get("requestBody", {"content": {}})
        for content in request["content"].values():
            name = content["schema"].get("$ref", "").rpartition("/")[2]
            found: dict[str, Any] = self.api["components"]["schemas"].get(name, content["schema"])
            return found
        return {}

    def exercise(self, operation: Any, mode: GenerationMode) -> None:
        """A few requests of one operation."""
        numbers, described = count(), self.body_of(operation)

        @settings(
            max_examples=3,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case: schemathesis.Case) -> None:
            if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
                with_few_options(case, described, next(numbers))
            body, ids = case.body, case.path_parameters
            for who in self.callers:
                case.body, case.path_parameters = deepcopy(body), dict(ids)
                self.send(case, who, good=mode is GenerationMode.POSITIVE)

        send()

    def send(self, case: schemathesis.Case, who: Caller, *, good: bool) -> None:
        where = f"{case.method} {case.operation.path}"
        as_this_caller(case, who, good=good)
        response = case.call(base_url=who.server.url, headers=who.headers, timeout=60)
        who.statuses[response.status_code] += 1
        self.good[where] += response.status_code == 200
        try:
            case.validate_response(response, checks=self.checks)
        except FailureGroup as error:
            self.failures.append(f"{where} as {who.name} on {who.database}: {error}\n{response.text[:500]}")


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_nothing_that_the_description_allows_or_forbids_is_a_server_error(callers: list[Caller]) -> None:
    """schemathesis writes each request once; it is sent by everybody, to a server on SQLite and to one on PostgreSQL."""
    api = description(callers[0].server.app)
    schema = schemathesis.openapi.from_dict(api)
    sender = Sender(callers, api)
    for operation in sorted((result.ok() for result in schema.get_all_operations()), key=rank):
        if any(twin in operation.path for twin in TWINS):
            continue
        # There is nothing wrong to say where there is no body.
        has_body = "requestBody" in api["paths"][operation.path][operation.method.lower()]
        for mode in GenerationMode if has_body else [GenerationMode.POSITIVE]:
            sender.exercise(operation, mode)
    assert not sender.failures, "\n\n".join(sender.failures)
    for who in callers:
        assert who.statuses[200] > 100, (who.name, who.statuses)
        assert who.statuses[400] > 50, (who.name, who.statuses)
        assert who.statuses[401] < 20, (who.name, who.statuses)


def test_what_belongs_to_others_does_not_exist_on_any_route(start: StartServer, tmp_path: Path) -> None:
    """Every route with an id in its path, also those to come: what is somebody else's is answered like what is not there."""
    people = settle(tmp_path)
    server = start(accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN)
    with (
        server.http(headers=bearer(people.keys["full key"])) as mine,
        server.http(headers=bearer(people.keys["full key of other"])) as theirs_,
        browser(server, "admin") as admin,
    ):
        ids = theirs(mine, people)
        seen = 0
        for policy in route_policies(server.app):
            names = set(re.findall(r"\{(\w+)[^}]*\}", policy.path)) - {"name"}
            if not names or not policy.path.startswith("/v1/"):
                continue  # the web app's own: test_accounts
            options = {"json": {}} if policy.method == "POST" else {}
            for http in (theirs_, admin):
                answers = []
                for values in (
                    ids,
                    {name: ids[name][:-3] + "xyz" for name in ids},
                ):  # KeyError: give `theirs` the new kind
                    path = policy.path.format(**values)
                    answer = http.request(policy.method, path, **options)
                    assert answer.status_code in (400, 403, 404, 415), (policy.method, path, answer.text)
                    answers.append((answer.status_code, answer.text.replace(path, "")))
                assert answers[0] == answers[1], (policy.method, policy.path)
            seen += 1
        assert seen > 25
        for path in (
            f"/v1/files/{ids['file_id']}/content",
            f"/v1/batches/{ids['batch_id']}",
            f"/v1/fine_tuning/jobs/{ids['job_id']}",
            f"/v1/responses/{ids['response_id']}",
            f"/v1/chat/completions/{ids['completion_id']}",
            f"/v1/conversations/{ids['conversation_id']}/items/{ids['item_id']}",
        ):
            assert mine.get(path).status_code == 200, path
