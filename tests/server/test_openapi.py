"""The API's description is true, complete and useful, and nothing it allows makes the server fail."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, not_a_server_error

from tests.server.harness import MODEL, RunningServer

ROUTES = {
    ("get", "/health"),
    ("get", "/ready"),
    ("get", "/metrics"),
    ("post", "/v1/completions"),
    ("post", "/v1/chat/completions"),
    ("post", "/v1/embeddings"),
    ("post", "/v1/tokenize"),
    ("get", "/v1/tokenizer_info"),
    ("post", "/v1/detokenize"),
    ("post", "/v1/classify"),
    ("post", "/v1/rerank"),
    ("post", "/v1/moderations"),
    ("post", "/v1/messages"),
    ("post", "/v1/messages/count_tokens"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{name}"),
    ("get", "/v1/lora_adapters"),
    ("post", "/v1/load_lora_adapter"),
    ("post", "/v1/unload_lora_adapter"),
    ("get", "/v1/files"),
    ("post", "/v1/files"),
    ("get", "/v1/files/{file_id}"),
    ("delete", "/v1/files/{file_id}"),
    ("get", "/v1/files/{file_id}/content"),
    ("post", "/v1/uploads"),
    ("post", "/v1/uploads/{upload_id}/parts"),
    ("post", "/v1/uploads/{upload_id}/complete"),
    ("post", "/v1/uploads/{upload_id}/cancel"),
    ("post", "/v1/fine_tuning/jobs"),
    ("get", "/v1/fine_tuning/jobs"),
    ("get", "/v1/fine_tuning/jobs/{job_id}"),
    ("post", "/v1/fine_tuning/jobs/{job_id}/cancel"),
    ("post", "/v1/fine_tuning/jobs/{job_id}/pause"),
    ("post", "/v1/fine_tuning/jobs/{job_id}/resume"),
    ("get", "/v1/fine_tuning/jobs/{job_id}/events"),
    ("get", "/v1/fine_tuning/jobs/{job_id}/checkpoints"),
    ("post", "/v1/fine-tunes"),
    ("get", "/v1/fine-tunes"),
    ("get", "/v1/fine-tunes/{job_id}"),
    ("post", "/v1/fine-tunes/{job_id}/cancel"),
    ("get", "/v1/fine-tunes/{job_id}/events"),
    ("delete", "/v1/models/{name}"),
    ("get", "/v1/batches"),
    ("post", "/v1/batches"),
    ("get", "/v1/batches/{batch_id}"),
    ("post", "/v1/batches/{batch_id}/cancel"),
    ("get", "/api/session"),
    ("post", "/api/session"),
    ("delete", "/api/session"),
    ("post", "/api/welcome"),
    ("post", "/api/welcome/look"),
    ("get", "/api/account"),
    ("patch", "/api/account"),
    ("post", "/api/account/password"),
    ("get", "/api/account/sessions"),
    ("delete", "/api/account/sessions"),
    ("delete", "/api/account/sessions/{session_id}"),
    ("get", "/api/keys"),
    ("post", "/api/keys"),
    ("delete", "/api/keys/{key_id}"),
    ("get", "/api/users"),
    ("post", "/api/users"),
    ("get", "/api/users/{user_id}"),
    ("patch", "/api/users/{user_id}"),
    ("delete", "/api/users/{user_id}"),
    ("post", "/api/users/{user_id}/link"),
    ("get", "/api/users/{user_id}/keys"),
    ("delete", "/api/users/{user_id}/keys/{key_id}"),
    ("post", "/api/explain"),
    ("get", "/api/usage"),
    ("get", "/api/usage/all"),
    ("get", "/api/limits"),
    ("put", "/api/limits"),
    ("delete", "/api/limits/{limit_id}"),
    ("get", "/v1/organization/usage/completions"),
    ("get", "/v1/organization/usage/embeddings"),
    ("get", "/v1/organization/usage/moderations"),
    ("get", "/v1/organization/costs"),
    ("get", "/v1/chat/completions"),
    ("get", "/v1/chat/completions/{completion_id}"),
    ("post", "/v1/chat/completions/{completion_id}"),
    ("delete", "/v1/chat/completions/{completion_id}"),
    ("get", "/v1/chat/completions/{completion_id}/messages"),
    ("get", "/v1/evals"),
    ("post", "/v1/evals"),
    ("get", "/v1/evals/{eval_id}"),
    ("post", "/v1/evals/{eval_id}"),
    ("delete", "/v1/evals/{eval_id}"),
    ("get", "/v1/evals/{eval_id}/runs"),
    ("post", "/v1/evals/{eval_id}/runs"),
    ("get", "/v1/evals/{eval_id}/runs/{run_id}"),
    ("post", "/v1/evals/{eval_id}/runs/{run_id}"),
    ("post", "/v1/evals/{eval_id}/runs/{run_id}/cancel"),
    ("delete", "/v1/evals/{eval_id}/runs/{run_id}"),
    ("get", "/v1/evals/{eval_id}/runs/{run_id}/output_items"),
    ("get", "/v1/evals/{eval_id}/runs/{run_id}/output_items/{output_item_id}"),
    ("post", "/v1/responses"),
    ("post", "/v1/responses/input_tokens"),
    ("get", "/v1/responses/{response_id}"),
    ("delete", "/v1/responses/{response_id}"),
    ("post", "/v1/responses/{response_id}/cancel"),
    ("get", "/v1/responses/{response_id}/input_items"),
    ("post", "/v1/conversations"),
    ("get", "/v1/conversations/{conversation_id}"),
    ("post", "/v1/conversations/{conversation_id}"),
    ("delete", "/v1/conversations/{conversation_id}"),
    ("get", "/v1/conversations/{conversation_id}/items"),
    ("post", "/v1/conversations/{conversation_id}/items"),
    ("get", "/v1/conversations/{conversation_id}/items/{item_id}"),
    ("delete", "/v1/conversations/{conversation_id}/items/{item_id}"),
    ("get", "/api/conversations"),
    ("post", "/api/conversations"),
    ("get", "/api/conversations/{conversation_id}"),
    ("patch", "/api/conversations/{conversation_id}"),
    ("delete", "/api/conversations/{conversation_id}"),
    ("post", "/api/conversations/{conversation_id}/messages"),
    ("post", "/api/conversations/{conversation_id}/generations"),
    ("get", "/api/conversations/{conversation_id}/messages/{message_id}/events"),
    ("post", "/api/conversations/{conversation_id}/messages/{message_id}/stop"),
    ("get", "/v1/engines"),
    ("get", "/v1/engines/{name}"),
    ("post", "/v1/engines/{name}/completions"),
    ("post", "/v1/engines/{name}/generate"),
    ("post", "/v1/engines/{name}/chat/completions"),
    ("post", "/v1/engines/{name}/edits"),
    ("post", "/v1/engines/{name}/embeddings"),
    ("post", "/v1/openai/deployments/{name}/embeddings"),
    ("post", "/v1/edits"),
    ("post", "/v1/openai/deployments/{name}/completions"),
    ("post", "/v1/openai/deployments/{name}/chat/completions"),
}


# Their bodies are forms, and what has no body.
FORMS = ("/v1/files", "/v1/uploads/{upload_id}/parts")
NO_BODY = (
    "/v1/responses/{response_id}/cancel",
    "/v1/uploads/{upload_id}/cancel",
    "/v1/batches/{batch_id}/cancel",
    "/v1/evals/{eval_id}/runs/{run_id}",
    "/v1/evals/{eval_id}/runs/{run_id}/cancel",
    "/v1/fine-tunes/{job_id}/cancel",
    *(f"/v1/fine_tuning/jobs/{{job_id}}/{action}" for action in ("cancel", "pause", "resume")),
)
MOST_USED = ("/v1/completions", "/v1/chat/completions")
# The same bodies and the same code as above, under names of other ages: writing requests for each takes schemathesis seconds.
TWINS = ("/v1/openai/", "/generate", "/{name}/edits", "/{name}/chat/completions", "/{name}/embeddings")


def description(server: RunningServer) -> dict[str, Any]:
    with server.http() as http:
        found: dict[str, Any] = http.get("/openapi.json").json()
    return found


def test_no_route_is_added_by_accident(server: RunningServer) -> None:
    paths = description(server)["paths"]
    assert {(method, path) for path, methods in paths.items() for method in methods} == ROUTES


def test_every_operation_describes_bodies_answers_and_errors(server: RunningServer) -> None:
    api = description(server)
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            where = (method, path)
            answers = operation["responses"]
            assert "422" not in answers, where
            if path == "/metrics":  # Prometheus' own format
                assert set(answers["200"]["content"]) == {"text/plain"}
                continue
            shape = "/AnthropicErrorBody" if path.startswith("/v1/messages") else "/ErrorBody"
            assert answers["4XX"]["content"]["application/json"]["schema"]["$ref"].endswith(shape), where
            if path.endswith("/content"):
                assert list(answers["200"]["content"]) == ["application/octet-stream"]
            else:
                good = (answers.get("200") or answers["201"])["content"]["application/json"]["schema"]
                assert "$ref" in good, (where, "an untyped answer")
            assert operation["summary"]
            if method == "post" and path in FORMS:
                [schema] = [kind["schema"] for kind in operation["requestBody"]["content"].values()]
                assert schema["required"]
            elif method == "post" and path not in NO_BODY:
                body = operation["requestBody"]["content"]
                assert list(body) == ["application/json"]
                schema = body["application/json"]["schema"]
                assert "$ref" in schema.get("anyOf", [schema])[0]  # a body that may be left out is one of two
            of_v1 = ("completions", "generate", "/v1/messages", "/responses")
            if (method == "post" and path.endswith(of_v1)) or (path.startswith("/api/") and path.endswith("/events")):
                assert "text/event-stream" in answers["200"]["content"], where
    ids = Counter(operation["operationId"] for methods in api["paths"].values() for operation in methods.values())
    assert set(ids.values()) == {1}
    assert api["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


@pytest.mark.slow
def test_nothing_that_the_description_allows_or_forbids_is_a_server_error(server: RunningServer) -> None:
    """schemathesis writes good and bad requests after the description; every answer must be one that it describes."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    checks = [
        not_a_server_error,
        *CHECKS.get_by_names(["status_code_conformance", "content_type_conformance", "response_schema_conformance"]),
    ]
    statuses: Counter[int] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()
        if any(twin in operation.path for twin in TWINS):
            continue
        # There is nothing wrong to say where there is no body.
        for mode in GenerationMode if operation.method == "post" else [GenerationMode.POSITIVE]:

            @settings(
                max_examples=8 if operation.path in MOST_USED else 3,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: schemathesis.Case) -> None:
                if case.path_parameters and "name" in case.path_parameters:
                    case.path_parameters["name"] = MODEL
                if isinstance(case.body, dict):
                    # Most random names are no models, and long answers teach nothing here.
                    case.body["model"] = MODEL
                    for name in ("max_tokens", "n"):
                        if isinstance(case.body.get(name, 2), int):
                            case.body[name] = min(case.body.get(name, 2), 2)
                response = case.call()
                statuses[response.status_code] += 1
                case.validate_response(response, checks=checks)

            check()
    assert statuses[200] > 10
    assert statuses[400] > 10
    assert server.complete(prompt="x", max_tokens=1)


def test_the_web_apps_snapshot_is_current(server: RunningServer) -> None:
    """Its client is generated from it: save /openapi.json as web/openapi.json and run `npm run generate` in web/."""
    snapshot = Path(__file__).parents[2] / "web" / "openapi.json"
    assert json.loads(snapshot.read_text(encoding="utf-8")) == server.app.openapi()
