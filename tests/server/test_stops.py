"""Stop strings: never in the text, in a stream neither, wherever they begin and however many tokens they take."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.server.harness import MODEL, RunningServer, events_of

ANSWER = {"prompt": "你好，世", "seed": 12, "temperature": 0.8, "max_tokens": 90, "logit_bias": {"2": -100}}


@pytest.fixture(scope="module")
def text(server: RunningServer) -> str:
    """What the model says when nothing stops it."""
    text: str = server.complete(**ANSWER)["choices"][0]["text"]
    assert len(text) > 60
    assert any(ord(character) > 0x3000 for character in text), "multi-byte characters must occur"
    return text


def expected(text: str, stops: list[str]) -> str:
    """The text before the stop that is complete first, and of several complete at once the one that begins first."""
    found = [(place + len(stop), place) for stop in stops if (place := text.find(stop)) >= 0]
    return text[: min(found)[1]] if found else text


def stopped(server: RunningServer, stops: Any) -> dict[str, Any]:
    """The answer with these stops, which must be the same in a stream, chunk by chunk safe."""
    body = {"model": MODEL, **ANSWER, "stop": stops, "logprobs": 0}
    choice = server.complete(**body)["choices"][0]
    events = events_of(server.post("/v1/completions", {**body, "stream": True}).text)
    assert "".join(event["choices"][0]["text"] for event in events) == choice["text"]
    assert events[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    return choice


def test_any_piece_of_the_text_stops_it(server: RunningServer, text: str) -> None:
    rng = random.Random(5)
    for _ in range(5):
        start = rng.randrange(len(text) - 8)
        stop = text[start : start + rng.randint(1, 8)]
        choice = stopped(server, stop)
        assert choice["text"] == expected(text, [stop])
        assert choice["finish_reason"] == "stop"


def test_overlapping_stops_and_stops_that_never_come(server: RunningServer, text: str) -> None:
    middle = text[40:46]
    for stops in (
        [middle, middle[2:], middle[:2] + "\0"],
        [text[50:52], text[45:60] + "x", text[44:58]],
        [middle + "never", "不会出现", "🙃"],
        [f"never {i}" for i in range(15)] + [middle],
    ):
        choice = stopped(server, stops)
        assert choice["text"] == expected(text, stops)
        assert all(stop not in choice["text"] for stop in stops)
        assert choice["finish_reason"] == ("stop" if choice["text"] != text else "length")


def test_a_stop_at_the_very_start_leaves_nothing(server: RunningServer, text: str) -> None:
    choice = stopped(server, text[:1])
    assert (choice["text"], choice["finish_reason"]) == ("", "stop")


def test_characters_of_several_tokens_stop_whole(server: RunningServer, text: str) -> None:
    tokenizer = server.model.tokenizer
    split = next(c for c in text if ord(c) > 127 and c != "\ufffd" and len(tokenizer.encode(c)) > 1)
    assert stopped(server, split)["text"] == expected(text, [split])


def test_a_stop_string_in_the_prompt_stops_nothing(server: RunningServer) -> None:
    body = {**ANSWER, "prompt": "STOPSTOP", "stop": ["STOPSTOP"], "echo": True}
    choice = server.complete(**body)["choices"][0]
    assert choice["text"].startswith("STOPSTOP")
    assert len(choice["text"]) > len("STOPSTOP")


def test_stopping_frees_the_engine_at_once(server: RunningServer, text: str) -> None:
    answer = server.complete(**{**ANSWER, "n": 4, "stop": text[3:5]})
    assert answer["choices"][0]["text"] == expected(text, [text[3:5]])
    assert server.is_idle() or server.load() == (0, 0)
