"""With --mask no personal data is left anywhere in a row, and the row still means the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwright.pii import find
from chatwright.text.masking import mask_payload
from chatwright.text.options import PrepareOptions
from chatwright.text.prepare import prepare

EMAIL, PHONE = "ann.lee@example.com", "13812345678"
FRAGMENTS = st.sampled_from([EMAIL, PHONE, "Ann Lee", " ", "写信给", ", ", "called", "电话：", "5272868387", "x"])


def call(arguments: Any) -> dict[str, Any]:
    function = {"name": "send_mail", "arguments": arguments}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
    }


def masked_arguments(arguments: Any) -> Any:
    payload, _found = mask_payload("conversations", {"messages": [call(arguments)]})
    return payload["messages"][0]["tool_calls"][0]["function"]["arguments"]


def tagged(*pieces: str | tuple[str, str]) -> dict[str, Any]:
    """A tagged text out of texts and (text, label)."""
    text, spans = "", []
    for piece in pieces:
        said, label = piece if isinstance(piece, tuple) else (piece, "")
        if label:
            spans.append({"start": len(text), "end": len(text) + len(said), "label": label})
        text += said
    return {"text": text, "spans": spans}


def spans_of(payload: dict[str, Any]) -> list[tuple[str, str]]:
    return [(payload["text"][span["start"] : span["end"]], span["label"]) for span in payload["spans"]]


def test_nothing_personal_is_left_in_tools_calls_and_names(tmp_path: Path) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "send_mail",
            "description": f"Sends mail, from {EMAIL} if nothing is said.",
            "parameters": {
                "type": "object",
                "properties": {"name": {"type": "string", "default": EMAIL, "enum": [EMAIL, "me"]}},
                "required": ["name"],
            },
        },
    }
    messages = [
        {"role": "user", "name": EMAIL, "content": "Please write a letter for me and send it to my sister."},
        call(json.dumps({"to": [EMAIL], "body": {"phone": int(PHONE), "n": 3}})),
        {"role": "tool", "name": "send_mail", "tool_call_id": "call_1", "content": f"Sent to {EMAIL}."},
        {"role": "assistant", "content": "The letter is on its way to your sister now."},
    ]
    (tmp_path / "talks.jsonl").write_bytes(orjson.dumps({"messages": messages, "tools": [tool]}))
    dataset = prepare([tmp_path / "talks.jsonl"], tmp_path / "data", PrepareOptions(mask=True), workers=1)
    (row,) = dataset.rows("train", "conversations")
    assert EMAIL not in json.dumps(row)
    assert PHONE not in json.dumps(row)
    assert row["messages"][0]["name"] == "[EMAIL]"
    calling = row["messages"][1]["tool_calls"][0]
    assert (calling["id"], calling["function"]["name"]) == ("call_1", "send_mail")
    assert json.loads(calling["function"]["arguments"]) == {"to": ["[EMAIL]"], "body": {"phone": "[PHONE]", "n": 3}}
    assert row["messages"][2]["name"] == "send_mail"
    function = row["tools"][0]["function"]
    assert function["description"] == "Sends mail, from [EMAIL] if nothing is said."
    assert function["parameters"]["required"] == ["name"]
    assert function["parameters"]["properties"]["name"] == {
        "type": "string",
        "default": "[EMAIL]",
        "enum": ["[EMAIL]", "me"],
    }
    (step,) = [step for step in dataset.manifest.steps if step.name == "personal data"]
    assert (step.changed, step.notes) == (1, {"email": 6, "phone": 1})


def test_answers_of_preferences_are_masked_too() -> None:
    payload = {"messages": [], "chosen": [call({"to": EMAIL})], "rejected": [{"role": "assistant", "content": EMAIL}]}
    masked, found = mask_payload("preferences", payload)
    assert EMAIL not in json.dumps(masked)
    assert found == {"email": 2}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{ "to" : "ann\\u002elee@example.com","n":1.50 }', '{ "to" : "[EMAIL]","n":1.50 }'),  # otherwise as it was
        ('{"password": "hunter2x"}', '{"password": "[KEY]"}'),  # the key is the word before the value
        ('{"ann.lee@example.com": 1}', '{"ann.lee@example.com": 1}'),  # a key stays
        ('{"a": "\\ud83d and ann.lee@example.com"}', '{"a": "\\ud83d and [EMAIL]"}'),
        ('{"a": "say \\"hi\\" to ann.lee@example.com\\n"}', '{"a": "say \\"hi\\" to [EMAIL]\\n"}'),
        ("write to ann.lee@example.com", "write to [EMAIL]"),  # no JSON
        ({"name": EMAIL, "phone": int(PHONE)}, {"name": "[EMAIL]", "phone": "[PHONE]"}),
        ('{"x": 1.13812345678, "y": -2e10}', '{"x": 1.13812345678, "y": -2e10}'),
        (None, None),
    ],
)
def test_arguments_stay_json(arguments: Any, expected: Any) -> None:
    assert masked_arguments(arguments) == expected


@given(value=st.recursive(FRAGMENTS | st.integers() | st.none(), lambda v: st.lists(v) | st.dictionaries(FRAGMENTS, v)))
@settings(deadline=None)
def test_masked_arguments_are_json_with_the_same_keys(value: Any) -> None:
    def shape(each: Any) -> Any:
        if isinstance(each, dict):
            return {key: shape(inner) for key, inner in each.items()}
        return [shape(inner) for inner in each] if isinstance(each, list) else None

    assert shape(json.loads(masked_arguments(json.dumps(value)))) == shape(value)


def test_a_finding_across_the_edge_of_a_span_is_masked_and_the_span_grows_to_it() -> None:
    masked, _found = mask_payload(
        "tagged", tagged("Call ", ("Ann ann.lee", "PER"), "@example.com now, ", ("Bob", "PER"))
    )
    assert masked["text"] == "Call Ann [EMAIL] now, Bob"
    assert spans_of(masked) == [("Ann [EMAIL]", "PER"), ("Bob", "PER")]


def test_the_word_before_a_number_counts_where_a_span_begins_between_them() -> None:
    masked, _found = mask_payload(
        "tagged", tagged("my phone number is ", ("5272868387", "NUMBER"), ", ", ("Ann", "PER"))
    )
    assert masked["text"] == "my phone number is [PHONE], Ann"
    assert spans_of(masked) == [("[PHONE]", "NUMBER"), ("Ann", "PER")]


def test_two_spans_inside_one_finding_do_not_overlap_afterwards() -> None:
    masked, _found = mask_payload("tagged", tagged(("ann.lee", "PER"), "@", ("example.com", "SITE"), " ", ("x", "Y")))
    assert masked["text"] == "[EMAIL] x"
    assert spans_of(masked) == [("[EMAIL]", "PER"), ("x", "Y")]


@given(pieces=st.lists(st.tuples(FRAGMENTS, st.sampled_from(["", "A", "B"])), max_size=8))
@settings(deadline=None)
def test_spans_stay_in_order_and_those_beside_findings_keep_their_text(pieces: list[tuple[str, str]]) -> None:
    payload = tagged(*pieces)
    masked, found = mask_payload("tagged", payload)
    ends = [0, *(edge for span in masked["spans"] for edge in (span["start"], span["end"])), len(masked["text"])]
    assert ends == sorted(ends)
    touched = [(finding.start, finding.end) for finding in find(payload["text"])]
    free = [
        (payload["text"][span["start"] : span["end"]], span["label"])
        for span in payload["spans"]
        if not any(start < span["end"] and span["start"] < end for start, end in touched)
    ]
    assert [span for span in spans_of(masked) if span in free] == free
    assert sum(found.values()) == len(touched)
