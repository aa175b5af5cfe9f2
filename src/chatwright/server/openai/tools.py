"""Tools in requests, in the form of today and in that of 2023 (`functions`): who may be called, who must, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from chatwright.engine.tool_format import Tool
from chatwright.errors import InvalidRequestError
from chatwright.server.openai.schemas import Description, Name, Schema

MAX_TOOLS = 128


class FunctionBody(BaseModel):
    """A function that the model may call."""

    model_config = ConfigDict(strict=True)

    name: Name
    description: Description | None = None
    parameters: Schema | None = None
    strict: bool | None = None

    def tool(self, param: str) -> Tool:
        """For the engine. Raises InvalidRequestError for parameters that are no object."""
        if self.parameters is not None and self.parameters.get("type", "object") != "object":
            raise InvalidRequestError(
                "The parameters of the function {name} must be a schema of the type object.",
                name=self.name,
                param=param,
                code="invalid_value",
            )
        return Tool(self.name, self.description or "", self.parameters, bool(self.strict))


def _refuse_other_kinds(tool: Any) -> Any:
    """By name, as this server could have them one day."""
    if isinstance(tool, dict) and tool.get("type") == "custom":
        raise InvalidRequestError(
            "This server does not support {name}. Leave it out.",
            name="custom tools",
            param="tools",
            code="unsupported_parameter",
        )
    return tool


class ToolBody(BaseModel):
    """An entry of `tools`."""

    model_config = ConfigDict(strict=True)

    type: Literal["function"]
    function: FunctionBody


class ChosenFunction(BaseModel):
    """`function_call`: the one that must be called."""

    model_config = ConfigDict(strict=True)

    name: Annotated[str, StringConstraints(max_length=64)]


class ChosenTool(BaseModel):
    """`tool_choice`: the one that must be called."""

    model_config = ConfigDict(strict=True)

    type: Literal["function"]
    function: ChosenFunction


class AllowedTools(BaseModel):
    """Which of the tools may or must be called."""

    model_config = ConfigDict(strict=True)

    mode: Literal["auto", "required"]
    tools: Annotated[list[ChosenTool], Field(fail_fast=True, min_length=1, max_length=MAX_TOOLS)]


class AllowedChoice(BaseModel):
    """`tool_choice`: some of the tools."""

    model_config = ConfigDict(strict=True)

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


Tools = Annotated[
    list[Annotated[ToolBody, BeforeValidator(_refuse_other_kinds)]], Field(fail_fast=True, max_length=MAX_TOOLS)
]
ToolChoice = Annotated[
    Literal["none", "auto", "required"] | ChosenTool | AllowedChoice, BeforeValidator(_refuse_other_kinds)
]
Functions = Annotated[list[FunctionBody], Field(fail_fast=True, max_length=MAX_TOOLS)]
FunctionChoice = Literal["none", "auto"] | ChosenFunction


@dataclass(frozen=True)
class ToolUse:
    """tools: all that the model is told of. callable: those that it may call. required: whether it must. several: whether more than
    one call may come; None: as it suits the model. legacy: whether the request speaks of functions. param: the field."""

    tools: Sequence[Tool]
    callable: Sequence[Tool]
    required: bool
    several: bool | None
    legacy: bool
    param: str


def tool_use(
    tools: Sequence[ToolBody] | None,
    choice: ToolChoice | None,
    parallel: bool | None,
    functions: Sequence[FunctionBody] | None,
    function_choice: FunctionChoice | None,
) -> ToolUse | None:
    """What a request asks for; None where nothing may be called, and the model is told of no tool. Raises InvalidRequestError."""
    if (functions or function_choice) and tools:
        raise InvalidRequestError(
            "functions and function_call do not go together with tools. Use one of both forms.",
            param="functions",
            code="invalid_value",
        )
    legacy = bool(functions) or function_choice is not None
    param, choice_param = ("functions", "function_call") if legacy else ("tools", "tool_choice")
    bodies = list(functions or ()) if legacy else [body.function for body in tools or ()]
    by_name = {body.name: body.tool(param) for body in bodies}
    if len(by_name) < len(bodies):
        raise InvalidRequestError("Two functions have the same name.", param=param, code="invalid_value")
    mode, names = _chosen(function_choice if legacy else choice)
    if mode == "none" or (mode == "auto" and not by_name):
        return None
    for name in [None] if not by_name else names or ():
        if name not in by_name:
            raise InvalidRequestError(
                "{choice} asks for a call of {name}, which is not among the functions of the request.",
                choice=choice_param,
                name=name or "a function",
                param=choice_param,
                code="invalid_value",
            )
    tools_by_name = list(by_name.values())
    allowed = tools_by_name if names is None else [by_name[name] for name in dict.fromkeys(names)]
    several = False if legacy or mode == "named" else parallel
    return ToolUse(tools_by_name, allowed, mode in ("named", "required"), several, legacy, param)


def _chosen(
    choice: ToolChoice | FunctionChoice | None,
) -> tuple[Literal["none", "auto", "required", "named"], list[str] | None]:
    """The mode of a `tool_choice` or `function_call`, and the names that it leaves to be called (None: all)."""
    match choice:
        case None:
            return "auto", None
        case ChosenFunction():
            return "named", [choice.name]
        case ChosenTool():
            return "named", [choice.function.name]
        case AllowedChoice():
            return choice.allowed_tools.mode, [tool.function.name for tool in choice.allowed_tools.tools]
        case _:
            return choice, None
