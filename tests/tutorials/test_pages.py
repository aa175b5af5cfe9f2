"""The tutorials' pages in the two languages are the same tutorial, and they promise nothing that is not there."""

from __future__ import annotations

import re

import pytest

from examples.tutorial import PAGES, ROOT, commands


@pytest.mark.parametrize("name", sorted({name for _, name in PAGES}))
def test_both_languages_have_the_same_commands(name: str) -> None:
    english, chinese = (commands(PAGES[language, name]) for language in ("en", "zh"))
    assert english == chinese
    assert len(english) > 5


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: object) -> None:
    text = page.read_text(encoding="utf-8")  # type: ignore[attr-defined]
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target  # type: ignore[attr-defined]
