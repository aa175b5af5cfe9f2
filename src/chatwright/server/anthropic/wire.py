"""What `/v1/messages` answers: Anthropic's objects and stream events, as its official client knows them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded", "refusal"]


class AnthropicText(BaseModel):
    """Text of the answer."""

    type: Literal["text"] = "text"
    text: str


class ToolUseContent(BaseModel):
    """A call."""

    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, Any]


class AnthropicUsage(BaseModel):
    """`input_tokens` are those that were computed: without `cache_read_input_tokens`, found in the cache."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0

    @classmethod
    def of(cls, n_prompt: int, n_answer: int, n_reused: int = 0) -> AnthropicUsage:
        """From counts of the whole prompt, of the answer, and of what was in the cache."""
        return cls(input_tokens=n_prompt - n_reused, output_tokens=n_answer, cache_read_input_tokens=n_reused)


class AnthropicMessage(BaseModel):
    """The assistant's next message."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[AnthropicText | ToolUseContent]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: AnthropicUsage


class TokenCount(BaseModel):
    """What a conversation comes to."""

    input_tokens: int


class MessageStart(BaseModel):
    """A stream begins, with an empty message."""

    type: Literal["message_start"] = "message_start"
    message: AnthropicMessage


class BlockStart(BaseModel):
    """A block of content begins, empty."""

    type: Literal["content_block_start"] = "content_block_start"
    index: int
    content_block: AnthropicText | ToolUseContent


class TextPiece(BaseModel):
    """More text."""

    type: Literal["text_delta"] = "text_delta"
    text: str


class InputPiece(BaseModel):
    """More of the JSON of a call's arguments."""

    type: Literal["input_json_delta"] = "input_json_delta"
    partial_json: str


class BlockDelta(BaseModel):
    """A block goes on."""

    type: Literal["content_block_delta"] = "content_block_delta"
    index: int
    delta: TextPiece | InputPiece


class BlockStop(BaseModel):
    """A block is over."""

    type: Literal["content_block_stop"] = "content_block_stop"
    index: int


class Ending(BaseModel):
    """Why the answer ended."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(BaseModel):
    """The answer has ended; the counts are those of the whole."""

    type: Literal["message_delta"] = "message_delta"
    delta: Ending
    usage: AnthropicUsage


class MessageStop(BaseModel):
    """The stream is over."""

    type: Literal["message_stop"] = "message_stop"


StreamEvent = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop
