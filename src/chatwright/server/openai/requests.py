"""Request bodies of OpenAI's text endpoints, with the limits of this server.

Unknown fields are ignored, as clients of all ages send some. Fields that ask for something this server can not do are
refused by name (`unsupported_parameter`): silently dropping them would be a wrong answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from chatwright.server.json_body import MAX_DEPTH, brackets_of, deeper_than
from chatwright.server.openai.metadata import Metadata
from chatwright.server.openai.schemas import ResponseFormat
from chatwright.server.openai.tools import FunctionChoice, Functions, ToolChoice, Tools, ToolUse, tool_use

MAX_PROMPTS = 128
MAX_MESSAGES = 4096
MAX_SEQUENCES = 1024
MAX_PROMPT_TOKENS = 2**20
MAX_PARTS = 4096
MAX_BIASES = 1024
MAX_CALLS = 128

StopString = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
# fail_fast: without it a list of millions of wrong items becomes millions of error objects.
TokenIds = Annotated[list[TokenId], Field(fail_fast=True, min_length=1, max_length=MAX_PROMPT_TOKENS)]
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Bias = Annotated[FiniteFloat, Field(ge=-100, le=100)]


def _refuse_many_biases(value: Any) -> Any:
    """The same for objects, which have no fail_fast: look at the size before the entries."""
    if isinstance(value, dict) and len(value) > MAX_BIASES:
        raise ValueError(f"at most {MAX_BIASES} entries are allowed")
    return value


def _check_prompt(value: Any) -> Any:
    """One plain sentence for a prompt of the wrong kind, where the union would give one per kind that it is not."""
    kinds = {type(item) for item in value} if isinstance(value, list) else set()
    if value is not None and not isinstance(value, str) and kinds not in ({str}, {int}, {list}):
        raise ValueError("a prompt is a string, a list of strings, a list of token ids, or a list of such lists")
    return value


def refuse_unsupported(body: Any, unsupported: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise InvalidRequestError, by its name, for a field that asks for what this server cannot do. `unsupported`: of each field
    the values that ask for nothing."""
    for name, harmless in unsupported.items() if isinstance(body, dict) else ():
        if body.get(name) is not None and body[name] not in harmless:
            raise InvalidRequestError(
                "This server does not support {name}. Leave it out.",
                name=name,
                param=name,
                code="unsupported_parameter",
            )


class StreamOptions(BaseModel):
    """How to stream."""

    model_config = ConfigDict(strict=True)
    include_usage: bool = False
    include_obfuscation: bool | None = None


