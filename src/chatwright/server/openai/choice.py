"""One choice of a chat answer as it grows: what a stream says of it, and the message that it comes to."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from openai.types.chat import ChatCompletionMessage, ChatCompletionMessageFunctionToolCall
from openai.types.chat.chat_completion_chunk import (
    ChoiceDelta,
    ChoiceDeltaFunctionCall,
    ChoiceDeltaToolCall,
    ChoiceDeltaToolCallFunction,
)
from openai.types.chat.chat_completion_message import FunctionCall
from openai.types.chat.chat_completion_message_function_tool_call import Function

from chatwright.engine.text import TextFinish
from chatwright.engine.tool_reader import Called, Said, ToolReader
from chatwright.server.openai.generation import wire_reason


class ChatChoice:
    """Text and calls of one choice. reader: tells calls from text; None where nothing may be called. legacy: the calls are those
    of 2023, `function_call`."""

    def __init__(self, reader: ToolReader | None, *, legacy: bool = False) -> None:
        self._reader = reader
        self._legacy = legacy
        self._started = False
        self._text = ""
        self._calls: list[tuple[str, str, list[str]]] = []  # id, name, pieces of the arguments

    def push(self, text: str) -> list[ChoiceDelta]:
        """What the stream says when the answer goes on with `text`."""
        return self._deltas(self._reader.push(text) if self._reader else [Said(text)])

    def finish(self, event: TextFinish) -> tuple[list[ChoiceDelta], Any]:
        """What the stream says before the last delta, and the reason that the last one gives."""
        deltas = self._deltas(self._reader.flush() if self._reader else ())
        if not self._started:
            deltas = self._start(called=False)
        reason: str = wire_reason(event)
        if self._reader and self._reader.n_complete == self._reader.n_calls > 0 and reason == "stop":
            reason = "function_call" if self._legacy else "tool_calls"
        return deltas, reason

    def message(self) -> ChatCompletionMessage:
        """The whole, when it is finished."""
        content = None if self._calls and not self._text else self._text
        calls = [(call_id, Function(name=name, arguments="".join(pieces))) for call_id, name, pieces in self._calls]
        extra: dict[str, Any] = {}
        if self._legacy and calls:
            function = calls[0][1]
            extra["function_call"] = FunctionCall(name=function.name, arguments=function.arguments)
        elif calls:
            extra["tool_calls"] = [
                ChatCompletionMessageFunctionToolCall(id=call_id, type="function", function=function)
                for call_id, function in calls
            ]
        return ChatCompletionMessage(role="assistant", content=content, refusal=None, **extra)

    def _deltas(self, parts: Iterable[Said | Called]) -> list[ChoiceDelta]:
        deltas: list[ChoiceDelta] = []
        for part in parts:
            if not self._started:
                deltas += self._start(called=isinstance(part, Called))
            if isinstance(part, Said):
                self._text += part.text
                deltas.append(ChoiceDelta(content=part.text))
            else:
                deltas.append(self._call_delta(part))
        return deltas

    def _start(self, *, called: bool) -> list[ChoiceDelta]:
        self._started = True
        return [ChoiceDelta(role="assistant", content=None if called else "", refusal=None)]

    def _call_delta(self, part: Called) -> ChoiceDelta:
        first: dict[str, Any] = {}
        if part.name is not None:
            call_id = f"call_{uuid.uuid4().hex[:24]}"
            self._calls.append((call_id, part.name, []))
            first = {"id": call_id, "type": "function"}
        self._calls[part.index][2].append(part.arguments)
        named = {} if part.name is None else {"name": part.name}
        if self._legacy:
            return ChoiceDelta(function_call=ChoiceDeltaFunctionCall(arguments=part.arguments, **named))
        function = ChoiceDeltaToolCallFunction(arguments=part.arguments, **named)
        return ChoiceDelta(tool_calls=[ChoiceDeltaToolCall(index=part.index, function=function, **first)])
