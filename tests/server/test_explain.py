"""Looking inside a served model: the same as the command prints, beside the answers, and in nobody's way."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from pydantic import TypeAdapter

from chatwright.engine.opened import OpenedModel, open_model
from chatwright.engine.process import memory
from chatwright.engine.process.memory import MemoryBudget, MemoryNeed
from chatwright.errors import EngineError, InvalidRequestError, OverloadedError
from chatwright.inspection.explain import ATTENTION_LEFT_OUT, MEAN_ATTENTION, Explanation, explain, with_attention
from chatwright.inspection.looking import COMMAND, MOST_ASKED, MOST_TOKENS, Looking, Patience, need_of
from chatwright.inspection.subject import open_subject
from chatwright.inspection.wire import Look
from chatwright.server.console.explain import ExplanationObject
from chatwright.settings import Settings
from tests.server.conftest import KEY, StartServer
from tests.server.harness import MODEL, RunningServer, assert_error, http_request, read_response, wait_until
from tests.server.tiny import make_adapter

pytestmark = pytest.mark.timeout(300)
PROMPT = "The capital of Japan is"
SETTINGS = Settings(device="cpu", threads=1)
STUCK = (sys.executable, "-c", "import time; time.sleep(3600)")
BROKEN = (sys.executable, "-c", "import os; os._exit(3)")
TOKEN = "token-printed-at-start-1234567890"
LOADING_S = 200.0
PATIENT = Patience(answer_s=LOADING_S)
KEYED = {"Authorization": f"Bearer {KEY}".encode()}
LOOK = Look([5, 6, 7], None, 2, "gradient", 3, "none")


def look(server: RunningServer, **body: Any) -> dict[str, Any]:
    # The process imports PyTorch first, niced: seconds, on a machine that does something else many.
    body = {"model": MODEL, "prompt": PROMPT, **body}
    response = httpx.post(f"{server.url}/api/explain", json=body, trust_env=False, timeout=LOADING_S)
    assert response.status_code == 200, response.text
    seen: dict[str, Any] = response.json()
    return seen


def looking_of(server: RunningServer) -> Looking:
    found: Looking = server.app.state.server.looking
    return found


def is_like(found: Any, expected: Any) -> bool:
    """Equal, but for the last bits of numbers: another number of threads adds up in another order."""
    if isinstance(expected, dict):
        return set(found) == set(expected) and all(is_like(found[key], value) for key, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(is_like, found, expected))
    if isinstance(expected, float):
        return bool(found == pytest.approx(expected, abs=2e-4))
    return bool(found == expected)


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ({"max_tokens": 4, "attribution": "occlusion"}, {"max_tokens": 4, "method": "occlusion"}),
        ({"max_tokens": 0, "top": 2}, {"max_tokens": 0, "method": "gradient", "top": 2}),
        ({"answer": " Tokyo."}, {"answer": " Tokyo.", "method": "gradient"}),
        ({"chat": True, "max_tokens": 2}, {"chat": True, "max_tokens": 2, "method": "gradient"}),
        ({"max_tokens": 1, "attribution": "none"}, {"max_tokens": 1, "method": None}),
    ],
    ids=["occlusion", "prompt alone", "given answer", "chat", "no attribution"],
)
def test_it_is_what_the_command_prints(
    server: RunningServer, model_folder: Path, body: dict[str, Any], options: dict[str, Any]
) -> None:
    seen = look(server, **body)
    expected = explain(open_subject(model_folder, MODEL, SETTINGS), PROMPT, **options).to_json()
    assert is_like(seen, json.loads(json.dumps(expected)))
    TypeAdapter(ExplanationObject).validate_python(seen)  # what the API's description says of it
    assert set(seen) == set(ExplanationObject.model_fields)


def test_one_process_answers_all_looks_at_one_model(server: RunningServer) -> None:
    seen = look(server, attention="none")
    pid = looking_of(server).pid
    assert look(server, attention="none") == seen
    assert looking_of(server).pid == pid


def test_an_adapter_has_a_process_of_its_own_and_another_one_of_its_name_too(
    server: RunningServer, start: StartServer, model_folder: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    make_adapter(model_folder, home / "adapters" / "shop", 1, MODEL)
    plain = look(server, attention="none")
    own = start(home=home, admin_token=TOKEN)
    load = {"lora_name": "shop"}
    with own.http(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        assert http.post("/v1/load_lora_adapter", json=load).status_code == 200
        adapted = look(own, model="shop", attention="none")
        first = looking_of(own).pid
        assert first is not None
        # Another one under the same name, in the same folder.
        assert http.post("/v1/unload_lora_adapter", json=load).status_code == 200
        assert_error(own.post("/api/explain", {"model": "shop", "prompt": PROMPT}), 404, "model_not_found")
        shutil.rmtree(home / "adapters" / "shop")
        make_adapter(model_folder, home / "adapters" / "shop", 2, MODEL)
        assert http.post("/v1/load_lora_adapter", json=load).status_code == 200
        another = look(own, model="shop", attention="none")
    assert has_ended(first)
    assert adapted["model"] == another["model"] == "shop"
    assert adapted["next"] != plain["next"] != another["next"] != adapted["next"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "model"),
        ({"model": MODEL}, 400, "prompt"),
        ({"model": MODEL, "prompt": ""}, 400, "prompt"),
        ({"model": MODEL, "prompt": "x" * 16385}, 400, "prompt"),
        ({"model": MODEL, "prompt": 5}, 400, "prompt"),
        ({"model": MODEL, "prompt": "x", "answer": ""}, 400, "answer"),
        ({"model": MODEL, "prompt": "x", "answer": "y", "max_tokens": 3}, 400, "max_tokens"),
        ({"model": MODEL, "prompt": "x", "max_tokens": -1}, 400, "max_tokens"),
        ({"model": MODEL, "prompt": "x", "max_tokens": 65}, 400, "max_tokens"),
        ({"model": MODEL, "prompt": "x", "max_tokens": 1.5}, 400, "max_tokens"),
        ({"model": MODEL, "prompt": "x", "top": 0}, 400, "top"),
        ({"model": MODEL, "prompt": "x", "top": 21}, 400, "top"),
        ({"model": MODEL, "prompt": "x", "attribution": "magic"}, 400, "attribution"),
        ({"model": MODEL, "prompt": "x", "attention": "some"}, 400, "attention"),
        ({"model": MODEL, "prompt": "x", "folder": "/etc/passwd"}, 400, "folder"),
        ({"model": "absent", "prompt": "x"}, 404, "model"),
        ({"model": "../tiny", "prompt": "x"}, 404, "model"),
    ],
)
def test_bad_questions_are_told_what_is_wrong(
    server: RunningServer, body: dict[str, Any], status: int, param: str
) -> None:
    assert_error(server.post("/api/explain", body), status, param=param)


def test_what_is_too_long_is_told_in_tokens_and_starts_nothing(server: RunningServer, keyed: RunningServer) -> None:
    words = "The capital of Japan is Tokyo. " * 60
    for body, param in (
        ({"prompt": words}, "prompt"),
        ({"prompt": words, "chat": True}, "prompt"),
        ({"prompt": "x", "answer": words}, "answer"),
    ):
        response = keyed.post("/api/explain", {"model": MODEL, **body}, headers=KEYED)
        assert f"at most {MOST_TOKENS} here" in assert_error(response, 400, "context_length_exceeded", param)
    assert looking_of(keyed).pid is None
    chinese = server.post("/api/explain", {"model": MODEL, "prompt": words}, headers={"Accept-Language": "zh-CN"})
    assert "个词元" in assert_error(chinese, 400)
    full = look(server, prompt="x" * MOST_TOKENS, max_tokens=8, attribution="none", attention="mean")
    assert len(full["tokens"]) == MOST_TOKENS
    assert np.array(full["attention"]).shape == (2, 1, MOST_TOKENS, MOST_TOKENS)


@pytest.fixture
def impatient(start: StartServer) -> Callable[..., RunningServer]:
    """Servers whose looking is done by a command of one's own."""

    def serve(command: Any, **patience: float) -> RunningServer:
        server = start()
        chosen = Patience(**{"answer_s": LOADING_S, **patience})
        server.app.state.server.looking = Looking(SETTINGS, MemoryBudget.of(SETTINGS), chosen, command)
        return server

    return serve


