"""What a run may be asked to measure: rows with or without answers, or a model that answers them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, StringConstraints

from chatwright.errors import InvalidRequestError
from chatwright.server.evals.templates import MAX_TEMPLATE, Path, parses_in
from chatwright.server.openai.metadata import Metadata

MOST_ITEMS = 10_000
MOST_MESSAGES = 256
MOST_PARTS = 64

TemplateText = Annotated[str, StringConstraints(max_length=MAX_TEMPLATE), AfterValidator(parses_in("data_source"))]
Time = Annotated[int, Field(ge=0, lt=2**53)]


def without_nul(text: str) -> str:
    """PostgreSQL keeps no NUL."""
    if "\0" in text:
        raise ValueError("it has a NUL character")
    return text


ModelName = Annotated[str, StringConstraints(min_length=1, max_length=400), AfterValidator(without_nul)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, protected_namespaces=())


class RowBody(_Body):
    """An item, and what was answered to it where that is known."""

    item: dict[str, Any]
    sample: dict[str, Any] | None = None


class FileContentBody(_Body):
    """Rows in the request itself."""

    type: Literal["file_content"]
    content: Annotated[list[RowBody], Field(fail_fast=True, min_length=1, max_length=MOST_ITEMS)]


class FileIdBody(_Body):
    """A file that was uploaded: each line such a row."""

    type: Literal["file_id"]
    id: Annotated[str, StringConstraints(max_length=64)]


class StoredCompletionsBody(_Body):
    """Chat completions that were kept."""

    type: Literal["stored_completions"]
    metadata: Metadata | None = None
    model: ModelName | None = None
    created_after: Time | None = None
    created_before: Time | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_ITEMS)] | None = None


class StoredResponsesBody(_Body):
    """Responses that were kept."""

    type: Literal["responses"]
    metadata: Metadata | None = None
    model: ModelName | None = None
    created_after: Time | None = None
    created_before: Time | None = None
    instructions_search: Annotated[str, StringConstraints(max_length=2000)] | None = None
    temperature: FiniteFloat | None = None
    top_p: FiniteFloat | None = None
    tools: Annotated[list[Annotated[str, StringConstraints(max_length=64)]], Field(max_length=128)] | None = None
    users: Annotated[list[Annotated[str, StringConstraints(max_length=400)]], Field(max_length=128)] | None = None


def _refuse_reasoning(value: Any) -> Any:
    if (
        isinstance(value, dict)
        and value.get("type") == "responses"
        and value.get("reasoning_effort") not in (None, "none")
    ):
        raise InvalidRequestError(
            "No response was written with reasoning here: leave reasoning_effort out.",
            param="data_source",
            code="unsupported_parameter",
        )
    return value


RowsSource = Annotated[FileContentBody | FileIdBody, Field(discriminator="type")]
AnySource = Annotated[
    Annotated[FileContentBody | FileIdBody | StoredCompletionsBody | StoredResponsesBody, Field(discriminator="type")],
    BeforeValidator(_refuse_reasoning),
]


class TextBody(_Body):
    """Text of a message."""

    type: Literal["input_text", "output_text"]
    text: TemplateText


def _refuse_other_parts(value: Any) -> Any:
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, dict) and part.get("type") in ("input_image", "input_audio", "input_file"):
            raise InvalidRequestError(
                "The model reads text only: a message has a part of type {kind}.",
                kind=part["type"],
                param="data_source",
                code="unsupported_content",
            )
    return value


class MessageBody(_Body):
    """A message whose text is a template."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[
        TemplateText
        | TextBody
        | Annotated[list[TemplateText | TextBody], Field(fail_fast=True, min_length=1, max_length=MOST_PARTS)],
        BeforeValidator(_refuse_other_parts),
    ]
    type: Literal["message"] | None = None


class TemplateBody(_Body):
    """Messages that are the same for all items, but for the holes in them."""

    type: Literal["template"]
    template: Annotated[list[MessageBody], Field(fail_fast=True, min_length=1, max_length=MOST_MESSAGES)]


def _is_path(text: str) -> str:
    path = Path.parse(text)
    if path is None or path.namespace != "item":
        raise ValueError("an item_reference names a place in the item, such as item.messages")
    return text


class ReferenceBody(_Body):
    """Messages that each item has itself."""

    type: Literal["item_reference"]
    item_reference: Annotated[str, StringConstraints(max_length=500), AfterValidator(_is_path)]


class JsonlBody(_Body):
    """Rows, graded as they are."""

    type: Literal["jsonl"]
    source: RowsSource


class SamplingBody(_Body):
    """Rows that a model answers first: through chat completions, or through responses."""

    type: Literal["completions", "responses"]
    source: AnySource
    model: ModelName | None = None
    input_messages: Annotated[TemplateBody | ReferenceBody, Field(discriminator="type")] | None = None
    sampling_params: dict[str, Any] | None = None


DataSourceBody = Annotated[JsonlBody | SamplingBody, Field(discriminator="type")]
