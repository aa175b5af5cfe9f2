"""Evals with the official client: made, run by models and without, read, stopped, refused by name, and nobody else's."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import (
    EvalCreateResponse,
    EvalDeleteResponse,
    EvalListResponse,
    EvalRetrieveResponse,
    EvalUpdateResponse,
)
from openai.types.evals import (
    RunCancelResponse,
    RunCreateResponse,
    RunDeleteResponse,
    RunListResponse,
    RunRetrieveResponse,
)
from openai.types.evals.runs import OutputItemListResponse, OutputItemRetrieveResponse

from chatwright.engine.protocol import BACKGROUND
from chatwright.server.evals import criteria, items
from chatwright.server.permission import route_policies
from chatwright.store.accounts import users
from chatwright.store.accounts.service import Accounts
from chatwright.store.actor import OPERATOR
from chatwright.store.database import Database
from chatwright.store.policy import Action
from chatwright.store.tables import EvalRun
from chatwright.store.url import parse_url
from tests.server.conftest import StartServer
from tests.server.harness import MODEL, RunningServer, assert_error, wait_until
from tests.server.people import ADMIN_TOKEN, SERVER_KEY, People, bearer, browser, settle
from tests.store.people import quick_accounts
from tests.store.postgres import Cluster

ITEM_SCHEMA: Any = {
    "type": "object",
    "properties": {"ask": {"type": "string"}, "want": {"type": "string"}},
    "required": ["ask"],
}
CUSTOM: Any = {"type": "custom", "item_schema": ITEM_SCHEMA, "include_sample_schema": True}
SAME: Any = {
    "type": "string_check",
    "name": "same",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.want}}",
}
OVER = ("completed", "failed", "canceled")


def near(measure: str, threshold: float = 0.5, **more: Any) -> dict[str, Any]:
    return {
        "type": "text_similarity",
        "name": measure,
        "evaluation_metric": measure,
        "input": "{{ sample.output_text }}",
        "reference": "{{item.want}}",
        "pass_threshold": threshold,
        **more,
    }


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def people(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> People:
    if request.param == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        cluster.sql("CREATE DATABASE evals")
        return settle(parse_url(cluster.url("evals")))
    return settle(tmp_path_factory.mktemp("evals"))


@pytest.fixture(scope="module")
def server(start: StartServer, people: People) -> RunningServer:
    return start(accounts=quick_accounts(Database(people.url)), api_key=SERVER_KEY, admin_token=ADMIN_TOKEN)


@pytest.fixture
def client(server: RunningServer, people: People) -> Iterator[openai.OpenAI]:
    """The official client, with a key whose user has no evals yet."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=people.keys["full key"], max_retries=0) as client:
        for found in client.evals.list():
            client.evals.delete(found.id)
        yield client


def make(client: openai.OpenAI, *criteria: Any, config: Any = None, **more: Any) -> EvalCreateResponse:
    raw = client.evals.with_raw_response.create(
        data_source_config=config or CUSTOM, testing_criteria=list(criteria) or [SAME], **more
    )
    EvalCreateResponse.model_validate(raw.http_response.json())
    return raw.parse()


def begin(client: openai.OpenAI, eval_id: str, source: Any, **more: Any) -> RunCreateResponse:
    raw = client.evals.runs.with_raw_response.create(eval_id, data_source=source, **more)
    RunCreateResponse.model_validate(raw.http_response.json())
    return raw.parse()


def until_over(client: openai.OpenAI, eval_id: str, run_id: str) -> RunRetrieveResponse:
    wait_until(lambda: client.evals.runs.retrieve(run_id, eval_id=eval_id).status in OVER, within_s=100)
    raw = client.evals.runs.with_raw_response.retrieve(run_id, eval_id=eval_id)
    RunRetrieveResponse.model_validate(raw.http_response.json())
    return raw.parse()


def items_of(client: openai.OpenAI, run: Any, **more: Any) -> list[OutputItemListResponse]:
    """All of them, in pages of two."""
    found = list(client.evals.runs.output_items.list(run.id, eval_id=run.eval_id, limit=2, **more))
    for item in found:
        OutputItemListResponse.model_validate(item.to_dict())
    return found


