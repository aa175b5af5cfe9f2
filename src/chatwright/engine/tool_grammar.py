"""The grammar of an answer that may, or must, call tools; and of one that is JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from chatwright.engine.protocol import Grammar
from chatwright.engine.tool_format import Tool, ToolFormat

# As in `grammar.WHITESPACE`, for schemas inside of another grammar.
WHITESPACE = r" |\n {0,16}"
# A small model that must call something easily goes on calling.
MAX_CALLS = 16
# Keywords that say something about members beside those of `properties`.
_OPENED_BY = (
    "additionalProperties",
    "patternProperties",
    "unevaluatedProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "$ref",
    "if",
)


def json_grammar(schema: Mapping[str, Any]) -> Grammar:
    """JSON that matches a schema."""
    return Grammar("json_schema", json.dumps(_prepared(schema), ensure_ascii=False))


def tool_grammar(
    tool_format: ToolFormat,
    tools: Sequence[Tool],
    *,
    otherwise: Mapping[str, Any] | Literal["text"] | None,
    several: bool,
) -> Grammar:
    """Calls of `tools` in the model's format; or, instead of them, `otherwise`: any text, which may also stand before the first
    call; JSON that matches a schema; or nothing else (None), so that the answer is a call.
    """
    trigger = tool_format.opening.rstrip("\n")
    rest = tool_format.opening.removeprefix(trigger)
    rules = ["%llguidance {}"]
    again = f"again{{0,{MAX_CALLS - 1}}}" if several and tool_format.several else ""
    if otherwise == "text" and trigger:
        # The lazy lexeme is any text up to the trigger: after that only a call can follow.
        rules += [f"start: TEXT | head call {again}", r"TEXT: /(.|\n)*/", rf"head[lazy]: /(.|\n)*{re.escape(trigger)}/"]
    elif otherwise == "text":
        rules += [f"start: TEXT | call {again}", r"TEXT: /(\s*[^{\s](.|\n)*)?/"]
    elif otherwise is None:
        rules += [f"start: {_literal(trigger)} call {again}"]
    else:
        rules += [f"start: free | {_literal(trigger)} call {again}", f"free: %json {_json(otherwise)}"]
    if again:
        rules.append(f"again: {_literal(tool_format.between + trigger)} call")
    rules.append("call: " + " | ".join(f"call_{number}" for number in range(len(tools))))
    for number, tool in enumerate(tools):
        head = rest + tool_format.call_head(tool.name).removeprefix(tool_format.opening)
        rules.append(f"call_{number}: {_literal(head)} arguments_{number} {_literal(tool_format.call_tail)}")
        rules.append(f"arguments_{number}: %json {_json(_arguments(tool), lenient=not tool.strict)}")
    return Grammar("lark", "\n".join(rules) + "\n")


def _arguments(tool: Tool) -> dict[str, Any]:
    """The schema of a tool's arguments: an object, of the named members only unless it asks for more."""
    schema = {"type": "object", **tool.schema()}
    if tool.parameters is None or (schema.get("properties") and not any(key in schema for key in _OPENED_BY)):
        schema["additionalProperties"] = False
    return schema


def _json(schema: Mapping[str, Any], *, lenient: bool = False) -> str:
    options: dict[str, Any] = {"whitespace_pattern": WHITESPACE, "lenient": lenient}
    return json.dumps({**_prepared(schema), "x-guidance": options}, ensure_ascii=False)


def _prepared(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Without llguidance's own options: they could make something else of JSON."""
    return {key: value for key, value in schema.items() if key != "x-guidance"}


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text else ""
