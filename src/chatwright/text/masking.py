"""Personal data out of a whole payload: texts, and whatever else of a message a model reads (tool calls, tools, names).

What names a thing stays, so that a row still means the same: keys, roles, ids, and the names of functions and their parameters.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from chatwright.pii import Finding, find, mask
from chatwright.text.manifest import Kind

_MESSAGES = ("messages", "chosen", "rejected")
# Of tool calls and JSON Schema: names and references, where a placeholder would break what hangs together.
_STRUCTURAL = frozenset(
    ("id", "role", "type", "name", "format", "pattern", "required", "$ref", "$id", "$schema", "tool_call_id")
)
# A string of JSON, with the colon after it where it is a key; or a whole number.
_JSON_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|(?<![\w.+-])-?\d+(?![\w.+-])', re.DOTALL)


def mask_payload(kind: Kind, payload: dict[str, Any]) -> tuple[dict[str, Any], Counter[str]]:
    """The payload with placeholders, and how much of each kind was found; the same object where nothing was.

    Spans of a tagged text move with it. One that begins or ends inside a finding grows to the whole placeholder: half of a
    telephone number has no place of its own any more. Where two spans would share a placeholder, the first one has it, and a
    span that had nothing else is dropped.
    """
    found: Counter[str] = Counter()
    if kind == "tagged":
        changed = _tagged(payload, found)
    elif kind in ("documents", "labelled"):
        changed = payload | {"text": _text(payload["text"], found)}
    else:
        changed = payload | {
            field: [_message(message, found) for message in payload[field]] for field in _MESSAGES if field in payload
        }
        if "tools" in payload:
            changed["tools"] = _leaves(payload["tools"], found)
    return (changed, found) if found else (payload, found)


def _text(text: str, found: Counter[str]) -> str:
    masked, findings = mask(text)
    found.update(finding.kind for finding in findings)
    return masked


def _message(message: dict[str, Any], found: Counter[str]) -> dict[str, Any]:
    changed = dict(message)
    if isinstance(message.get("content"), str):
        changed["content"] = _text(message["content"], found)
    if isinstance(message.get("name"), str) and message.get("role") != "tool":  # a tool's name is its function's
        changed["name"] = _text(message["name"], found)
    if "tool_calls" in message:
        changed["tool_calls"] = _leaves(message["tool_calls"], found)
    return changed


def _leaves(value: Any, found: Counter[str]) -> Any:
    """A tool, or a call of one, with its texts masked, but for those that name something."""
    if isinstance(value, str):
        return _text(value, found)
    if isinstance(value, list):
        return [_leaves(each, found) for each in value]
    if isinstance(value, dict):
        return {key: _leaf(key, each, found) for key, each in value.items()}
    return value


def _leaf(key: str, value: Any, found: Counter[str]) -> Any:
    if key == "arguments":
        return (
            _json(value, found)
            if isinstance(value, str)
            else json.loads(_json(json.dumps(value, ensure_ascii=False), found))
        )
    return value if key in _STRUCTURAL and not isinstance(value, dict) else _leaves(value, found)


def _json(text: str, found: Counter[str]) -> str:
    """JSON with its values masked, otherwise as it was written, so that it stays JSON; other text as text.

    The key is the word before a value: {"password": "hunter2x"}. A number becomes a string with a placeholder.
    """
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return _text(text, found)
    key = ""

    def replaced(token: re.Match[str]) -> str:
        nonlocal key
        if token[2] is not None:
            key = json.loads(token[1])
            return token[0]
        value = json.loads(token[1]) if token[1] is not None else token[0]
        before = f"{key}: "
        masked, findings = mask(before + value)
        # Whatever is found in the key itself, or across the colon, is not the value's.
        if not findings or findings[0].start < len(before):
            masked, findings = mask(value)
            before = ""
        found.update(finding.kind for finding in findings)
        if not findings:
            return token[0]
        # Half of a surrogate pair can be written as an escape only.
        return json.dumps(masked[len(before) :], ensure_ascii="\\u" in token[0])

    return _JSON_TOKEN.sub(replaced, text)


def _tagged(payload: dict[str, Any], found: Counter[str]) -> dict[str, Any]:
    text = payload["text"]
    findings = find(text)
    found.update(finding.kind for finding in findings)
    edges = {edge for span in payload["spans"] for edge in (span["start"], span["end"])}
    moved = _moved(sorted(edges), findings)
    parts, end = [], 0
    for finding in findings:
        parts += [text[end : finding.start], finding.placeholder]
        end = finding.end
    spans = []
    last_end = 0
    for span in payload["spans"]:  # in order, and without overlaps
        start, stop = max(moved[span["start"]][0], last_end), moved[span["end"]][1]
        if start < stop:
            spans.append(span | {"start": start, "end": stop})
            last_end = stop
    return payload | {"text": "".join([*parts, text[end:]]), "spans": spans}


def _moved(edges: list[int], findings: list[Finding]) -> dict[int, tuple[int, int]]:
    """Where each edge lies in the masked text: (as a beginning, as an end), which differ inside a finding only."""
    moved: dict[int, tuple[int, int]] = {}
    shift = 0
    remaining = iter(findings)
    finding = next(remaining, None)
    for edge in edges:
        while finding is not None and finding.end <= edge:
            shift += len(finding.placeholder) - (finding.end - finding.start)
            finding = next(remaining, None)
        if finding is not None and finding.start < edge:
            start = finding.start + shift
            moved[edge] = start, start + len(finding.placeholder)
        else:
            moved[edge] = edge + shift, edge + shift
    return moved