def rows(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Rows in the request. With `answered` in an item: that is its sample's text."""
    content = []
    for item in items:
        answered = item.pop("answered", None)
        content.append({"item": item} | ({} if answered is None else {"sample": {"output_text": answered}}))
    return {"type": "file_content", "content": content, **more}


def asking(kind: str = "completions", source: Any = None, **more: Any) -> dict[str, Any]:
    """A data source in which the tiny model answers."""
    return {
        "type": kind,
        "model": MODEL,
        "source": source or rows({"ask": "你好", "want": "x"}, {"ask": "The", "want": "y"}, {"ask": "A {{item.want}}"}),
        "input_messages": {
            "type": "template",
            "template": [
                {"role": "developer", "content": "Be short."},
                {"role": "user", "content": {"type": "input_text", "text": "Q: {{ item.ask }}"}},
            ],
        },
        "sampling_params": {"max_completion_tokens": 5, "temperature": 0},
        **more,
    }


def test_evals_are_made_changed_listed_and_deleted(client: openai.OpenAI) -> None:
    made = make(client, SAME, near("rouge_l"), name="猫", metadata={"for": "李雷"})
    assert (made.object, made.name, made.metadata) == ("eval", "猫", {"for": "李雷"})
    assert made.data_source_config.type == "custom"
    shape: Any = made.data_source_config.schema_
    assert shape["properties"]["item"] == ITEM_SCHEMA
    assert shape["required"] == ["item", "sample"]
    shown = made.to_dict()["testing_criteria"]
    assert isinstance(shown, list)
    assert [{**SAME, "id": shown[0]["id"]}, {**near("rouge_l"), "id": shown[1]["id"]}] == shown
    assert EvalRetrieveResponse.model_validate(client.evals.retrieve(made.id).to_dict()).to_dict() == made.to_dict()
    kept = make(client, SAME, config={"type": "logs", "metadata": {"topic": "x"}})
    assert kept.data_source_config.type == "logs"
    assert kept.data_source_config.metadata == {"topic": "x"}
    changed = client.evals.update(made.id, name="dog")
    EvalUpdateResponse.model_validate(changed.to_dict())
    assert (changed.name, changed.metadata) == ("dog", {"for": "李雷"})
    assert client.evals.update(made.id, metadata=None).metadata is None
    third = make(client)
    for found in client.evals.list(limit=1):
        EvalListResponse.model_validate(found.to_dict())
    assert [found.id for found in client.evals.list(limit=1)] == [made.id, kept.id, third.id]
    assert [found.id for found in client.evals.list(limit=2, order="desc")] == [third.id, kept.id, made.id]
    assert {found.id for found in client.evals.list(order_by="updated_at")} == {made.id, kept.id, third.id}
    gone = client.evals.delete(made.id)
    EvalDeleteResponse.model_validate(gone.to_dict())
    assert (gone.deleted, gone.eval_id, gone.object) == (True, made.id, "eval.deleted")
    with pytest.raises(openai.NotFoundError):
        client.evals.retrieve(made.id)


@pytest.mark.parametrize("kind", ["completions", "responses"])
def test_a_model_answers_and_is_graded(client: openai.OpenAI, server: RunningServer, people: People, kind: str) -> None:
    """What it says is what a chat of the same messages says."""
    single = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "developer", "content": "Be short."}, {"role": "user", "content": "Q: 你好"}],
        max_completion_tokens=5,
        temperature=0,
        seed=42,
    )
    said = single.choices[0].message.content
    made = make(client, SAME, near("fuzzy_match", 1.0))
    source = asking(kind, rows({"ask": "你好", "want": said}, {"ask": "{{item.want}}", "want": "y"}))
    run = begin(client, made.id, source, name="first", metadata={"n": "1"})
    assert (run.object, run.status, run.model, run.name) == ("eval.run", "queued", MODEL, "first")
    assert (run.eval_id, run.metadata, run.error.code) == (made.id, {"n": "1"}, "")
    assert run.to_dict()["data_source"]["source"] == source["source"]  # type: ignore[index]
    done = until_over(client, made.id, run.id)
    assert done.status == "completed", done
    counts = done.result_counts
    assert (counts.total, counts.passed, counts.failed, counts.errored) == (2, 1, 1, 0)
    written: Any = made.to_dict()
    ids = [each["id"] for each in written["testing_criteria"]]
    assert [(each.testing_criteria, each.passed, each.failed) for each in done.per_testing_criteria_results] == [
        (ids[0], 1, 1),
        (ids[1], 1, 1),
    ]
    first, second = items_of(client, done)
    assert (first.status, second.status) == ("pass", "fail")
    assert (first.datasource_item, first.datasource_item_id) == ({"ask": "你好", "want": said}, 0)
    assert [(result.name, result.passed, result.score) for result in first.results] == [
        (ids[0], True, 1.0),
        (ids[1], True, 1.0),
    ]
    assert [result.type for result in first.results] == ["string-check-grader", "text-similarity-grader"]
    sample = first.sample
    assert [(message.role, message.content) for message in sample.input] == [
        ("developer", "Be short."),
        ("user", "Q: 你好"),
    ]
    assert second.sample.input[1].content == "Q: {{item.want}}", "what an item says is no template"
    assert [(message.role, message.content) for message in sample.output] == [("assistant", said)]
    assert (sample.model, sample.seed, sample.temperature, sample.top_p) == (MODEL, 42, 0, 1)
    assert sample.max_completion_tokens == 5
    assert sample.finish_reason == single.choices[0].finish_reason
    assert single.usage is not None
    assert sample.usage.prompt_tokens == single.usage.prompt_tokens
    assert sample.usage.completion_tokens == single.usage.completion_tokens
    [usage] = done.per_model_usage
    samples = [first.sample, second.sample]
    assert (usage.run_model_name, usage.invocation_count) == (MODEL, 2)
    assert usage.prompt_tokens == sum(each.usage.prompt_tokens for each in samples)
    assert usage.total_tokens == usage.prompt_tokens + sum(each.usage.completion_tokens for each in samples)
    assert [item.id for item in items_of(client, done, order="desc")] == [second.id, first.id]
    assert [item.id for item in items_of(client, done, status="pass")] == [first.id]
    again = client.evals.runs.output_items.retrieve(first.id, eval_id=made.id, run_id=run.id)
    OutputItemRetrieveResponse.model_validate(again.to_dict())
    assert again.to_dict() == first.to_dict()
    with server.http(headers=bearer(people.keys["full key"])) as http:
        report = http.get("/v1" + done.report_url.partition("/v1")[2]).json()
    assert [item["id"] for item in report["data"]] == [first.id, second.id]


