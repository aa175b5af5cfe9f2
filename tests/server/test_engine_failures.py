"""When the engine fails: the request that it failed for gets an error, the others go on, and /health tells the truth."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.server.conftest import StartServer
from tests.server.harness import MODEL, RunningServer, assert_error, events_of, wait_until

BAD_ID = 333
LONG = {"max_tokens": 40, "temperature": 0, "logit_bias": {"2": -100}}


class FailingRunner:
    """Fails on sequences that begin with BAD_ID, from their third token on."""

    def __init__(self, runner: Any, failure: type[Exception] | None) -> None:
        self.runner = runner
        self.failure = failure
        self.step_as_it_was = runner.step

    def step(self, chunks: Any) -> Any:
        outputs = None
        for number, chunk in enumerate(chunks):
            ids = chunk.sequence.token_ids
            if ids[0] == BAD_ID and len(ids) > 3:
                if self.failure is not None:
                    raise self.failure("secret prompt text")
                outputs = outputs or self.step_as_it_was(chunks)
                outputs[number] = np.full_like(outputs[number], np.nan)
        return outputs or self.step_as_it_was(chunks)


@pytest.fixture(params=[RuntimeError, MemoryError, None], ids=["RuntimeError", "MemoryError", "NaN"])
def failing(slow: RunningServer, request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """The slow server, with a fault for some prompts."""
    runner: Any = slow.model.engine._runner  # type: ignore[attr-defined]
    step = runner.step
    runner.step = FailingRunner(runner, request.param).step
    yield slow
    runner.step = step


def test_one_request_fails_and_its_neighbours_go_on(failing: RunningServer) -> None:
    expected = failing.complete(prompt="The capital", **LONG)["choices"][0]["text"]
    with ThreadPoolExecutor() as pool:
        good = [pool.submit(failing.complete, prompt="The capital", **LONG) for _ in range(3)]
        wait_until(lambda: failing.load()[0] > 0)
        body = {"model": MODEL, "prompt": [BAD_ID], **LONG}
        whole = failing.post("/v1/completions", body)
        message = assert_error(whole, 500, code="engine_error")
        assert "secret" not in message
        stream = failing.post("/v1/completions", {**body, "stream": True})
        assert stream.status_code == 200
        events = events_of(stream.text)
        assert events[0]["choices"]
        assert events[-1]["error"]["type"] == "server_error"
        assert events[-1]["error"]["code"] == "engine_error"
        assert "secret" not in stream.text
        for future in good:
            assert future.result()["choices"][0]["text"] == expected
    wait_until(failing.is_idle)
    with failing.http() as http:
        assert http.get("/health").status_code == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_engine_shows_in_health_and_answers_nobody_late(start: StartServer) -> None:
    server = start()
    runner: Any = server.model.engine._runner  # type: ignore[attr-defined]
    step = runner.step

    def bug(chunks: Any) -> Any:
        if any(chunk.sequence.n_output > 5 for chunk in chunks):
            raise AssertionError("a bug that nobody foresaw")
        return step(chunks)

    runner.step = bug
    with server.http() as http:
        assert http.get("/health").status_code == 200
        assert http.get("/ready").status_code == 200
        events = events_of(
            server.post("/v1/completions", {"model": MODEL, "prompt": "The", "stream": True, **LONG}).text
        )
        assert events[-1]["error"]["code"] == "engine_error"
        wait_until(lambda: not server.model.engine.stats().alive)
        health = http.get("/health")
        assert health.status_code == 503
        assert health.json()["status"] == "engine_down"
        assert http.get("/ready").status_code == 503
        assert_error(server.post("/v1/completions", {"model": MODEL, "prompt": "The"}), 500, code="engine_error")
        hello = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "stream": True}
        assert_error(server.post("/v1/chat/completions", hello), 500, code="engine_error")


def test_a_bug_in_the_server_is_an_error_object_too(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: Any, **__: Any) -> Any:
        raise KeyError("secret prompt text")

    monkeypatch.setattr(server.model, "check_length", bug)
    response = server.post("/v1/completions", {"model": MODEL, "prompt": "x"})
    assert "secret" not in assert_error(response, 500)
    assert response.headers["x-request-id"]
    assert response.headers["x-content-type-options"] == "nosniff"
    monkeypatch.undo()
    assert server.complete(prompt="x", max_tokens=1)