def ask(server: RunningServer) -> socket.socket:
    sock = server.connect()
    sock.sendall(http_request("POST", "/api/explain", json.dumps({"model": MODEL, "prompt": PROMPT}).encode()))
    return sock


def has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_what_takes_too_long_is_ended(impatient: Callable[..., RunningServer]) -> None:
    server = impatient(STUCK, answer_s=0.3)
    response = server.post("/api/explain", {"model": MODEL, "prompt": PROMPT})
    assert "Shorten the text" in assert_error(response, 400, "took_too_long", "prompt")
    assert looking_of(server).pid is None
    assert server.complete(prompt="x", max_tokens=1)


def test_leaving_ends_the_look_and_the_next_one_has_its_turn(impatient: Callable[..., RunningServer]) -> None:
    command = list(STUCK)
    server = impatient(command)
    looking = looking_of(server)
    first = ask(server)
    wait_until(lambda: looking.pid is not None)
    pid = looking.pid
    assert pid is not None
    command[:] = COMMAND
    second = ask(server)
    wait_until(lambda: looking._n_asked == 2)
    first.close()
    second.settimeout(LOADING_S)
    status, _, body = read_response(second)
    assert (status, json.loads(body)["model"]) == (200, MODEL)
    assert has_ended(pid)
    second.close()


