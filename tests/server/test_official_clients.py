"""The official clients through every endpoint that they know and this server has; each object is strictly one of their types.

Moderations and evals have tests of their own. The newest clients check what they get themselves (`_strict_response_validation`);
here it is seen to that there is nothing in it beyond their types, and that no endpoint was left out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from openai.types import Completion, CreateEmbeddingResponse, FileDeleted, FileObject, Model, ModelDeleted
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionStoreMessage
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from pydantic import BaseModel, ConfigDict, TypeAdapter

from chatwright.store.database import Database
from tests.jobs.making import CATS, lines
from tests.server.harness import MODEL, RunningServer, start_server, wait_until
from tests.server.people import ADMIN_TOKEN, People, settle
from tests.server.tiny import make_model_folder
from tests.store.people import quick_accounts

ROOT = Path(__file__).parents[2]
OLD_CLIENT = ROOT / ".venv" / "openai-0.28"
# Training stands behind everything else that the machine does.
PATIENCE_S = 250.0
pytestmark = pytest.mark.timeout(900)

# Fields that this server adds, as the documentation says.
OURS = {
    "Model": {"context_length", "languages", "chat", "labels", "parent"},
    # As in the examples of OpenAI's reference; the client has no name for it.
    "Response": {"store"},
    # OpenAI's service tells it too.
    "FineTuningJob": {"user_provided_suffix"},
}
# Endpoints (scripts/api_surface.toml) that this client does not know, or other tests go through.
ELSEWHERE = re.compile(
    r"/v1/(moderations|evals|organization|engines|edits|fine-tunes|messages|openai/deployments|classify|rerank|(de)?tokenize"
    r"|tokenizer_info|(un)?load_lora_adapter|lora_adapters)\b.*"
)
MESSAGES: Any = [{"role": "user", "content": "Hi"}]
WEATHER: Any = {"type": "object", "properties": {"city": {"enum": ["Paris", "北京"]}}, "required": ["city"]}


class Person(BaseModel):
    """For the clients' own parsing."""

    model_config = ConfigDict(extra="forbid")
    is_there: bool


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    return settle(tmp_path_factory.mktemp("tour"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, people: People) -> Iterator[RunningServer]:
    folder = make_model_folder(tmp_path_factory.mktemp("models") / "tiny", context=2048)
    running = start_server(folder, accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN)
    yield running
    running.stop()


def pure(found: Any) -> Any:
    """The same, with nothing in it that its type does not name. What the client read as nothing but a dict is not looked into."""
    if isinstance(found, list | tuple):
        for item in found:
            pure(item)
    elif isinstance(found, BaseModel):
        kind = type(found).__name__
        extra = set(found.model_extra or {}) - OURS.get(kind, set()) - {"obfuscation"}
        assert not extra, f"{kind} has {extra}"
        for name in type(found).model_fields:
            pure(getattr(found, name))
    return found


class Tour:
    """A client, and which endpoints it asked."""

    def __init__(self, server: RunningServer, key: str) -> None:
        self.asked: set[str] = set()
        transport = openai.DefaultHttpx2Client(trust_env=False, event_hooks={"request": [self._note]})
        options: dict[str, Any] = {"base_url": f"{server.url}/v1", "api_key": key, "max_retries": 0, "timeout": 60}
        self.client = openai.OpenAI(**options, http_client=transport, _strict_response_validation=True)
        # For what OpenAI itself sends and its client's types do not know of.
        self.lax = openai.OpenAI(**options, http_client=transport)

    def _note(self, request: Any) -> None:
        self.asked.add(f"{request.method} {request.url.path}")

    def has_asked(self, endpoint: str) -> bool:
        pattern = re.compile(re.escape(endpoint).replace(r"\{\}", "[^/]+"))
        return any(pattern.fullmatch(asked) for asked in self.asked)


@pytest.fixture(scope="module")
def tour(server: RunningServer, people: People) -> Iterator[Tour]:
    tour = Tour(server, people.keys["full key"])
    yield tour
    tour.client.close()


@pytest.fixture
def client(tour: Tour) -> openai.OpenAI:
    return tour.client


def until(look: Callable[[], Any], *statuses: str) -> Any:
    found: list[Any] = []

    def is_there() -> bool:
        found.append(look())
        return found[-1].status in statuses

    wait_until(is_there, PATIENCE_S)
    return pure(found[-1])


def with_reason(values: dict[str, Any]) -> dict[str, Any]:
    """A piece of a streamed completion, whose finish_reason is null but at the end, which the type does not know of."""
    for choice in values["choices"]:
        choice["finish_reason"] = choice["finish_reason"] or "stop"
    return values


# --- openai, the newest


def test_texts_and_vectors(client: openai.OpenAI, tour: Tour) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": "The", "max_tokens": 3, "logprobs": 2}
    # Not with `echo`: the first token has null for its probability, as at OpenAI, which the client's type does not know of.
    pure(client.completions.create(**asked, n=2))
    pieces = list(tour.lax.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert len(pieces) >= 2  # what comes at once is one piece: on a busy machine all of it
    for piece in pieces:
        check(Completion, with_reason(piece.to_dict()))
    chat: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_tokens": 3, "logprobs": True, "top_logprobs": 2}
    pure(client.chat.completions.create(**chat))
    assert len(pure(list(client.chat.completions.create(**chat, stream=True)))) >= 2
    function: Any = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
    calling: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "tools": [function], "tool_choice": "required"}
    called = pure(client.chat.completions.create(**calling, parallel_tool_calls=False))
    assert called.choices[0].message.tool_calls
    pure(list(client.chat.completions.create(**calling, parallel_tool_calls=False, stream=True)))
    parsed = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Person)
    assert isinstance(parsed.choices[0].message.parsed, Person)
    with client.chat.completions.stream(model=MODEL, messages=MESSAGES, response_format=Person) as events:
        assert isinstance(events.until_done().get_final_completion().choices[0].message.parsed, Person)
    texts: Any = {"model": MODEL, "input": ["A cat", "猫"]}
    floats = pure(client.embeddings.create(**texts, encoding_format="float"))
    base64 = tour.lax.embeddings.create(**texts)  # the client decodes it behind its check, which wants lists
    assert base64.data[1].embedding == pytest.approx(floats.data[1].embedding, abs=1e-6)
    pure(client.embeddings.create(model=MODEL, input=[[5, 6], [7]], dimensions=8, encoding_format="float"))
    assert MODEL in [pure(model).id for model in client.models.list()]
    pure(client.models.retrieve(MODEL))


