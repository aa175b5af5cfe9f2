"""Bodies of `/v1/responses`, and what they ask of the chat behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationInfo, model_validator

from chatwright.errors import InvalidRequestError
from chatwright.server.openai.metadata import Metadata
from chatwright.server.openai.requests import MAX_MESSAGES, ChatBody, Message, SamplingBody
from chatwright.server.openai.responses.items import Items
from chatwright.server.openai.schemas import Description, Name, NamedSchema, ResponseFormat, Schema
from chatwright.server.openai.tools import (
    MAX_TOOLS,
    AllowedChoice,
    AllowedTools,
    ChosenFunction,
    ChosenTool,
    FunctionBody,
    ToolBody,
)

# What chat calls its fields, and what they are called here.
FIELDS = {"messages": "input", "response_format": "text"}
LOGPROBS = "message.output_text.logprobs"


@contextmanager
def fields_of_responses() -> Iterator[None]:
    """Errors of the chat behind a response name the fields of the response."""
    try:
        yield
    except InvalidRequestError as error:
        error.param = FIELDS.get(error.param or "", error.param)
        raise


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, protected_namespaces=())


def _only_functions(value: Any, info: ValidationInfo) -> Any:
    """The others run on OpenAI's machines."""
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind not in ("function", "allowed_tools"):
        raise InvalidRequestError(
            "This server does not support {name}. Leave it out.",
            name=f"tools of the type {kind[:60]}",
            param=info.field_name,
            code="unsupported_parameter",
        )
    return value


class FunctionTool(_Body):
    """A function that the model may call."""

    type: Literal["function"]
    name: Name
    description: Description | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class ToolName(_Body):
    """One of the functions."""

    type: Literal["function"]
    name: Annotated[str, StringConstraints(max_length=64)]


class SomeTools(_Body):
    """Which of the functions may or must be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolName], Field(fail_fast=True, min_length=1, max_length=MAX_TOOLS)]


class TextFormat(_Body):
    """Which form the text shall have. `json_schema`: with name and schema beside it."""

    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    description: Description | None = None
    json_schema: Schema | None = Field(None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> TextFormat:
        if self.type == "json_schema" and (self.name is None or self.json_schema is None):
            raise ValueError("a format of the type json_schema has a name and a schema")
        return self


class TextConfig(_Body):
    """`text`."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None

    @model_validator(mode="after")
    def _check(self) -> TextConfig:
        if self.verbosity not in (None, "medium"):
            raise InvalidRequestError(
                "This server does not support {name}. Leave it out.",
                name="text.verbosity",
                param="text",
                code="unsupported_parameter",
            )
        return self


class Reasoning(_Body):
    """`reasoning`: these models answer without thinking first."""

    effort: str | None = None
    summary: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Reasoning:
        if self.effort not in (None, "none") or self.summary is not None:
            raise InvalidRequestError(
                "This server does not support {name}. Leave it out.",
                name="reasoning",
                param="reasoning",
                code="unsupported_parameter",
            )
        return self


class ConversationId(_Body):
    """`conversation`, in its longer form."""

    id: Annotated[str, StringConstraints(max_length=200)]


ResponseId = Annotated[str, StringConstraints(max_length=200)]
INCLUDABLE = Literal[
    "message.output_text.logprobs",
    # Of tools and inputs that there are not, so that there is nothing to include:
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
]


