"""ChatGPT's export: conversations.json, a list of trees, of which the branch that the user last saw is read."""

from __future__ import annotations

from typing import Any

from chatwright.text.readers.columns import Shaped
from chatwright.text.readers.conversations import Message, conversation
from chatwright.text.readers.unit import Refused
from chatwright.text.reasons import Detail

# Kinds of content that people said or were told; the others are thoughts, code for tools and what tools answered.
_SPOKEN = {"text", "multimodal_text"}


def chatgpt_conversation(row: dict[str, Any]) -> Shaped | None:
    """{"mapping": {id: {"message", "parent", "children"}}, "current_node"}: the messages from the root to that node."""
    mapping = row.get("mapping")
    if not isinstance(mapping, dict):
        return None
    messages: list[Message] = []
    n_left_out = 0
    branch = _branch(mapping, row.get("current_node"))
    for node in branch:
        message = node.get("message")
        if not isinstance(message, dict):
            continue
        said = _said(message)
        if said is None:
            n_left_out += not _is_hidden(message)
        elif messages and messages[-1]["role"] == said["role"]:
            messages[-1] = {"role": said["role"], "content": f"{messages[-1]['content']}\n\n{said['content']}"}
        elif said["content"].strip():
            messages.append(said)
    shaped = conversation(messages, "chatgpt-export", {})
    left_out = []
    if n_left_out:
        left_out.append(
            Detail(
                "{n} messages to and from tools, pictures or thoughts: only what was said is taken over", n=n_left_out
            )
        )
    if n_beside := _n_said_beside(mapping, branch):
        left_out.append(
            Detail(
                "{n} messages on other branches, of answers or questions given again: only the branch last seen is read",
                n=n_beside,
            )
        )
    return Shaped(shaped.kind, shaped.payload, shaped.detected, tuple(left_out))


def _n_said_beside(mapping: dict[str, Any], branch: list[dict[str, Any]]) -> int:
    """How many messages with text are on no node of the branch."""
    read = set(map(id, branch))
    beside = (node.get("message") for node in mapping.values() if isinstance(node, dict) and id(node) not in read)
    said = (_said(message) for message in beside if isinstance(message, dict))
    return sum(message is not None and bool(message["content"].strip()) for message in said)


def _branch(mapping: dict[str, Any], current: Any) -> list[dict[str, Any]]:
    """The nodes from the root to `current`, or, where it leads nowhere, along the last child of every node."""
    nodes: list[dict[str, Any]] = []
    seen: set[str] = set()
    while isinstance(current, str) and current not in seen and isinstance(node := mapping.get(current), dict):
        seen.add(current)
        nodes.append(node)
        current = node.get("parent")
    if nodes:
        return nodes[::-1]
    roots = [key for key, node in mapping.items() if isinstance(node, dict) and node.get("parent") not in mapping]
    if not roots:
        raise Refused("bad row", "the tree of messages has no root")
    current = roots[0]
    while isinstance(current, str) and current not in seen and isinstance(node := mapping.get(current), dict):
        seen.add(current)
        nodes.append(node)
        children = node.get("children")
        current = children[-1] if isinstance(children, list) and children else None
    return nodes


def _said(message: dict[str, Any]) -> Message | None:
    """The message, if a person reads it as part of the conversation."""
    author, content = message.get("author"), message.get("content")
    role = author.get("role") if isinstance(author, dict) else None
    if role not in ("system", "user", "assistant") or not isinstance(content, dict) or _is_hidden(message):
        return None
    if content.get("content_type") not in _SPOKEN or message.get("recipient", "all") not in ("all", None):
        return None
    parts = content.get("parts")
    texts = [text for part in parts if (text := _text(part)) is not None] if isinstance(parts, list) else []
    if isinstance(parts, list) and parts and not texts:
        return None
    return {"role": role, "content": "\n".join(texts)}


def _text(part: Any) -> str | None:
    """What a part says: a text, or what was heard in a voice conversation; None for pictures and sound."""
    if isinstance(part, dict) and part.get("content_type") == "audio_transcription":
        part = part.get("text")
    return part if isinstance(part, str) else None


def _is_hidden(message: dict[str, Any]) -> bool:
    metadata = message.get("metadata")
    return isinstance(metadata, dict) and bool(metadata.get("is_visually_hidden_from_conversation"))