class SamplingBody(BaseModel):
    """What all text endpoints have in common."""

    model_config = ConfigDict(strict=True)
    # Field → values that ask for nothing and so may be sent. Everything else is refused by name.
    unsupported: ClassVar[dict[str, tuple[Any, ...]]] = {}

    model: Annotated[str, StringConstraints(max_length=400)] | None = None
    temperature: Annotated[FiniteFloat, Field(ge=0, le=2)] | None = None
    top_p: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: StopString | Annotated[list[StopString], Field(fail_fast=True, max_length=16)] | None = None
    presence_penalty: Annotated[FiniteFloat, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[FiniteFloat, Field(ge=-2, le=2)] | None = None
    logit_bias: Annotated[
        Annotated[dict[Annotated[str, StringConstraints(max_length=20)], Bias], Field(max_length=MAX_BIASES)] | None,
        BeforeValidator(_refuse_many_biases),
    ] = None
    seed: Int64 | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    # Beyond OpenAI, by the names that vLLM and llama.cpp gave them.
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    # Logits are divided by it: next to 0 that is infinity.
    repetition_penalty: Annotated[FiniteFloat, Field(ge=0.01, le=10)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, body: Any) -> Any:
        refuse_unsupported(body, cls.unsupported)
        return body

    @model_validator(mode="after")
    def _check_stream_options(self) -> SamplingBody:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequestError(
                "stream_options is only allowed when stream is true.", param="stream_options", code="invalid_value"
            )
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def obfuscate(self) -> bool:
        """Whether a stream hides the sizes of its pieces: unless the client trusts its network, and wants the bytes saved."""
        return self.stream_options is None or self.stream_options.include_obfuscation is not False

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings, however they were written."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class CompletionBody(SamplingBody):
    """`POST /v1/completions`."""

    unsupported = {"prompt_embeds": (), "response_format": ({"type": "text"},), "tools": ([],)}

    prompt: Annotated[
        str
        | Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=MAX_PROMPTS)]
        | TokenIds
        | Annotated[list[TokenIds], Field(fail_fast=True, min_length=1, max_length=MAX_PROMPTS)]
        | None,
        BeforeValidator(_check_prompt),
    ] = None
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    best_of: Annotated[int, Field(ge=1, le=20)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _check_suffix(self) -> CompletionBody:
        if self.suffix and self.echo:
            raise InvalidRequestError(
                "echo and suffix do not go together: the model reads the suffix before it answers. Leave one out.",
                param="echo",
                code="invalid_value",
            )
        return self

    @model_validator(mode="after")
    def _check_best_of(self) -> CompletionBody:
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise InvalidRequestError("best_of must be at least n.", param="best_of", code="invalid_value")
        if self.stream and (self.best_of or 1) > 1:
            raise InvalidRequestError(
                "Results of best_of can not be streamed: the best is known only at the end. Leave out stream or best_of.",
                param="best_of",
                code="invalid_value",
            )
        return self


class TextPart(BaseModel):
    """A part of a message: text is the only kind that a text model reads."""

    model_config = ConfigDict(strict=True)
    type: Literal["text"]
    text: str


class RefusalPart(BaseModel):
    """What a model said instead of an answer."""

    model_config = ConfigDict(strict=True)
    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        """As the model reads it."""
        return self.refusal


MessagePart = Annotated[TextPart | RefusalPart, Field(discriminator="type")]


class CalledFunction(BaseModel):
    """Name and arguments of a call. Arguments are JSON in a text, or what a model took for it."""

    model_config = ConfigDict(strict=True)

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    arguments: str

    def for_template(self) -> dict[str, Any]:
        """With the arguments as an object, as templates want them; left as a text where they are none."""
        return {"name": self.name, "arguments": _object_in(self.arguments)}


class ToolCall(BaseModel):
    """A call in a message of the assistant."""

    model_config = ConfigDict(strict=True)

    id: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    type: Literal["function"]
    function: CalledFunction


class Message(BaseModel):
    """A message of a conversation. `refusal`: what the assistant said instead of an answer; it is read where there is no content.
    `function_call`, and the role `function` with a `name`, are those of 2023."""

    model_config = ConfigDict(strict=True)

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[MessagePart], Field(fail_fast=True, max_length=MAX_PARTS)] | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True, max_length=MAX_CALLS)] | None = None
    tool_call_id: str | None = None
    function_call: CalledFunction | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_read(cls, message: Any) -> Any:
        parts = message.get("content") if isinstance(message, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and part.get("type") in ("image_url", "input_audio", "file"):
                raise InvalidRequestError(
                    "The model reads text only: a message has a part of type {kind}.",
                    kind=part["type"],
                    param="messages",
                    code="unsupported_content",
                )
        return message

    @model_validator(mode="after")
    def _check_content(self) -> Message:
        if self.content is None and self.role != "assistant":
            raise InvalidRequestError(
                "A message of the role {role} has no content.", role=self.role, param="messages", code="invalid_value"
            )
        if (self.tool_calls or self.function_call) and self.role != "assistant":
            raise InvalidRequestError(
                "A message of the role {role} has calls; only the assistant calls.",
                role=self.role,
                param="messages",
                code="invalid_value",
            )
        return self

    @property
    def text(self) -> str:
        """What it says in one piece."""
        if self.content is None:
            return self.refusal or ""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The calls as templates know them. That of 2023 has no id; its name is one."""
        if self.function_call is not None:
            function = self.function_call.for_template()
            return [{"id": function["name"], "type": "function", "function": function}]
        return [
            {"id": call.id, "type": call.type, "function": call.function.for_template()}
            for call in self.tool_calls or ()
        ]


def conversation(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as chat templates know them; results with the name of the function that was called. Raises InvalidRequestError
    for a result that answers no call."""
    called: dict[str, str] = {}
    result: list[dict[str, Any]] = []
    for message in messages:
        plain: dict[str, Any] = {"role": message.role, "content": message.text}
        if message.role == "developer":
            plain["role"] = "system"
        elif calls := message.calls:
            plain["tool_calls"] = calls
            called |= {call["id"]: call["function"]["name"] for call in calls}
        elif message.role in ("tool", "function"):
            call_id = (message.tool_call_id if message.role == "tool" else message.name) or ""
            if call_id not in called:
                raise InvalidRequestError(
                    "A message of the role {role} answers no call: a message of the assistant before it must have the call, "
                    "with the same id or name.",
                    role=message.role,
                    param="messages",
                    code="invalid_value",
                )
            plain |= {"role": "tool", "tool_call_id": call_id, "name": called[call_id]}
        result.append(plain)
    return result


def said_by_others(messages: Sequence[Message]) -> list[str]:
    """The texts of a conversation, and what functions were called with, but for the instructions: those forbid, and so name, what
    moderation looks for."""
    texts = []
    for message in messages:
        if message.role not in ("system", "developer"):
            texts.append(message.text)
            texts += [call.function.arguments for call in message.tool_calls or ()]
            texts += [message.function_call.arguments] if message.function_call is not None else []
    return texts


def _object_in(text: str) -> Any:
    """The JSON object that the text is, or the text: too deep for a template's own recursion, or no object."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return text if not isinstance(value, dict) or deeper_than(brackets_of(text.encode()), MAX_DEPTH) else value


class ChatBody(SamplingBody):
    """`POST /v1/chat/completions`."""

    unsupported = {
        "audio": (),
        "modalities": (["text"],),
        "moderation": (),
        "web_search_options": (),
        "chat_template": (),
        "chat_template_kwargs": ({},),
        "prompt_embeds": (),
    }

    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Functions | None = None
    function_call: FunctionChoice | None = None
    store: bool | None = None
    metadata: Metadata | None = None

    def tool_use(self) -> ToolUse | None:
        """What may be called, if anything. Raises InvalidRequestError."""
        return tool_use(self.tools, self.tool_choice, self.parallel_tool_calls, self.functions, self.function_call)

    @model_validator(mode="after")
    def _check_logprobs(self) -> ChatBody:
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequestError(
                "top_logprobs is only allowed when logprobs is true.", param="top_logprobs", code="invalid_value"
            )
        return self


class EditBody(BaseModel):
    """`POST /v1/edits` of the API's first years."""

    model_config = ConfigDict(strict=True)

    model: Annotated[str, StringConstraints(max_length=200)] | None = None
    input: str = ""
    instruction: Annotated[str, StringConstraints(min_length=1)]
    n: Annotated[int, Field(ge=1, le=20)] | None = None
    temperature: Annotated[FiniteFloat, Field(ge=0, le=2)] | None = None
    top_p: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
