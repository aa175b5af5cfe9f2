"""How a model is told of tools and writes its calls: as its chat template does it, or else in our own format.

A template is asked, not read: it renders a conversation with tools, calls and results, and what it writes shows the format.
Our own format is the one that most open models were tuned on (Hermes): `<tool_call>` around a JSON object with name and arguments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chatwright.errors import InvalidRequestError
from chatwright.tokenizer.chat import ChatTemplate

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Tool:
    """A function that the model may call. parameters: a JSON Schema of an object. strict: every keyword of it must be kept to."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    strict: bool = False

    def for_template(self) -> dict[str, Any]:
        """OpenAI's form, which templates are written for."""
        function = {"name": self.name, "description": self.description, "parameters": self.schema()}
        return {"type": "function", "function": function}

    def schema(self) -> dict[str, Any]:
        """The parameters; none given means that there are none."""
        return dict(self.parameters) if self.parameters is not None else {"type": "object", "properties": {}}


@dataclass(frozen=True)
class ToolFormat:
    """A call is `opening`, {"name": …, `arguments_key`: …}, `closing`; several have `between` between them.

    native: the template renders tools, calls and results itself. system_role: the template takes system messages. several: the
    template takes several calls in one message.
    """

    native: bool = False
    system_role: bool = True
    opening: str = "<tool_call>\n"
    closing: str = "\n</tool_call>"
    between: str = "\n"
    arguments_key: str = "arguments"
    several: bool = True

    def call_head(self, name: str) -> str:
        """What stands before the arguments of a call."""
        return f'{self.opening}{{"name": {json.dumps(name)}, {json.dumps(self.arguments_key)}: '

    @property
    def call_tail(self) -> str:
        """What stands behind the arguments."""
        return "}" + self.closing

    def calls_text(self, calls: Sequence[Mapping[str, Any]]) -> str:
        """Calls in OpenAI's form as the model writes them. Arguments may be a text: what a model once wrote may be no JSON."""
        texts = []
        for call in calls:
            arguments = call["function"]["arguments"]
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            texts.append(self.call_head(call["function"]["name"]) + text + self.call_tail)
        return self.between.join(texts)


TOOLS_INSTRUCTION = """\
# Tools

You may call one or more of these functions:

{tools}

To call a function, answer with its name and its arguments as JSON between these tags:
<tool_call>
{{"name": "function name", "arguments": {{"argument name": "value"}}}}
</tool_call>

Its result then comes between <tool_response> and </tool_response>."""

_PROBE_TOOL = Tool(
    "zq_tool",
    "zq_description",
    {"type": "object", "properties": {"zq_key": {"type": "string"}}, "required": ["zq_key"]},
)
_PROBE_SYSTEM = [{"role": "system", "content": "zq_system"}, {"role": "user", "content": "zq_user"}]


def tool_format_of(template: ChatTemplate) -> ToolFormat:
    """The format that the template shows; blocking, some milliseconds."""
    text = _render(template, _PROBE_SYSTEM)
    system_role = text is not None and "zq_system" in text and "zq_user" in text
    hermes = ToolFormat(native=True, system_role=system_role)
    bare = replace(hermes, opening="", closing="")
    for known in (hermes, bare, replace(bare, arguments_key="parameters")):
        for n_calls in (2, 1):
            calls = [_probe_call(number) for number in range(n_calls)]
            rendered = _render(template, _probe_conversation(calls), [_PROBE_TOOL.for_template()])
            if rendered is None or not all(word in rendered for word in ("zq_description", "zq_result")):
                continue
            # A longer format may hold a shorter one: `<|python_tag|>{…}` is no bare call.
            before, found, _ = rendered.partition(known.calls_text(calls))
            if found and (known.opening or (before[-1:] in ("\n", ">") and not before.endswith(_FOREIGN_OPENINGS))):
                return replace(known, several=n_calls > 1)
    return ToolFormat(system_role=system_role)


_FOREIGN_OPENINGS = ("<|python_tag|>", "<tool_call>", "<|tool_call|>", "<function_call>")


def as_chat(
    messages: Sequence[Message], tools: Sequence[Tool], tool_format: ToolFormat, instruction: str = ""
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Messages and tools for the template. Where it does not know tools they become text, as `TOOLS_INSTRUCTION` says.

    instruction: what else the model has to know, a text at the end of the system message.
    """
    if tool_format.native:
        instructed = _instructed([dict(message) for message in messages], [instruction], tool_format.system_role)
        return instructed, [tool.for_template() for tool in tools] or None
    plain: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "tool":
            result = f"<tool_response>\n{message['content']}\n</tool_response>"
            if plain and plain[-1].get("results"):
                plain[-1]["content"] += "\n" + result
            else:
                plain.append({"role": "user", "content": result, "results": True})
        elif calls := message.get("tool_calls"):
            said = [message["content"]] if message["content"] else []
            content = "\n".join([*said, tool_format.calls_text(calls)])
            plain.append({"role": message["role"], "content": content})
        else:
            plain.append(dict(message))
    for message in plain:
        message.pop("results", None)
    listed = "\n".join(json.dumps(tool.for_template(), ensure_ascii=False) for tool in tools)
    texts = [TOOLS_INSTRUCTION.format(tools=listed)] if tools else []
    return _instructed(plain, [*texts, instruction], tool_format.system_role), None


def _instructed(messages: list[dict[str, Any]], texts: Sequence[str], system_role: bool) -> list[dict[str, Any]]:
    """The texts at the end of the system message, or at the beginning of the first message of a template that knows none."""
    text = "\n\n".join(filter(None, texts))
    if not text:
        return messages
    first = messages[0]
    if first["role"] == "system":
        return [{**first, "content": f"{first['content']}\n\n{text}"}, *messages[1:]]
    if system_role or first["role"] != "user":
        return [{"role": "system", "content": text}, *messages]
    return [{**first, "content": f"{text}\n\n{first['content']}"}, *messages[1:]]


def _probe_call(number: int) -> dict[str, Any]:
    function = {"name": "zq_tool", "arguments": {"zq_key": f"zq_value {number}"}}
    return {"id": f"call0000{number}", "type": "function", "function": function}


def _probe_conversation(calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    results = [
        {"role": "tool", "tool_call_id": call["id"], "name": "zq_tool", "content": f"zq_result {number}"}
        for number, call in enumerate(calls)
    ]
    return [
        {"role": "user", "content": "zq_user"},
        {"role": "assistant", "content": "", "tool_calls": list(calls)},
        *results,
    ]


def _render(
    template: ChatTemplate, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None
) -> str | None:
    """None where the template refuses."""
    try:
        return template.render(messages, tools=tools)
    except InvalidRequestError:
        return None