def test_what_is_answered_already_is_graded_without_a_model(client: openai.OpenAI) -> None:
    measures = ["fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"]
    contains = {**SAME, "name": "like", "operation": "like"}
    made = make(client, *(near(measure, 0.99) for measure in measures), {**contains, "operation": "ilike"})
    source = rows(
        {"ask": "a", "want": "the cat sat on the mat today", "answered": "the cat sat on the mat today"},
        {"ask": "b", "want": "the cat sat on the mat today", "answered": "no"},
        {"ask": "c", "want": "x"},
        {"ask": "d", "answered": "the cat"},
    )
    run = begin(client, made.id, {"type": "jsonl", "source": source})
    assert run.model == ""
    done = until_over(client, made.id, run.id)
    assert done.status == "completed", done
    counts = done.result_counts
    assert (counts.total, counts.passed, counts.failed, counts.errored) == (4, 1, 1, 2)
    assert done.per_model_usage == []
    assert {(each.passed, each.failed) for each in done.per_testing_criteria_results} == {(1, 1)}
    good, bad, unanswered, unknown = items_of(client, done)
    assert [result.score for result in good.results] == pytest.approx([1.0] * 10)
    assert all(result.score < 0.5 for result in bad.results)
    assert good.sample.output[0].content == "the cat sat on the mat today"
    assert (unanswered.status, unanswered.results) == ("error", [])
    assert "sample.output_text" in unanswered.sample.error.message
    assert "item.want" in unknown.sample.error.message
    assert unknown.sample.output[0].content == "the cat"


def test_a_file_gives_the_items(client: openai.OpenAI) -> None:
    made = make(client, SAME)
    lines = [{"item": {"ask": "a", "want": "y"}, "sample": {"output_text": "y"}}, {"item": {"ask": "b", "want": "n"}}]
    data = "\n\n".join(json.dumps(line) for line in lines).encode()
    file = client.files.create(file=("rows.jsonl", b"\xef\xbb\xbf" + data + b"\n"), purpose="evals")
    source = {"type": "file_id", "id": file.id}
    run = begin(client, made.id, {"type": "jsonl", "source": source})
    client.files.delete(file.id)  # what a run has read is its own
    done = until_over(client, made.id, run.id)
    assert (done.result_counts.passed, done.result_counts.errored) == (1, 1)
    assert done.to_dict()["data_source"] == {"type": "jsonl", "source": source}


def test_kept_completions_are_graded_and_asked_again(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    for completion in client.chat.completions.list():
        client.chat.completions.delete(completion.id)
    said = []
    for ask, topic in (("你好", "cats"), ("The", "cats"), ("The", "dogs")):
        kept = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": ask}],
            max_tokens=4,
            temperature=0,
            seed=42,
            store=True,
            metadata={"topic": topic},
        )
        said.append(kept.choices[0].message.content)
    config = {"type": "stored_completions", "metadata": {"topic": "cats"}}
    same = {**SAME, "reference": said[0]}
    asked = {**SAME, "name": "asked", "input": "{{item.input[0].content}}", "reference": "The", "operation": "ne"}
    made = make(client, same, asked, config=config)
    kept_source: dict[str, Any] = {"type": "stored_completions"}
    run = begin(client, made.id, {"type": "completions", "source": kept_source})
    done = until_over(client, made.id, run.id)
    assert (done.status, done.result_counts.total, done.result_counts.passed) == ("completed", 2, 1)
    assert (done.model, done.per_model_usage) == ("", [])
    assert [item.sample.output[0].content for item in items_of(client, done)] == said[:2]
    again = begin(
        client,
        made.id,
        {
            "type": "completions",
            "model": MODEL,
            "source": {**kept_source, "limit": 1, "model": MODEL, "created_before": 2**40},
            "input_messages": {"type": "item_reference", "item_reference": "item.input"},
            "sampling_params": {"max_completion_tokens": 4, "temperature": 0},
        },
    )
    done = until_over(client, made.id, again.id)
    assert (done.result_counts.total, done.result_counts.passed, done.model) == (1, 1, MODEL)
    for wrong in ({"metadata": {"topic": "birds"}}, {"created_after": 2**40}, {"model": "other"}):
        with pytest.raises(openai.BadRequestError, match="no items"):
            begin(client, made.id, {"type": "completions", "source": {**kept_source, **wrong}})
    monkeypatch.setattr(items, "MOST_ITEMS", 1)
    with pytest.raises(openai.BadRequestError, match="set a limit"):
        begin(client, made.id, {"type": "completions", "source": kept_source})
    done = until_over(
        client, made.id, begin(client, made.id, {"type": "completions", "source": {**kept_source, "limit": 1}}).id
    )
    assert done.result_counts.total == 1


