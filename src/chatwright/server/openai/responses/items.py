"""Items: what is said to the model and by it. From requests, as they are kept, and as the messages of a chat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, StringConstraints, Tag

from chatwright.errors import InvalidRequestError
from chatwright.server.openai.requests import MAX_MESSAGES, MAX_PARTS, CalledFunction, Message, ToolCall
from chatwright.store.ids import new_wire_id
from chatwright.store.responses.items import KeptItem

Id = Annotated[str, StringConstraints(min_length=1, max_length=200)]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True)


class TextPart(_Body):
    """Text of a message: `input_text`, or `output_text` of one that a model wrote."""

    type: Literal["input_text", "output_text", "text"]
    text: str


class RefusalPart(_Body):
    """What a model said instead of an answer."""

    type: Literal["refusal"]
    refusal: str


def _refuse_other_parts(part: Any) -> Any:
    """By name, as other models read them."""
    if isinstance(part, dict) and part.get("type") in ("input_image", "input_file", "input_audio"):
        raise InvalidRequestError(
            "The model reads text only: a message has a part of type {kind}.",
            kind=part["type"],
            param="input",
            code="unsupported_content",
        )
    return part


Part = Annotated[TextPart | RefusalPart, BeforeValidator(_refuse_other_parts)]
Parts = Annotated[list[Part], Field(fail_fast=True, max_length=MAX_PARTS)]


class MessageItem(_Body):
    """A message of either side."""

    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer", "assistant"]
    content: str | Parts
    status: ItemStatus | None = None

    def kept(self) -> dict[str, Any]:
        """As it is kept, without an id."""
        kind = "output_text" if self.role == "assistant" else "input_text"
        parts = [TextPart(type="input_text", text=self.content)] if isinstance(self.content, str) else self.content
        content: list[dict[str, Any]] = []
        for part in parts:
            if isinstance(part, RefusalPart):
                content.append(part.model_dump())
            else:
                extra: dict[str, Any] = {"annotations": []} if kind == "output_text" else {}
                content.append({"type": kind, "text": part.text, **extra})
        return {"type": "message", "role": self.role, "status": self.status or "completed", "content": content}


class FunctionCallItem(_Body):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: Id
    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    arguments: str
    status: ItemStatus | None = None

    def kept(self) -> dict[str, Any]:
        """As it is kept, without an id."""
        return {**self.model_dump(exclude={"status"}), "status": self.status or "completed"}


class FunctionOutputItem(_Body):
    """What the function that was called gave."""

    type: Literal["function_call_output"]
    call_id: Id
    output: str | Parts
    status: ItemStatus | None = None

    def kept(self) -> dict[str, Any]:
        """As it is kept, without an id."""
        output: Any = self.output
        if not isinstance(output, str):
            output = [{"type": "input_text", "text": _text_of(part.model_dump())} for part in output]
        return {
            "type": self.type,
            "call_id": self.call_id,
            "output": output,
            "status": self.status or "completed",
        }


class ItemReference(_Body):
    """An item that the server has."""

    type: Literal["item_reference"]
    id: Id


KINDS = ("message", "function_call", "function_call_output", "item_reference")


def _kind(item: Any) -> str | None:
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    if kind is None and isinstance(item, dict):
        kind = "item_reference" if set(item) == {"id"} else "message"
    if isinstance(kind, str) and kind not in KINDS:
        raise InvalidRequestError(
            "Items of the type {kind} are not supported: {known} are.",
            kind=kind[:60],
            known=", ".join(KINDS),
            param="input",
            code="unsupported_parameter",
        )
    return kind if isinstance(kind, str) else None


def _typed(item: Any) -> Any:
    """The type that an item without one has."""
    return {**item, "type": _kind(item)} if isinstance(item, dict) and item.get("type") is None else item


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")]
    | Annotated[ItemReference, Tag("item_reference")],
    Discriminator(_kind),
    BeforeValidator(_typed),
]
Items = Annotated[list[Item], Field(fail_fast=True, max_length=MAX_MESSAGES)]
ID_KINDS = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}


def kept_item(item: MessageItem | FunctionCallItem | FunctionOutputItem) -> KeptItem:
    """An item of a request, with an id of ours: nobody names rows but the server."""
    content = item.kept()
    return kept({"id": new_wire_id(ID_KINDS[item.type]), **content})


def kept(content: dict[str, Any]) -> KeptItem:
    """The wire's object as it is kept."""
    return KeptItem(content["id"], orjson.dumps(content).decode())


def contents(items: Iterable[KeptItem]) -> list[dict[str, Any]]:
    """The wire's objects."""
    return [orjson.loads(item.content) for item in items]


def messages_of(items: Sequence[dict[str, Any]]) -> list[Message]:
    """Items as messages. Calls that follow one another, and what the model said before them, are one message.

    Raises InvalidRequestError for a result without its call, and a call without its result: the model would make it again.
    """
    messages: list[Message] = []
    open_calls: dict[str, None] = {}
    called: set[str] = set()
    for item in items:
        match item["type"]:
            case "message":
                _refuse_open(open_calls)
                text = "".join(_text_of(part) for part in item["content"])
                messages.append(Message(role=item["role"], content=text))
            case "function_call":
                call = ToolCall(
                    id=item["call_id"],
                    type="function",
                    function=CalledFunction(name=item["name"], arguments=item["arguments"]),
                )
                last = messages[-1] if messages else None
                if last is not None and last.role == "assistant":
                    last.tool_calls = [*(last.tool_calls or ()), call]
                else:
                    messages.append(Message(role="assistant", content=None, tool_calls=[call]))
                open_calls[item["call_id"]] = None
                called.add(item["call_id"])
            case _:
                if item["call_id"] not in called:
                    raise InvalidRequestError(
                        "No tool call found for function call output with call_id {id}.",
                        id=item["call_id"][:60],
                        param="input",
                        code="invalid_value",
                    )
                open_calls.pop(item["call_id"], None)
                output = item["output"]
                text = output if isinstance(output, str) else "".join(_text_of(part) for part in output)
                messages.append(Message(role="tool", content=text, tool_call_id=item["call_id"]))
    _refuse_open(open_calls)
    return messages


def _refuse_open(open_calls: dict[str, None]) -> None:
    if open_calls:
        raise InvalidRequestError(
            "No tool output found for function call {id}.",
            id=next(iter(open_calls))[:60],
            param="input",
            code="invalid_value",
        )


def _text_of(part: dict[str, Any]) -> str:
    text: str = part["refusal"] if part["type"] == "refusal" else part["text"]
    return text
