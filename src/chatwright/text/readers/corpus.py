"""YAML: conversations in ChatterBot's form ("conversations": a list of lists of turns); any other file is plain text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chatwright.text.readers.conversations import message_list
from chatwright.text.readers.encoding import is_binary
from chatwright.text.readers.piece import Piece
from chatwright.text.readers.unit import Record, Refused, Skipped


def read_yaml(piece: Piece) -> Iterator[Record | Skipped]:
    """Records of kind "conversations", or one document. Raises Refused."""
    if is_binary(piece.head):
        raise Refused("binary")
    decoded = piece.decoder().decode(piece.whole())
    text, encoding = decoded.text, piece.encoding or decoded.encoding
    if not text.strip():
        yield Skipped(piece.source, "", "empty")
        return
    corpus = _parse(text) if "conversations:" in text else None
    if not isinstance(corpus, dict) or not isinstance(corpus.get("conversations"), list):
        yield Record(
            "documents", {"text": text}, "", "plain text", encoding=encoding, n_undecodable=decoded.n_undecodable
        )
        return
    n_undecodable = decoded.n_undecodable
    for number, turns in enumerate(corpus["conversations"], 1):
        where = f"conversation {number}"
        try:
            if not isinstance(turns, list):
                raise Refused("bad row", "a conversation is a list of turns")
            shaped = message_list(turns)
        except Refused as refused:
            yield Skipped(piece.source, where, refused.reason, refused.detail)
            continue
        yield Record(shaped.kind, shaped.payload, where, "chatterbot", encoding=encoding, n_undecodable=n_undecodable)
        n_undecodable = 0


def _parse(text: str) -> Any:
    """The file's value with every scalar as it is written ("yes" is no truth value). Raises Refused."""
    import yaml

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        # Aliases make a small file a huge value ("billion laughs"), and no corpus needs them.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=loader)):
            raise Refused("bad yaml", "it uses aliases (*name), which are not read")
        return yaml.load(text, Loader=loader)  # noqa: S506 — BaseLoader builds texts, lists and dicts only
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise Refused("bad yaml", " ".join(str(error).split())[:200]) from None