def test_kept_responses_are_graded_and_asked_again(
    client: openai.OpenAI, server: RunningServer, people: People
) -> None:
    asked: dict[str, Any] = {"model": MODEL, "max_output_tokens": 4, "temperature": 0, "extra_body": {"seed": 42}}
    tool: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
    first = client.responses.create(**asked, input="你好", instructions="Be short.", metadata={"topic": "kept"})
    second = client.responses.create(
        **asked,
        input="The",
        previous_response_id=first.id,
        tools=[tool],
        tool_choice="none",
        metadata={"topic": "kept"},
    )
    other = client.responses.create(**{**asked, "temperature": 0.5}, input="A", metadata={"topic": "other"}, user="li")
    with server.http(headers=bearer(people.keys["full key of other"])) as foreign:
        theirs = {"model": MODEL, "input": "Mine.", "metadata": {"topic": "kept"}, "max_output_tokens": 2}
        assert foreign.post("/v1/responses", json=theirs).status_code == 200
    same = {**SAME, "reference": first.output_text}
    made = make(client, same, config={"type": "logs", "metadata": {"topic": "kept"}})
    source: dict[str, Any] = {"type": "responses"}
    done = until_over(client, made.id, begin(client, made.id, {"type": "responses", "source": source}).id)
    assert (done.status, done.model, done.per_model_usage) == ("completed", "", [])
    found = {item.datasource_item["id"]: item for item in items_of(client, done)}
    assert set(found) == {first.id, second.id}
    one, two = found[first.id], found[second.id]
    assert one.status == "pass"
    assert [item.sample.output[0].content for item in (one, two)] == [first.output_text, second.output_text]
    assert one.datasource_item["input"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "你好"},
    ]
    assert two.datasource_item["input"] == [
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "The"},
    ]
    again = {
        "type": "responses",
        "model": MODEL,
        "source": {**source, "instructions_search": "short"},
        "sampling_params": {"max_completion_tokens": 4, "temperature": 0},
    }
    done = until_over(client, made.id, begin(client, made.id, again).id)
    assert (done.result_counts.total, done.result_counts.passed, done.model) == (1, 1, MODEL)

    everything = make(client, {**SAME, "operation": "ne"}, config={"type": "custom", "item_schema": {"type": "object"}})

    def chosen(**by: Any) -> list[Any]:
        run = begin(client, everything.id, {"type": "responses", "source": {**source, **by}})
        return [item.datasource_item["id"] for item in items_of(client, until_over(client, everything.id, run.id))]

    assert chosen(temperature=0.5) == chosen(users=["li"]) == chosen(metadata={"topic": "other"}) == [other.id]
    assert chosen(tools=["look"]) == [second.id]
    for none in ({"top_p": 0.5}, {"created_after": 2**40}, {"created_before": 1}, {"model": "x"}, {"tools": ["x"]}):
        with pytest.raises(openai.BadRequestError, match="no items"):
            chosen(**none)


def test_what_a_run_uses_is_its_owners_usage(client: openai.OpenAI, server: RunningServer) -> None:
    with browser(server, "member") as member:

        def used() -> tuple[int, int]:
            days = member.get("/api/usage", params={"days": 2}).json()["data"]
            tokens = sum(day["input_tokens"] + day["output_tokens"] for day in days)
            return sum(day["requests"] for day in days), tokens

        before = used()
        made = make(client)
        done = until_over(client, made.id, begin(client, made.id, asking()).id)
        [usage] = done.per_model_usage
        assert usage.invocation_count == 3
        wait_until(lambda: used() == (before[0] + 3, before[1] + usage.total_tokens))


