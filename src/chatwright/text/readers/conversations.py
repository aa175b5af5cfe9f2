"""Conversations as people store them: OpenAI messages, ShareGPT, Alpaca, prompt and completion, lists of turns.

Formats: OpenAI's fine-tuning files ("messages", "weight", "tools"), ShareGPT ("conversations" of "from" and "value"), Alpaca
("instruction", "input", "output", LLaMA-Factory's "history" and "system"), TRL's "prompt" and "completion".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from chatwright.text.readers.columns import (
    ANSWER,
    NUMBERING,
    PROMPT,
    TEXT,
    TURNS,
    Shaped,
    find_column,
    has_text,
    text_of,
    type_of,
)
from chatwright.text.readers.unit import Refused
from chatwright.text.reasons import Detail

_ROLES = {
    "user": "user", "human": "user", "prompter": "user", "usr": "user", "question": "user", "instruction": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
    "bing": "assistant", "bard": "assistant", "ai": "assistant", "answer": "assistant",
    "system": "system", "developer": "system",
    "tool": "tool", "function": "tool", "observation": "tool", "tool_response": "tool", "function_response": "tool",
    "function_call": "function_call", "tool_call": "function_call",
}  # fmt: skip
# What is read of a message: of each of the first two, the first that is there.
_WHO = ("role", "from", "sender", "speaker")
_WHAT = ("content", "value", "text")
_BESIDE = ("weight", "tool_calls", "function_call", "name", "tool_call_id")
_XTUNER = ("system", "input", "output")
_HOLD_MESSAGES = frozenset(
    {
        "messages", "conversations", "conversation", "chat_messages", *TURNS, *PROMPT, *ANSWER, "chosen", "rejected",
        "preferred_output", "non_preferred_output",
    }
)  # fmt: skip
# A turn has none of the first, and a row of a file at least one of the second.
_HOLD_TURNS = frozenset({"messages", "conversations", "conversation", "chat_messages", "mapping", *TURNS})
_OF_ROWS = _HOLD_TURNS | {*PROMPT, *ANSWER, *TEXT, "chosen", "rejected", "preferred_output"}
Message = dict[str, Any]


def openai_messages(row: dict[str, Any]) -> Shaped | None:
    """{"messages": [{"role", "content", "weight"?, "tool_calls"?}, …], "tools"?: […]}."""
    messages = row.get("messages")
    if not isinstance(messages, list):
        return None
    return conversation(read_messages(messages), "openai-messages", row)


def sharegpt(row: dict[str, Any]) -> Shaped | None:
    """{"conversations": [{"from", "value"}, …], "system"?, "tools"?}; also with "role" and "content", or bare strings."""
    turns_ = next((row[key] for key in ("conversations", "conversation", "chat_messages") if key in row), None)
    if not isinstance(turns_, list):
        return None
    if turns_ and all(isinstance(turn, dict) for turn in turns_):
        name = "sharegpt" if "from" in turns_[0] else "openai-messages"
        if _is_xtuner(turns_):
            return conversation(_xtuner(turns_), "xtuner", row)
        return conversation(_with_system(read_messages(turns_), row), name, row)
    return conversation(_alternating(turns_), "list of turns", row)


def holds_rows(entries: list[Any]) -> bool:
    """Whether a list under "conversations" holds whole rows, each with a conversation or a text of its own, and not turns."""
    return any(map(_is_row, entries)) and not any(isinstance(entry, str) or _is_turn(entry) for entry in entries)


def _is_row(entry: Any) -> bool:
    if isinstance(entry, list):  # of messages; [question, answer] is a pair of one conversation
        return bool(entry) and all(isinstance(turn, dict) for turn in entry)
    return isinstance(entry, dict) and not _is_turn(entry) and not _OF_ROWS.isdisjoint(entry)


def _is_turn(entry: Any) -> bool:
    if not isinstance(entry, dict) or not _HOLD_TURNS.isdisjoint(entry):
        return False
    return any(entry.get(key) for key in _WHO) or ("instruction" not in entry and _is_xtuner([entry]))


def turns(row: dict[str, Any]) -> Shaped | None:
    """{"dialog": [text, text, …]}: user and assistant in turn."""
    for key in TURNS:
        value = row.get(key)
        if isinstance(value, list):
            return message_list(value, row)
    return None


def alpaca(row: dict[str, Any]) -> Shaped | None:
    """{"instruction", "input"?, "output", "history"?: [[question, answer], …], "system"?}."""
    answer = next((key for key in ("output", "response", "answer", "completion") if key in row), None)
    if "instruction" not in row or answer is None:
        return None
    return conversation([*alpaca_prompt(row), {"role": "assistant", "content": row[answer]}], "alpaca", row)


def alpaca_prompt(row: dict[str, Any]) -> list[Message]:
    """The messages of an Alpaca row before its answer."""
    messages = _with_system([], row)
    history = row.get("history") or []
    if not isinstance(history, list):
        raise Refused("bad row", "history is a list of [question, answer]")
    for pair in history:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise Refused("bad row", "history is a list of [question, answer]")
        messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    instruction, more = row.get("instruction"), row.get("input")
    if more not in (None, [], {}) and not isinstance(more, str):
        more = text_of(more, "input")  # without it the question would be another one
    if isinstance(instruction, str) and more:
        parts = [part for part in (instruction, more) if part.strip()]
        instruction = "\n\n".join(parts)
    return [*messages, {"role": "user", "content": instruction}]


def prompt_completion(row: dict[str, Any]) -> Shaped | None:
    """A question and its answer under any of the usual names; also TRL's lists of messages."""
    question, answer = find_column(row, PROMPT), find_column(row, ANSWER)
    if question is None or answer is None:
        return None
    name = (
        "prompt-completion"
        if (question, answer) == ("prompt", "completion")
        else f"columns {question!r} and {answer!r}"
    )
    messages = as_messages(row[question], "user") + as_messages(row[answer], "assistant")
    return conversation(_with_system(messages, row), name, row)


