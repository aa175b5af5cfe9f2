"""The corpus of the installed package becomes well-formed conversations in both languages."""

from __future__ import annotations

import json
from pathlib import Path

from examples.chatterbot import main


def test_every_conversation_ends_with_an_answer(tmp_path: Path) -> None:
    main([str(tmp_path / "chat"), "--topics", "ai", "tech_support"])
    for language, some in (("en", "tech_support"), ("zh", "ai")):
        rows = [json.loads(line) for line in (tmp_path / "chat" / language / f"{some}.jsonl").read_text().splitlines()]
        assert len(rows) > 20
        for row in rows:
            assert [message["role"] for message in row["messages"]] == ["user", "assistant"] * (
                len(row["messages"]) // 2
            )
            assert all(message["content"] for message in row["messages"])
