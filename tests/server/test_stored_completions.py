"""Chat completions that are kept: by the official client, listed and found, whole and streamed, by nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionStoreMessage
from sqlalchemy import func, select

from chatwright.store.accounts.service import Accounts
from chatwright.store.database import Database
from chatwright.store.tables import StoredCompletion, StoredLabel, StoredMessage
from chatwright.store.url import parse_url
from tests.server.conftest import StartServer
from tests.server.harness import MODEL, RunningServer, assert_error
from tests.server.people import ADMIN_TOKEN, SERVER_KEY, People, bearer, browser, settle
from tests.store.people import quick_accounts
from tests.store.postgres import Cluster

ASK: list[Any] = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "你好"}]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def people(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> People:
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        cluster.sql("CREATE DATABASE stored_completions")
        return settle(parse_url(cluster.url("stored_completions")))
    return settle(tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="module")
def server(start: StartServer, people: People) -> RunningServer:
    return start(accounts=quick_accounts(Database(people.url)), api_key=SERVER_KEY, admin_token=ADMIN_TOKEN)


@pytest.fixture
def client(server: RunningServer, people: People) -> Iterator[openai.OpenAI]:
    """The official client, with a key whose user has nothing yet."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=people.keys["inference key"], max_retries=0) as client:
        for completion in client.chat.completions.list():
            client.chat.completions.delete(completion.id)
        yield client


def n_rows(people: People) -> list[int]:
    async def count(accounts: Accounts) -> list[int]:
        async with accounts.database.read() as session:
            tables = (StoredCompletion, StoredMessage, StoredLabel)
            return [await session.scalar(select(func.count()).select_from(table)) or 0 for table in tables]

    found: list[int] = people.do(count)
    return found


def keep(client: openai.OpenAI, **body: Any) -> ChatCompletion:
    asked = {"model": MODEL, "messages": ASK, "max_tokens": 4, "temperature": 0, "store": True, **body}
    completion: ChatCompletion = client.chat.completions.create(**asked)
    return completion


def test_what_is_kept_comes_back(client: openai.OpenAI, people: People) -> None:
    kept = keep(client, metadata={"topic": "猫", "run": "1"}, n=2, logprobs=True)
    assert n_rows(people) == [1, 2, 2]
    found = client.chat.completions.retrieve(kept.id)
    ChatCompletion.model_validate(found.to_dict())
    assert found.to_dict() == {**kept.to_dict(), "metadata": {"run": "1", "topic": "猫"}}
    assert [completion.id for completion in client.chat.completions.list()] == [kept.id]
    messages = client.chat.completions.messages.list(kept.id).data
    assert [(message.role, message.content) for message in messages] == [("system", "Be short."), ("user", "你好")]
    for message in messages:
        ChatCompletionStoreMessage.model_validate({**message.to_dict(), "role": "assistant"})
    changed = client.chat.completions.update(kept.id, metadata={"topic": "狗"})
    assert changed.to_dict()["metadata"] == {"topic": "狗"}
    assert client.chat.completions.retrieve(kept.id).to_dict() == changed.to_dict()
    assert client.chat.completions.delete(kept.id).deleted
    assert n_rows(people) == [0, 0, 0]
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(kept.id)


def test_a_stream_is_kept_whole(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": ASK, "max_tokens": 6, "temperature": 0, "store": True}
    text, completion_id = "", ""
    for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        completion_id = chunk.id
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage
    kept = client.chat.completions.retrieve(completion_id)
    assert kept.choices[0].message.content == text
    assert kept.choices[0].finish_reason == "length"
    assert kept.usage == usage


def test_calls_and_parts_are_kept(client: openai.OpenAI) -> None:
    messages: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "12 °C"},
    ]
    kept = keep(client, messages=messages)
    found = [message.to_dict() for message in client.chat.completions.messages.list(kept.id).data]
    assert found[0]["content"] == "ab"
    assert found[0]["content_parts"] == messages[0]["content"]
    assert found[1]["tool_calls"] == messages[1]["tool_calls"]
    assert (found[2]["role"], found[2]["tool_call_id"]) == ("tool", "call_1")