def test_cosine_compares_vectors_of_the_encoder(start: StartServer, minilm: Path, tmp_path: Path) -> None:
    people = settle(tmp_path)
    server = start(accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN, beside={"minilm": minilm})
    texts = ["the cat sat on the mat", "a dog barked"]
    with as_user(server, people) as client:
        made = make(client, near("cosine", 0.9999))
        source = rows(
            {"ask": "a", "want": texts[0], "answered": texts[0]},
            {"ask": "b", "want": texts[0], "answered": texts[1]},
            {"ask": "c", "want": texts[0], "answered": ""},
            {"ask": "d", "want": texts[0], "answered": "x " * 50_000},
        )
        done = until_over(client, made.id, begin(client, made.id, {"type": "jsonl", "source": source}).id)
        first, second = (entry.embedding for entry in client.embeddings.create(model="minilm", input=texts).data)
        wanted = sum(a * b for a, b in zip(first, second, strict=True))
        same, other, nothing, long = items_of(client, done)
        assert same.results[0].score == 1
        assert other.results[0].score == pytest.approx(wanted, abs=1e-5)
        assert (nothing.status, nothing.results[0].score) == ("fail", 0)
        assert (long.status, long.sample.error.code) == ("error", "context_length_exceeded")
        [usage] = done.per_model_usage
        assert (usage.run_model_name, usage.invocation_count, usage.completion_tokens) == ("minilm", 1, 0)
        assert usage.prompt_tokens > 0


def test_an_item_that_fails_costs_no_other(client: openai.OpenAI) -> None:
    made = make(client, {**SAME, "operation": "ne"})
    source = rows({"ask": "a", "want": "x"}, {"ask": "b " * 3000, "want": "x"}, {"want": "x", "ask": "c"})
    run = begin(client, made.id, asking(source=source))
    done = until_over(client, made.id, run.id)
    counts = done.result_counts
    assert (done.status, counts.total, counts.passed, counts.errored) == ("completed", 3, 2, 1)
    failed = items_of(client, done, status="error")[0]
    assert failed.sample.error.code == "context_length_exceeded"
    assert failed.datasource_item_id == 1
    assert failed.sample.input[1].content.startswith("Q: b b")


LABELS = {
    "type": "label_model",
    "name": "x",
    "model": MODEL,
    "input": [{"role": "user", "content": "x"}],
    "labels": ["a", "b"],
    "passing_labels": ["a"],
}
BAD_EVALS: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "label_model": ({"testing_criteria": [LABELS]}, "testing_criteria", "unsupported_grader"),
    "python": (
        {"testing_criteria": [{"type": "python", "name": "x", "source": "def grade(sample, item): return 1"}]},
        "testing_criteria",
        "unsupported_grader",
    ),
    "score_model": (
        {"testing_criteria": [SAME, {"type": "score_model", "name": "x", "model": MODEL, "input": []}]},
        "testing_criteria",
        "unsupported_grader",
    ),
    "meteor": ({"testing_criteria": [near("meteor")]}, "testing_criteria", "unsupported_grader"),
    "cosine without an encoder": ({"testing_criteria": [near("cosine")]}, "testing_criteria", "unsupported_grader"),
    "no criteria": ({"testing_criteria": []}, "testing_criteria", None),
    "too many criteria": ({"testing_criteria": [SAME] * 33}, "testing_criteria", None),
    "another operation": ({"testing_criteria": [{**SAME, "operation": "gt"}]}, "testing_criteria", None),
    "a threshold that is no number": (
        {"testing_criteria": [near("bleu", pass_threshold="high")]},
        "testing_criteria",
        None,
    ),
    "a template of something else": (
        {"testing_criteria": [{**SAME, "input": "{{ user.name }}"}]},
        "testing_criteria",
        "invalid_template",
    ),
    "a template with a calculation": (
        {"testing_criteria": [{**SAME, "reference": "{{ item.want | upper }}"}]},
        "testing_criteria",
        "invalid_template",
    ),
    "another source": ({"data_source_config": {"type": "web"}}, "data_source_config", None),
    "no schema": ({"data_source_config": {"type": "custom"}}, "data_source_config.item_schema", None),
    "a deep schema": (
        {"data_source_config": {"type": "custom", "item_schema": json.loads('{"a":' * 40 + "{}" + "}" * 40)}},
        "data_source_config.item_schema",
        None,
    ),
    "much metadata": ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", None),
    "a NUL": ({"name": "a\0b"}, "name", None),
}


@pytest.mark.parametrize("name", BAD_EVALS)
def test_an_eval_that_cannot_be_is_refused_by_name(server: RunningServer, people: People, name: str) -> None:
    wrong, param, code = BAD_EVALS[name]
    body = {"data_source_config": CUSTOM, "testing_criteria": [SAME], **wrong}
    with server.http(headers=bearer(people.keys["full key"])) as http:
        assert_error(http.post("/v1/evals", json=body), 400, code, param)