def test_a_full_queue_is_a_503_and_empties(impatient: Callable[..., RunningServer]) -> None:
    server = impatient(STUCK)
    looking = looking_of(server)
    waiting = [ask(server) for _ in range(MOST_ASKED)]
    wait_until(lambda: looking._n_asked == MOST_ASKED)
    response = server.post("/api/explain", {"model": MODEL, "prompt": PROMPT})
    assert_error(response, 503, "engine_overloaded")
    assert response.headers["retry-after"]
    assert server.complete(prompt="x", max_tokens=1)  # who chats does not notice
    for sock in reversed(waiting):
        sock.close()
    wait_until(lambda: looking._n_asked == 0)
    assert looking.pid is None


def test_who_waits_for_a_place_does_not_wait_for_ever(impatient: Callable[..., RunningServer]) -> None:
    server = impatient(STUCK, queue_s=0.2)
    first = ask(server)
    wait_until(lambda: looking_of(server).pid is not None)
    assert_error(server.post("/api/explain", {"model": MODEL, "prompt": PROMPT}), 503, "engine_overloaded")
    assert looking_of(server).pid is not None, "the first one goes on"
    first.close()


def test_a_crash_is_told_and_the_next_look_works(impatient: Callable[..., RunningServer]) -> None:
    command = list(BROKEN)
    server = impatient(command)
    response = server.post("/api/explain", {"model": MODEL, "prompt": PROMPT})
    assert "exit code 3" in assert_error(response, 500, "engine_error")
    command[:] = COMMAND
    assert look(server)["kind"] == "decoder"
    pid = looking_of(server).pid
    assert pid is not None
    looker = looking_of(server)._looker
    assert looker is not None
    psutil.Process(pid).kill()
    wait_until(lambda: not looker.running)  # the next look starts another one


def test_the_process_ends_when_nobody_looks(impatient: Callable[..., RunningServer]) -> None:
    server = impatient(COMMAND, idle_s=0.05)
    look(server)
    wait_until(lambda: looking_of(server).pid is None)
    wait_until(lambda: looking_of(server)._budget._held == {})


