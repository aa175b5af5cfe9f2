"""Request bodies of OpenAI's text endpoints, with the limits of this server.

Unknown fields are ignored, as clients of all ages send some. Fields that ask for something this server can not do are
refused by name (`unsupported_parameter`): silently dropping them would be a wrong answer.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

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

MAX_PROMPTS = 128
MAX_MESSAGES = 4096
MAX_SEQUENCES = 1024
MAX_PROMPT_TOKENS = 2**20
MAX_PARTS = 4096
MAX_BIASES = 1024

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

    model: Annotated[str, StringConstraints(max_length=200)] | None = None
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
        if isinstance(body, dict):
            for name, harmless in cls.unsupported.items():
                if body.get(name) is not None and body[name] not in harmless:
                    raise InvalidRequestError(
                        "This server does not support {name} yet. Leave it out.",
                        name=name,
                        param=name,
                        code="unsupported_parameter",
                    )
        return body

    @model_validator(mode="after")
    def _check_stream_options(self) -> SamplingBody:
        if self.stream_options is not None and not self.stream:
            raise InvalidRequestError(
                "stream_options is only allowed when stream is true.", param="stream_options", code="invalid_value"
            )
        return self

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


class Message(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(strict=True)

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True, max_length=MAX_PARTS)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_read(cls, message: Any) -> Any:
        for name in ("tool_calls", "function_call"):
            if isinstance(message, dict) and message.get(name):
                raise InvalidRequestError(
                    "This server does not support {name} yet. Leave it out.",
                    name=name,
                    param="messages",
                    code="unsupported_parameter",
                )
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
        return self

    def for_template(self) -> dict[str, str]:
        """The message as chat templates know it."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class ChatBody(SamplingBody):
    """`POST /v1/chat/completions`."""

    unsupported = {
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "audio": (),
        "modalities": (["text"],),
        "store": (False,),
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
