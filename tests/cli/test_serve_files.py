"""A server that is killed: no half file is listed or left behind, and a batch goes on behind the last answer on the disk."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.test_serve import read_until

Process = Callable[..., "subprocess.Popen[str]"]
TOKEN = "operator-token-1234567890"
PATIENCE_S = 90.0


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWRIGHT_ADMIN_TOKEN", TOKEN)
    monkeypatch.setenv("CHATWRIGHT_BATCH_LINES", "1")


def client(home: Path) -> httpx.Client:
    url = json.loads((home / "server.json").read_text())["url"]
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False, timeout=PATIENCE_S)


def started(process: Process, tiny: str) -> subprocess.Popen[str]:
    server = process("serve", tiny, "--port", "0")
    read_until(server, "Ctrl-C stops the server")
    return server


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def on_disk(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "files").rglob("*") if path.is_file() and not path.name.startswith("."))


def test_a_server_that_is_killed_in_an_upload_keeps_nothing_of_it(process: Process, tiny: str, home: Path) -> None:
    server = started(process, tiny)
    with client(home) as http:
        kept = http.post("/v1/files", files={"file": b"kept"}, data={"purpose": "user_data"}).json()
        upload = {"filename": "a", "purpose": "user_data", "bytes": 4, "mime_type": "text/plain"}
        upload = http.post("/v1/uploads", json=upload).json()
        part = http.post(f"/v1/uploads/{upload['id']}/parts", files={"data": b"part"}).json()

        def chunks() -> Any:
            yield b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            for _ in range(50):
                yield b"x" * 65_536
            wait_until(lambda: len(on_disk(home)) == 3)
            server.kill()
            server.wait()
            yield b"y"

        headers = {"Content-Type": "multipart/form-data; boundary=XX"}
        with pytest.raises(httpx.TransportError):
            http.post("/v1/files", content=chunks(), headers=headers)
    assert len(on_disk(home)) == 3
    started(process, tiny)
    with client(home) as http:
        assert [file["id"] for file in http.get("/v1/files").json()["data"]] == [kept["id"]]
        assert on_disk(home) == sorted([kept["id"], part["id"]])
        done = http.post(f"/v1/uploads/{upload['id']}/complete", json={"part_ids": [part["id"]]}).json()
        assert http.get(f"/v1/files/{done['file']['id']}/content").content == b"part"


@pytest.mark.slow
def test_a_server_that_is_killed_loses_no_finished_line(process: Process, tiny: str, home: Path) -> None:
    server = started(process, tiny)
    body = {"model": tiny, "prompt": "The", "max_tokens": 8, "temperature": 0}
    lines = [
        {"custom_id": f"line-{n}", "method": "POST", "url": "/v1/completions", "body": {**body, "seed": n}}
        for n in range(400)
    ]
    text = "\n".join(map(json.dumps, lines)).encode()
    with client(home) as http:
        file = http.post("/v1/files", files={"file": text}, data={"purpose": "batch"}).json()
        batch = http.post(
            "/v1/batches",
            json={"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"},
        ).json()
    results = home / "batches" / batch["id"] / "results.jsonl"
    wait_until(lambda: results.exists() and results.read_bytes().count(b"\n") >= 20)
    server.kill()
    server.wait()
    whole = results.read_bytes().rpartition(b"\n")[0].splitlines()
    before = {item["custom_id"]: item for item in map(json.loads, whole)}
    assert 20 <= len(before) < 400
    started(process, tiny)
    with client(home) as http:
        wait_until(lambda: http.get(f"/v1/batches/{batch['id']}").json()["status"] == "completed")
        done = http.get(f"/v1/batches/{batch['id']}").json()
        output = http.get(f"/v1/files/{done['output_file_id']}/content").text.splitlines()
    answers = {item["custom_id"]: item for item in map(json.loads, output)}
    assert len(output) == len(answers) == 400
    assert done["request_counts"] == {"total": 400, "completed": 400, "failed": 0}
    assert {name: answers[name] for name in before} == before, "none is lost, and none answered twice"
