"""Requests of Anthropic's messages, with the limits of this server, as the chat requests that they come to.

Unknown fields are ignored. Fields and blocks that ask for something this server can not do are refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    model_validator,
)

from chatwright.errors import InvalidRequestError
from chatwright.server.openai.requests import (
    MAX_MESSAGES,
    MAX_PARTS,
    CalledFunction,
    ChatBody,
    Message,
    StopString,
    ToolCall,
    refuse_unsupported,
)
from chatwright.server.openai.schemas import Description, NamedSchema, ResponseFormat, Schema
from chatwright.server.openai.tools import (
    MAX_TOOLS,
    ChosenFunction,
    ChosenTool,
    FunctionBody,
    ToolBody,
    ToolChoice,
)

# Longer than OpenAI's: names of tools of MCP servers are.
ToolName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
CallId = Annotated[str, StringConstraints(min_length=1, max_length=200)]
READ = ("text", "tool_use", "tool_result", "thinking", "redacted_thinking")
TOOL_KINDS = (None, "custom")


def _refuse(sentence_of: str, kind: object) -> InvalidRequestError:
    return InvalidRequestError(
        "This server does not support {name}. Leave it out.",
        name=f"{sentence_of} {str(kind)[:60]}",
        param=sentence_of.partition(" ")[0],
        code="unsupported_parameter",
    )


def _refuse_what_is_not_read(block: Any) -> Any:
    """By name: images, documents, results of Anthropic's own tools."""
    kind = block.get("type") if isinstance(block, dict) else None
    if isinstance(kind, str) and kind not in READ:
        raise InvalidRequestError(
            "The model reads text only: a message has a part of type {kind}.",
            kind=kind[:60],
            param="messages",
            code="unsupported_content",
        )
    return block


def _refuse_other_kinds(tool: Any) -> Any:
    """Tools that run at Anthropic, or that its models were trained on: a search, a computer."""
    if isinstance(tool, dict) and tool.get("type") not in TOOL_KINDS:
        raise _refuse("tools of the type", tool["type"])
    return tool


class TextBlock(BaseModel):
    """Text."""

    model_config = ConfigDict(strict=True)
    type: Literal["text"]
    text: str


class ToolUseBlock(BaseModel):
    """A call that the assistant made."""

    model_config = ConfigDict(strict=True)
    type: Literal["tool_use"]
    id: CallId
    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    input: dict[str, Any]


ResultPart = Annotated[TextBlock, BeforeValidator(_refuse_what_is_not_read)]


class ToolResultBlock(BaseModel):
    """What came of a call."""

    model_config = ConfigDict(strict=True)
    type: Literal["tool_result"]
    tool_use_id: CallId
    content: str | Annotated[list[ResultPart], Field(fail_fast=True, max_length=MAX_PARTS)] | None = None
    is_error: bool | None = None

    @property
    def text(self) -> str:
        """The result as the model reads it."""
        return ("Error: " if self.is_error else "") + text_of(self.content)


class ThinkingBlock(BaseModel):
    """What another model thought: no part of what was said."""

    type: Literal["thinking", "redacted_thinking"]


Block = Annotated[
    Annotated[TextBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock, Field(discriminator="type")],
    BeforeValidator(_refuse_what_is_not_read),
]


class MessageParam(BaseModel):
    """A message of a conversation. `system`: instructions that come in the middle of it, as text."""

    model_config = ConfigDict(strict=True)

    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Field(fail_fast=True, max_length=MAX_PARTS)]

    @model_validator(mode="after")
    def _check_blocks(self) -> MessageParam:
        wrong: dict[str, tuple[type[BaseModel], ...]] = {
            "user": (ToolUseBlock,),
            "assistant": (ToolResultBlock,),
            "system": (ToolUseBlock, ToolResultBlock, ThinkingBlock),
        }
        for block in self.content if isinstance(self.content, list) else ():
            if isinstance(block, wrong[self.role]):
                raise InvalidRequestError(
                    "A message of the role {role} has a block of the type {kind}, which belongs to the other side.",
                    role=self.role,
                    kind=block.type,
                    param="messages",
                    code="invalid_value",
                )
        if not self.as_chat():
            raise InvalidRequestError(
                "A message of the role {role} has no content.", role=self.role, param="messages", code="invalid_value"
            )
        return self

    def as_chat(self) -> list[Message]:
        """The messages that it comes to: results first, each one of its own, then what was said."""
        blocks: Sequence[Any] = [] if isinstance(self.content, str) else self.content
        said = text_of(self.content)
        results = [
            Message.model_construct(role="tool", tool_call_id=block.tool_use_id, content=block.text)
            for block in blocks
            if isinstance(block, ToolResultBlock)
        ]
        calls = [
            ToolCall.model_construct(
                id=block.id,
                type="function",
                function=CalledFunction.model_construct(name=block.name, arguments=orjson.dumps(block.input).decode()),
            )
            for block in blocks
            if isinstance(block, ToolUseBlock)
        ]
        if not said and not calls:
            return results
        return [*results, Message.model_construct(role=self.role, content=said, tool_calls=calls or None)]


class ToolParam(BaseModel):
    """A tool that the model may use."""

    model_config = ConfigDict(strict=True)

    name: ToolName
    description: Description | None = None
    input_schema: Schema
    strict: bool | None = None

    def as_chat(self) -> ToolBody:
        """The same, in OpenAI's form."""
        function = FunctionBody.model_construct(
            name=self.name, description=self.description, parameters=self.input_schema, strict=self.strict
        )
        return ToolBody.model_construct(type="function", function=function)


