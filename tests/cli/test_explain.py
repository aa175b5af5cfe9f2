"""`explain` fits a terminal, writes a page beside it, and refuses what it cannot look at before it loads anything."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.cli.conftest import Run

PROMPT = "The capital of France is"


def test_it_shows_every_view_in_eighty_columns(command: Run, tiny: str, tmp_path: Path) -> None:
    shown = command("explain", tiny, PROMPT + "\n你好\x1b[31m", "--max-tokens", "4", "--html", str(tmp_path / "x.html"))
    assert shown.code == 0, shown.err
    for title in ("Tokens", "What would come next", "Attention", "each layer", "spoke for", "Nearest", "map"):
        assert title in shown.out
    assert [line for line in shown.out.splitlines() if cell_len(line.rstrip()) > 80] == []
    assert "\x1b" not in shown.out, "a token must not drive the terminal"
    assert (tmp_path / "x.html").is_file()
    assert "x.html" in shown.err


def test_chinese(command: Run, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATWRIGHT_LANGUAGE", "zh")
    shown = command("explain", tiny, "你好", "--chat", "--max-tokens", "2", "--attribution", "gradient")
    assert shown.code == 0, shown.err
    assert "注意力" in shown.out
    assert "梯度" in shown.out


def test_json(command: Run, tiny: str) -> None:
    shown = command("explain", tiny, PROMPT, "--answer", " Paris", "--json", "--top", "2")
    assert shown.code == 0, shown.err
    found = json.loads(shown.out)
    assert "".join(token["text"] for token in found["tokens"]) == PROMPT + " Paris"
    assert len(found["next"]) == 2


def test_the_token_to_show_closely_can_be_chosen(command: Run, tiny: str) -> None:
    shown = command("explain", tiny, PROMPT, "--max-tokens", "0", "--token", "2")
    assert "behind token 1" in shown.out
    refused = command("explain", tiny, PROMPT, "--max-tokens", "0", "--token", "300")
    assert refused.code == 2
    assert "no token 300" in refused.err
    beyond = command("explain", tiny, PROMPT, "--max-tokens", "0", "--token", "999")
    assert beyond.code == 2
    assert re.search(r"There is no token 999: the text has (\d+), counted from 0, so that the last is", beyond.err)
    weighed = command("explain", tiny, PROMPT, "--max-tokens", "1", "--attribution", "gradient")
    assert "by gradient x (embedding − mean)" in weighed.out, "as docs/en/explain.md says it"


def test_what_cannot_be_looked_at_is_one_sentence(command: Run, tiny: str, tmp_path: Path) -> None:
    there = tmp_path / "there.html"
    there.write_text("mine")
    for args, said in (
        ((tiny, ""), "empty"),
        ((tiny, "word " * 600), "more than the 512"),
        ((tiny, PROMPT, "--html", str(there)), "there already"),
        ((tiny, PROMPT, "--html", str(there / "x.html")), "no folder"),
        ((tiny, PROMPT, "--answer", "x", "--max-tokens", "3"), "either"),
        ((tiny, PROMPT, "--attribution", "guess"), "occlusion, gradient"),
        ((tiny, PROMPT, "--max-tokens", "-1"), "--max-tokens"),
        ((tiny, PROMPT, "--top", "0"), "--top"),
    ):
        refused = command("explain", *args)
        assert refused.code == 2, args
        assert said in refused.err, args
        assert "Traceback" not in refused.err
    assert command("explain", "nothing-here", PROMPT).code == 1
    assert there.read_text() == "mine"