ONE = {"ask": "a", "want": "b"}
BAD_RUNS: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "another kind": ({"type": "web"}, 400, "invalid_value"),
    "no model": (asking(model=None), 400, "missing_model"),
    "no messages": (asking(input_messages=None), 400, "missing_messages"),
    "an unknown model": (asking(model="no-such-model"), 404, "model_not_found"),
    "kept responses without any": (asking("responses", {"type": "responses", "model": "x"}), 400, "no_items"),
    "responses that reasoned": (
        asking("responses", {"type": "responses", "reasoning_effort": "high"}),
        400,
        "unsupported_parameter",
    ),
    "an image": (
        asking(
            input_messages={
                "type": "template",
                "template": [{"role": "user", "content": {"type": "input_image", "image_url": "http://x"}}],
            }
        ),
        400,
        "unsupported_content",
    ),
    "a message that names its answer": (
        asking(
            input_messages={"type": "template", "template": [{"role": "user", "content": "{{sample.output_text}}"}]}
        ),
        400,
        "invalid_template",
    ),
    "a reference elsewhere": (
        asking(input_messages={"type": "item_reference", "item_reference": "os.environ"}),
        400,
        None,
    ),
    "a wrong temperature": (asking(sampling_params={"temperature": 9}), 400, "invalid_value"),
    "a parameter of chat that runs do not have": (
        asking(sampling_params={"max_tokens": 5}),
        400,
        "unsupported_parameter",
    ),
    "reasoning": (asking(sampling_params={"reasoning_effort": "high"}), 400, "unsupported_parameter"),
    "a form in chat's words": (
        asking("responses", sampling_params={"response_format": {"type": "json_object"}}),
        400,
        "unsupported_parameter",
    ),
    "a form in the words of responses": (
        asking(sampling_params={"text": {"format": {"type": "json_object"}}}),
        400,
        "unsupported_parameter",
    ),
    "an unknown tool": (asking(sampling_params={"tools": [{"type": "web_search"}]}), 400, None),
    "no rows": ({"type": "jsonl", "source": {"type": "file_content", "content": []}}, 400, "invalid_value"),
    "a row that is none": (
        {"type": "jsonl", "source": {"type": "file_content", "content": [{"item": 3}]}},
        400,
        "invalid_value",
    ),
    "a row that does not fit the schema": (asking(source=rows({"want": "x"})), 400, "invalid_item"),
    "a field of another type": (asking(source=rows({"ask": 7})), 400, "invalid_item"),
    "a row that is too large": (asking(source=rows({"ask": "x" * 300_000})), 400, "invalid_item"),
    "no sample and nobody to ask": ({"type": "jsonl", "source": rows(dict(ONE))}, 400, "missing_sample"),
    "no file": ({"type": "jsonl", "source": {"type": "file_id", "id": "file-none"}}, 404, "not_found"),
    "no file, by a path": ({"type": "jsonl", "source": {"type": "file_id", "id": "../x"}}, 404, "not_found"),
}


@pytest.mark.parametrize("name", BAD_RUNS)
def test_a_run_that_cannot_be_is_refused_by_name(
    client: openai.OpenAI, server: RunningServer, people: People, name: str
) -> None:
    source, status, code = BAD_RUNS[name]
    made = make(client)
    with server.http(headers=bearer(people.keys["full key"])) as http:
        assert_error(http.post(f"/v1/evals/{made.id}/runs", json={"data_source": source}), status, code)
        assert http.get(f"/v1/evals/{made.id}/runs").json()["data"] == []


def test_a_broken_file_is_named_by_its_line(client: openai.OpenAI) -> None:
    made = make(client)
    good = json.dumps({"item": {"ask": "a"}, "sample": {"output_text": "x"}}).encode()
    for bad, number in (
        (b"{broken", 3),
        (b'{"item": 3}', 3),
        (b'{"ask": "a"}', 3),
        (b'{"item": {"ask": "a"}, "sample": "x"}', 3),
        (b'{"item": {"ask": "' + b"x" * 300_000 + b'"}}', 3),
        (b"", 0),
    ):
        data = good + b"\n\n" + bad if number else b"\n"
        file = client.files.create(file=("rows.jsonl", data), purpose="evals")
        with pytest.raises(openai.BadRequestError, match=f"Line {number} " if number else "no items"):
            begin(client, made.id, {"type": "jsonl", "source": {"type": "file_id", "id": file.id}})
    other = client.files.create(file=("rows.jsonl", good), purpose="user_data")
    with pytest.raises(openai.BadRequestError, match="user_data"):
        begin(client, made.id, {"type": "jsonl", "source": {"type": "file_id", "id": other.id}})


