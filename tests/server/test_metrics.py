"""Metrics and logs: bounded, complete, and without what users wrote."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from chatwright.cli.json_logs import JsonLines
from tests.server.conftest import KEY, StartServer
from tests.server.harness import MODEL, RunningServer, assert_error, http_request, wait_until
from tests.server.people import ADMIN_TOKEN

CANARY = "xylophone-of-the-queen"


def samples(server: RunningServer, **options: Any) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    with server.http(**options) as http:
        answer = http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


@pytest.fixture(scope="module")
def observed(start: StartServer) -> RunningServer:
    return start(log_format="json")


def test_what_is_measured(observed: RunningServer) -> None:
    with observed.http() as http:
        body = {"model": MODEL, "prompt": "The", "max_tokens": 20, "logit_bias": {"2": -100}, "n": 2}
        assert http.post("/v1/completions", json=body).status_code == 200
        assert http.post("/v1/completions", json={**body, "stream": True}).status_code == 200
        assert http.post(f"/v1/engines/{MODEL}/completions", json=body).status_code == 200
        assert http.post("/v1/completions", json={**body, "max_tokens": 5000}).status_code == 400
    found = samples(observed)
    model = (("model", MODEL),)
    assert found["chatwright_generation_tokens_total"][model] == 120
    assert found["chatwright_model_requests_total"][(("kind", "completions"), *model)] == 3
    assert found["chatwright_time_to_first_token_seconds_count"][model] == 3
    assert found["chatwright_tokens_per_second_count"][model] == 6
    assert 0 < found["chatwright_inter_token_latency_seconds_count"][model] <= 6 * 19
    route = (("method", "POST"), ("route", "/v1/completions"), ("status", "200"))
    assert found["chatwright_http_requests_total"][route] == 2
    assert found["chatwright_errors_total"][(("code", "context_length_exceeded"),)] == 1
    engine = (("engine", MODEL),)
    for name in ("engine_up", "engine_loaded", "num_requests_running", "num_requests_waiting", "kv_cache_usage_ratio"):
        assert engine in found[f"chatwright_{name}"]
    assert found["chatwright_engine_up"][engine] == 1


def test_labels_are_templates_and_words_of_our_own(observed: RunningServer) -> None:
    with observed.http() as http:
        for path in (f"/{CANARY}", f"/v1/{CANARY}", f"/v1/models/{CANARY}", f"/v1/engines/{CANARY}/completions"):
            http.get(path)
            http.request(CANARY.upper(), path)
            http.post(path, json={"model": CANARY, "prompt": CANARY, "user": CANARY})
        http.post("/v1/completions", json={"model": CANARY, "prompt": "x"})
        http.post("/v1/completions", json={"model": MODEL, "prompt": "x", CANARY: 1, "max_tokens": 1})
        http.get(f"/v1/models?{CANARY}={CANARY}", headers={"X-Request-Id": CANARY, "User-Agent": CANARY})
        text = http.get("/metrics").text
    assert CANARY not in text.lower()
    routes = {dict(labels)["route"] for labels in samples(observed)["chatwright_http_requests_total"]}
    assert {"other", "/v1/models", "/v1/models/{name}", "/v1/engines/{name}/completions"} <= {
        route.replace(":path", "") for route in routes
    }
    known = {getattr(route, "path", "") for route in observed.app.routes} | {"other"}
    assert len(routes) < len(known) + 200


def test_metrics_are_for_administrators_where_a_server_is_not_open(start: StartServer) -> None:
    server = start(api_key=KEY, admin_token=ADMIN_TOKEN)
    with server.http() as http:
        assert_error(http.get("/metrics"), 401)
        key = {"Authorization": b"Bearer " + KEY.encode()}
        assert_error(http.get("/metrics", headers=key), 403)
        assert http.get("/metrics", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}).status_code == 200
    open_server = start(admin_token=ADMIN_TOKEN)
    with open_server.http() as http:
        assert http.get("/metrics").status_code == 200
        assert_error(http.get("/metrics", headers={"Host": "evil.example"}), 403)
        assert_error(http.get("/metrics", headers={"X-Forwarded-For": "1.2.3.4"}), 403)


def test_request_ids_are_made_here_only(observed: RunningServer) -> None:
    with observed.http() as http:
        seen = set()
        for _ in range(3):
            answer = http.get("/v1/models", headers={"X-Request-Id": CANARY, "Request-Id": CANARY})
            seen.add(answer.headers["x-request-id"])
    assert len(seen) == 3
    assert all(request_id.startswith("req_") for request_id in seen)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What the log says, as JSON."""
    written: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    handler = Keep()
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


def test_a_line_for_each_request_and_no_content_in_any(observed: RunningServer, lines: list[str]) -> None:
    body = {"model": MODEL, "prompt": CANARY, "max_tokens": 3, "user": CANARY}
    with observed.http() as http:
        answer = http.post(f"/v1/completions?x={CANARY}", json=body, headers={"User-Agent": CANARY})
        usage = answer.json()["usage"]
        http.get(f"/{CANARY}")
        http.post("/v1/completions", json={"model": CANARY, "prompt": CANARY})
    with observed.connect() as sock:  # a client that leaves
        stream = json.dumps({**body, "stream": True, "max_tokens": 300, "logit_bias": {"2": -100}}).encode()
        sock.sendall(http_request("POST", "/v1/completions", stream, {"Connection": "close"}))
        assert sock.recv(100)
    wait_until(lambda: len([line for line in lines if '"chatwright.access"' in line]) >= 4)
    entries = [json.loads(line) for line in lines]
    access = [entry for entry in entries if entry["logger"] == "chatwright.access"]
    [first] = [entry for entry in access if entry["request_id"] == answer.headers["x-request-id"]]
    assert (first["method"], first["route"], first["status"]) == ("POST", "/v1/completions", 200)
    assert (first["model"], first["input_tokens"]) == (MODEL, usage["prompt_tokens"])
    assert first["output_tokens"] == usage["completion_tokens"]
    assert first["via"] == "open"
    assert {"route": "other", "status": 404}.items() <= access[1].items()
    assert access[2]["error"] == "model_not_found"
    ours = [line for line, entry in zip(lines, entries, strict=True) if not entry["logger"].startswith("httpx")]
    assert CANARY not in "".join(ours), "the client of this test logs too"


def test_an_exception_in_the_log_says_where_and_not_what() -> None:
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        exception = (type(error), error, error.__traceback__)
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "it failed: %s", ("here",), exception)
    line = JsonLines().format(record)
    assert CANARY not in json.dumps({**json.loads(line), "traceback": ""})
    entry = json.loads(line)
    assert (entry["message"], entry["exception"], entry["level"]) == ("it failed: here", "ValueError", "error")
    assert "test_metrics.py" in entry["traceback"]
    assert "\n" not in line
