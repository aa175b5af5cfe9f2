"""`chatwright adapters`: adapters come and go while a server runs, survive the death of its engine, and disturb nobody."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatwright.cli.home import running_server
from tests.cli.conftest import Run
from tests.cli.served import PATIENCE_S, Serve, Served, begin_stream, events_after, until
from tests.cli.served import served as served
from tests.server.tiny import make_adapter

pytestmark = pytest.mark.timeout(300)
N_CLIENTS = 8
N_ROUNDS = 12


@pytest.fixture
def runs(tiny: str, tiny_folder: Path, home: Path) -> Path:
    """The folder of the runs, with three adapters of the tiny model; so does `tune --out` leave them."""
    for seed, name in enumerate(("shop", "law", "third")):
        make_adapter(tiny_folder, home / "runs" / name / "adapter", seed, tiny)
    return home / "runs"


def text(server: Served, model: str, max_tokens: int = 12) -> str:
    response = server.complete(model, max_tokens, temperature=0)
    assert response.status_code == 200, response.text
    found: str = response.json()["choices"][0]["text"]
    return found


def models(server: Served) -> list[str]:
    return [model["id"] for model in server.get("/v1/models").json()["data"]]


def test_adapters_are_loaded_listed_and_unloaded_while_the_server_runs(
    served: Serve, command: Run, tiny: str, runs: Path, home: Path, tmp_path: Path
) -> None:
    server = served(tiny)
    note = home / "server.json"
    token = json.loads(note.read_text())["admin_token"]
    assert f"Admin token, for you alone: {token}" in server.said
    assert stat.S_IMODE(note.stat().st_mode) == 0o600

    assert command("adapters", "load", "shop").code == 0
    plain, shop = text(server, tiny), text(server, "shop")
    assert plain != shop

    # One that lies elsewhere is copied: the server itself looks into its home folder only.
    shutil.copytree(runs / "law", tmp_path / "elsewhere")
    result = command("adapters", "load", f"mine={tmp_path / 'elsewhere'}", "--as", "lawyer", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out) == {
        "id": "lawyer",
        "object": "lora_adapter",
        "loaded": True,
        "base_model": tiny,
        "source": "mine",
    }
    assert (home / "adapters" / "mine" / "adapter_config.json").is_file()
    assert [path.name for path in (home / "adapters").iterdir()] == ["mine"]
    again = command("adapters", "load", f"mine={tmp_path / 'elsewhere'}")
    assert again.code == 1
    assert "An adapter called mine is there already" in again.err
    lawyer = text(server, "lawyer")
    assert models(server) == [tiny, "shop", "lawyer"]
    with ThreadPoolExecutor() as pool:
        assert (
            list(pool.map(lambda name: text(server, name), [tiny, "shop", "lawyer"] * 2)) == [plain, shop, lawyer] * 2
        )

    listed = command("adapters", "ls")
    rows = [line.split() for line in listed.out.splitlines()]
    assert rows == [
        ["ADAPTER", "STATE", "MODEL", "FOLDER"],
        ["shop", "loaded", tiny, "shop"],
        ["lawyer", "loaded", tiny, "mine"],
        ["law", "not", "loaded", "-", "law"],
        ["third", "not", "loaded", "-", "third"],
    ]
    assert [entry["id"] for entry in json.loads(command("adapters", "ls", "--json", "--url", server.url).out)] == [
        "shop",
        "lawyer",
        "law",
        "third",
    ]
    # Long enough for whatever a machine computes with; whoever hangs up ends it.
    body = {"model": "shop", "prompt": "The", "max_tokens": 480, "n": 100, "stream": True, "logit_bias": {"2": -100}}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, trust_env=False, timeout=PATIENCE_S) as stream:
        lines = stream.iter_lines()  # dropped, it would hang up
        assert next(lines).startswith("data: {")
        assert command("adapters", "unload", "shop").code == 0
        assert server.complete("shop").status_code == 404
        assert next(line for line in lines if line).startswith("data: {")  # it goes on
    assert models(server) == [tiny, "lawyer"]
    gone = server.complete("shop")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "model_not_found")


def test_adapters_survive_the_death_of_their_engine(
    served: Serve, command: Run, tiny: str, runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "third", tmp_path / "third")
    server = served(tiny, "--adapter", f"given={tmp_path / 'third'}")
    for name in ("shop", "law"):
        assert command("adapters", "load", name).code == 0
    before = {name: text(server, name) for name in (tiny, "given", "shop", "law")}
    assert len(set(before.values())) == 4
    assert command("adapters", "unload", "law").code == 0

    lines = begin_stream(server, "shop")
    server.engine.kill()
    error, done = events_after(lines)[-2:]
    assert done == "[DONE]"
    assert json.loads(error)["error"]["code"] == "engine_error"
    assert {name: text(server, name) for name in (tiny, "given", "shop")} == {
        name: before[name] for name in (tiny, "given", "shop")
    }
    assert server.complete("law").status_code == 404

    # The files of one are spoilt meanwhile: it is lost, and its model and the others are not.
    (runs / "shop" / "adapter" / "adapter_model.safetensors").write_bytes(b"spoilt")
    assert command("adapters", "load", "law").code == 0
    server.engine.kill()
    until(lambda: server.states()[tiny] == "engine_down")
    assert text(server, tiny) == before[tiny]
    assert text(server, "law") == before["law"]
    assert text(server, "given") == before["given"]
    lost = server.complete("shop")
    assert lost.status_code == 500
    assert "The adapter shop could not be loaded again" in lost.json()["error"]["message"]
    assert command("adapters", "unload", "shop").code == 0
    assert server.complete("shop").status_code == 404
    assert models(server) == [tiny, "given", "law"]


def test_loading_and_unloading_changes_nobodys_tokens(served: Serve, tiny: str, runs: Path, home: Path) -> None:
    """Eight clients stream from two adapters while a third, and one of the two, come and go as fast as they can."""
    server = served(tiny)
    token = running_server(home).admin_token

    def change(verb: str, name: str) -> int:
        return httpx.post(
            f"{server.url}/v1/{verb}_lora_adapter",
            json={"lora_name": name},
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=PATIENCE_S,
        ).status_code

    for name in ("shop", "law", "third"):
        assert change("load", name) == 200
    alone = {name: text(server, name, 60) for name in ("shop", "law", "third")}
    assert len(set(alone.values())) == 3
    done = threading.Event()
    happened: Counter[tuple[str, str]] = Counter()

    def come_and_go(name: str) -> None:
        while not done.is_set():
            assert change("unload", name) == 200
            happened[name, "unloaded"] += 1
            assert change("load", name) == 200
            time.sleep(0.02)  # or nobody would ever meet it

    def enough() -> bool:
        return min(happened["third", "unloaded"], happened["law", "unloaded"], happened["law", "answered"]) > 5

    def chat(client: int) -> int:
        name = ("shop", "law")[client % 2]
        body = {"model": name, "prompt": "The", "max_tokens": 60, "temperature": 0, "logit_bias": {"2": -100}}
        n_answers, deadline = 0, time.monotonic() + 2 * PATIENCE_S
        with httpx.Client(base_url=server.url, trust_env=False, timeout=PATIENCE_S) as http:
            while n_answers < N_ROUNDS or not enough():
                assert time.monotonic() < deadline, happened
                answer = http.post("/v1/completions", json={**body, "stream": True})
                if answer.status_code == 404:  # between unloading and loading; never half-way
                    assert name == "law"
                    continue
                events = [line.removeprefix("data: ") for line in answer.text.split("\n") if line]
                assert events[-1] == "[DONE]"
                happened[name, "answered"] += 1
                parsed = [json.loads(event) for event in events[:-1]]
                assert not any("error" in event for event in parsed), parsed[-1]
                assert "".join(event["choices"][0]["text"] for event in parsed) == alone[name]
                n_answers += 1
                time.sleep(0.1)  # or there would never be a moment in which nobody uses it
        return n_answers

    with ThreadPoolExecutor(N_CLIENTS + 2) as pool:
        changers = [pool.submit(come_and_go, name) for name in ("third", "law")]
        try:
            assert all(n >= N_ROUNDS for n in pool.map(chat, range(N_CLIENTS)))
        finally:
            done.set()
        for changer in changers:
            changer.result()
    assert {name: text(server, name, 60) for name in alone} == alone
    assert server.get("/health").status_code == 200


def test_the_token_can_be_chosen_and_is_then_not_printed(
    served: Serve, command: Run, tiny: str, runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CHATWRIGHT_ADMIN_TOKEN", "a-token-of-my-own-choice")
    server = served(tiny)
    assert "a-token-of-my-own-choice" not in server.said
    assert "Admin token" not in server.said
    assert "a-token-of-my-own-choice" not in command("config").out
    monkeypatch.setenv("CHATWRIGHT_HOME", str(tmp_path / "another home"))
    assert command("adapters", "load", "shop", "--url", server.url).code == 0
    assert models(server) == [tiny, "shop"]
    monkeypatch.setenv("CHATWRIGHT_ADMIN_TOKEN", "one-that-is-not-the-servers")
    result = command("adapters", "ls", "--url", server.url)
    assert result.code == 1
    assert "does not take this admin token" in result.err
    monkeypatch.delenv("CHATWRIGHT_ADMIN_TOKEN")
    result = command("adapters", "ls", "--url", server.url)
    assert result.code == 2
    assert "needs its admin token" in result.err


@pytest.fixture
def stranger() -> Iterator[tuple[str, list[str | None]]]:
    """A web server that is no Chatwright, and what it was sent as Authorization."""
    heard: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers["Authorization"])
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"hi")

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", heard
        http.shutdown()
        thread.join()


def test_what_is_no_server_is_told_so_and_gets_no_token(
    command: Run, home: Path, monkeypatch: pytest.MonkeyPatch, stranger: tuple[str, list[str | None]]
) -> None:
    none = command("adapters", "ls")
    assert none.code == 1
    assert "No server serves the home folder" in none.err
    home.mkdir(mode=0o700)
    note = {"pid": os.getpid(), "url": "http://127.0.0.1:1", "admin_token": "secret-of-the-server"}
    (home / "server.json").write_text(json.dumps(note))
    dead = command("adapters", "ls")
    assert dead.code == 1
    assert "http://127.0.0.1:1 cannot be reached" in dead.err
    url, heard = stranger
    assert command("adapters", "ls", "--url", url).code == 2
    assert heard == []
    monkeypatch.setenv("CHATWRIGHT_ADMIN_TOKEN", "a-token-of-my-own-choice")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    result = command("adapters", "ls", "--url", url)
    assert result.code == 1
    assert "is no Chatwright server: it answered with status 200" in result.err
    for wrong in ("127.0.0.1:8000", "ftp://x", "http://", "http://user@host", "http://x:99999", "http://[", "x"):
        result = command("adapters", "ls", "--url", wrong)
        assert result.code == 2, wrong
        assert "is not the address of a server" in result.err


def test_sentences_of_the_verb_are_chinese_too(
    command: Run, served: Serve, tiny: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(tiny)
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    assert "shop 已加载" in command("adapters", "load", "shop").err
    refused = command("adapters", "load", "shop").err
    assert "服务器拒绝了请求：已有名为 shop 的模型或适配器在提供服务" in refused
    assert "适配器 absent 没有加载" in command("adapters", "unload", "absent").err
    assert "已卸载" in command("adapters", "unload", "shop").err


@pytest.mark.parametrize("name", ["../x", "a/../b", "/tmp/x", ""])
def test_what_is_no_name_is_refused_before_it_is_copied(
    served: Serve, command: Run, tiny: str, runs: Path, home: Path, name: str
) -> None:
    served(tiny)
    result = command("adapters", "load", f"{name}={runs / 'shop'}")
    assert result.code == 2
    assert "is not a name" in result.err
    assert not (home / "adapters").exists()
