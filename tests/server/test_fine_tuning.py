"""Training jobs with the official clients: from the upload to the answers of what was trained, and everything that may go wrong."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from chatwright.jobs import children
from chatwright.jobs.folder import JobsFolder
from chatwright.model.adapter import open_adapter
from chatwright.store.accounts import users
from chatwright.store.actor import OPERATOR
from chatwright.store.database import Database
from chatwright.store.migrate import upgrade
from chatwright.store.url import sqlite_url
from tests.jobs.making import CATS, DOGS, PAIRS, lines
from tests.server.conftest import KEY, StartServer
from tests.server.harness import MODEL, RunningServer, assert_error, events_of, wait_until
from tests.server.people import ADMIN_TOKEN, SERVER_KEY, People, bearer, browser, settle
from tests.store.people import quick_accounts

OLD_CLIENT = Path(__file__).parents[2] / ".venv" / "openai-0.28"
# Workers stand behind everything else that the machine does.
PATIENCE_S = 250.0
ENDED = ("succeeded", "failed", "cancelled")

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return settle(tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="module")
def shared(start: StartServer, people: People) -> RunningServer:
    """A server with accounts that trains one model at a time."""
    return start(
        accounts=quick_accounts(Database(people.url)),
        api_key=SERVER_KEY,
        admin_token=ADMIN_TOKEN,
        organization="acme",
        graceful_timeout_s=20.0,
    )


def client_of(server: RunningServer, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60)


@pytest.fixture
def client(shared: RunningServer, people: People) -> Iterator[openai.OpenAI]:
    """The official client of the member."""
    with client_of(shared, people.keys["full key"]) as client:
        yield client
        for job in client.fine_tuning.jobs.list():
            if job.status not in ENDED:
                client.fine_tuning.jobs.cancel(job.id)
        wait_until(lambda: not shared.app.state.server.jobs.supervisor._children, PATIENCE_S)


@pytest.fixture
def other(shared: RunningServer, people: People) -> Iterator[openai.OpenAI]:
    with client_of(shared, people.keys["full key of other"]) as client:
        yield client


@pytest.fixture
def http(shared: RunningServer, people: People) -> Iterator[httpx.Client]:
    with shared.http(headers=bearer(people.keys["full key"])) as http:
        yield http


def upload(client: openai.OpenAI, content: Any = CATS, purpose: Any = "fine-tune") -> str:
    data = content if isinstance(content, bytes) else lines(*content)
    return client.files.create(file=("x.jsonl", data), purpose=purpose).id


def wait_for(client: openai.OpenAI, job_id: str, *statuses: str) -> FineTuningJob:
    found: list[FineTuningJob] = []

    def is_there() -> bool:
        found.append(client.fine_tuning.jobs.retrieve(job_id))
        assert found[-1].status in statuses or found[-1].status not in ENDED, found[-1]
        return found[-1].status in statuses

    wait_until(is_there, PATIENCE_S)
    return found[-1]


def said(client: openai.OpenAI, job_id: str) -> list[str]:
    return [event.message for event in client.fine_tuning.jobs.list_events(job_id, limit=100)][::-1]


def ask(client: openai.OpenAI, model: str, question: str = "The cat 3?") -> str:
    completion = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=40
    )
    return completion.choices[0].message.content or ""


def jobs_folder(server: RunningServer) -> JobsFolder:
    return JobsFolder(server.app.state.server.settings.home)


@pytest.mark.slow
def test_from_the_upload_to_the_answers_of_what_was_trained(
    client: openai.OpenAI, other: openai.OpenAI, http: httpx.Client, shared: RunningServer, people: People
) -> None:
    answer = "The cat sat on the mat."
    before = ask(client, MODEL)
    assert before != answer
    training, validation = upload(client), upload(client, CATS[:2])
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=training,
        validation_file=validation,
        suffix="Cat talk",
        seed=5,
        metadata={"für": "猫"},
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 15, "learning_rate_multiplier": 8, "batch_size": "auto"}},
        },
    )
    assert job.status == "validating_files"
    assert (job.fine_tuned_model, job.finished_at, job.trained_tokens, job.result_files) == (None, None, None, [])
    assert job.hyperparameters.batch_size == "auto"
    client.files.delete(training)  # the job has what it needs
    done = wait_for(client, job.id, "succeeded")
    FineTuningJob.model_validate(http.get(f"/v1/fine_tuning/jobs/{job.id}").json(), strict=True)
    assert done.fine_tuned_model is not None
    assert done.fine_tuned_model.startswith(f"ft:{MODEL}:acme:Cat-talk:")
    assert (done.seed, done.metadata, done.model, done.organization_id) == (5, {"für": "猫"}, MODEL, "org-acme")
    assert done.method is not None
    assert done.method.supervised is not None
    numbers = done.hyperparameters
    assert done.method.supervised.hyperparameters == numbers or numbers.n_epochs == 15
    assert (numbers.n_epochs, numbers.batch_size, numbers.learning_rate_multiplier) == (15, 1, 8.0)
    assert (done.trained_tokens or 0) > 100
    assert done.finished_at is not None
    assert done.finished_at >= done.created_at

    events = list(client.fine_tuning.jobs.list_events(job.id, limit=7))
    assert len({event.id for event in events}) == len(events) > 15, "every page once"
    for raw in http.get(f"/v1/fine_tuning/jobs/{job.id}/events?limit=100").json()["data"]:
        FineTuningJobEvent.model_validate(raw, strict=True)
    messages = said(client, job.id)
    for wanted in (
        "Created fine-tuning job",
        "Files validated",
        "Fine-tuning job started",
        "Step 1/",
        "validation loss",
    ):
        assert any(wanted in message for message in messages), wanted
    assert messages[-2:] == [
        f"New fine-tuned model created: {done.fine_tuned_model}",
        "The job has successfully completed.",
    ]
    streamed = events_of(http.get(f"/v1/fine_tuning/jobs/{job.id}/events?stream=true").text)
    assert [event["message"] for event in streamed] == [event.message for event in reversed(events)], (
        "the stream is the list"
    )

    table = client.files.retrieve(done.result_files[0])
    FileObject.model_validate(table.to_dict())
    assert table.purpose == "fine-tune-results"
    assert client.files.content(table.id).text.startswith("step,train_loss,valid_loss\n1,")

    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=2))
    assert 2 <= len(checkpoints) <= 4
    assert checkpoints[0].step_number > checkpoints[-1].step_number
    FineTuningJobCheckpoint.model_validate(checkpoints[0].to_dict())
    assert checkpoints[-1].metrics.train_loss is not None

    assert ask(client, done.fine_tuned_model) == answer
    assert ask(client, MODEL) == before, "the base is as it was"
    for checkpoint in checkpoints:
        assert checkpoint.fine_tuned_model_checkpoint == f"{done.fine_tuned_model}:ckpt-step-{checkpoint.step_number}"
        assert ask(client, checkpoint.fine_tuned_model_checkpoint) != before
    completion = client.completions.create(model=done.fine_tuned_model, prompt="The cat", max_tokens=3, temperature=0)
    assert completion.model == done.fine_tuned_model

    listed = {model.id: model for model in client.models.list()}
    assert listed[done.fine_tuned_model].owned_by == "acme"
    assert listed[done.fine_tuned_model].to_dict()["parent"] == MODEL
    assert client.models.retrieve(done.fine_tuned_model).id == done.fine_tuned_model
    assert client.models.retrieve(checkpoints[0].fine_tuned_model_checkpoint).created > 0
    assert [each.id for each in client.fine_tuning.jobs.list(metadata={"für": "猫"})] == [job.id]
    assert list(client.fine_tuning.jobs.list(metadata={"für": "狗"})) == []

    # Nobody else has any of it; administrators see that it is there.
    names = [done.fine_tuned_model, checkpoints[0].fine_tuned_model_checkpoint]
    for name in names:
        for ask_for in (
            lambda name=name: ask(other, name),
            lambda name=name: other.models.retrieve(name),
            lambda name=name: other.models.delete(name),
            lambda name=name: other.fine_tuning.jobs.create(model=name, training_file=upload(other)),
        ):
            with pytest.raises(openai.NotFoundError):
                ask_for()
    for path in ("", "/events", "/events?stream=true", "/checkpoints"):
        with shared.http(headers=bearer(people.keys["full key of other"])) as stranger:
            assert_error(stranger.get(f"/v1/fine_tuning/jobs/{job.id}{path}"), 404)
    for action in (
        other.fine_tuning.jobs.cancel,
        other.fine_tuning.jobs.pause,
        other.fine_tuning.jobs.resume,
        other.files.retrieve,
    ):
        with pytest.raises(openai.NotFoundError):
            action(job.id)
    assert done.fine_tuned_model not in [model.id for model in other.models.list()]
    with browser(shared, "admin") as admin:
        assert done.fine_tuned_model in [model["id"] for model in admin.get("/v1/models").json()["data"]]
        body = {"model": done.fine_tuned_model, "messages": [{"role": "user", "content": "x"}]}
        assert_error(admin.post("/v1/chat/completions", json=body), 404, code="model_not_found")
        assert_error(admin.delete(f"/v1/models/{done.fine_tuned_model}"), 404)
    with shared.http(headers=bearer(SERVER_KEY)) as anybody:
        assert done.fine_tuned_model not in anybody.get("/v1/models").text
        assert_error(anybody.post("/v1/chat/completions", json=body), 404)

    # It goes on learning: the parent may go meanwhile.
    more = client.fine_tuning.jobs.create(
        model=done.fine_tuned_model, training_file=upload(client, DOGS), hyperparameters={"n_epochs": 1}
    )
    assert more.model == done.fine_tuned_model

    folder = jobs_folder(shared).job(job.id)
    assert folder.adapter.is_dir()
    assert not (folder.path / "training.jsonl").exists(), "what is not needed any more is not kept"
    assert client.models.delete(done.fine_tuned_model).deleted
    assert not folder.path.exists()
    for name in names:
        with pytest.raises(openai.NotFoundError):
            ask(client, name)
        with pytest.raises(openai.NotFoundError):
            client.models.delete(name)
    assert done.fine_tuned_model not in [model.id for model in client.models.list()]
    assert client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model == done.fine_tuned_model
    grown = wait_for(client, more.id, "succeeded")
    assert grown.fine_tuned_model is not None
    assert ask(client, grown.fine_tuned_model) != before
    client.models.delete(grown.fine_tuned_model)


@pytest.mark.slow
def test_preferences_are_learned_too(client: openai.OpenAI, http: httpx.Client) -> None:
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=upload(client, PAIRS),
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": "auto"}}},
    )
    done = wait_for(client, job.id, "succeeded")
    assert done.method is not None
    assert done.method.dpo is not None
    assert done.method.dpo.hyperparameters is not None
    assert (done.method.dpo.hyperparameters.beta, done.method.dpo.hyperparameters.n_epochs) == (0.2, 1)
    FineTuningJob.model_validate(http.get(f"/v1/fine_tuning/jobs/{job.id}").json(), strict=True)
    assert done.fine_tuned_model is not None
    assert ask(client, done.fine_tuned_model)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (lines(CATS[0]) + b"{broken\n" + lines(CATS[1]), "Line 2"),
        (lines(CATS[0], CATS[1], {"messages": [{"role": "robot", "content": "x"}]}), "Line 3"),
        (b"\n\n", "no examples"),
        (b"", "no examples"),
        (lines(*PAIRS), "Line 1"),
    ],
)
def test_a_bad_file_fails_its_job_and_nothing_else(client: openai.OpenAI, content: bytes, line: str) -> None:
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=upload(client, content))
    failed = wait_for(client, job.id, "failed")
    assert failed.error is not None
    assert (failed.error.code, failed.error.param) == ("invalid_training_file", "training_file")
    assert line in failed.error.message
    assert said(client, job.id)[-1] == f"The job has failed: {failed.error.message}"
    assert (failed.fine_tuned_model, failed.result_files) == (None, [])
    assert ask(client, MODEL)


def test_what_can_not_be_made(client: openai.OpenAI, other: openai.OpenAI, http: httpx.Client) -> None:
    good, foreign = upload(client), upload(other)
    n_before = len(list(client.fine_tuning.jobs.list()))
    for change, status, param in (
        ({"model": "no-such-model"}, 404, "model"),
        ({"model": "ft:tiny:acme::AbCdEf12"}, 404, "model"),
        ({"model": f"ft:{MODEL}:acme::x:ckpt-step-1"}, 404, "model"),
        ({"model": ""}, 400, "model"),
        ({"model": None}, 400, "model"),
        ({"model": "../../etc/passwd"}, 404, "model"),
        ({"training_file": "file-nothing"}, 404, "training_file"),
        ({"training_file": foreign}, 404, "training_file"),
        ({"training_file": "../x"}, 404, "training_file"),
        ({"training_file": upload(client, purpose="user_data")}, 400, "training_file"),
        ({"validation_file": foreign}, 404, "validation_file"),
        ({"validation_file": upload(client, purpose="batch")}, 400, "validation_file"),
        ({"suffix": "x" * 65}, 400, "suffix"),
        ({"seed": -1}, 400, "seed"),
        ({"seed": 2**31}, 400, "seed"),
        ({"seed": 1.5}, 400, "seed"),
        ({"metadata": {"a": 1}}, 400, "metadata"),
        ({"metadata": {str(n): "x" for n in range(17)}}, 400, "metadata"),
        ({"metadata": {"a": "x" * 513}}, 400, "metadata"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, 400, "integrations"),
        ({"method": {"type": "reinforcement"}}, 400, "method"),
        ({"method": {"type": "magic"}}, 400, "method.type"),
        ({"hyperparameters": {"n_epochs": 0}}, 400, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": "many"}}, 400, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"batch_size": 257}}, 400, "hyperparameters.batch_size"),
        ({"hyperparameters": {"learning_rate_multiplier": 0}}, 400, "hyperparameters.learning_rate_multiplier"),
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 3}}}}, 400, "method.dpo.hyperparameters.beta"),
    ):
        response = http.post("/v1/fine_tuning/jobs", json={"model": MODEL, "training_file": good} | change)
        assert_error(response, status, param=param)
    assert_error(http.post("/v1/fine_tuning/jobs", content=b"{"), 415)
    for path in ("?limit=0", "?limit=101", "?limit=x", "?after=ftjob-x", "/x", "/ftjob-1/events", "/%00/events"):
        assert http.get(f"/v1/fine_tuning/jobs{path}").status_code in (400, 404), path
    assert len(list(client.fine_tuning.jobs.list())) == n_before
    assert_error(http.delete(f"/v1/models/{MODEL}"), 403)
    assert "nothing" in assert_error(http.delete("/v1/models/nothing"), 404, "model_not_found")


def test_an_alias_stands_for_the_model_that_is_trained(client: openai.OpenAI) -> None:
    job = client.fine_tuning.jobs.create(model="gpt-3.5-turbo", training_file=upload(client))
    assert job.model == MODEL
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    for action in (client.fine_tuning.jobs.cancel, client.fine_tuning.jobs.pause, client.fine_tuning.jobs.resume):
        with pytest.raises(openai.BadRequestError) as error:
            action(job.id)
        assert error.value.code == "invalid_job_state"


@pytest.mark.slow
def test_the_queue_and_what_comes_in_between(client: openai.OpenAI, shared: RunningServer) -> None:
    """One at a time, in order; paused and gone on with; cancelled while it saves."""
    numbers: Any = {"n_epochs": 100, "batch_size": 1}
    first, second = (
        client.fine_tuning.jobs.create(model=MODEL, training_file=upload(client), hyperparameters=numbers)
        for _ in range(2)
    )
    wait_for(client, first.id, "running")
    wait_for(client, second.id, "queued")
    wait_until(lambda: len(client.fine_tuning.jobs.checkpoints.list(first.id).data) > 0, PATIENCE_S)
    # A checkpoint is seen in its folder; the estimate comes when the job's journal is read the next time.
    wait_until(lambda: client.fine_tuning.jobs.retrieve(first.id).estimated_finish is not None, PATIENCE_S)
    running = client.fine_tuning.jobs.retrieve(first.id)
    assert (running.hyperparameters.n_epochs, running.hyperparameters.batch_size) == (100, 1)
    folder = jobs_folder(shared).job(first.id)
    worker = folder.worker()
    assert worker is not None
    # A checkpoint answers while its job goes on.
    name = client.fine_tuning.jobs.checkpoints.list(first.id).data[0].fine_tuned_model_checkpoint
    assert ask(client, name)
    assert client.fine_tuning.jobs.pause(first.id).status == "paused"
    wait_for(client, second.id, "running")
    assert folder.worker() is None, "there is one at a time"
    step = folder.checkpoint_steps()[-1]
    assert client.fine_tuning.jobs.resume(first.id).status == "queued"
    # Cancelled: it may be writing a checkpoint at this moment.
    assert client.fine_tuning.jobs.cancel(second.id).status == "cancelled"
    wait_for(client, first.id, "running")
    wait_until(lambda: any(f"goes on from step {step}" in message for message in said(client, first.id)), PATIENCE_S)
    cancelled = client.fine_tuning.jobs.retrieve(second.id)
    assert (cancelled.status, cancelled.fine_tuned_model, cancelled.error) == ("cancelled", None, None)
    assert not (jobs_folder(shared).job(second.id).path / "training.jsonl").exists()
    # Killed by somebody else: it goes on, and says so.
    worker = folder.worker()
    assert worker is not None
    worker.kill()
    wait_until(lambda: any("ended early" in message for message in said(client, first.id)), PATIENCE_S)
    wait_for(client, first.id, "running")
    assert client.fine_tuning.jobs.cancel(first.id).status == "cancelled"
    wait_until(lambda: folder.worker() is None, PATIENCE_S)
    # What it has saved stays, and can be deleted too.
    kept = client.fine_tuning.jobs.checkpoints.list(first.id).data[0].fine_tuned_model_checkpoint
    assert ask(client, kept)
    assert client.models.delete(kept).deleted
    with pytest.raises(openai.NotFoundError):
        ask(client, kept)


STOP_WHILE_IT_SAVES = """
import pathlib, re, time
here, rename = pathlib.Path({folder!r}), pathlib.Path.rename

