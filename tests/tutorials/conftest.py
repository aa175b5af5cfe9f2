"""A shell in an empty folder, in which the default model is there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tutorials.runner import Shell


@pytest.fixture
def make_shell(tmp_path: Path, model_home: Path) -> Iterator[Callable[[str], Shell]]:
    """Shells by language; their servers end with the test."""
    shells: list[Shell] = []

    def make_shell(language: str) -> Shell:
        home = tmp_path / "home"
        home.mkdir()
        (home / "models").symlink_to(model_home / "models")
        shells.append(Shell(tmp_path, home, language))
        return shells[-1]

    yield make_shell
    for shell in shells:
        shell.close()
