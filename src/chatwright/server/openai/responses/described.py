"""How the API's description shows responses and items: as they are here. OpenAI's own types have room for fifty kinds of items, and
for tools that only run there; each of these is one of those."""

from __future__ import annotations

from typing import Any, Literal

from openai.types.conversations import Message
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseUsage
from openai.types.responses.response_function_tool_call_item import ResponseFunctionToolCallItem
from openai.types.responses.response_function_tool_call_output_item import ResponseFunctionToolCallOutputItem
from openai.types.responses.response_input_message_item import ResponseInputMessageItem
from pydantic import BaseModel, RootModel

from chatwright.store.responses.rows import Status


class ResponseFailure(BaseModel):
    """Why it failed."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class Incomplete(BaseModel):
    """Why it ended before its end."""

    reason: Literal["max_output_tokens"]


class InConversation(BaseModel):
    """Where it was said."""

    id: str


class DescribedResponse(BaseModel):
    """A response. What was asked for is told in full."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Status
    error: ResponseFailure | None
    incomplete_details: Incomplete | None
    model: str
    output: list[ResponseOutputMessage | ResponseFunctionToolCall]
    usage: ResponseUsage | None
    background: bool
    store: bool
    conversation: InConversation | None
    previous_response_id: str | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    temperature: float
    top_p: float
    top_logprobs: int
    text: dict[str, Any]
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    truncation: Literal["auto", "disabled"]


class DescribedInputItems(BaseModel):
    """A page of what was said to the model."""

    object: Literal["list"]
    data: list[
        ResponseInputMessageItem
        | ResponseOutputMessage
        | ResponseFunctionToolCallItem
        | ResponseFunctionToolCallOutputItem
    ]
    first_id: str
    last_id: str
    has_more: bool


class DescribedItem(RootModel[Message | ResponseFunctionToolCallItem | ResponseFunctionToolCallOutputItem]):
    """A message, a call, or the result of one."""


class DescribedItems(BaseModel):
    """A page of what was said in a conversation."""

    object: Literal["list"]
    data: list[DescribedItem]
    first_id: str
    last_id: str
    has_more: bool
