"""Chat beside a batch: how long the first token takes alone and beside a thousand lines, in turns, on one server.

    python -m bench.batches [--lines 4] [--rounds 4]

Starts `chatwright serve` with the default model on a home folder of its own. One JSON line; the ratio is what counts, as both
figures are taken in turns on the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.figures import report
from chatwright.settings import load_settings

TOKEN = "bench-operator-token-1234567890"
QUESTION = "{n}: Tell me something about the history of the city of Paris, its rivers and bridges, in a few words."
TASK = "{n}. Write a sentence about the number {n} and about how people in old times counted their sheep."
EACH_TURN = 4


@contextmanager
def served(lines: int) -> Iterator[httpx.Client]:
    """A client of a server that answers so many lines of batches at once."""
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ,
            "CHATWRIGHT_HOME": home,
            "CHATWRIGHT_MODELS_DIR": str(load_settings().models_dir),
            "CHATWRIGHT_ADMIN_TOKEN": TOKEN,
            "CHATWRIGHT_BATCH_LINES": str(lines),
        }
        server = subprocess.Popen([sys.executable, "-m", "chatwright", "serve", "--port", "0"], env=environment)
        try:
            note = Path(home) / "server.json"
            while not note.exists():
                time.sleep(0.1)
            headers = {"Authorization": f"Bearer {TOKEN}"}
            url = json.loads(note.read_text())["url"]
            with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=300) as http:
                while True:
                    try:
                        if http.get("/ready").status_code == 200:
                            break
                    except httpx.TransportError:
                        time.sleep(0.1)
                yield http
        finally:
            server.terminate()
            server.wait()


def first_token_s(http: httpx.Client, model: str, n: int) -> float:
    """From the request to the first chunk with text."""
    messages = [{"role": "user", "content": QUESTION.format(n=n)}]
    body = {"model": model, "messages": messages, "max_tokens": 8, "temperature": 0, "stream": True}
    start, first = time.monotonic(), 0.0
    with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if not first and '"content":"' in line and '"content":""' not in line:
                first = time.monotonic() - start
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    alone: list[float] = []
    beside: list[float] = []
    with served(arguments.lines) as http:
        model = http.get("/v1/models").json()["data"][0]["id"]
        numbers = iter(range(10_000))
        for _ in range(3):
            first_token_s(http, model, next(numbers))
        requests = [
            {"model": model, "max_tokens": 40, "messages": [{"role": "user", "content": TASK.format(n=n)}]}
            for n in range(1000)
        ]
        lines = [
            {"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions", "body": request}
            for n, request in enumerate(requests)
        ]
        text = "\n".join(map(json.dumps, lines)).encode()
        file = http.post("/v1/files", files={"file": text}, data={"purpose": "batch"}).json()
        wanted = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        for _ in range(arguments.rounds):
            alone += [first_token_s(http, model, next(numbers)) for _ in range(EACH_TURN)]
            batch = http.post("/v1/batches", json=wanted).json()
            path = f"/v1/batches/{batch['id']}"
            while http.get(path).json()["status"] == "validating":
                time.sleep(0.1)
            for _ in range(EACH_TURN):
                time.sleep(1)  # the batch has all its places again
                beside.append(first_token_s(http, model, next(numbers)))
            http.post(f"{path}/cancel")
            while http.get(path).json()["status"] == "cancelling":
                time.sleep(0.1)
    ratio = statistics.median(beside) / statistics.median(alone)
    report(
        "first token beside a batch, times that alone",
        round(ratio, 2),
        "",
        lines=arguments.lines,
        n=len(alone),
        alone_s=round(statistics.median(alone), 3),
        beside_s=round(statistics.median(beside), 3),
    )


if __name__ == "__main__":
    main()