def held_up(self, target):
    # The second checkpoint is whole, under its temporary name.
    if re.fullmatch(r"step-\\d+", pathlib.Path(target).name):
        n = len(list(here.glob("saved-*")))
        (here / f"saved-{{n}}").touch()
        while n == 1 and not (here / "go").exists():
            time.sleep(0.02)
    return rename(self, target)

pathlib.Path.rename = held_up
"""


@pytest.mark.parametrize("finishes", [True, False])
@pytest.mark.slow
def test_cancelled_exactly_while_it_saves(
    client: openai.OpenAI, shared: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finishes: bool
) -> None:
    """Whether it may finish saving or is killed in the middle: what has a name is whole, and the next job has its turn."""
    (tmp_path / "sitecustomize.py").write_text(STOP_WHILE_IT_SAVES.format(folder=str(tmp_path)))
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))
        job = client.fine_tuning.jobs.create(
            model=MODEL, training_file=upload(client), hyperparameters={"n_epochs": 100, "batch_size": 1}
        )
        wait_until((tmp_path / "saved-1").exists, PATIENCE_S)
    folder = jobs_folder(shared).job(job.id)
    assert len(folder.checkpoint_steps()) == 1
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    if finishes:
        (tmp_path / "go").touch()
    wait_until(lambda: not shared.app.state.server.jobs.supervisor.works_at(job.id), PATIENCE_S)
    assert folder.worker() is None
    steps = folder.checkpoint_steps()
    assert len(steps) >= 2 if finishes else len(steps) == 1
    assert all(open_adapter(folder.checkpoint(step)).factors for step in steps)
    cancelled = client.fine_tuning.jobs.retrieve(job.id)
    assert (cancelled.status, cancelled.fine_tuned_model, cancelled.error, cancelled.result_files) == (
        "cancelled",
        None,
        None,
        [],
    )
    assert not (folder.path / "training.jsonl").exists()
    for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id):
        assert ask(client, checkpoint.fine_tuned_model_checkpoint)
    after = client.fine_tuning.jobs.create(
        model=MODEL, training_file=upload(client), hyperparameters={"n_epochs": 1, "batch_size": 8}
    )
    wait_for(client, after.id, "succeeded")


def test_a_worker_that_only_dies_is_given_up(
    client: openai.OpenAI, shared: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children.sys, "executable", "/bin/false")
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=upload(client))
    failed = wait_for(client, job.id, "failed")
    assert failed.error is not None
    assert failed.error.code == "worker_died"
    assert "3 times" in failed.error.message


def test_a_user_who_is_removed_takes_their_jobs_along(start: StartServer, tmp_path: Path) -> None:
    people = settle(tmp_path)
    server = start(accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN)
    with client_of(server, people.keys["full key"]) as client:
        job = client.fine_tuning.jobs.create(
            model=MODEL, training_file=upload(client), hyperparameters={"n_epochs": 100, "batch_size": 1}
        )
        wait_for(client, job.id, "running")
        folder = jobs_folder(server).job(job.id)
        wait_until(lambda: folder.worker() is not None, PATIENCE_S)
        worker = folder.worker()
        assert worker is not None

        async def suspend(accounts: Any) -> None:
            async with accounts.database.write() as session:
                await users.suspend(session, OPERATOR, people.ids["member"])

        async def remove(accounts: Any) -> None:
            async with accounts.database.write() as session:
                await users.remove_user(session, OPERATOR, people.ids["member"])

        people.do(suspend)
        wait_until(lambda: not worker.is_running() or worker.status() == "zombie", PATIENCE_S)
        assert folder.path.exists(), "only suspended"
        people.do(remove)
    server.stop()
    again = start(accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN)
    wait_until(lambda: not folder.path.exists(), PATIENCE_S)
    again.stop()


@pytest.mark.slow
def test_a_server_that_stops_goes_on_later(start: StartServer, tmp_path: Path) -> None:
    people = settle(tmp_path)
    settings: dict[str, Any] = {"admin_token": ADMIN_TOKEN, "graceful_timeout_s": 30.0}
    server = start(accounts=quick_accounts(Database(people.url)), **settings)
    with client_of(server, people.keys["full key"]) as client:
        job = client.fine_tuning.jobs.create(
            model=MODEL, training_file=upload(client), hyperparameters={"n_epochs": 30, "batch_size": 1}
        )
        wait_until(lambda: len(client.fine_tuning.jobs.checkpoints.list(job.id).data) > 0, PATIENCE_S)
    folder = jobs_folder(server).job(job.id)
    server.stop()
    assert folder.worker() is None, "Ctrl-C stops everything"
    server = start(accounts=quick_accounts(Database(people.url)), **settings)
    with client_of(server, people.keys["full key"]) as client:
        done = wait_for(client, job.id, "succeeded")
        messages = said(client, job.id)
        assert any("shutting down" in message for message in messages)
        assert any("goes on from step" in message for message in messages)
        numbers = [int(message.split()[1].partition("/")[0]) for message in messages if "training loss" in message]
        assert numbers == sorted(set(numbers)), "no step is told twice"
        assert done.fine_tuned_model is not None
        answer = ask(client, done.fine_tuned_model)
    server.stop()
    server = start(accounts=quick_accounts(Database(people.url)), **settings)
    with client_of(server, people.keys["full key"]) as client:
        assert ask(client, done.fine_tuned_model) == answer, "loaded when it is asked for"
    server.stop()


@pytest.mark.slow
def test_a_server_without_accounts_trains_for_its_operator(start: StartServer, tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "chatwright.db"))
    asyncio.run(upgrade(database.url))
    server = start(database=database, api_key=KEY, admin_token=ADMIN_TOKEN)
    with client_of(server, ADMIN_TOKEN) as client:
        job = client.fine_tuning.jobs.create(
            model=MODEL, training_file=upload(client), hyperparameters={"n_epochs": 1, "batch_size": 8}
        )
        done = wait_for(client, job.id, "succeeded")
        assert done.fine_tuned_model is not None
        assert ask(client, done.fine_tuned_model)
    with server.http(headers={"Authorization": f"Bearer {KEY}".encode()}) as http:
        assert_error(http.get("/v1/fine_tuning/jobs"), 403)
        assert_error(http.post("/v1/fine_tuning/jobs", json={}), 403)
        assert_error(http.delete(f"/v1/models/{done.fine_tuned_model}"), 403)
        assert done.fine_tuned_model not in http.get("/v1/models").text
    server.stop()


def test_a_server_without_a_database_says_so(start: StartServer) -> None:
    server = start(admin_token=ADMIN_TOKEN)
    with server.http(headers=bearer(ADMIN_TOKEN)) as http:
        assert_error(http.get("/v1/fine_tuning/jobs"), 503)
        assert_error(http.get("/v1/fine-tunes"), 503)
        assert_error(http.delete("/v1/models/ft:tiny:x::y"), 404)
    server.stop()


OLD = """
import openai
with open("x.jsonl", "rb") as stream:
    file = openai.File.create(file=stream, purpose="fine-tune", user_provided_filename="x.jsonl")