def test_stored_completions(client: openai.OpenAI) -> None:
    kept = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=3, store=True, metadata={"topic": "猫"}
    )
    wait_until(lambda: kept.id in [item.id for item in client.chat.completions.list(metadata={"topic": "猫"})])
    pure(client.chat.completions.retrieve(kept.id))
    assert pure(client.chat.completions.update(kept.id, metadata={"topic": "狗"})).metadata == {"topic": "狗"}
    # What was asked has the role "user", as in OpenAI's reference; by the client's type all of it is the assistant's.
    raw = json.loads(client.chat.completions.messages.with_raw_response.list(kept.id).http_response.text)
    assert [message["role"] for message in raw["data"]] == ["user"]
    pure(ChatCompletionStoreMessage.model_validate({**raw["data"][0], "role": "assistant"}, strict=True))
    pure(client.chat.completions.delete(kept.id))


def test_responses(client: openai.OpenAI, tour: Tour) -> None:
    asked: dict[str, Any] = {"model": MODEL, "input": "Hi", "max_output_tokens": 6}
    first = pure(client.responses.create(**asked))
    pure(client.responses.retrieve(first.id))
    pure(list(client.responses.create(**asked, stream=True, previous_response_id=first.id)))
    pure(list(client.responses.input_items.list(first.id)))
    pure(client.responses.input_tokens.count(model=MODEL, input="Hi"))
    parsed = client.responses.parse(model=MODEL, input="Hi", text_format=Person)
    assert isinstance(parsed.output_parsed, Person)
    with client.responses.stream(**{**asked, "max_output_tokens": 600, "temperature": 0}) as events:
        assert events.get_final_response().output_text
    tool: Any = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}
    called: Any = {"model": MODEL, "input": "Hi", "tools": [tool], "tool_choice": "required"}
    assert any(item.type == "function_call" for item in pure(client.responses.create(**called)).output)
    pure(list(client.responses.create(**called, stream=True)))

    behind = pure(client.responses.create(**asked, background=True))
    until(lambda: client.responses.retrieve(behind.id), "incomplete", "completed")
    events_seen = pure(list(client.responses.retrieve(behind.id, stream=True)))
    rest = pure(list(client.responses.retrieve(behind.id, stream=True, starting_after=3)))
    assert [event.sequence_number for event in rest] == [event.sequence_number for event in events_seen[4:]]
    endless: Any = {"max_output_tokens": 1800, "extra_body": {"logit_bias": {"0": -100, "2": -100}}}
    running = client.responses.create(model=MODEL, input="Hi", background=True, **endless)
    assert pure(client.responses.cancel(running.id)).status in ("cancelled", "incomplete")
    client.responses.delete(behind.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(behind.id)


def test_conversations(client: openai.OpenAI) -> None:
    said: Any = {"type": "message", "role": "user", "content": "My name is 李雷."}
    talk = pure(client.conversations.create(items=[said], metadata={"topic": "names"}))
    pure(client.responses.create(model=MODEL, input="Hi", conversation=talk.id, max_output_tokens=3))
    pure(client.conversations.retrieve(talk.id))
    pure(client.conversations.update(talk.id, metadata={"topic": "猫"}))
    added = pure(client.conversations.items.create(talk.id, items=[said])).data[0]
    assert len(pure(list(client.conversations.items.list(talk.id, limit=2)))) == 4
    pure(client.conversations.items.retrieve(added.id, conversation_id=talk.id))
    pure(client.conversations.items.delete(added.id, conversation_id=talk.id))
    pure(client.conversations.delete(talk.id))


def test_files_and_uploads(client: openai.OpenAI) -> None:
    data = lines(*CATS)
    file = pure(client.files.create(file=("x.jsonl", data), purpose="fine-tune"))
    pure(client.files.retrieve(file.id))
    assert file.id in [pure(item).id for item in client.files.list(purpose="fine-tune")]
    assert client.files.content(file.id).read() == data
    pure(client.files.wait_for_processing(file.id))
    pure(client.files.delete(file.id))
    new: Any = {"filename": "x.jsonl", "purpose": "fine-tune", "mime_type": "application/jsonl"}
    upload = pure(client.uploads.create(bytes=len(data), **new))
    parts = [pure(client.uploads.parts.create(upload.id, data=piece)).id for piece in (data[:10], data[10:])]
    whole = pure(client.uploads.complete(upload.id, part_ids=parts))
    assert whole.file
    assert client.files.content(whole.file.id).read() == data
    pure(client.uploads.cancel(client.uploads.create(bytes=5, **new).id))
    pure(client.uploads.upload_file_chunked(file=data, bytes=len(data), part_size=100, **new))


def test_batches(client: openai.OpenAI) -> None:
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 2}
    request = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = client.files.create(file=("in.jsonl", lines(request)), purpose="batch")
    options: Any = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {"k": "v"}}
    batch = pure(client.batches.create(input_file_id=file.id, **options))
    done = until(lambda: client.batches.retrieve(batch.id), "completed")
    line = json.loads(client.files.content(done.output_file_id).text)
    pure(ChatCompletion.model_validate_json(json.dumps(line["response"]["body"]), strict=True))
    assert batch.id in [pure(item).id for item in client.batches.list()]
    other = client.batches.create(input_file_id=file.id, **options)
    try:
        assert pure(client.batches.cancel(other.id)).status in ("cancelling", "cancelled")
    except openai.APIStatusError:  # it was faster
        assert client.batches.retrieve(other.id).status == "completed"