def test_evals_of_others_do_not_exist(client: openai.OpenAI, server: RunningServer, people: People) -> None:
    made = make(client)
    run = begin(client, made.id, {"type": "jsonl", "source": rows({**ONE, "answered": "b"})})
    until_over(client, made.id, run.id)
    [item] = items_of(client, run)
    ids = {"eval_id": made.id, "run_id": run.id, "output_item_id": item.id}
    body = {"data_source": {"type": "jsonl", "source": rows({**ONE, "answered": "b"})}, "name": "mine now"}
    seen = 0
    with (
        browser(server, "owner") as owner,
        server.http(headers=bearer(people.keys["full key of other"])) as other,
        server.http(headers=bearer(ADMIN_TOKEN)) as operator,
    ):
        for policy in route_policies(server.app):
            if policy.action is not Action.USE_EVALS or "{" not in policy.path:
                continue
            seen += 1
            has_body = policy.method == "POST" and not policy.path.endswith(("{run_id}", "/cancel"))
            sent = {"json": body} if has_body else {}
            for thief in (owner, other, operator):
                answer = thief.request(policy.method, policy.path.format(**ids), **sent)  # type: ignore[arg-type]
                assert_error(answer, 404)
                none = re.sub(r"\{(\w+?)_id\}", "eval_none", policy.path)
                assert thief.request(policy.method, none, **sent).json() == answer.json()  # type: ignore[arg-type]
        assert other.get("/v1/evals").json()["data"] == []
        assert_error(other.get("/v1/evals", params={"after": made.id}), 404)
        file = client.files.create(file=("x", b'{"item": {}}'), purpose="evals")
        theirs = other.post("/v1/evals", json={"data_source_config": CUSTOM, "testing_criteria": [SAME]}).json()
        asked = {"data_source": {"type": "jsonl", "source": {"type": "file_id", "id": file.id}}}
        assert_error(other.post(f"/v1/evals/{theirs['id']}/runs", json=asked), 404)
        assert_error(operator.get(f"/v1/evals/{theirs['id']}/runs/{run.id}"), 404)
        assert_error(other.get(f"/v1/evals/{theirs['id']}/runs/{run.id}"), 404)
        other.delete(f"/v1/evals/{theirs['id']}")
    assert seen == 11
    with server.http(headers=bearer(SERVER_KEY)) as anybody:
        assert "--accounts" in assert_error(anybody.get("/v1/evals"), 403)
    with server.http(headers=bearer(people.keys["inference key"])) as without_files:
        asked = {"data_source": {"type": "jsonl", "source": {"type": "file_id", "id": "file-x"}}}
        assert "files" in assert_error(without_files.post(f"/v1/evals/{made.id}/runs", json=asked), 403)
    assert client.evals.retrieve(made.id).name == ""


def test_runs_are_listed_and_deleted(client: openai.OpenAI, server: RunningServer) -> None:
    made = make(client)
    source = {"type": "jsonl", "source": rows({**ONE, "answered": "b"})}
    runs = [begin(client, made.id, source, name=str(number)) for number in range(3)]
    for run in runs:
        assert until_over(client, made.id, run.id).to_dict()["data_source"] == source
    listed = list(client.evals.runs.list(made.id, limit=2))
    assert [run.name for run in listed] == ["0", "1", "2"]
    for found in listed:
        RunListResponse.model_validate(found.to_dict())
        assert found.to_dict()["data_source"]["source"]["content"] == []  # type: ignore[index]
    assert [run.name for run in client.evals.runs.list(made.id, order="desc", limit=1)] == ["2", "1", "0"]
    assert list(client.evals.runs.list(made.id, status="failed")) == []
    assert len(list(client.evals.runs.list(made.id, status="completed"))) == 3
    with pytest.raises(openai.BadRequestError) as refused:
        client.evals.runs.cancel(runs[0].id, eval_id=made.id)
    assert refused.value.code == "run_not_open"
    gone = client.evals.runs.delete(runs[0].id, eval_id=made.id)
    RunDeleteResponse.model_validate(gone.to_dict())
    assert (gone.deleted, gone.object, gone.run_id) == (True, "eval.run.deleted", runs[0].id)
    with pytest.raises(openai.NotFoundError):
        client.evals.runs.retrieve(runs[0].id, eval_id=made.id)
    assert [run.name for run in client.evals.runs.list(made.id)] == ["1", "2"]


SLOW = {"max_completion_tokens": 30, "temperature": 0}


@pytest.fixture
def crawling(start: StartServer, tmp_path: Path) -> tuple[RunningServer, People]:
    """A server of its own in which an answer takes about a second."""
    people = settle(tmp_path)
    server = start(
        accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN, slow_step_s=0.03, batch_lines=2
    )
    return server, people


def many(n: int = 40) -> dict[str, Any]:
    return asking(source=rows(*({"ask": f"{number} 你好", "want": "x"} for number in range(n))), sampling_params=SLOW)


def as_user(server: RunningServer, people: People) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=people.keys["full key"], max_retries=0)


def n_done(client: openai.OpenAI, run: Any) -> int:
    return client.evals.runs.retrieve(run.id, eval_id=run.eval_id).result_counts.total