def test_a_shutdown_does_not_wait_for_a_look(start: StartServer) -> None:
    server = start(graceful_timeout_s=0.2)
    server.app.state.server.looking = Looking(SETTINGS, MemoryBudget.of(SETTINGS), None, STUCK)
    sock = ask(server)
    wait_until(lambda: looking_of(server).pid is not None)
    pid = looking_of(server).pid
    assert pid is not None
    server.stop()
    status, _, body = read_response(sock)
    assert status == 503, body
    assert has_ended(pid)


@pytest.fixture
def opened(model_folder: Path) -> OpenedModel:
    return open_model(model_folder, MODEL, SETTINGS)


class Tenant:
    """Another model."""

    name, used_at, idle = "other", 0.0, False

    def __init__(self, n_bytes: int) -> None:
        self.need = MemoryNeed(n_bytes, 1, 0, 0)

    async def unload(self) -> None:
        raise AssertionError("it is busy")


async def test_its_memory_is_part_of_the_budget(opened: OpenedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ROOM_WAIT_S", 0.05)
    need = need_of(opened)
    assert need.fixed_bytes > 4 * opened.info.n_parameters
    budget = MemoryBudget(need.fixed_bytes + 100, firm=True)
    looking = Looking(SETTINGS, budget, PATIENT)
    try:
        assert await looking.look(opened, LOOK)
        assert budget.free_bytes == 100
        pid = looking.pid
        assert pid is not None
        # A model that needs the room gets it, and the next look finds none while that model answers.
        other = Tenant(200)
        await budget.enter(other)
        assert has_ended(pid)
        with pytest.raises(OverloadedError, match="no room for looking inside tiny"):
            await looking.look(opened, LOOK)
        budget.leave(other)
    finally:
        await looking.close()
    assert budget.free_bytes == budget.limit_bytes
    small = Looking(SETTINGS, MemoryBudget(need.fixed_bytes - 1, firm=True))
    with pytest.raises(InvalidRequestError, match="memory_limit allows"):
        await small.look(opened, LOOK)


async def test_a_model_whose_files_were_spoilt_is_nobodys_path(opened: OpenedModel, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    gone = OpenedModel(tmp_path, *(getattr(opened, name) for name in list(OpenedModel.__dataclass_fields__)[1:]))
    looking = Looking(SETTINGS, MemoryBudget.of(SETTINGS), PATIENT)
    with pytest.raises(EngineError, match="the log of the server says why") as caught:
        await looking.look(gone, LOOK)
    assert str(tmp_path) not in str(caught.value)
    assert looking.pid is None
    await looking.close()


def test_attention_that_is_too_large_is_a_mean_and_then_nothing() -> None:
    weights = np.random.default_rng(0).random((2, 4, 8, 8), dtype=np.float32)
    whole = Explanation("x", "decoder", (), 0, attention=weights, notes=("before",))
    assert with_attention(whole, "heads", weights.size).attention is weights
    mean = with_attention(whole, "heads", weights.size - 1)
    np.testing.assert_allclose(mean.attention, weights.mean(1, keepdims=True))
    assert mean.notes == ["before", MEAN_ATTENTION]
    assert with_attention(whole, "mean", weights.size).notes == ["before"]
    for shown in ("heads", "mean"):
        nothing = with_attention(whole, shown, weights.size // 4 - 1)
        assert (nothing.attention.size, nothing.notes) == (0, ["before", ATTENTION_LEFT_OUT])
    assert with_attention(whole, "none", weights.size).notes == ["before"]


def test_access_is_that_of_answers(keyed: RunningServer) -> None:
    assert_error(keyed.post("/api/explain", {"model": MODEL, "prompt": "x"}), 401)
    response: httpx.Response = keyed.post(
        "/api/explain", {"model": MODEL, "prompt": "x"}, headers={"Origin": "https://evil.example"}
    )
    assert response.status_code in (401, 403)