@pytest.mark.slow
def test_training(client: openai.OpenAI, tour: Tour) -> None:
    jobs = client.fine_tuning.jobs
    file = client.files.create(file=("cats.jsonl", lines(*CATS)), purpose="fine-tune").id
    once: Any = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}}
    job = pure(jobs.create(model=MODEL, training_file=file, method=once, metadata={"k": "v"}))
    done = until(lambda: jobs.retrieve(job.id), "succeeded")
    assert pure(list(jobs.list_events(job.id, limit=3)))
    assert pure(list(jobs.checkpoints.list(job.id)))
    assert job.id in [pure(item).id for item in jobs.list(limit=2)]
    pure(client.models.retrieve(done.fine_tuned_model))
    pure(client.models.delete(done.fine_tuned_model))
    again = jobs.create(model=MODEL, training_file=file)
    lax = tour.lax.fine_tuning.jobs  # the types have pause() and no status for it
    lax.pause(again.id)
    wait_until(lambda: lax.retrieve(again.id).status == "paused", PATIENCE_S)
    assert pure(lax.resume(again.id)).status in ("validating_files", "queued", "running")
    pure(jobs.cancel(again.id))
    until(lambda: jobs.retrieve(again.id), "cancelled")


@pytest.mark.slow  # as what it counts
def test_nothing_was_left_out(tour: Tour) -> None:
    """Behind the others: what the documentation calls there, and the client knows, was asked."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from make_endpoints import Surface
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    surface = Surface.read()
    told = [path for family in surface.notes["family"] for path in family["paths"]]
    wanted = {
        path
        for path in told
        if surface.fate_of_path(path) in ("yes", "partly")
        and path.partition(" ")[2].startswith("/v1/")
        and not ELSEWHERE.match(path.partition(" ")[2])
    }
    assert len(wanted) > 40
    if len(tour.asked) < 40:
        pytest.skip("the other tests of this file did not run")
    assert {path for path in wanted if not tour.has_asked(path)} == set()


# --- anthropic, the newest


def test_anthropics_client(server: RunningServer, people: People) -> None:
    with anthropic.Anthropic(
        base_url=server.url,
        api_key=people.keys["full key"],
        max_retries=0,
        http_client=anthropic.DefaultHttpxClient(trust_env=False),
        _strict_response_validation=True,
    ) as claude:
        asked: dict[str, Any] = {"model": MODEL, "max_tokens": 6, "messages": MESSAGES, "system": "Be brief."}
        message = pure(claude.messages.create(**asked))
        assert pure(claude.messages.count_tokens(model=MODEL, messages=MESSAGES, system="Be brief.")).input_tokens == (
            message.usage.input_tokens
        )
        assert pure(list(claude.messages.create(**asked, stream=True)))
        with claude.messages.stream(**asked) as stream:
            assert pure(stream.get_final_message()).stop_reason  # it may have nothing to say
        tool: Any = {"name": "get_weather", "input_schema": WEATHER}
        calling: dict[str, Any] = {"model": MODEL, "max_tokens": 60, "messages": MESSAGES, "tools": [tool]}
        called = pure(claude.messages.create(**calling, tool_choice={"type": "any", "disable_parallel_tool_use": True}))
        assert [block.type for block in called.content] == ["tool_use"]
        # A model of random weights may indent as far as is allowed, a blank at a time.
        parsed = claude.messages.parse(model=MODEL, max_tokens=300, messages=MESSAGES, output_format=Person)
        assert isinstance(parsed.parsed_output, Person)
        pure(claude.beta.messages.create(model=MODEL, max_tokens=6, messages=MESSAGES))
        pure(claude.beta.messages.count_tokens(model=MODEL, messages=MESSAGES))
        with pytest.raises(anthropic.NotFoundError):
            claude.messages.create(**{**asked, "model": "nobody"})


# --- openai 0.28.1, which has no types: today's, and for what is gone since, those of its documentation


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class EditChoice(Closed):
    text: str
    index: int


class EditUsage(Closed):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Edit(Closed):
    object: str
    created: int
    choices: list[EditChoice]
    usage: EditUsage


class Engine(Closed):
    id: str
    object: str
    owner: str
    permissions: None
    ready: bool


class FineTuneEvent(Closed):
    object: str
    created_at: int
    level: str
    message: str


class FineTune(Closed):
    id: str
    object: str
    created_at: int
    updated_at: int
    events: list[FineTuneEvent] = []
    fine_tuned_model: str | None
    hyperparams: dict[str, Any]
    model: str
    organization_id: str
    result_files: list[FileObject]
    status: str
    training_files: list[FileObject]
    validation_files: list[FileObject]


KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        Completion,
        ChatCompletion,
        ChatCompletionChunk,
        CreateEmbeddingResponse,
        Model,
        ModelDeleted,
        FileObject,
        FileDeleted,
        FineTuningJob,
        Edit,
        Engine,
        FineTune,
        FineTuneEvent,
    )
}
LISTS: dict[str, Any] = {
    "Engines": Engine,
    "Models": Model,
    "Files": FileObject,
    "FineTunes": FineTune,
    "FineTuneEvents": FineTuneEvent,
    "FineTuningJobs": FineTuningJob,
    "FineTuningJobEvents": FineTuningJobEvent,
}


@pytest.mark.slow
def test_the_client_of_2023(server: RunningServer, people: People, tmp_path: Path) -> None:
    assert OLD_CLIENT.is_dir(), "openai 0.28.1 is not installed: run `make install-dev`"
    (tmp_path / "cats.jsonl").write_bytes(lines(*CATS))
    ran = subprocess.run(
        [sys.executable, Path(__file__).parent / "old_client_tour.py", MODEL, tmp_path / "cats.jsonl"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(OLD_CLIENT),
            "OPENAI_API_BASE": f"{server.url}/v1",
            "OPENAI_API_KEY": people.keys["full key"],
            "NO_PROXY": "*",
        },
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert ran.returncode == 0, ran.stderr
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {name for name, _ in told} == {*KINDS, *LISTS}
    for name, values in told:
        if name in LISTS:
            assert values.get("object") == "list", (name, sorted(values))
            for item in values["data"]:
                check(LISTS[name], item)
        else:
            check(KINDS[name], with_reason(values) if name == "Completion" else values)


def check(kind: Any, values: Any) -> None:
    pure(TypeAdapter(kind).validate_json(json.dumps(values), strict=True))