class ContextBody(SamplingBody):
    """What the model is to read, as `/responses/input_tokens` counts it and `/responses` answers it."""

    input: str | Items = ""
    instructions: str | None = None
    previous_response_id: ResponseId | None = None
    conversation: ResponseId | ConversationId | None = None
    tools: (
        Annotated[
            list[Annotated[FunctionTool, BeforeValidator(_only_functions)]], Field(fail_fast=True, max_length=MAX_TOOLS)
        ]
        | None
    ) = None
    tool_choice: (
        Annotated[Literal["none", "auto", "required"] | ToolName | SomeTools, BeforeValidator(_only_functions)] | None
    ) = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    truncation: Literal["auto", "disabled"] | None = None

    @model_validator(mode="after")
    def _check_state(self) -> ContextBody:
        if self.previous_response_id is not None and self.conversation is not None:
            raise InvalidRequestError(
                "previous_response_id and conversation do not go together: either leads to what was said before.",
                param="previous_response_id",
                code="mutually_exclusive_parameters",
            )
        return self

    @property
    def conversation_id(self) -> str | None:
        """However it was written."""
        return self.conversation.id if isinstance(self.conversation, ConversationId) else self.conversation

    @property
    def response_format(self) -> ResponseFormat | None:
        """As chat has it."""
        wanted = self.text.format if self.text else None
        if wanted is None or wanted.type == "text":
            return None
        if wanted.type == "json_object":
            return ResponseFormat(type="json_object")
        assert wanted.name is not None
        schema = NamedSchema(name=wanted.name, description=wanted.description, schema=wanted.json_schema)
        return ResponseFormat(type="json_schema", json_schema=schema)

    def as_chat(self, messages: Sequence[Message]) -> ChatBody:
        """The same as a chat of these messages."""
        if not messages:
            raise InvalidRequestError("There is nothing to answer: send input.", param="input", code="missing_input")
        if len(messages) > MAX_MESSAGES:  # with what was said before
            raise InvalidRequestError(
                "This conversation has more than {n} messages: begin a new one.",
                n=MAX_MESSAGES,
                param="input",
                code="invalid_value",
            )
        tools = [
            ToolBody(type="function", function=FunctionBody(**tool.model_dump(exclude={"type"})))
            for tool in self.tools or ()
        ]
        choice: Any = self.tool_choice
        if isinstance(choice, ToolName):
            choice = ChosenTool(type="function", function=ChosenFunction(name=choice.name))
        elif isinstance(choice, SomeTools):
            chosen = [ChosenTool(type="function", function=ChosenFunction(name=tool.name)) for tool in choice.tools]
            choice = AllowedChoice(type="allowed_tools", allowed_tools=AllowedTools(mode=choice.mode, tools=chosen))
        shared = {
            name: getattr(self, name) for name in SamplingBody.model_fields if name not in ("n", "stream_options")
        }
        return ChatBody(
            **shared,
            messages=list(messages),
            tools=tools or None,
            tool_choice=choice,
            parallel_tool_calls=self.parallel_tool_calls,
            response_format=self.response_format,
        )


class ResponseBody(ContextBody):
    """`POST /v1/responses`."""

    unsupported: ClassVar[dict[str, tuple[Any, ...]]] = {
        "n": (1,),
        "prompt": (),
        "max_tool_calls": (),
        "context_management": ([],),
        "moderation": (),
        "background_options": ({},),
        "chat_template": (),
        "chat_template_kwargs": ({},),
        "prompt_embeds": (),
    }

    max_output_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: Annotated[list[INCLUDABLE], Field(fail_fast=True, max_length=20)] | None = None
    store: bool | None = None
    background: bool | None = None
    metadata: Metadata | None = None
    reasoning: Reasoning | None = None
    safety_identifier: Annotated[str, StringConstraints(max_length=200)] | None = None
    prompt_cache_key: Annotated[str, StringConstraints(max_length=200)] | None = None

    @model_validator(mode="after")
    def _check_background(self) -> ResponseBody:
        if self.background and self.store is False:
            raise InvalidRequestError(
                "A background response has to be stored: leave store out, or background.",
                param="background",
                code="invalid_value",
            )
        if self.conversation is not None and self.store is False:
            raise InvalidRequestError(
                "A conversation keeps what is said in it: leave store out, or conversation.",
                param="conversation",
                code="invalid_value",
            )
        return self

    @property
    def wants_logprobs(self) -> bool:
        """Whether the probabilities of tokens are asked for."""
        return bool(self.top_logprobs) or LOGPROBS in (self.include or ())

    def as_chat(self, messages: Sequence[Message]) -> ChatBody:
        """The same as a chat of these messages."""
        chat = super().as_chat(messages)
        chat.max_completion_tokens = self.max_output_tokens
        if self.wants_logprobs:
            chat.logprobs, chat.top_logprobs = True, self.top_logprobs
        return chat
