"""The page holds everything, keeps hostile text as text, and overwrites nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatwright.errors import StorageError, UsageError
from chatwright.i18n import catalogue
from chatwright.inspection import page
from chatwright.inspection.explain import Explanation, explain
from chatwright.inspection.page import explanation_page, write_page
from chatwright.inspection.subject import Subject

HOSTILE = "</script><script>window.pwned=1</script><!--<img src=x onerror='window.pwned=1'>&quot;\u2028${x}$title"


class Markup(HTMLParser):
    """What a browser would take for markup."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def parsed(text: str) -> Markup:
    markup = Markup()
    markup.feed(text)
    markup.close()
    return markup


def data_of(text: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    found: dict[str, Any] = json.loads(match[1])
    return found


@pytest.fixture(scope="module")
def explanation(tiny: Subject) -> Explanation:
    return explain(tiny, "The capital of France is", max_tokens=3)


def hostile(explanation: Explanation) -> Explanation:
    tokens = [replace(token, text=HOSTILE) for token in explanation.tokens]
    return replace(explanation, tokens=tokens, model=HOSTILE)


def test_hostile_text_is_no_markup(explanation: Explanation) -> None:
    plain, text = explanation_page(explanation), explanation_page(hostile(explanation))
    assert [tag for tag, _ in parsed(text).tags] == [tag for tag, _ in parsed(plain).tags]
    assert data_of(text)["tokens"][0]["text"] == HOSTILE
    assert data_of(text)["model"] == HOSTILE


def test_nothing_is_loaded_and_only_the_pages_own_script_may_run(explanation: Explanation) -> None:
    text = explanation_page(explanation)
    tags = parsed(text).tags
    assert not any(name in ("src", "href", "action") or name.startswith("on") for _, found in tags for name in found)
    [policy] = [found["content"] for tag, found in tags if tag == "meta" and "http-equiv" in found]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    script = text.split("<script>")[1].split("</script>")[0]
    assert f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "innerHTML" not in script
    assert "https://" not in text


def test_attention_is_kept_to_a_byte_and_thinned_where_it_is_too_much(
    explanation: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(explanation_page(explanation))
    raw = np.frombuffer(base64.b64decode(data["attention"]), dtype=np.uint8).reshape(explanation.attention.shape)
    assert np.abs(raw / 255 - explanation.attention).max() < 0.003
    assert not data["mean_only"]
    monkeypatch.setattr(page, "MOST_WEIGHTS", explanation.attention.size - 1)
    thinned = data_of(explanation_page(explanation))
    assert thinned["mean_only"]
    assert thinned["n_head"] == 1
    monkeypatch.setattr(page, "MOST_WEIGHTS", 1)
    assert data_of(explanation_page(explanation))["attention"] == ""


def test_a_file_that_is_there_is_not_overwritten(explanation: Explanation, tmp_path: Path) -> None:
    there = tmp_path / "there.html"
    there.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        write_page(explanation, there)
    assert there.read_text() == "mine"
    with pytest.raises(UsageError, match=r"there\.html is no folder"):
        write_page(explanation, there / "x.html")
    with pytest.raises((StorageError, UsageError)):
        write_page(explanation, tmp_path / ("x" * 300))


def test_folders_above_the_file_are_made(explanation: Explanation, tmp_path: Path) -> None:
    write_page(explanation, tmp_path / "new" / "deep" / "x.html")
    assert data_of((tmp_path / "new" / "deep" / "x.html").read_text())["tokens"]


def test_the_pages_own_sentences_exist_in_chinese() -> None:
    source = Path(page.__file__).read_text(encoding="utf-8")
    used = re.findall(r'translate\(\s*"([^"]+)"', source)
    assert len(used) == 2
    assert set(used) <= set(catalogue("zh"))
