"""Preference pairs: OpenAI's, TRL's (texts or messages, with or without a prompt), LLaMA-Factory's, and KTO's labels."""

from __future__ import annotations

import re
from typing import Any

from chatwright.text.readers.columns import Shaped, find_column
from chatwright.text.readers.conversations import (
    Message,
    alpaca_prompt,
    as_messages,
    check_turns,
    conversation,
    is_empty,
    read_messages,
    tools_of,
)
from chatwright.text.readers.unit import Refused

_HH_TURN = re.compile(r"\n\n(Human|Assistant): ?")


def openai_preference(row: dict[str, Any]) -> Shaped | None:
    """{"input": {"messages", "tools"?}, "preferred_output": [message], "non_preferred_output": [message]}."""
    if "preferred_output" not in row or "non_preferred_output" not in row:
        return None
    given = row.get("input")
    if not isinstance(given, dict) or not isinstance(given.get("messages"), list):
        raise Refused("bad row", "input holds the messages before the two outputs")
    return _pair(
        read_messages(given["messages"]),
        as_messages(row["preferred_output"], "assistant"),
        as_messages(row["non_preferred_output"], "assistant"),
        "openai-preference",
        given,
    )


def preference(row: dict[str, Any]) -> Shaped | None:
    """{"prompt"?, "chosen", "rejected"}: texts or messages; the prompt may be the two's common beginning."""
    if "chosen" not in row or "rejected" not in row:
        return None
    chosen = _answer(row["chosen"])
    rejected = _answer(row["rejected"])
    prompt, name = _prompt(row)
    # The answers may repeat the prompt: what both begin with is context.
    n_common = 0
    while n_common < min(len(chosen), len(rejected)) - 1 and chosen[n_common] == rejected[n_common]:
        n_common += 1
    common = chosen[:n_common]
    prompt = common if common[: len(prompt)] == prompt else prompt + common
    return _pair(prompt, chosen[n_common:], rejected[n_common:], name, row)


def kto(row: dict[str, Any]) -> Shaped | None:
    """TRL's {"prompt", "completion", "label": true | false}: a wanted answer is a conversation, an unwanted one nothing yet."""
    if not isinstance(row.get("label"), bool) or "completion" not in row or "prompt" not in row:
        return None
    if not row["label"]:
        raise Refused(
            "unwanted answer", "KTO's unwanted answers are of use only beside a wanted one: give pairs instead"
        )
    messages = as_messages(row["prompt"], "user") + as_messages(row["completion"], "assistant")
    return conversation(messages, "kto", row)


def _answer(value: Any) -> list[Message]:
    """One of the two answers, as messages; Anthropic's "\\n\\nHuman: …\\n\\nAssistant: …" is taken apart."""
    if isinstance(value, str) and value.startswith(("\n\nHuman:", "\n\nAssistant:")):
        pieces = _HH_TURN.split(value)[1:]
        roles = {"Human": "user", "Assistant": "assistant"}
        turns = zip(pieces[::2], pieces[1::2], strict=True)
        return [{"role": roles[who], "content": said.strip()} for who, said in turns]
    return as_messages(value, "assistant")


def _prompt(row: dict[str, Any]) -> tuple[list[Message], str]:
    for key in ("messages", "conversations"):
        if isinstance(row.get(key), list):
            return read_messages(row[key]), "sharegpt-preference" if key == "conversations" else "trl-preference"
    if "instruction" in row:
        return alpaca_prompt(row), "alpaca-preference"
    column = find_column(row, ("prompt", "question", "query", "input", "问题"))
    messages = as_messages(row[column], "user") if column else []
    system = row.get("system")
    if isinstance(system, str) and system.strip():
        messages = [{"role": "system", "content": system}, *messages]
    return messages, "trl-preference"


def _pair(
    messages: list[Message], chosen: list[Message], rejected: list[Message], detected: str, row: dict[str, Any]
) -> Shaped:
    for part in (messages, chosen, rejected):
        check_turns(part)
    if not any(message["role"] == "user" for message in messages):
        raise Refused("no user turn")
    for part in (chosen, rejected):
        assistants = [message for message in part if message["role"] == "assistant"]
        if not assistants:
            raise Refused("no assistant turn")
        if any(is_empty(message) for message in assistants):
            raise Refused("empty assistant turn")
    if [_said(message) for message in chosen] == [_said(message) for message in rejected]:
        raise Refused("chosen equals rejected")
    payload = {"messages": messages, "chosen": chosen, "rejected": rejected, **tools_of(row)}
    return Shaped("preferences", payload, detected)


def _said(message: Message) -> tuple[str, str, str]:
    return message["role"], message["content"].strip(), repr(message.get("tool_calls"))