def message_list(value: list[Any], row: dict[str, Any] | None = None) -> Shaped:
    """A bare list: of messages, of alternating texts, or of [question, answer] pairs."""
    if value and all(isinstance(turn, dict) for turn in value):
        return conversation(read_messages(value), "openai-messages", row or {})
    return conversation(_alternating(value), "list of turns", row or {})


def conversation(messages: list[Message], detected: str, row: dict[str, Any]) -> Shaped:
    """The record of a conversation. Raises Refused for one that nothing can be learnt from."""
    check_turns(messages)
    assistants = [message for message in messages if message["role"] == "assistant"]
    if not assistants:
        raise Refused("no assistant turn")
    if any(is_empty(message) for message in assistants):
        raise Refused("empty assistant turn")
    if not any(message["role"] == "user" and message["content"].strip() for message in messages):
        raise Refused("no user turn")
    if all(message.get("weight", 1) == 0 for message in assistants):
        raise Refused("no assistant turn", "every assistant turn has weight 0")
    return Shaped("conversations", {"messages": messages, **tools_of(row)}, detected)


def check_turns(messages: list[Message]) -> None:
    """Raises Refused unless every message is text from a known role (as `alpaca` and others build them unchecked)."""
    for message in messages:
        if message["content"] is None:
            message["content"] = ""
        if not isinstance(message["content"], str):
            raise Refused(
                "not text", Detail("the {role} turn is {type}", role=message["role"], type=type_of(message["content"]))
            )


def is_empty(message: Message) -> bool:
    """Whether a turn says nothing and calls nothing."""
    return not message["content"].strip() and not message.get("tool_calls")


def tools_of(row: dict[str, Any]) -> dict[str, Any]:
    """{"tools": […]} where the row offers tools (ShareGPT keeps them as text), else {}."""
    tools = row.get("tools") or row.get("functions")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            raise Refused("bad row", "tools is text that is no JSON") from None
    if not tools:
        return {}
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise Refused("bad row", "tools is a list of objects")
    return {"tools": [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]}


def as_messages(value: Any, role: str) -> list[Message]:
    """A text, or a list of messages."""
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return read_messages(value)
    if isinstance(value, dict) and ("role" in value or "from" in value):
        return read_messages([value])
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # "answers": ["…"]
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Refused("empty assistant turn" if role == "assistant" else "no user turn")
    return [{"role": role, "content": text_of(value, role)}]


def read_messages(turns_: list[Any]) -> list[Message]:
    """Messages in OpenAI's form out of OpenAI's or ShareGPT's. Raises Refused."""
    messages: list[Message] = []
    for turn in turns_:
        if not isinstance(turn, dict):
            raise Refused("bad row", Detail("a message is an object, not {type}", type=type_of(turn)))
        name = next((turn[key] for key in _WHO if turn.get(key)), None)
        role = _ROLES.get(name.strip().lower()) if isinstance(name, str) else None
        if role is None:
            raise Refused(
                "unknown role", Detail("{name!r}: roles are system, user, assistant and tool", name=str(name)[:40])
            )
        content = next((turn[key] for key in _WHAT if key in turn), None)
        messages.append(_function_call(content) if role == "function_call" else _message(role, content, turn))
    return messages


