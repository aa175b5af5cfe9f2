"""What server and engine process say to each other arrives as it was sent, in whatever pieces, errors with class and fields."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwright import errors
from chatwright.engine.process import wire
from chatwright.engine.process.failures import KINDS, Failure, error_of, failure_of
from chatwright.engine.protocol import (
    EngineStats,
    FinishEvent,
    GenerateRequest,
    Grammar,
    PromptEvent,
    SamplingParams,
    TokenEvent,
    TokenLogprobs,
)
from chatwright.errors import ChatwrightError, EngineError, InvalidRequestError, LimitReachedError, StorageError
from chatwright.i18n import describe_error

SCORES = TokenLogprobs(-0.5, ((3, -0.25), (4, float("-inf"))))
REQUEST = GenerateRequest(
    "id",
    [1, 2**31],
    SamplingParams(5, 0.7, seed=-(2**63), logit_bias={7: -100.0}, stop_ids=frozenset({1, 2}), logprobs=3),
    n=2,
    prompt_logprobs=0,
    owner="某人",
    adapter="support",
    grammar=Grammar("json_schema", "{}"),
)
TO_ENGINE: list[wire.ToEngine] = [
    wire.Start("/path", "name", {}, {"threads": 2, "cors_origins": []}, logging.INFO),
    wire.Generate(1, REQUEST),
    wire.Abort(1, None),
    wire.Drop(1),
    wire.Pause(1),
    wire.Resume(1),
    wire.Call(2, "score", [[1, 2], 3]),
    wire.Close(),
]
FROM_ENGINE: list[wire.FromEngine] = [
    wire.Ready(512, 2**33),
    wire.NotLoaded(Failure("EngineError", "x {y}", {"y": 1.5})),
    wire.Events(
        EngineStats(1, 2, 3, 0.5, True),
        [
            (1, PromptEvent(0, (None, SCORES))),
            (2, TokenEvent(0, 5, SCORES)),
            (2, FinishEvent(0, "stop", None, TokenEvent(0, 2))),
        ],
    ),
    wire.Failed(3, Failure("InvalidRequestError", "x", {}, "prompt", "invalid_value")),
    wire.Returned(4, msgspec.Raw(msgspec.msgpack.encode([0.5, 1.5]))),
    wire.Beat(EngineStats(0, 0, 0, 0.1, False, problem="…")),
]


@given(
    messages=st.lists(st.sampled_from([*TO_ENGINE, *FROM_ENGINE]), max_size=12),
    cuts=st.lists(st.integers(0, 4000), max_size=20),
)
def test_messages_come_out_as_they_went_in_whatever_the_pieces(messages: list[Any], cuts: list[int]) -> None:
    sent = b"".join(wire.frame(message) for message in messages)
    reader: wire.FrameReader[Any] = wire.FrameReader(wire.ToEngine | wire.FromEngine)
    places = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    received = [m for start, end in pairwise(places) for m in reader.feed(sent[start:end])]
    assert received == messages


def test_a_frame_of_numpys_numbers_is_one_of_numbers() -> None:
    frame = wire.frame(wire.Events(EngineStats(0, 0, 0, 0.0, True), [(1, TokenEvent(0, np.int64(5)))]))  # type: ignore[arg-type]
    assert frame == wire.frame(wire.Events(EngineStats(0, 0, 0, 0.0, True), [(1, TokenEvent(0, 5))]))


@pytest.mark.parametrize(
    "nonsense",
    [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\2\x91\xa0", b"\x80\x04\x95" * 1000, wire.frame(TO_ENGINE[0])],
)
def test_what_is_no_message_is_an_error_and_nothing_else(nonsense: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        list(wire.FrameReader(wire.FromEngine).feed(nonsense))


@given(st.binary(max_size=200))
def test_random_bytes_make_no_objects(data: bytes) -> None:
    try:
        messages = list(wire.FrameReader(wire.FromEngine).feed(data))
    except msgspec.DecodeError:
        return
    assert all(type(message).__module__ == wire.__name__ for message in messages)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_errors_keep_class_sentence_and_fields(name: str) -> None:
    own = {"param": "prompt", "code": "invalid_value"} if issubclass(KINDS[name], InvalidRequestError) else {}
    error = KINDS[name]("{path}: {n} of {share:.1%} {what}", path=Path("/x"), n=3, share=0.5, what="词", **own)
    failure = msgspec.msgpack.decode(msgspec.msgpack.encode(failure_of(error)), type=Failure)
    back = error_of(failure)
    assert type(back) is type(error)
    assert str(back) == str(error) == "/x: 3 of 50.0% 词"
    assert describe_error(back, "zh") == describe_error(error, "zh")
    if isinstance(back, InvalidRequestError):
        assert (back.param, back.code) == ("prompt", "invalid_value")


def test_every_error_of_ours_can_cross() -> None:
    ours = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ChatwrightError)}
    assert ours - {ChatwrightError, LimitReachedError} == set(KINDS.values())


def test_other_errors_keep_what_users_wrote_to_themselves(caplog: pytest.LogCaptureFixture) -> None:
    written = "secret " + "prompt text"
    try:
        raise KeyError(written)
    except KeyError as error:
        failure = failure_of(error)
    assert isinstance(error_of(failure), EngineError)
    assert str(error_of(failure)) == "The engine failed (KeyError). The server's log says where."
    assert "test_wire.py" in caplog.text
    assert "secret prompt" not in caplog.text
    for error in (
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ):
        assert isinstance(error_of(failure_of(error)), StorageError)
