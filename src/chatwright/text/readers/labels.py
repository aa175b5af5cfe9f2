"""Labelled texts and labelled tokens: {"text", "label"}; {"tokens", "tags"} in BIO, BIOES, BMES; {"text", "spans"}."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from chatwright.text.characters import is_cjk
from chatwright.text.readers.columns import LABEL, NUMBERING, TEXT, WEAK_LABEL, Shaped, find_column, text_of, type_of
from chatwright.text.readers.unit import Refused
from chatwright.text.reasons import Detail

_NO_SPACE_BEFORE = set(".,;:!?)]}%’”»…")
_NO_SPACE_AFTER = set("([{“‘«$£€#")
_BEGIN, _INSIDE = set("BSU"), set("IMEL")


def labelled(row: dict[str, Any]) -> Shaped | None:
    """A text and its class."""
    text = find_column(row, TEXT)
    if text is None:
        return None
    column = find_column(row, LABEL)
    if column is None:
        others = {key for key in row if str(key).lower() not in NUMBERING and key != text}
        column = find_column(row, WEAK_LABEL) if len(others) == 1 else None
    if column is None:
        return None
    label = row[column]
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if isinstance(label, list):
        raise Refused("several labels", Detail("a text has one label here, not {n}", n=len(label)))
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if label is None or not isinstance(label, str | int | float) or not str(label).strip():
        if label is None or isinstance(label, str):
            raise Refused("no label", Detail("the field {name} is empty", name=column))
        raise Refused("no label", Detail("the field {name} is {type}", name=column, type=type_of(label)))
    payload = {"text": text_of(row[text], text), "label": str(label).strip()}
    return Shaped("labelled", payload, f"columns {text!r} and {column!r}")


def tagged_tokens(row: dict[str, Any]) -> Shaped | None:
    """{"tokens": […], "tags": […]}, also "words" and "ner_tags"."""
    tokens = next((row[key] for key in ("tokens", "words", "chars") if isinstance(row.get(key), list)), None)
    tags = next(
        (row[key] for key in ("tags", "ner_tags", "ner", "labels", "label") if isinstance(row.get(key), list)), None
    )
    if tokens is None or tags is None:
        return None
    if len(tokens) != len(tags):
        raise Refused("bad row", Detail("{n_tokens} tokens and {n_tags} tags", n_tokens=len(tokens), n_tags=len(tags)))
    if not all(isinstance(token, str) for token in tokens):
        raise Refused("not text", "tokens are texts")
    if not all(isinstance(tag, str) for tag in tags):
        raise Refused(
            "bad tags", "tags are names such as B-PER; numbers need their names, which parquet files of hubs carry"
        )
    return Shaped("tagged", join_tagged(tokens, tags), "tokens and tags")


def tagged_spans(row: dict[str, Any]) -> Shaped | None:
    """{"text", "spans" | "entities" | "label": [[start, end, label] or {"start", "end", "label"}, …]}, in characters."""
    column = find_column(row, TEXT)
    if column is None or not isinstance(row[column], str):
        return None
    text = row[column]
    key = next((key for key in ("spans", "entities", "label", "labels") if isinstance(row.get(key), list)), None)
    if key is None or (key.startswith("label") and not (row[key] and isinstance(row[key][0], list | dict))):
        return None
    text_of(text, column)
    spans = sorted((_span(entry, text) for entry in row[key]), key=lambda span: (span["start"], span["end"]))
    for before, after in pairwise(spans):
        if after["start"] < before["end"]:
            raise Refused("bad spans", Detail("{one} and {other} overlap", one=before["label"], other=after["label"]))
    return Shaped("tagged", {"text": text, "spans": spans}, f"columns {column!r} and {key!r}")


def join_tagged(tokens: list[str], tags: list[str]) -> dict[str, Any]:
    """{"text", "spans"} of tokens and their tags; blanks stand where the language writes them. Raises Refused."""
    if not any(token.strip() for token in tokens):
        raise Refused("empty text")
    text = ""
    spans: list[dict[str, Any]] = []
    is_open = False
    for token, tag in zip(tokens, tags, strict=True):
        token = token.strip()
        if text and token and _needs_space(text[-1], token[0]):
            text += " "
        start = len(text)
        text += token
        prefix, _dash, label = tag.partition("-") if "-" in tag else tag.partition("_")
        if tag in ("O", "", "o") or not token:
            is_open = False
            continue
        if prefix not in _BEGIN | _INSIDE or not label:
            raise Refused("bad tags", Detail("{tag!r} is no tag of BIO, BIOES or BMES", tag=tag[:40]))
        if prefix in _INSIDE and is_open and spans[-1]["label"] == label:
            spans[-1]["end"] = len(text)
        else:
            spans.append({"start": start, "end": len(text), "label": label})
        is_open = True
    return {"text": text, "spans": spans}


def _span(entry: Any, text: str) -> dict[str, Any]:
    if isinstance(entry, dict):
        start = entry.get("start", entry.get("start_offset"))
        end = entry.get("end", entry.get("end_offset"))
        label = next((entry[key] for key in ("label", "type", "entity", "entity_group", "tag") if key in entry), None)
    elif isinstance(entry, list) and len(entry) >= 3:
        start, end, label = entry[:3]
    else:
        raise Refused("bad spans", "a span is [start, end, label] or an object with these")
    if type(start) is not int or type(end) is not int or not isinstance(label, str) or not label.strip():
        raise Refused("bad spans", "a span has a start, an end and a label")
    if not 0 <= start < end <= len(text):
        raise Refused(
            "bad spans",
            Detail(
                "{start} to {end} does not lie inside the {n} characters of the text", start=start, end=end, n=len(text)
            ),
        )
    said = entry.get("text") or entry.get("word") if isinstance(entry, dict) else None
    if isinstance(said, str) and said.strip() != text[start:end].strip():
        raise Refused(
            "bad spans",
            Detail("{start} to {end} is not what the span says: offsets count characters", start=start, end=end),
        )
    return {"start": start, "end": end, "label": label.strip()}


def _needs_space(before: str, after: str) -> bool:
    if is_cjk(before) or is_cjk(after) or before in _NO_SPACE_AFTER or after in _NO_SPACE_BEFORE:
        return False
    return not (after in "'" or before.isspace())
