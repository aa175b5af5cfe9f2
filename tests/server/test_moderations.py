"""/v1/moderations through the official clients; and where it is switched on, requests refused and answers ended, in every form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import numpy as np
import openai
import pytest
from openai.types import ModerationCreateResponse

from chatwright.errors import InvalidModelError
from chatwright.moderation.categories import CATEGORIES
from chatwright.moderation.classifier import Classifier
from chatwright.moderation.vectors import word_vectors
from tests.server.conftest import StartServer
from tests.server.harness import MODEL, RunningServer, assert_error, events_of

BAD = "How do I build a pipe bomb?"
GOOD = "The capital of France"
ANSWER: dict[str, Any] = {"temperature": 0, "max_tokens": 60}


@pytest.mark.parametrize(
    "name",
    [None, "omni-moderation-latest", "omni-moderation-2024-09-26", "text-moderation-latest", "text-moderation-stable"],
)
def test_the_official_client_gets_a_result_for_each_text(client: openai.OpenAI, name: Any) -> None:
    asked = {} if name is None else {"model": name}

    answer = client.moderations.create(input=[BAD, GOOD, "我想自杀。"], **asked)

    ModerationCreateResponse.model_validate(answer.model_dump(by_alias=True))
    assert answer.id.startswith("modr-")
    assert answer.model == (name or "omni-moderation-latest")
    assert [result.flagged for result in answer.results] == [True, False, True]
    first, _, last = answer.results
    assert first.categories.illicit_violent
    assert first.category_scores.illicit_violent > 0.5
    assert last.categories.self_harm_intent
    assert first.category_applied_input_types.self_harm_intent == ["text"]


def test_all_categories_are_named_as_at_openai(server: RunningServer) -> None:
    result = server.post("/v1/moderations", {"input": ""}).json()["results"][0]

    for field in ("categories", "category_scores", "category_applied_input_types"):
        assert set(result[field]) == set(CATEGORIES)
    assert result["flagged"] is False


def test_parts_of_a_list_are_one_text(client: openai.OpenAI) -> None:
    answer = client.moderations.create(input=[{"type": "text", "text": GOOD}, {"type": "text", "text": BAD}])

    assert [result.flagged for result in answer.results] == [True]


def test_clients_of_old_ask_without_v1(server: RunningServer) -> None:
    assert server.post("/moderations", {"input": BAD}).json()["results"][0]["flagged"] is True


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (
            {"input": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]},
            400,
            "unsupported_content",
        ),
        ({"input": "x", "model": "gpt-9"}, 404, "model_not_found"),
        ({}, 400, None),
        ({"input": []}, 400, None),
        ({"input": 7}, 400, None),
        ({"input": ["x", 7]}, 400, None),
        ({"input": [{"type": "text"}]}, 400, None),
        ({"input": ["x"] * 2049}, 400, None),
        ({"input": "x" * 500_001}, 400, "string_above_max_length"),
    ],
)
def test_what_cannot_be_classified_is_refused(server: RunningServer, body: Any, status: int, code: str | None) -> None:
    assert_error(server.post("/v1/moderations", body), status, code)


# The tiny model says no harm. A classifier of the test's own takes a word that it does say for harmful.


@pytest.fixture(scope="module")
def plain(server: RunningServer) -> str:
    """What the model answers unhindered."""
    text: str = server.complete(prompt=GOOD, **ANSWER)["choices"][0]["text"]
    return text


@pytest.fixture(scope="module")
def word(plain: str) -> str:
    """A word in the middle of its answer, which nothing before it holds."""
    words = [word.strip(".,") for word in plain.split()]
    return next(
        word
        for word in words
        if word.isascii() and word.isalpha() and len(word) > 2 and plain.index(word) > 8 and word not in GOOD
    )


@pytest.fixture(scope="module")
def guarded(start: StartServer, word: str, tmp_path_factory: pytest.TempPathFactory) -> RunningServer:
    folder = tmp_path_factory.mktemp("classifier")
    n = len(CATEGORIES)
    weights = np.zeros((1, n), dtype=np.float32)
    weights[0, CATEGORIES.index("violence")] = 60_000
    bias, thresholds = np.full(n, -9, dtype=np.float32), np.full(n, 0.5, dtype=np.float32)
    of_vectors = np.zeros((word_vectors().n_dimensions, len(CATEGORIES)), dtype=np.float32)
    Classifier([word.lower()], weights, of_vectors, bias, thresholds).save(folder)
    return start(moderate=True, moderation_model=folder)


@pytest.fixture
def guarded_client(guarded: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="x", max_retries=0) as client:
        yield client


def test_a_completion_ends_before_the_word(guarded: RunningServer, plain: str, word: str) -> None:
    answer = guarded.complete(prompt=GOOD, **ANSWER)
    choice = answer["choices"][0]

    assert choice["finish_reason"] == "content_filter"
    assert plain.startswith(choice["text"])
    assert 0 < len(choice["text"]) <= plain.index(word) + len(word)
    assert word not in choice["text"]


def test_a_stream_says_the_same_and_ends_the_same(guarded: RunningServer, word: str) -> None:
    whole = guarded.complete(prompt=GOOD, **ANSWER)
    body = {"model": MODEL, "prompt": GOOD, **ANSWER, "stream": True, "stream_options": {"include_usage": True}}

    events = events_of(guarded.post("/v1/completions", body).text)

    choices = [event["choices"][0] for event in events if event["choices"]]
    assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["content_filter"]
    assert events[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


def test_other_choices_go_on(guarded: RunningServer, plain: str) -> None:
    other = "你好"
    alone = guarded.complete(prompt=other, **ANSWER)["choices"][0]

    both = guarded.complete(prompt=[GOOD, other], **ANSWER)["choices"]

    assert both[0]["finish_reason"] == "content_filter"
    assert both[1]["text"] == alone["text"]
    assert both[1]["finish_reason"] == alone["finish_reason"]


def test_a_choice_that_is_ended_leaves_the_engine(guarded: RunningServer) -> None:
    for _ in range(3):
        guarded.complete(prompt=GOOD, n=4, max_tokens=200, temperature=0)

    assert guarded.is_idle()


def chat_that_says(server: RunningServer, word: str) -> dict[str, Any]:
    """A chat whose unhindered answer has the word behind its beginning: forced by a grammar."""
    schema = {
        "type": "object",
        "properties": {"a": {"const": "well then"}, "b": {"const": word}},
        "required": ["a", "b"],
    }
    form = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {**schema, "additionalProperties": False}, "strict": True},
    }
    return {
        "messages": [{"role": "user", "content": "Hello"}],
        "response_format": form,
        "max_tokens": 200,
        "temperature": 0,
    }


def test_chat_ends_with_content_filter_streamed_or_not(
    guarded_client: openai.OpenAI, guarded: RunningServer, word: str
) -> None:
    asked = chat_that_says(guarded, word)

    whole = guarded_client.chat.completions.create(model=MODEL, **asked).choices[0]
    chunks = list(guarded_client.chat.completions.create(model=MODEL, **asked, stream=True))

    assert whole.finish_reason == "content_filter"
    assert word not in (whole.message.content or "")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content
    assert chunks[-1].choices[0].finish_reason == "content_filter"


def test_a_response_is_incomplete_because_of_it(
    guarded_client: openai.OpenAI, guarded: RunningServer, word: str
) -> None:
    asked = chat_that_says(guarded, word)
    form = asked["response_format"]["json_schema"]
    body: dict[str, Any] = {
        "model": MODEL,
        "input": "Hello",
        "temperature": 0,
        "store": False,
        "text": {"format": {"type": "json_schema", **form}},
    }

    whole = guarded_client.responses.create(**body)
    events = list(guarded_client.responses.create(**body, stream=True))

    assert whole.status == "incomplete"
    assert whole.incomplete_details is not None
    assert whole.incomplete_details.reason == "content_filter"
    assert word not in whole.output_text
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details == whole.incomplete_details
    assert last.response.output_text == whole.output_text


def test_what_is_said_is_refused_before_anything_is_computed(guarded: RunningServer, word: str) -> None:
    said = f"Tell me more, {word}!"
    for path, body in [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": said}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": said}]}]}),
        ("/v1/completions", {"prompt": ["Hello", said], "max_tokens": 5}),
        ("/v1/completions", {"prompt": guarded.model.tokenizer.encode(said), "max_tokens": 5}),
        ("/v1/responses", {"input": said, "store": False}),
        ("/v1/edits", {"input": said, "instruction": "Repeat it."}),
    ]:
        for extra in [{}] if path == "/v1/edits" else [{}, {"stream": True}]:
            message = assert_error(
                guarded.post(path, {"model": MODEL, **body, **extra}), 400, "content_policy_violation"
            )
            assert "violence" in message
            assert word not in message
    with guarded.http() as client:
        metrics = client.get("/metrics").text
    assert guarded.is_idle(), metrics


def test_the_error_names_the_field(guarded: RunningServer, word: str) -> None:
    for path, body, param in [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": word}]}, "messages"),
        ("/v1/completions", {"prompt": word}, "prompt"),
        ("/v1/responses", {"input": word, "store": False}, "input"),
    ]:
        assert_error(guarded.post(path, {"model": MODEL, **body}), 400, "content_policy_violation", param)


def test_instructions_may_name_what_is_forbidden(guarded: RunningServer, word: str) -> None:
    messages = [{"role": "system", "content": f"Never say {word}."}, {"role": "user", "content": "Hello"}]

    response = guarded.post("/v1/chat/completions", {"model": MODEL, "messages": messages, "max_tokens": 5})

    assert response.status_code == 200


def test_anthropics_clients_get_a_refusal_in_their_own_form(guarded: RunningServer, word: str) -> None:
    with (
        anthropic.Anthropic(base_url=guarded.url, api_key="x", max_retries=0) as client,
        pytest.raises(anthropic.BadRequestError, match="classified as violence"),
    ):
        client.messages.create(model=MODEL, max_tokens=5, messages=[{"role": "user", "content": word}])


def test_without_the_switch_nothing_is_refused(server: RunningServer) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": BAD}], "max_tokens": 2}

    assert server.post("/v1/chat/completions", body).status_code == 200


def test_the_shipped_classifier_guards_too(start: StartServer) -> None:
    guarded = start(moderate=True)
    body = {"model": MODEL, "messages": [{"role": "user", "content": BAD}], "max_tokens": 2}

    assert_error(guarded.post("/v1/chat/completions", body), 400, "content_policy_violation")
    assert (
        guarded.post("/v1/chat/completions", {**body, "messages": [{"role": "user", "content": GOOD}]}).status_code
        == 200
    )


def test_a_broken_classifier_keeps_the_server_from_starting(start: StartServer, tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="no moderation classifier"):
        start(moderate=True, moderation_model=tmp_path)
