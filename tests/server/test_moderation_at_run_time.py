"""Moderation where it is switched on, beyond one request of chat: the web app's conversations, texts that are continued, calls, and
what it costs whom; and the moderator's own work, which takes turns."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from chatwright.errors import OverloadedError
from chatwright.moderation.categories import CATEGORIES
from chatwright.moderation.classifier import Classifier
from chatwright.moderation.vectors import word_vectors
from chatwright.moderation.words import words_of
from chatwright.server import guard
from chatwright.server.guard import Moderator
from chatwright.store.database import Database
from tests.server.conftest import StartServer
from tests.server.harness import MODEL, RunningServer, assert_error, events_of, wait_until
from tests.server.people import ADMIN_TOKEN, People, bearer, browser, settle
from tests.server.talks import ask, begin, follow_to_end, look
from tests.server.test_usage import Server
from tests.store.people import quick_accounts

PROMPT = "The capital of France"
FORBIDDEN = "zeppelin"


def classifier_of(folder: Path, *harmful: str) -> Path:
    """A classifier that takes these, words or two words beside each other, for violence."""
    n = len(CATEGORIES)
    weights = np.zeros((len(harmful), n), dtype=np.float32)
    weights[:, CATEGORIES.index("violence")] = 60_000
    bias, thresholds = np.full(n, -9, dtype=np.float32), np.full(n, 0.5, dtype=np.float32)
    of_vectors = np.zeros((word_vectors().n_dimensions, n), dtype=np.float32)
    Classifier(harmful, weights, of_vectors, bias, thresholds).save(folder)
    return folder


@pytest.fixture(scope="module")
def guarded(start: StartServer, server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """It may not go on behind the prompt as it would, nor hear one word."""
    continued = words_of(server.complete(prompt=PROMPT, temperature=0, max_tokens=40)["choices"][0]["text"])
    folder = classifier_of(tmp_path_factory.mktemp("classifier"), f"{words_of(PROMPT)[-1]} {continued[0]}", FORBIDDEN)
    people: People = settle(tmp_path_factory.mktemp("moderated"))
    running = start(
        accounts=quick_accounts(Database(people.url)), admin_token=ADMIN_TOKEN, moderate=True, moderation_model=folder
    )
    return Server(running, people)


class EndsAtOnce:
    """Takes the first piece of an answer for harmful: whatever the tiny model says."""

    def __init__(self, *_: Any) -> None: ...

    def look(self, _: str, *, is_last: bool = False) -> str:
        return "end"


def test_a_conversation_is_ended_with_a_sentence_and_paid_for(guarded: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "TextWatch", EndsAtOnce)
    with browser(guarded.running, "member") as member:
        before = guarded.used()
        conversation = begin(member)
        answer = ask(member, conversation, "Hello", max_tokens=40)["answer"]
        text, _ = follow_to_end(member, conversation, answer["id"])
        [_, kept] = look(member, conversation)["messages"]
    assert text == kept["content"] == ""
    assert (kept["finish_reason"], kept["error"]["code"]) == ("error", "content_filter")
    assert "harmful" in kept["error"]["message"]
    requests, n_prompt, n_answer = guarded.since(before)
    assert (requests, n_answer) == (1, 0)
    assert n_prompt > 5, "the model has read it, whatever was shown of the answer"


def test_what_is_said_in_a_conversation_is_refused_and_not_kept(guarded: Server) -> None:
    with browser(guarded.running, "member") as member:
        before, conversation = guarded.used(), begin(member)
        said = {"model": MODEL, "content": f"Tell me of the {FORBIDDEN}."}
        answer = member.post(f"/api/conversations/{conversation}/generations", json=said)
        assert_error(answer, 400, "content_policy_violation", "content")
        long = {"model": MODEL, "content": f"{FORBIDDEN} " * 9000}
        answer = member.post(f"/api/conversations/{conversation}/generations", json=long)
        assert_error(answer, 400, "context_length_exceeded", "content")
        assert look(member, conversation)["messages"] == []
    assert guarded.since(before) == (0, 0, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_that_becomes_harmful_only_with_its_prompt_is_ended(guarded: Server, stream: bool) -> None:
    body = {"model": MODEL, "temperature": 0, "max_tokens": 40, "stream": stream}
    with guarded.program() as http:
        for prompt in (PROMPT, guarded.running.model.tokenizer.encode(PROMPT), [PROMPT, PROMPT]):
            answer = http.post("/v1/completions", json={**body, "prompt": prompt})
            assert answer.status_code == 200, answer.text
            events = events_of(answer.text) if stream else [answer.json()]
            choices = [choice for event in events for choice in event["choices"]]
            assert "".join(choice["text"] for choice in choices) == ""
            assert {choice["finish_reason"] for choice in choices} - {None} == {"content_filter"}


@pytest.mark.parametrize("kind", ["tool_calls", "function_call", "input"])
def test_what_was_called_with_harmful_words_is_refused(guarded: Server, kind: str) -> None:
    called = {"name": "look", "arguments": json.dumps({"for": FORBIDDEN})}
    asked: dict[str, Any] = {"role": "user", "content": "Look."}
    with guarded.program() as http:
        if kind == "tool_calls":
            call = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": called}]}
            messages = [asked, call, {"role": "tool", "tool_call_id": "1", "content": "ok"}]
        else:
            messages = [
                asked,
                {"role": "assistant", "content": None, "function_call": called},
                {"role": "function", "name": "look", "content": "ok"},
            ]
        if kind == "input":
            items = [
                {"type": "message", **asked},
                {"type": "function_call", "call_id": "1", **called},
                {"type": "function_call_output", "call_id": "1", "output": "ok"},
            ]
            answer = http.post("/v1/responses", json={"model": MODEL, "input": items, "store": False})
        else:
            answer = http.post("/v1/chat/completions", json={"model": MODEL, "messages": messages, "max_tokens": 4})
    assert_error(answer, 400, "content_policy_violation", "input" if kind == "input" else "messages")


@pytest.mark.parametrize("kind", ["completions", "responses"])
def test_a_run_of_an_eval_says_why_an_answer_ended(guarded: Server, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "TextWatch", EndsAtOnce)
    check = {
        "type": "string_check",
        "operation": "eq",
        "input": "{{sample.finish_reason}}",
        "reference": "content_filter",
    }
    source = {
        "type": kind,
        "model": MODEL,
        "source": {"type": "file_content", "content": [{"item": {"say": "Hello"}}, {"item": {"say": FORBIDDEN}}]},
        "input_messages": {"type": "template", "template": [{"role": "user", "content": "{{item.say}}"}]},
    }
    with guarded.client() as client:
        config: Any = {"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True}
        made = client.evals.create(data_source_config=config, testing_criteria=[check])  # type: ignore[list-item]
        run = client.evals.runs.create(made.id, data_source=source)  # type: ignore[arg-type]
        wait_until(lambda: client.evals.runs.retrieve(run.id, eval_id=made.id).status == "completed")
        ended, refused = client.evals.runs.output_items.list(run.id, eval_id=made.id)
    assert (ended.status, ended.sample.finish_reason) == ("pass", "content_filter")
    assert (refused.status, refused.sample.error.code) == ("error", "content_policy_violation")


def test_moderations_are_requests_to_those_whose_requests_are_limited(guarded: Server) -> None:
    guarded.limit({"requests_per_minute": 0}, key_id=guarded.people.key_ids["full key"])
    before = guarded.used()
    with guarded.running.http(headers=bearer(guarded.people.keys["full key"])) as limited:
        assert_error(limited.post("/v1/moderations", json={"input": "x"}), 429, "rate_limit_exceeded")
    assert guarded.since(before) == (0, 0, 0)
    with guarded.client() as client:
        client.moderations.create(input=["x", "y"])
    assert guarded.since(before) == (1, 0, 0)
    with guarded.running.http(headers=bearer(ADMIN_TOKEN)) as operator:
        path = (
            f"/v1/organization/usage/moderations?start_time={int(time.time()) - 86_400}&group_by=model&group_by=user_id"
        )
        results = [result for bucket in operator.get(path).json()["data"] for result in bucket["results"]]
    assert [(r["object"], r["num_model_requests"], r["model"], r["user_id"]) for r in results] == [
        ("organization.usage.moderations.result", 1, "omni-moderation-latest", guarded.people.ids["member"])
    ]


class Slow(Classifier):
    """Counts its steps, and how many of them there are at once."""

    def __init__(self) -> None:
        n = len(CATEGORIES)
        none = np.zeros((0, n), np.float32), np.zeros((word_vectors().n_dimensions, n), np.float32)
        super().__init__([], *none, np.zeros(n, np.float32), np.full(n, 2, np.float32))
        self.n_steps = self.n_at_once = self.most_at_once = 0
        self.lock, self.may_go = threading.Lock(), threading.Event()
        self.may_go.set()

    def logits(self, words: Sequence[str]) -> NDArray[np.float32]:
        with self.lock:
            self.n_steps += 1
            self.n_at_once += 1
            self.most_at_once = max(self.most_at_once, self.n_at_once)
        assert self.may_go.wait(60)
        found = super().logits(words)
        with self.lock:
            self.n_at_once -= 1
        return found


@pytest.fixture
def slow() -> tuple[Moderator, Slow]:
    moderator, classifier = Moderator(None), Slow()
    moderator.__dict__["classifier"] = classifier
    return moderator, classifier


LONG = "One sentence after the other comes here. " * 5000


async def test_long_texts_and_short_ones_take_turns(slow: tuple[Moderator, Slow]) -> None:
    moderator, classifier = slow
    long = [asyncio.create_task(moderator.judge([LONG])) for _ in range(8)]
    short = await moderator.judge(["Hello."])
    assert len(short) == 1
    assert not any(task.done() for task in long)
    for task in long:
        task.cancel()
    await asyncio.gather(*long, return_exceptions=True)
    assert classifier.most_at_once == 1


async def test_nobody_works_for_who_has_left(slow: tuple[Moderator, Slow]) -> None:
    moderator, classifier = slow
    long = asyncio.create_task(moderator.judge([LONG] * 2000))
    while not classifier.n_steps:
        await asyncio.sleep(0)
    long.cancel()
    await asyncio.gather(long, return_exceptions=True)
    for _ in range(2000):
        before = classifier.n_steps
        await moderator.judge(["Hello."])
        if classifier.n_steps == before + 1:
            return
    pytest.fail("it goes on")


async def test_too_many_who_wait_are_told(slow: tuple[Moderator, Slow], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MOST_WAITING", 3)
    moderator, classifier = slow
    classifier.may_go.clear()
    waiting = [asyncio.create_task(moderator.judge(["Hello."])) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await moderator.judge(["Hello."])
    classifier.may_go.set()
    assert len(await asyncio.gather(*waiting)) == 3
    assert len(await moderator.judge(["Hello."])) == 1
