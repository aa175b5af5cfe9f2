"""The server is killed (-9) while a job trains: the worker lives on, and the next server takes it up, or goes on where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from chatwright.jobs.folder import JobsFolder
from tests.jobs.making import CATS, lines
from tests.server.harness import wait_until
from tests.serving import free_port

TOKEN = "operator-token-1234567890"
# Workers stand behind everything else that the machine does.
PATIENCE_S = 250.0

pytestmark = pytest.mark.timeout(900)


@contextmanager
def serving(model: Path, home: Path) -> Iterator[tuple[subprocess.Popen[bytes], openai.OpenAI]]:
    """`chatwright serve` as a process of its own, in this home, with its client."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CHATWRIGHT_", "OPENAI_"))}
    with (home.parent / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "chatwright", "serve", str(model), "--port", str(port)],
            env=environment | {"CHATWRIGHT_HOME": str(home), "CHATWRIGHT_ADMIN_TOKEN": TOKEN, "LANG": "C.UTF-8"},
            cwd=home.parent,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def is_ready() -> bool:
        assert process.poll() is None, (home.parent / "log").read_text()
        try:
            return httpx.get(f"http://127.0.0.1:{port}/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(is_ready, PATIENCE_S)
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=TOKEN, max_retries=0) as client:
            yield process, client
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_a_server_that_is_killed_finds_its_jobs_again(model_folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    jobs = JobsFolder(home)
    with serving(model_folder, home) as (process, client):
        file = client.files.create(file=("x.jsonl", lines(*CATS, *CATS)), purpose="fine-tune")
        made = [
            client.fine_tuning.jobs.create(
                model=model_folder.name, training_file=file.id, hyperparameters={"n_epochs": 100, "batch_size": 1}
            )
            for _ in range(2)
        ]
        folder = jobs.job(made[0].id)
        wait_until(lambda: bool(folder.checkpoint_steps()), PATIENCE_S)
        worker = folder.worker()
        assert worker is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
    step = folder.checkpoint_steps()[-1]
    wait_until(lambda: folder.checkpoint_steps()[-1] > step, PATIENCE_S)
    assert worker.is_running(), "it trains on without the server"
    with serving(model_folder, home) as (process, client):
        job = client.fine_tuning.jobs.retrieve(made[0].id)
        assert job.status == "running"
        found = folder.worker()
        assert found is not None
        assert found.pid == worker.pid, "no second one was started"
        assert client.fine_tuning.jobs.retrieve(made[1].id).status in ("validating_files", "queued")
        # Both die now: what is left is the folder.
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
        worker.kill()
    wait_until(lambda: not worker.is_running(), PATIENCE_S)
    step = folder.checkpoint_steps()[-1]
    with serving(model_folder, home) as (_, client):
        wait_until(
            lambda: any(
                f"goes on from step {step}" in e.message for e in client.fine_tuning.jobs.list_events(made[0].id)
            ),
            PATIENCE_S,
        )
        messages = [event.message for event in client.fine_tuning.jobs.list_events(made[0].id, limit=100)]
        numbers = [int(text.split()[1].partition("/")[0]) for text in messages if "training loss" in text]
        assert numbers == sorted(set(numbers), reverse=True), "no step is told twice"
        for job in made:
            assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
        wait_until(lambda: folder.worker() is None, PATIENCE_S)