class ToolChoiceParam(BaseModel):
    """Whether, and which, tools are used. `name`: of the type `tool`."""

    model_config = ConfigDict(strict=True)

    type: Literal["auto", "any", "tool", "none"]
    name: Annotated[str, StringConstraints(max_length=128)] | None = None
    disable_parallel_tool_use: bool | None = None

    def as_chat(self) -> ToolChoice:
        """The same, in OpenAI's words. Raises InvalidRequestError where the name is missing."""
        if self.type != "tool":
            return {"auto": "auto", "any": "required", "none": "none"}[self.type]  # type: ignore[return-value]
        if self.name is None:
            raise InvalidRequestError(
                "A tool_choice of the type tool must say which: its name is missing.",
                param="tool_choice",
                code="invalid_value",
            )
        return ChosenTool.model_construct(type="function", function=ChosenFunction.model_construct(name=self.name))


class OutputFormat(BaseModel):
    """JSON that matches a schema."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    type: Literal["json_schema"]
    # `schema` is a method of Pydantic's models.
    json_schema: Schema = Field(alias="schema")


class OutputConfig(BaseModel):
    """The form of the answer."""

    model_config = ConfigDict(strict=True)

    format: OutputFormat | None = None


class Thinking(BaseModel):
    """Whether the model shall think before it answers; with `adaptive` it is the model's own choice."""

    type: Literal["disabled", "adaptive"]


class Metadata(BaseModel):
    """Who the request is for."""

    user_id: Annotated[str, StringConstraints(max_length=512)] | None = None


class CountBody(BaseModel):
    """`POST /v1/messages/count_tokens`: what has to do with the prompt."""

    model_config = ConfigDict(strict=True)
    # Field → values that ask for nothing and so may be sent. Everything else is refused by name.
    unsupported: ClassVar[dict[str, tuple[Any, ...]]] = {
        "container": (),
        "mcp_servers": ([],),
        "output_format": (),
        "context_management": (),
    }

    model: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    messages: Annotated[list[MessageParam], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    system: str | Annotated[list[TextBlock], Field(fail_fast=True, max_length=MAX_PARTS)] | None = None
    tools: (
        Annotated[
            list[Annotated[ToolParam, BeforeValidator(_refuse_other_kinds)]],
            Field(fail_fast=True, max_length=MAX_TOOLS),
        ]
        | None
    ) = None
    tool_choice: ToolChoiceParam | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, body: Any) -> Any:
        refuse_unsupported(body, cls.unsupported)
        thinking = body.get("thinking") if isinstance(body, dict) else None
        if isinstance(thinking, dict) and thinking.get("type") in ("enabled", "between_tools"):
            raise _refuse("thinking of the type", thinking["type"])
        return body

    @model_validator(mode="after")
    def _check_end(self) -> CountBody:
        if self.messages[-1].role == "assistant":
            raise InvalidRequestError(
                "The last message is the assistant's. Beginning its answer for it (prefill) is not supported: end with a "
                "message of the user.",
                param="messages",
                code="unsupported_content",
            )
        return self

    def chat_fields(self) -> dict[str, Any]:
        """The fields of the chat request. Raises InvalidRequestError."""
        system = [Message.model_construct(role="system", content=text_of(self.system))] if self.system else []
        fields: dict[str, Any] = {
            "model": self.model,
            "messages": [*system, *_joined([said for message in self.messages for said in message.as_chat()])],
        }
        if self.tools:
            fields["tools"] = [tool.as_chat() for tool in self.tools]
        if self.tool_choice is not None:
            fields["tool_choice"] = self.tool_choice.as_chat()
            if self.tool_choice.disable_parallel_tool_use:
                fields["parallel_tool_calls"] = False
        if self.output_config is not None and self.output_config.format is not None:
            wanted = NamedSchema.model_construct(name="answer", json_schema=self.output_config.format.json_schema)
            fields["response_format"] = ResponseFormat.model_construct(type="json_schema", json_schema=wanted)
        return fields

    def as_chat(self) -> ChatBody:
        """The chat request that asks for the same. Everything in it was checked here."""
        return ChatBody.model_construct(**self.chat_fields())


class MessagesBody(CountBody):
    """`POST /v1/messages`."""

    max_tokens: Annotated[int, Field(ge=1, lt=2**31)]
    stream: bool | None = None
    stop_sequences: Annotated[list[StopString], Field(fail_fast=True, max_length=16)] | None = None
    temperature: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    top_p: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    metadata: Metadata | None = None

    def chat_fields(self) -> dict[str, Any]:
        """The fields of the chat request. Raises InvalidRequestError."""
        return super().chat_fields() | {
            "max_tokens": self.max_tokens,
            "stream": self.stream,
            "stop": self.stop_sequences,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "user": self.metadata.user_id if self.metadata else None,
        }


def text_of(content: str | Sequence[Any] | None) -> str:
    """What a content says, in one piece; blocks of text are paragraphs."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n\n".join(block.text for block in content if isinstance(block, TextBlock) and block.text)


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Messages of one side in a row are one message, as Anthropic has it: many templates want them in turn."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else None
        plain = last is not None and not last.tool_calls and not message.tool_calls
        if plain and last is not None and last.role == message.role != "tool":
            joined[-1] = Message.model_construct(role=message.role, content=f"{last.content}\n\n{message.content}")
        else:
            joined.append(message)
    return joined
