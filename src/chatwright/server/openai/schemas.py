"""JSON Schemas in requests: bounded before anything reads them, and turned down with a name when they cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from chatwright.errors import InvalidRequestError

MAX_SCHEMA_BYTES = 64 * 1024
# Objects and arrays inside of each other. A property of an object takes two.
MAX_SCHEMA_DEPTH = 32

# Of response formats and functions, as OpenAI has them.
Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Description = Annotated[str, StringConstraints(max_length=16 * 1024)]


def _bounded(value: Any) -> Any:
    """A schema of a size that compiles in bounded time. The body is nested at most 64 deep, so this recursion ends."""
    if not isinstance(value, dict):
        return value  # the type says what is wrong
    if len(orjson.dumps(value)) > MAX_SCHEMA_BYTES:
        raise ValueError(f"a schema is at most {MAX_SCHEMA_BYTES // 1024} KiB large")
    if _depth(value) > MAX_SCHEMA_DEPTH:
        raise ValueError(f"a schema is nested at most {MAX_SCHEMA_DEPTH} levels deep")
    return value


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


Schema = Annotated[dict[str, Any], BeforeValidator(_bounded)]


class NamedSchema(BaseModel):
    """`response_format.json_schema`. `strict` changes nothing: every schema is kept to."""

    model_config = ConfigDict(strict=True, protected_namespaces=())

    name: Name
    description: Description | None = None
    # `schema` is a method of Pydantic's models.
    json_schema: Schema | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """`response_format`: any text, any JSON object, or JSON that matches a schema."""

    model_config = ConfigDict(strict=True)

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None

    def schema_to_match(self) -> Mapping[str, Any] | None:
        """None for text. Raises InvalidRequestError where the schema is missing."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return {"type": "object"}
        if self.json_schema is None:
            raise InvalidRequestError(
                "response_format.json_schema is missing: it names the schema that the answer shall match.",
                param="response_format",
                code="invalid_value",
            )
        return self.json_schema.json_schema if self.json_schema.json_schema is not None else {"type": "object"}

    def instruction(self) -> str:
        """What the model is told. Of JSON without a schema it is not: the messages have to ask for what they want."""
        if self.type != "json_schema" or self.json_schema is None:
            return ""
        wanted = self.json_schema
        lines = [f"Answer with JSON only. It has to match the JSON Schema {wanted.name}:"]
        if wanted.json_schema is not None:
            lines.append(orjson.dumps(wanted.json_schema).decode())
        if wanted.description:
            lines.append(wanted.description)
        return "\n".join(lines)
