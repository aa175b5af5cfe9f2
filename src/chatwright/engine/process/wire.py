"""What server and engine process say to each other: msgpack frames, each a message of one of the types below.

A frame is the length of its body (4 bytes, big-endian) and the body. No pickle: whatever a body holds, decoding it makes nothing
but these types, numbers, strings and lists of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from chatwright.engine.process.failures import Failure
from chatwright.engine.protocol import EngineEvent, EngineStats, GenerateRequest, TokenLogprobs

T = TypeVar("T")

# Scores of a whole prompt's step are the largest message: 256 tokens with 20 alternatives each are 100 kB.
MAX_FRAME_BYTES = 256 * 2**20
LENGTH_BYTES = 4

# What can be called on an engine beside `generate` and `abort`, and what comes back. A call more is a line here and a method of
# `supervised.ProcessEngine`.
CALLS: dict[str, Any] = {
    "score": list[TokenLogprobs | None],
    "embed": list[float],
    "probe": float,
    "load_adapter": None,
    "unload_adapter": None,
}


class Start(Struct, frozen=True, array_like=True, tag="start"):
    """The first message: load this model, and adapters (name → folder). `settings` are those of `Settings`, without secrets;
    `log_level` is logging's."""

    path: str
    name: str
    adapters: dict[str, str]
    settings: dict[str, Any]
    log_level: int


class Generate(Struct, frozen=True, array_like=True, tag="generate"):
    """Events of this request are asked for; they come back under `number`."""

    number: int
    request: GenerateRequest


class Abort(Struct, frozen=True, array_like=True, tag="abort"):
    """`Engine.abort` of a request: its choices end with events."""

    number: int
    index: int | None


class Drop(Struct, frozen=True, array_like=True, tag="drop"):
    """Nobody reads these events any more."""

    number: int


class Pause(Struct, frozen=True, array_like=True, tag="pause"):
    """The reader of these events is slow: send no more of them for now."""

    number: int


class Resume(Struct, frozen=True, array_like=True, tag="resume"):
    """The reader has caught up."""

    number: int


class Call(Struct, frozen=True, array_like=True, tag="call"):
    """Call the method `name` (of CALLS); the answer comes back under `number`."""

    number: int
    name: str
    arguments: list[Any]


class Close(Struct, frozen=True, array_like=True, tag="close"):
    """Abort everything and leave."""


class Ready(Struct, frozen=True, array_like=True, tag="ready"):
    """The model is loaded: conversations may have so many tokens, and the process takes so much memory before the first one."""

    max_context: int
    memory_bytes: int


class NotLoaded(Struct, frozen=True, array_like=True, tag="not loaded"):
    """The model could not be loaded; the process leaves."""

    failure: Failure


class Events(Struct, frozen=True, array_like=True, tag="events"):
    """All events of a step, each with its request's number, and how the engine is after it."""

    stats: EngineStats
    events: list[tuple[int, EngineEvent]]


class Failed(Struct, frozen=True, array_like=True, tag="failed"):
    """What was asked for under this number ended with an error."""

    number: int
    failure: Failure


class Returned(Struct, frozen=True, array_like=True, tag="returned"):
    """What a call returned: msgpack of its type in CALLS."""

    number: int
    value: msgspec.Raw


class Beat(Struct, frozen=True, array_like=True, tag="beat"):
    """How the engine is, at least once a second."""

    stats: EngineStats


ToEngine = Start | Generate | Abort | Drop | Pause | Resume | Call | Close
FromEngine = Ready | NotLoaded | Events | Failed | Returned | Beat


def _as_number(value: Any) -> int | float:
    """NumPy's numbers, which an engine may come by."""
    if not hasattr(value, "item"):
        raise NotImplementedError(f"{type(value)} does not go over the wire")
    number: int | float = value.item()
    return number


_encoder = msgspec.msgpack.Encoder(enc_hook=_as_number)


def frame(message: Struct) -> bytearray:
    """The message with its length before it."""
    buffer = bytearray(LENGTH_BYTES)
    _encoder.encode_into(message, buffer, LENGTH_BYTES)
    buffer[:LENGTH_BYTES] = (len(buffer) - LENGTH_BYTES).to_bytes(LENGTH_BYTES, "big")
    return buffer


class FrameReader(Generic[T]):
    """Cuts what arrives into messages, whatever pieces it comes in."""

    def __init__(self, kind: Any) -> None:
        """`kind`: the union of the messages to expect, ToEngine or FromEngine."""
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(kind)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[T]:
        """The messages that are complete now. Raises msgspec.DecodeError (ValidationError) for what is none."""
        self._buffer += data
        start, size = 0, len(self._buffer)
        with memoryview(self._buffer) as view:
            while size - start >= LENGTH_BYTES:
                n_bytes = int.from_bytes(view[start : start + LENGTH_BYTES], "big")
                if n_bytes > MAX_FRAME_BYTES:
                    raise msgspec.DecodeError(f"a frame of {n_bytes} bytes")
                end = start + LENGTH_BYTES + n_bytes
                if end > size:
                    break
                # A copy, small: a `Raw` in the message refers to it.
                yield self._decoder.decode(bytes(view[start + LENGTH_BYTES : end]))
                start = end
        del self._buffer[:start]
