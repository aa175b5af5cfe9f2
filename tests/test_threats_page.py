"""docs/*/threats.md names a test for each threat: each of them exists, and both languages name the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
NAMED = re.compile(r"`([a-z0-9_/]+\.py)::(test_\w+)`")


def named(language: str) -> list[tuple[str, str]]:
    page = TESTS.parent / "docs" / language / "threats.md"
    return NAMED.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_test_that_is_named_exists(language: str) -> None:
    found = named(language)
    assert len(found) > 80
    for file, name in found:
        text = (TESTS / file).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), f"{file}::{name}"


def test_both_languages_name_the_same() -> None:
    assert named("en") == named("zh")