@pytest.mark.parametrize("how", ["canceled", "deleted", "suspended"])
def test_a_run_ends_when_it_shall(crawling: tuple[RunningServer, People], how: str) -> None:
    server, people = crawling
    with as_user(server, people) as client:
        made = make(client)
        run = begin(client, made.id, many())
        wait_until(lambda: n_done(client, run) >= 2)
        assert client.evals.runs.retrieve(run.id, eval_id=made.id).status == "in_progress"
        if how == "canceled":
            raw = client.evals.runs.with_raw_response.cancel(run.id, eval_id=made.id)
            assert RunCancelResponse.model_validate(raw.http_response.json()).status == "canceled"
            with server.http(headers=bearer(people.keys["full key"])) as http:  # as clients before said it
                assert_error(http.post(f"/v1/evals/{made.id}/runs/{run.id}"), 400, "run_not_open")
        elif how == "deleted":
            client.evals.delete(made.id)
        else:

            async def suspend(accounts: Accounts) -> None:
                async with accounts.database.write() as session:
                    await users.suspend(session, OPERATOR, people.ids["member"])

            people.do(suspend)
        wait_until(lambda: server.load() == (0, 0))

        async def look(accounts: Accounts) -> EvalRun | None:
            async with accounts.database.read() as session:
                row: EvalRun | None = await session.get(EvalRun, run.id)
                return row

        if how == "suspended":
            wait_until(lambda: people.do(look).status == "failed")
        kept = people.do(look)
        if how == "deleted":
            assert kept is None
        else:
            assert kept.status == ("canceled" if how == "canceled" else "failed")
            assert kept.error_code == (None if how == "canceled" else "user_suspended")
            assert 2 <= kept.n_failed + kept.n_passed < 40
        if how == "canceled":
            assert len(items_of(client, run)) == n_done(client, run)


def test_a_run_takes_its_share_and_no_more(crawling: tuple[RunningServer, People]) -> None:
    """Two runs together have the places that batches have, in a queue behind everybody who waits."""
    server, people = crawling
    engine: Any = server.model.engine
    generate, owners = engine.generate, []

    def noting(request: Any) -> Any:
        owners.append(request.owner)
        return generate(request)

    engine.generate = noting
    with as_user(server, people) as client:
        made = make(client)
        runs = [begin(client, made.id, many(8)) for _ in range(2)]
        most = 0

        def are_over() -> bool:
            nonlocal most
            most = max(most, sum(server.load()))
            return all(client.evals.runs.retrieve(run.id, eval_id=made.id).status == "completed" for run in runs)

        wait_until(are_over, within_s=100)
    assert 1 <= most <= 2
    assert len(set(owners)) == 2, "each run takes its turn"
    assert all(owner.startswith(BACKGROUND) for owner in owners)


def test_who_has_many_runs_leaves_room_for_those_of_others(crawling: tuple[RunningServer, People]) -> None:
    server, people = crawling
    other = openai.OpenAI(base_url=f"{server.url}/v1", api_key=people.keys["full key of other"], max_retries=0)
    with as_user(server, people) as client, other:
        made, theirs = make(client), make(other)
        runs = [begin(client, made.id, many()) for _ in range(6)]

        def at_work() -> list[str]:
            return [run.id for run in client.evals.runs.list(made.id, status="in_progress")]

        wait_until(lambda: len(at_work()) == 4)
        run = begin(other, theirs.id, many(1))
        assert until_over(other, theirs.id, run.id).status == "completed"
        assert at_work() == [run.id for run in runs[:4]]
        client.evals.runs.cancel(runs[0].id, eval_id=made.id)
        wait_until(lambda: at_work() == [run.id for run in runs[1:5]])
        client.evals.delete(made.id)
        wait_until(lambda: server.load() == (0, 0))


def test_texts_of_all_runs_are_compared_one_after_the_other(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def watched(*_: Any) -> float:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.005)
        with lock:
            now -= 1
        return 1.0

    monkeypatch.setattr(criteria, "similarity", watched)
    made = make(client, near("rouge_l"))
    source = {"type": "jsonl", "source": rows(*({**ONE, "answered": str(number)} for number in range(30)))}
    runs = [begin(client, made.id, source) for _ in range(3)]
    for run in runs:
        assert until_over(client, made.id, run.id).result_counts.passed == 30
    assert most == 1


def test_a_run_goes_on_where_the_last_server_stopped(start: StartServer, tmp_path: Path) -> None:
    people = settle(tmp_path)

    def serve() -> RunningServer:
        return start(
            accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN, slow_step_s=0.02, batch_lines=3
        )

    server = serve()
    with as_user(server, people) as client:
        made = make(client)
        run = begin(client, made.id, many(14))
        wait_until(lambda: n_done(client, run) >= 3)
    server.stop()
    with as_user(serve(), people) as client:
        before = {item.id: item.created_at for item in items_of(client, run)}
        done = until_over(client, made.id, run.id)
        assert done.status == "completed"
        assert done.result_counts.total == 14
        assert done.per_model_usage[0].invocation_count == 14, "what was answered is not answered again"
        after = {item.id: item.created_at for item in items_of(client, run)}
    assert len(after) == 14
    assert len(before) >= 3
    assert {id: after[id] for id in before} == before