def test_lists_have_pages_orders_and_filters(client: openai.OpenAI) -> None:
    ids = [keep(client, metadata={"parity": str(n % 2), "all": "yes"}).id for n in range(5)]
    other = keep(client, model="gpt-4").id
    listed = client.chat.completions
    assert [completion.id for completion in listed.list(limit=2)] == [*ids, other], "page by page"
    first = listed.list(limit=2)
    assert first.has_next_page()
    assert [completion.id for completion in listed.list(limit=2, order="desc").data] == [other, ids[4]]
    assert [completion.id for completion in listed.list(model="gpt-4")] == [other]
    assert [completion.id for completion in listed.list(metadata={"parity": "1"})] == [ids[1], ids[3]]
    assert [completion.id for completion in listed.list(metadata={"parity": "0", "all": "yes"}, after=ids[0])] == [
        ids[2],
        ids[4],
    ]
    assert listed.list(metadata={"parity": "0", "all": "no"}).data == []
    messages = listed.messages.list(ids[0], limit=1)
    assert len(list(messages)) == 2


def test_nothing_is_kept_unasked(client: openai.OpenAI, people: People) -> None:
    before = n_rows(people)
    for asked in ({"store": False}, {"store": None}):
        keep(client, **asked)
    client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=2)
    with pytest.raises(openai.BadRequestError):
        keep(client, max_tokens=100_000)
    assert n_rows(people) == before


def test_what_belongs_to_others_does_not_exist(client: openai.OpenAI, server: RunningServer) -> None:
    kept = keep(client)
    with browser(server, "other") as other, server.http(headers=bearer(ADMIN_TOKEN)) as operator:
        for thief in (other, operator):
            path = f"/v1/chat/completions/{kept.id}"
            answers = [
                thief.get(path),
                thief.get(f"{path}/messages"),
                thief.post(path, json={"metadata": {"a": "b"}}),
                thief.delete(path),
            ]
            for answer in answers:
                assert_error(answer, 404, "not_found")
            assert thief.get("/v1/chat/completions").json()["data"] == []
            assert_error(thief.get("/v1/chat/completions", params={"after": kept.id}), 400, param="after")
    assert client.chat.completions.retrieve(kept.id).id == kept.id


def test_who_can_not_be_told_apart_keeps_nothing(server: RunningServer, people: People) -> None:
    before = n_rows(people)
    with server.http(headers=bearer(SERVER_KEY)) as http:
        for stream in (False, True):
            body = {"model": MODEL, "messages": ASK, "store": True, "stream": stream}
            assert "--accounts" in assert_error(http.post("/v1/chat/completions", json=body), 403)
        assert_error(http.get("/v1/chat/completions"), 403)
    assert n_rows(people) == before


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "chatcmpl-x"}, "after"),
        ({"metadata[k]": "x" * 513}, "metadata"),
        ({f"metadata[{n}]": "x" for n in range(17)}, "metadata"),
        ({"metadata[\0]": "x"}, "metadata"),
    ],
)
def test_bad_lists_are_refused(server: RunningServer, people: People, query: dict[str, Any], param: str) -> None:
    with server.http(headers=bearer(people.keys["inference key"])) as http:
        assert_error(http.get("/v1/chat/completions", params=query), 400, param=param)


def test_bad_metadata_is_refused(client: openai.OpenAI) -> None:
    for body in ({"metadata": {"": "b"}}, {"metadata": {"a": "b\0"}}):
        with pytest.raises(openai.BadRequestError) as refused:
            keep(client, **body)
        assert refused.value.param == "metadata"
    kept = keep(client)
    for metadata in ({"a": 1}, {"k" * 65: "x"}):
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.update(kept.id, metadata=metadata)  # type: ignore[arg-type]


@pytest.mark.parametrize("id", ["x", "chatcmpl-x", "%00", "chatcmpl-" + "0" * 32])
def test_ids_that_are_none_are_not_found(server: RunningServer, people: People, id: str) -> None:
    with server.http(headers=bearer(people.keys["inference key"])) as http:
        answer: httpx.Response = http.get(f"/v1/chat/completions/{id}")
        assert_error(answer, 404)
