"""serve and its engine processes: the server has no torch, engines crash alone, models share a memory limit, nobody is orphaned."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from chatwright.hub import ModelsFolder, pull
from tests.cli.conftest import Run
from tests.cli.served import PATIENCE_S, Serve, begin_stream, events_after, until
from tests.cli.served import served as served

# Each starts several processes of seconds; a busy machine makes tens of seconds of that.
pytestmark = pytest.mark.timeout(300)
# One of the tiny models is estimated at 0.4 GB, and takes 0.3 or less once it is loaded: two fit, three do not.
ROOM_FOR_TWO = "850MB"


@pytest.fixture
def three(home: Path, tiny_folder: Path) -> list[str]:
    """The names of three models."""
    models = ModelsFolder(home / "models")
    return [pull(str(tiny_folder), models, name=name).name for name in ("one", "two", "three")]


def test_the_server_has_no_torch_and_an_engine_that_is_killed_is_there_again(served: Serve, tiny: str) -> None:
    server = served(tiny)
    maps = Path(f"/proc/{server.process.pid}/maps")
    if maps.exists():
        assert "libtorch" not in maps.read_text()
        assert "libtorch" in Path(f"/proc/{server.engine.pid}/maps").read_text()
    assert server.complete(tiny).status_code == 200
    assert server.health()["engines"] == [{"model": tiny, "status": "ok"}]

    lines = begin_stream(server, tiny)
    server.engine.suspend()
    with ThreadPoolExecutor() as pool:
        whole = pool.submit(server.complete, tiny, 480)
        until(lambda: server.health()["running"] + server.health()["waiting"] == 2)
        server.engine.kill()
        *_, error, done = events_after(lines)
        assert done == "[DONE]"
        assert json.loads(error)["error"]["code"] == "engine_error"
        assert "killed in the middle of this answer, as systems do when memory runs out" in error
        assert whole.result().status_code == 500
        assert whole.result().json()["error"]["code"] == "engine_error"

    down = server.get("/health")
    assert down.status_code == 503
    assert down.json()["status"] == "engine_down"
    (engine,) = down.json()["engines"]
    assert "is being started again" in engine["problem"]
    assert server.get("/ready").status_code == 503
    assert server.get("/v1/models").status_code == 200
    # Who asks meanwhile waits for it.
    assert server.complete(tiny).status_code == 200
    # Within 10 s, in time that others on this machine have no part in.
    times = server.engine.cpu_times()
    assert times.user + times.system < 10
    assert server.get("/health").status_code == 200


def test_an_engine_that_keeps_crashing_is_given_up_and_the_others_go_on(served: Serve, three: list[str]) -> None:
    server = served("one", "two")
    loaded = server.engines()
    assert server.complete("two").status_code == 200
    (spared,) = set(server.engines()) - set(loaded)
    lines = begin_stream(server, "two")
    for kill in (signal.SIGKILL, signal.SIGKILL, signal.SIGABRT):
        until(lambda: server.states()["one"] == "ok")
        (victim,) = set(server.engines()) - {spared}
        victim.send_signal(kill)
        until(lambda: server.states()["one"] == "engine_down")
    until(lambda: "not started again" in server.health()["engines"][0]["problem"])
    assert server.get("/health").status_code == 503
    refused = server.complete("one")
    assert refused.status_code == 500
    assert "it ended 3 times within 60 s, the last time with signal 6 (SIGABRT)" in refused.json()["error"]["message"]
    # Nobody else noticed.
    assert json.loads(events_after(lines)[-2])["choices"][0]["finish_reason"] == "length"
    assert server.get("/ready").status_code == 200
    assert server.complete("two").status_code == 200


def test_a_killed_server_leaves_no_engine_behind(served: Serve, tiny: str) -> None:
    server = served(tiny)
    # A chat and a schema, so that the processes for templates and grammars are there too.
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "integer", "maximum": 9}}}
    body = {"model": tiny, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, "response_format": form}
    assert httpx.post(f"{server.url}/v1/chat/completions", json=body, trust_env=False, timeout=PATIENCE_S).is_success
    family = psutil.Process(server.process.pid).children(recursive=True)
    assert len(family) >= 3, "an engine, its grammars, the templates"
    lines = begin_stream(server, tiny)
    server.process.kill()
    server.process.communicate()
    until(
        lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in family), within_s=10
    )
    del lines


def test_signals_to_the_whole_group_reach_answers_only_through_the_server(served: Serve, tiny: str) -> None:
    """Ctrl-C in a terminal and a service manager's SIGTERM go to the engine too; answers end in peace all the same."""
    server = served(tiny)
    lines = begin_stream(server, tiny)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        server.engine.send_signal(number)
    server.process.send_signal(signal.SIGINT)
    assert json.loads(events_after(lines)[-2])["choices"][0]["finish_reason"] == "length"
    rest = server.process.communicate(timeout=PATIENCE_S)[1]
    assert server.process.returncode == 0, rest


def test_models_are_loaded_when_asked_for_and_the_least_recently_used_one_goes(served: Serve, three: list[str]) -> None:
    server = served(*three, "--memory-limit", ROOM_FOR_TWO)
    assert "two will be loaded when it is first used, and unloaded when others need its memory (850 MB" in server.said
    assert [model["id"] for model in server.get("/v1/models").json()["data"]] == three
    assert server.states() == {"one": "ok", "two": "unloaded", "three": "unloaded"}
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(server.complete, ["two"] * 4))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len(server.engines()) == 2
    assert server.complete("one").status_code == 200  # now two is the one least recently used
    assert server.complete("three").status_code == 200
    assert server.states() == {"one": "ok", "two": "unloaded", "three": "ok"}
    assert server.get("/health").status_code == 200
    assert len(server.engines()) == 2


def test_a_limit_that_no_model_fits_is_refused_at_the_start(command: Run, tiny: str) -> None:
    result = command("serve", tiny, "--port", "0", "--memory-limit", "100MB")
    assert result.code == 2
    assert "needs about" in result.err
    assert "memory_limit allows 100 MB" in result.err


def test_what_ends_loading_ends_the_command_with_its_sentence(command: Run, tiny: str, home: Path) -> None:
    result = command("serve", tiny, "--port", "0", "--device", "cuda:7")
    assert result.code == 2
    assert "The device cuda:7 is not there" in result.err
    weights = home / "models" / tiny / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    result = command("serve", tiny, "--port", "0")
    assert result.code == 1
    assert "model.safetensors" in result.err
