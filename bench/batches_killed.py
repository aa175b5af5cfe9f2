"""Kills a server (-9) in the middle of a batch, again and again, and counts what was lost or answered twice.

    python -m bench.batches_killed [--lines 1000 --kills 5 --seed 0 --model NAME]

A batch of greedy completions on a home folder of its own; after each kill the server is started again and goes on by itself. Then
every answer that was on the disk at a kill is looked for in the output file, unchanged. One JSON line; exit status 1 if one is
missing.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from os import environ
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from bench.figures import report
from chatwright.settings import load_settings

TOKEN = "bench-operator-token-1234567890"
PROMPT = "The number {n} in words, and what people in old times counted with it:"


@contextmanager
def serving(home: Path, model: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A server on this home folder and a client of it; what is left of it at the end is killed."""
    environment = {
        **environ,
        "CHATWRIGHT_HOME": str(home),
        "CHATWRIGHT_MODELS_DIR": str(load_settings().models_dir),
        "CHATWRIGHT_ADMIN_TOKEN": TOKEN,
    }
    note = home / "server.json"
    note.unlink(missing_ok=True)
    command = [sys.executable, "-m", "chatwright", "serve", *model, "--port", "0"]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        while not note.exists():
            if server.poll() is not None:
                raise SystemExit("the server did not start")
            time.sleep(0.05)
        url = json.loads(note.read_text())["url"]
        with httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False, timeout=300
        ) as http:
            while not _is_ready(http):
                time.sleep(0.1)
            yield server, http
    finally:
        server.kill()
        server.wait()


def _is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/ready").is_success
    except httpx.TransportError:
        return False


def finished(results: Path) -> dict[str, Any]:
    """What the disk holds: whole lines of the results, by their custom_id."""
    whole = results.read_bytes().rpartition(b"\n")[0].splitlines() if results.exists() else []
    return {item["custom_id"]: item for item in map(json.loads, whole)}


def submit(http: httpx.Client, n_lines: int) -> str:
    """The id of a batch of so many completions."""
    model = http.get("/v1/models").json()["data"][0]["id"]
    body = {"model": model, "max_tokens": 12, "temperature": 0}
    lines = [
        {
            "custom_id": str(n),
            "method": "POST",
            "url": "/v1/completions",
            "body": {**body, "prompt": PROMPT.format(n=n)},
        }
        for n in range(n_lines)
    ]
    text = "\n".join(map(json.dumps, lines)).encode()
    file = http.post("/v1/files", files={"file": text}, data={"purpose": "batch"}).json()
    wanted = {"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
    return str(http.post("/v1/batches", json=wanted).raise_for_status().json()["id"])


def measure(home: Path, options: argparse.Namespace) -> bool:
    """Whether nothing was lost."""
    model = [options.model] if options.model else []
    # In the middle: not before the first line, not after nine in ten.
    at = sorted(random.Random(options.seed).sample(range(1, options.lines * 9 // 10), options.kills))
    before: dict[str, Any] = {}
    batch, killed_at, changed = "", [], 0
    for n_lines in at:
        with serving(home, model) as (server, http):
            batch = batch or submit(http, options.lines)
            results = home / "batches" / batch / "results.jsonl"
            while len(finished(results)) < n_lines:
                time.sleep(0.02)
            server.kill()
            server.wait()
        found = finished(results)
        changed += sum(found.get(name) != item for name, item in before.items())
        before = found
        killed_at.append(len(found))
    with serving(home, model) as (_, http):
        while (done := http.get(f"/v1/batches/{batch}").json())["status"] not in (
            "completed",
            "failed",
            "expired",
            "cancelled",
        ):
            time.sleep(0.2)
        output = http.get(f"/v1/files/{done['output_file_id']}/content").text.splitlines()
    answers = {item["custom_id"]: item for item in map(json.loads, output)}
    changed += sum(answers.get(name) != item for name, item in before.items())
    counts: dict[str, int] = done["request_counts"]
    report(
        "finished lines lost or changed",
        changed,
        "",
        lines=options.lines,
        killed_at=killed_at,
        status=done["status"],
        output_lines=len(output),
        different=len(answers),
        **counts,
    )
    return changed == 0 and len(output) == len(answers) == counts["completed"] == int(options.lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="a model's name; the default model")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="chatwright-kills-") as home:
        sys.exit(not measure(Path(home), options))


if __name__ == "__main__":
    main()
