"""The documentation of the command line is what the command line says."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatwright.cli.reference import reference
from chatwright.i18n import Language

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_reference_is_up_to_date(language: Language) -> None:
    page = (DOCS / language / "cli.md").read_text(encoding="utf-8")
    assert page == reference(language), "run: python -m chatwright.cli.reference docs"


def test_the_chinese_reference_is_chinese() -> None:
    english = set(reference("en").splitlines())
    untranslated = [line for line in reference("zh").splitlines() if line in english and " " in line.strip("`#- ")]
    assert [line for line in untranslated if not line.startswith(("chatwright", "## chatwright", "| "))] == []