job = openai.FineTune.create(training_file=file.id, model="curie", n_epochs=15, learning_rate_multiplier=8, suffix="cats")
assert job.status == "pending", job
assert job.training_files[0].id == file.id
events = [event.message for event in openai.FineTune.stream_events(job.id)]
assert events[-1] == "The job has successfully completed.", events
assert [event.message for event in openai.FineTune.list_events(job.id).data] == events
job = openai.FineTune.retrieve(job.id)
assert job.status == "succeeded" and job.hyperparams.n_epochs == 15, job
assert job.id in [each.id for each in openai.FineTune.list().data]
assert openai.File.download(job.result_files[0].id).startswith(b"step,")
text = openai.Completion.create(model=job.fine_tuned_model, prompt="The cat 3?", temperature=0, max_tokens=20).choices[0].text
assert text == " The cat sat on the mat.", repr(text)
new = openai.FineTuningJob.create(training_file=file.id, model=job.fine_tuned_model, hyperparameters={"n_epochs": 1})
assert openai.FineTuningJob.retrieve(new.id).status in ("validating_files", "queued", "running"), new
assert openai.FineTuningJob.list(limit=1).data[0].id == new.id
assert openai.FineTuningJob.list_events(id=new.id, limit=2).data
assert openai.FineTuningJob.cancel(new.id).status == "cancelled"
assert openai.FineTune.retrieve(new.id).status == "cancelled"
assert openai.Model.delete(job.fine_tuned_model).deleted
try:
    openai.Completion.create(model=job.fine_tuned_model, prompt="x", max_tokens=1)
except openai.error.InvalidRequestError as error:
    assert error.http_status == 404
else:
    raise AssertionError
"""


@pytest.mark.slow
def test_the_last_client_of_the_old_api(shared: RunningServer, people: People, tmp_path: Path) -> None:
    assert OLD_CLIENT.is_dir(), "openai 0.28.1 is not installed: run `make install-dev`"
    rows = [
        {"prompt": row["messages"][0]["content"], "completion": " " + row["messages"][1]["content"]} for row in CATS
    ]
    (tmp_path / "x.jsonl").write_bytes(lines(*rows))
    done = subprocess.run(
        [sys.executable, "-c", OLD],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(OLD_CLIENT),
            "OPENAI_API_BASE": f"{shared.url}/v1",
            "OPENAI_API_KEY": people.keys["full key"],
        },
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