def unread_in_messages(row: Any) -> Iterator[str]:
    """The fields with text that were not read of the messages in a row, as "messages.refusal"."""
    for name, value in row.items() if isinstance(row, dict) else [("", row)]:
        if name and name.lower() not in _HOLD_MESSAGES:
            continue
        if isinstance(value, dict):
            inner = value.get("messages")  # OpenAI's preferences: {"input": {"messages"}}
            value = inner if isinstance(inner, list) else [value]
        turns_ = [turn for turn in value if isinstance(turn, dict)] if isinstance(value, list) else []
        for turn in turns_:
            for key in _unread(turn, turns_):
                yield f"{name}.{key}" if name else key


def _unread(turn: dict[str, Any], turns_: list[dict[str, Any]]) -> list[str]:
    who = next((key for key in _WHO if turn.get(key)), None)
    what = next((key for key in _WHAT if key in turn), None)
    read = _XTUNER if _is_xtuner(turns_) else (who, what, *_BESIDE)
    return [key for key, value in turn.items() if key not in read and key.lower() not in NUMBERING and has_text(value)]


def _message(role: str, content: Any, turn: dict[str, Any]) -> Message:
    message: Message = {"role": role, "content": _plain(content)}
    weight = turn.get("weight")
    if weight is not None:
        if weight not in (0, 1):
            raise Refused("bad row", "weight is 0 or 1")
        message["weight"] = int(weight)
    if turn.get("tool_calls"):
        if not isinstance(turn["tool_calls"], list) or not all(isinstance(call, dict) for call in turn["tool_calls"]):
            raise Refused("bad row", "tool_calls is a list of objects")
        message["tool_calls"] = turn["tool_calls"]
    elif isinstance(turn.get("function_call"), dict):  # OpenAI's older form
        message["tool_calls"] = [{"type": "function", "function": turn["function_call"]}]
    for key in ("name", "tool_call_id"):
        if isinstance(turn.get(key), str):
            message[key] = turn[key]
    return message


def _plain(content: Any) -> str:
    """A message's text; of a list of parts, the texts. Raises Refused for pictures and sound."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = []
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                part = part["text"]
            if not isinstance(part, str):
                kind = part.get("type", "an object") if isinstance(part, dict) else type_of(part)
                raise Refused("not text", Detail("a message holds {kind}", kind=str(kind)[:40]))
            texts.append(part)
        return "\n".join(texts)
    raise Refused("not text", Detail("a message is {type}", type=type_of(content)))


def _function_call(content: Any) -> Message:
    """ShareGPT's function_call: {"name", "arguments"} as text; text that is no such call stays text."""
    try:
        call = json.loads(content) if isinstance(content, str) else content
    except (ValueError, RecursionError):
        call = None
    calls = call if isinstance(call, list) else [call]
    if not calls or not all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in calls):
        return {"role": "assistant", "content": _plain(content)}
    functions = [{"name": each["name"], "arguments": each.get("arguments", {})} for each in calls]
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": function} for function in functions],
    }


def _with_system(messages: list[Message], row: dict[str, Any]) -> list[Message]:
    """The messages after the row's system prompt, where it has one of its own."""
    if any(message["role"] == "system" for message in messages):
        return messages  # the row's own is not read, and is named as such
    system = row.get("system") or row.get("system_prompt")
    if isinstance(system, str) and system.strip():
        return [{"role": "system", "content": system}, *messages]
    return messages


def _alternating(values: list[Any]) -> list[Message]:
    if values and all(isinstance(pair, list) and len(pair) == 2 for pair in values):
        values = [text for pair in values for text in pair]
    if not all(isinstance(text, str) for text in values):
        raise Refused("bad row", "a list of turns holds texts, or [question, answer] pairs, or messages")
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(values)]


def _is_xtuner(turns_: list[dict[str, Any]]) -> bool:
    return "input" in turns_[0] and "output" in turns_[0]


def _xtuner(turns_: list[dict[str, Any]]) -> list[Message]:
    messages: list[Message] = []
    for turn in turns_:
        if isinstance(turn.get("system"), str) and turn["system"].strip():
            messages.append({"role": "system", "content": turn["system"]})
        messages.append({"role": "user", "content": turn.get("input")})
        messages.append({"role": "assistant", "content": turn.get("output")})
    return messages
