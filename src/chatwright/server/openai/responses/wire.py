"""The response object: what of it is settled at the start, and how it looks at each moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import orjson
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseItem, ResponseOutputMessage
from openai.types.responses.response_function_tool_call_item import ResponseFunctionToolCallItem
from openai.types.responses.response_function_tool_call_output_item import ResponseFunctionToolCallOutputItem
from openai.types.responses.response_input_message_item import ResponseInputMessageItem
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails, ResponseUsage
from pydantic import BaseModel

from chatwright.errors import ChatwrightError
from chatwright.server.errors import as_wire_error
from chatwright.server.openai.responses.requests import ResponseBody
from chatwright.store import clock
from chatwright.store.responses.rows import Status

OutputItem = ResponseOutputMessage | ResponseFunctionToolCall
ErrorCode = Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
TIMES = ("created_at", "completed_at")


def new_head(
    body: ResponseBody, response_id: str, model_name: str, *, store: bool, user: str | None = None
) -> dict[str, Any]:
    """The object without output, as JSON values: what was asked for, in full. `user`: as the client named them, which the body
    says no more once the work is done on somebody's behalf."""
    text_format: dict[str, Any] = {"type": "text"}
    if body.text and body.text.format:
        text_format = body.text.format.model_dump(by_alias=True, exclude_none=True)
    choice: Any = body.tool_choice if isinstance(body.tool_choice, str | None) else body.tool_choice.model_dump()
    return {
        "id": response_id,
        "object": "response",
        "created_at": clock.now(),
        "status": "in_progress",
        "background": bool(body.background),
        "completed_at": None,
        "conversation": None if body.conversation_id is None else {"id": body.conversation_id},
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "model": model_name,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": store,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": text_format, "verbosity": "medium"},
        "tool_choice": choice or "auto",
        "tools": [
            {"description": None, "parameters": None, "strict": None, **tool.model_dump(exclude_none=True)}
            for tool in body.tools or ()
        ],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": body.truncation or "disabled",
        "usage": None,
        "user": user,
    }


def usage_of(n_prompt: int, n_cached: int, n_output: int) -> dict[str, Any]:
    """Token counts that add up."""
    return ResponseUsage(
        input_tokens=n_prompt,
        input_tokens_details=InputTokensDetails(cached_tokens=n_cached, cache_write_tokens=0),
        output_tokens=n_output,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        total_tokens=n_prompt + n_output,
    ).model_dump(exclude_unset=True)


def ended_head(
    head: dict[str, Any],
    status: Status,
    *,
    usage: dict[str, Any] | None,
    error: dict[str, Any] | None,
    is_filtered: bool = False,
) -> dict[str, Any]:
    """The head of a response that is over. `is_filtered`: that is why it is incomplete."""
    why = "content_filter" if is_filtered else "max_output_tokens"
    return head | {
        "status": status,
        "completed_at": clock.now() if status == "completed" else None,
        "incomplete_details": {"reason": why} if status == "incomplete" else None,
        "usage": usage,
        "error": error,
    }


def error_of(error: ChatwrightError) -> dict[str, Any]:
    """`error` of a response that failed. OpenAI's type knows few codes."""
    wire = as_wire_error(error)
    code: ErrorCode = "server_error"
    if wire.status_code == 429:
        code = "rate_limit_exceeded"
    elif wire.status_code < 500:
        code = "invalid_prompt"
    return {"code": code, "message": str(wire.detail)}


def response_object(head: dict[str, Any], output: Sequence[OutputItem]) -> Response:
    """The whole."""
    return Response.model_validate({**head, "output": list(output)})


def output_item(content: dict[str, Any]) -> OutputItem:
    """From what is kept."""
    if content["type"] == "message":
        return ResponseOutputMessage.model_validate(content)
    return ResponseFunctionToolCall.model_validate(content)


def listed_item(content: dict[str, Any]) -> ResponseItem:
    """The same, and items of the other side, as lists of a response's items have them."""
    if content["type"] == "function_call":
        return ResponseFunctionToolCallItem.model_validate(content)
    if content["type"] == "function_call_output":
        return ResponseFunctionToolCallOutputItem.model_validate(content)
    if content["role"] == "assistant":
        return ResponseOutputMessage.model_validate(content)
    return ResponseInputMessageItem.model_validate(content)


def as_json(item: BaseModel) -> bytes:
    """A body: the fields that were set, under the names of the wire."""
    return orjson.dumps(as_values(item))


def as_values(item: BaseModel) -> dict[str, Any]:
    """The same as JSON values. Times are whole seconds, as on OpenAI's wire: its client's type makes fractions of them, which
    clients in other languages do not read."""
    values: dict[str, Any] = item.model_dump(mode="json", by_alias=True, exclude_unset=True)
    response = values.get("response", values)
    for name in TIMES:
        if isinstance(response.get(name), float):
            response[name] = int(response[name])
    return values


def event_json(event: BaseModel) -> str:
    """The same of an event without a response in it."""
    return event.model_dump_json(by_alias=True, exclude_unset=True)
