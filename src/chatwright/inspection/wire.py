"""What a server and the process that looks inside a model say to each other: msgpack on a socket, one question after the other.

The first message is `engine.process.wire.Start`, which is not answered; then each `Look` is, by `Looked` or `NotLooked`.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from chatwright.engine.process.failures import Failure


class Look(Struct, frozen=True, array_like=True, tag="look"):
    """Look at a text. `answer_ids`: the answer to look at; None: the likeliest of up to `max_tokens` tokens. `method`: how input
    tokens are weighed, None: not at all. `attention`: how much of it is told."""

    prompt_ids: list[int]
    answer_ids: list[int] | None
    max_tokens: int
    method: Literal["gradient", "occlusion"] | None
    top: int
    attention: Literal["heads", "mean", "none"]


class Looked(Struct, frozen=True, array_like=True, tag="looked"):
    """What there is to see: `Explanation.to_json` as JSON."""

    json: bytes


class NotLooked(Struct, frozen=True, array_like=True, tag="not looked"):
    """Why there is nothing to see."""

    failure: Failure
